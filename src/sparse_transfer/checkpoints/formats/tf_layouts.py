"""How TensorFlow lays out its kernels, and the operations that bring them, and their masks, into PyTorch's order."""

from torch import Tensor

from sparse_transfer.checkpoints.formats.contract import Rule


def convolution(kernel: Tensor) -> Tensor:
    """[H, W, I, O] -> [O, I, H, W]."""
    return kernel.permute(3, 2, 0, 1)


def depthwise(kernel: Tensor) -> Tensor:
    """[H, W, C, M] -> [C · M, 1, H, W], the M outputs of a channel side by side."""
    return kernel.permute(2, 3, 0, 1).flatten(0, 1).unsqueeze(1)


def dense(kernel: Tensor) -> Tensor:
    """[I, O] -> [O, I]."""
    return kernel.permute(1, 0)


def pointwise_head(kernel: Tensor) -> Tensor:
    """A 1×1 convolution that classifies, [1, 1, I, O] -> [O, I]."""
    return kernel.permute(3, 2, 0, 1).flatten(1)


def batchnorm(scope: str, name: str) -> Rule:
    """All tensors of a BatchNorm: its leaves are levelled already (``tf_names``)."""
    return Rule(rf"{scope}/(weight|bias|running_mean|running_var)", rf"{name}.\1")
