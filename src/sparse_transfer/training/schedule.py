"""The learning rate over a run, as a factor on the one it starts with."""

import math
from dataclasses import dataclass
from typing import Literal

from sparse_transfer.core.errors import UserError

PUBLISHED_EPOCHS = 150
PUBLISHED_BOUNDARIES = (51, 101)  # 51, 50 and 49 epochs: research protocol 1.3, policies/manager.py of the paper's code


@dataclass(frozen=True)
class Schedule:
    """``step`` multiplies by ``gamma`` at boundaries; ``cosine`` goes from 1 to 0; ``constant`` stays at 1.

    boundaries: epochs, counted from 0, from which the rate is ``gamma`` times the one before.
    warmup: epochs over which the rate rises linearly to its full value, one step of it an update.
    """

    kind: Literal["step", "cosine", "constant"] = "step"
    boundaries: tuple[int, ...] = PUBLISHED_BOUNDARIES
    gamma: float = 0.1
    warmup: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("step", "cosine", "constant"):
            raise UserError(f'"{self.kind}" is no schedule', where="--sched", do="it is step, cosine or constant")
        if self.warmup < 0:
            raise UserError(f"a warm-up of {self.warmup} epochs", where="--warmup-epochs", do="it is 0 or more")
        if not 0 < self.gamma <= 1:
            raise UserError(f"a factor of {self.gamma:g}", where="--decay-rate", do="it lies in (0, 1]")
        if list(self.boundaries) != sorted(set(self.boundaries)) or any(epoch < 1 for epoch in self.boundaries):
            raise UserError(
                f"the rate falls at epochs {list(self.boundaries)}",
                where="--decay-milestones",
                do="name them ascending",
            )

    def factor(self, epoch: int, step: int, steps: int, epochs: int) -> float:
        """What the rate is multiplied by in update ``step`` (from 0) of ``steps`` in ``epoch`` (from 0) of ``epochs``.

        Cosine: (1 + cos(π (t - W) / (E - W))) / 2, t in epochs (Loshchilov & Hutter 2017, eq. 5).
        """
        t = epoch + step / steps
        if t < self.warmup:
            return (epoch * steps + step + 1) / (self.warmup * steps)
        if self.kind == "step":
            return self.gamma ** sum(epoch >= boundary for boundary in self.boundaries)
        if self.kind == "constant":
            return 1.0
        share = (t - self.warmup) / max(epochs - self.warmup, 1)
        return (1 + math.cos(math.pi * share)) / 2


def scaled_boundaries(epochs: int) -> tuple[int, ...]:
    """The published boundaries, moved in proportion for another number of epochs; each at least one epoch apart."""
    moved = {max(1, round(boundary * epochs / PUBLISHED_EPOCHS)) for boundary in PUBLISHED_BOUNDARIES}
    return tuple(sorted(boundary for boundary in moved if boundary < max(epochs, 2)))
