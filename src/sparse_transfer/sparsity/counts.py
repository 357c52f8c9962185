"""How sparse a network is, three times: of the masked weights, of the prunable ones, of all parameters.

The three differ a lot, and papers quote any of them, so a sparsity is always said with what it is of.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

from sparse_transfer.core.errors import UserError


@dataclass(frozen=True)
class Share:
    """``zeros`` of ``size`` weights, exact. Here a zero is a pruned weight: one outside the mask."""

    zeros: int
    size: int

    @property
    def sparsity(self) -> float:
        """Share of zeros in [0, 1]; 0 where there is no weight at all."""
        return self.zeros / self.size if self.size else 0.0

    @property
    def density(self) -> float:
        return 1.0 - self.sparsity

    def __add__(self, other: "Share") -> "Share":
        return Share(self.zeros + other.zeros, self.size + other.size)


@dataclass(frozen=True)
class LayerCount:
    """One prunable weight: how much of it is pruned, and how many kept weights happen to be 0."""

    name: str
    shape: tuple[int, ...]
    pruned: Share
    trained_zeros: int
    is_masked: bool


@dataclass(frozen=True)
class Sparsities:
    """The three sparsities, with the table they come from.

    masked:     over the weights that carry a mask (a masked head included).
    prunable:   over all convolution and linear weights of the backbone; those without a mask count as dense.
    total:      over all parameters of the network: BatchNorm, biases and head included, running statistics not.
    trained_zeros: weights inside the kept region that are exactly 0, in all layers; in none of the shares.
    layers:     one row a prunable weight, in network order.
    """

    masked: Share
    prunable: Share
    total: Share
    trained_zeros: int
    layers: tuple[LayerCount, ...]


def sparsities(
    masks: Mapping[str, Tensor], weights: Mapping[str, Tensor], parameters: int, *, head: Collection[str] = ()
) -> Sparsities:
    """Count a network's zeros; exact Python integers throughout.

    masks: name -> bool tensor, ``True`` = kept.   weights: name -> every prunable weight, in network order.
    parameters: how many parameters the network has in all.   head: names among ``weights`` that are the head's:
    they have a row, and count as masked and in total, but the prunable weights are the backbone's.

    Raises:
        UserError: a mask without its weight, or not of its weight's shape.
    """
    for name, kept in masks.items():
        if name not in weights:
            raise UserError("this mask belongs to no prunable weight", where=name)
        if kept.shape != weights[name].shape:
            raise UserError(
                f"the mask has shape {list(kept.shape)} and the weight {list(weights[name].shape)}", where=name
            )
    layers = tuple(layer_count(name, weight, masks.get(name)) for name, weight in weights.items())
    masked = sum((layer.pruned for layer in layers if layer.is_masked), Share(0, 0))
    return Sparsities(
        masked=masked,
        prunable=sum((layer.pruned for layer in layers if layer.name not in head), Share(0, 0)),
        total=Share(masked.zeros, parameters),
        trained_zeros=sum(layer.trained_zeros for layer in layers),
        layers=layers,
    )


def layer_count(name: str, weight: Tensor, kept: Tensor | None) -> LayerCount:
    """The row of one weight; ``kept`` None is a weight without a mask."""
    size = weight.numel()
    zero = weight.detach().cpu() == 0
    if kept is None:
        return LayerCount(name, tuple(weight.shape), Share(0, size), int(zero.sum()), is_masked=False)
    pruned = size - int(kept.sum())
    return LayerCount(name, tuple(weight.shape), Share(pruned, size), int((zero & kept.cpu()).sum()), is_masked=True)
