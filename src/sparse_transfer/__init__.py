"""How well do sparse (pruned) ImageNet networks transfer, and what do they really cost to run?

The names below are the public API. They are looked up when first used, so that importing the package is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0.dev0"

_HOMES = {
    "Backbone": "models.network",
    "Compute": "transfer.compute",
    "Execution": "training.settings",
    "FullPlan": "transfer.full_plan",
    "Head": "models.network",
    "Network": "models.network",
    "Mask": "sparsity.mask",
    "Plan": "transfer.plan",
    "Preprocessing": "models.preprocessing",
    "UserError": "core.errors",
    "dataset": "data.reading",
    "diff": "checkpoints.difference",
    "evaluate": "transfer.evaluate",
    "finetune": "transfer.full",
    "from_pretrained": "checkpoints.hub",
    "import_checkpoint": "checkpoints.importing",
    "inspect": "checkpoints.inspecting",
    "linear_transfer": "transfer.linear",
    "load": "checkpoints.file",
    "predict": "transfer.predict",
    "save": "checkpoints.file",
    "save_pretrained": "checkpoints.hub",
}

__all__ = [
    "Backbone",
    "Compute",
    "Execution",
    "FullPlan",
    "Head",
    "Mask",
    "Network",
    "Plan",
    "Preprocessing",
    "UserError",
    "__version__",
    "dataset",
    "diff",
    "evaluate",
    "finetune",
    "from_pretrained",
    "import_checkpoint",
    "inspect",
    "linear_transfer",
    "load",
    "predict",
    "save",
    "save_pretrained",
]

if TYPE_CHECKING:
    from sparse_transfer.checkpoints.difference import diff
    from sparse_transfer.checkpoints.file import load, save
    from sparse_transfer.checkpoints.hub import from_pretrained, save_pretrained
    from sparse_transfer.checkpoints.importing import import_checkpoint
    from sparse_transfer.checkpoints.inspecting import inspect
    from sparse_transfer.core.errors import UserError
    from sparse_transfer.data.reading import dataset
    from sparse_transfer.models.network import Backbone, Head, Network
    from sparse_transfer.models.preprocessing import Preprocessing
    from sparse_transfer.sparsity.mask import Mask
    from sparse_transfer.training.settings import Execution
    from sparse_transfer.transfer.compute import Compute
    from sparse_transfer.transfer.evaluate import evaluate
    from sparse_transfer.transfer.full import finetune
    from sparse_transfer.transfer.full_plan import FullPlan
    from sparse_transfer.transfer.linear import linear_transfer
    from sparse_transfer.transfer.plan import Plan
    from sparse_transfer.transfer.predict import predict


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
