"""Features and labels in, linear heads out."""

from collections.abc import Callable
from dataclasses import dataclass

from sparse_transfer.core.registry import Registry
from sparse_transfer.solvers import lbfgs, sgd
from sparse_transfer.solvers.report import Ended, FittedHead

__all__ = ["Ended", "FittedHead", "Solver", "solvers"]


@dataclass(frozen=True)
class Solver:
    """settings: the class of its settings; called without arguments it gives the defaults.

    fit: (features [N, D] float32, labels [N] int64, classes, settings, seeds) -> list[FittedHead], seed by seed.
    """

    settings: type[sgd.SgdSettings] | type[lbfgs.LbfgsSettings]
    fit: Callable[..., list[FittedHead]]


solvers: Registry[Solver] = Registry("solver")
solvers.add("sgd", Solver(sgd.SgdSettings, sgd.fit))
solvers.add("lbfgs", Solver(lbfgs.LbfgsSettings, lbfgs.fit))
