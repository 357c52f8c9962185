"""What follows a loss that is not finite: a sentence that says where it was, or a slower start from the last state."""

from collections.abc import Sequence
from dataclasses import replace

from sparse_transfer.core.errors import UserError, listed
from sparse_transfer.training.settings import TrainSettings
from sparse_transfer.training.state import Position

LOWER = 0.1  # what a restart leaves of the learning rate


def place_of(position: Position, *, in_update: bool = True) -> str:
    """Where a training is, for people: at an update, or between it and the one before."""
    if in_update:
        return f"epoch {position.epoch + 1}, update {position.update + 1}"
    return f"epoch {position.epoch + 1}, after update {position.update}"


def require_restart(
    settings: TrainSettings, what: str, place: str, restarts: int, rate: float, names: Sequence[str] = ()
) -> None:
    """Raise ``UserError`` unless a restart was asked for and one is left.

    what: is not finite, at ``place``.   restarts: made so far.   names: the pictures of that update, where it was one.
    """
    if settings.on_divergence == "restart" and restarts < settings.restarts:
        return
    tried = f" after {restarts} restarts" if restarts else ""
    pictures = f", pictures {listed(list(names), most=64)}" if names else ""
    advice = "lower --lr, or add --clip-grad 1"
    if settings.on_divergence == "stop":
        advice = "lower --lr, add --clip-grad 1, or let it go back by itself with --on-divergence restart"
    raise UserError(f"{what} is not finite{tried} (learning rate {rate:.3g}{pictures})", where=place, do=advice)


def slower(saved: Position, broken: Position) -> Position:
    """The saved position, to go on from at a tenth of the rate at which it broke; the restart is counted."""
    return replace(saved, lr_scale=broken.lr_scale * LOWER, restarts=broken.restarts + 1)
