"""Features and labels in, linear heads out."""

from sparse_transfer.core.registry import Registry
from sparse_transfer.solvers.lbfgs import LbfgsSettings
from sparse_transfer.solvers.report import Ended, FittedHead
from sparse_transfer.solvers.sgd import SgdSettings

__all__ = ["Ended", "FittedHead", "solvers"]

# Name -> its settings; called without arguments the class gives the defaults.
solvers: Registry[type[SgdSettings] | type[LbfgsSettings]] = Registry("solver")
solvers.add("sgd", SgdSettings)
solvers.add("lbfgs", LbfgsSettings)
