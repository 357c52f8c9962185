"""Masks that a rule makes of weights or scores, for files that hold neither a zero nor a mask."""

from collections.abc import Callable, Mapping
from math import prod
from typing import Literal

import torch
from torch import Tensor

from sparse_transfer.checkpoints.formats.contract import Decoded
from sparse_transfer.checkpoints.formats.masks import is_sparse
from sparse_transfer.checkpoints.formats.source import Source
from sparse_transfer.checkpoints.readers.container import LazyTensor

# Which weights are neighbours: those of adjacent input channels at one kernel position (O, H, W, I: NVIDIA's ASP), or
# those that PyTorch stores side by side (O, I, H, W). For a linear layer and a 1×1 convolution they are the same.
Order = Literal["inputs", "stored"]
ORDERS: tuple[Order, Order] = ("inputs", "stored")


def largest(values: Tensor, pruned: float) -> Tensor:
    """bool, of the shape of ``values``: all of the n but the int(``pruned`` · n) smallest |values|, ties in order."""
    magnitudes = values.float().abs().flatten()
    count = int(pruned * len(magnitudes))
    if count == 0:
        return torch.ones(values.shape, dtype=torch.bool)
    threshold = magnitudes.kthvalue(count).values  # a sort of them all takes ten times as long
    kept = magnitudes > threshold
    ties = (magnitudes == threshold).nonzero()
    kept[ties[count - int((magnitudes < threshold).sum()) :]] = True
    return kept.view(values.shape)


def n_of_m(weight: Tensor, n: int, m: int, order: Order) -> Tensor:
    """bool, of the shape of ``weight``: the N largest |w| of every M neighbours. Their number is a multiple of M."""
    magnitudes = _in_order(weight.float().abs(), order)
    smallest = magnitudes.reshape(-1, m).argsort(dim=1, stable=True)[:, : m - n]
    kept = torch.ones(smallest.shape[0], m, dtype=torch.bool).scatter(1, smallest, False)
    return out_of_order(kept.view(magnitudes.shape), order)


def is_n_of_m(kept: Tensor, n: int, m: int, order: Order) -> bool:
    """Whether at most N of every M neighbours are kept."""
    return kept.numel() % m == 0 and bool((_in_order(kept, order).reshape(-1, m).sum(1) <= n).all())


def out_of_order(values: Tensor, order: Order) -> Tensor:
    """[O, H, W, I] -> [O, I, H, W] where the order is along the inputs; two dimensions stay."""
    return values.permute(0, 3, 1, 2) if order == "inputs" and values.ndim == 4 else values


def _in_order(values: Tensor, order: Order) -> Tensor:
    return values.permute(0, 2, 3, 1) if order == "inputs" and values.ndim == 4 else values


def layers(tensors: Mapping[str, LazyTensor], dimensions: tuple[int, ...] = (2, 4)) -> dict[str, LazyTensor]:
    """Weights of linear layers (2 dimensions) and convolutions (4), by name and shape: no network is known yet."""
    return {
        key: tensor
        for key, tensor in tensors.items()
        if key.endswith(".weight") and len(tensor.shape) in dimensions and tensor.dtype.is_floating_point
    }


def lazily(like: LazyTensor, rule: Callable[[Tensor], Tensor]) -> LazyTensor:
    """The mask that ``rule`` makes of a tensor, when it is read."""
    return LazyTensor(like.shape, torch.bool, lambda: rule(like.read()))


def ruled(
    source: Source,
    masks: Mapping[str, LazyTensor],
    *,
    rule: str,
    problems: tuple[str, ...] = (),
    warnings: tuple[str, ...] = (),
    assumptions: tuple[str, ...] = (),
) -> Decoded:
    """A file of dense weights, pruned by a rule that the caller asked for.

    A file whose weights hold zeros already was pruned by its authors, and a rule would prune it anew: zeros count.
    rule: in words, for the report.
    """
    keys = {key: key for key in source.tensors}
    if _is_pruned(source.tensors):
        note = f"the weights hold zeros already, which are the mask: no further {rule}"
        return Decoded(weights=source.tensors, keys=keys, notes=(note,))
    return Decoded(
        weights=source.tensors,
        keys=keys,
        masks=masks,
        mask_keys={key: key for key in masks},
        problems=problems,
        warnings=warnings,
        assumptions=assumptions,
        masks_are=f"masks by {rule}",
    )


def _is_pruned(tensors: Mapping[str, LazyTensor]) -> bool:
    weights = layers(tensors).values()
    return is_sparse([(int((weight.read() == 0).sum()), prod(weight.shape)) for weight in weights])


def indivisible(weights: Mapping[str, LazyTensor], m: int) -> tuple[str, ...]:
    """The problem of layers whose weights make no whole groups of M, if there are any."""
    odd = [f'"{key}"' for key, tensor in weights.items() if prod(tensor.shape) % m]
    return (f"the weights of {len(odd)} layers make no whole groups of {m} ({odd[0]})",) if odd else ()
