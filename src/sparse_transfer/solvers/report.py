"""What a fit gives back: the head, and how it came about."""

from dataclasses import dataclass
from enum import Enum

from sparse_transfer.models.network import Head


class Ended(Enum):
    """How a fit ended. The value is what people read."""

    CONVERGED = "the gradient fell below the tolerance"
    MAX_ITERATIONS = "the iterations ran out before the gradient fell below the tolerance; raise --max-iter or --l2"
    STALLED = "no step lowers the objective any further in float32, and the gradient is above the tolerance"
    ALL_EPOCHS = "all epochs were run"
    DIVERGED = "the loss became NaN or infinite; lower --lr"


@dataclass(frozen=True)
class FittedHead:
    """A head fitted on features, with its convergence report.

    strength: what tells this head from its sisters of one call: the learning rate (sgd) or l2 (lbfgs).
    history: sgd: mean training loss of each epoch, nats, taken as the batches go by; lbfgs: the objective before
    the first and after each iteration.   objective: sgd: the last epoch's loss; lbfgs: F at the head, penalty included.
    gradient_norm: largest absolute entry of the gradient of F at the head; None where it is not computed (sgd).
    iterations: optimiser steps (sgd) or iterations (lbfgs).
    """

    head: Head
    ended: Ended
    seed: int
    strength: float
    history: tuple[float, ...]
    objective: float
    gradient_norm: float | None
    iterations: int
