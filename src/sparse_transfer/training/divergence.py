"""What follows a loss that is not finite: a sentence that says where it was, or a slower start from the last state."""

from collections.abc import Sequence
from dataclasses import replace

from sparse_transfer.core.errors import UserError, listed
from sparse_transfer.training.settings import TrainSettings
from sparse_transfer.training.state import Position

LOWER = 0.1  # what a restart leaves of the learning rate


def place_of(position: Position) -> str:
    """Where a training is, for people."""
    return f"epoch {position.epoch + 1}, update {position.update + 1}"


def require_restart(
    settings: TrainSettings, what: str, broken: Position, rate: float, names: Sequence[str] = ()
) -> None:
    """Raise ``UserError`` unless a restart was asked for and one is left.

    what: is not finite, at the position ``broken``.   names: the pictures of that update, where it was one.
    """
    if settings.on_divergence == "restart" and broken.restarts < settings.restarts:
        return
    tried = f" after {broken.restarts} restarts" if broken.restarts else ""
    pictures = f", pictures {listed(list(names), most=64)}" if names else ""
    raise UserError(
        f"{what} is not finite{tried} (learning rate {rate:.3g}{pictures})",
        where=place_of(broken),
        do="lower --lr, add --clip-grad 1, or let it go back by itself with --on-divergence restart",
    )


def slower(saved: Position, broken: Position) -> Position:
    """The saved position, to go on from at a tenth of the rate at which it broke; the restart is counted."""
    return replace(saved, lr_scale=broken.lr_scale * LOWER, restarts=broken.restarts + 1)
