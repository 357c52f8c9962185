"""Containers read to the end, and compared with what torch itself loads."""

from collections.abc import Mapping

import torch
from torch import Tensor

from sparse_transfer.checkpoints.readers.container import LazyTensor, StandIn


def read_all(tree: object) -> object:
    """The tree with every tensor read; shape, dtype and layout of each hold what they promised."""
    if isinstance(tree, LazyTensor):
        tensor = tree.read()
        assert (tuple(tensor.shape), tensor.dtype) == (tree.shape, tree.dtype)
        assert tensor.is_contiguous()
        assert tensor.device.type == "cpu"
        return tensor
    if isinstance(tree, StandIn):
        return StandIn(tree.name, read_all(tree.state))  # type: ignore[arg-type]
    if isinstance(tree, Mapping):
        return {key: read_all(item) for key, item in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(read_all(item) for item in tree)
    return tree


def same(ours: object, theirs: object) -> bool:
    """Equal in structure, and bit for bit in tensors; the order of keys counts."""
    if isinstance(theirs, Tensor):
        return isinstance(ours, Tensor) and ours.dtype == theirs.dtype and bits(ours) == bits(theirs)
    if isinstance(theirs, Mapping):
        return (
            isinstance(ours, Mapping)
            and list(ours) == list(theirs)
            and all(same(ours[key], theirs[key]) for key in theirs)
        )
    if isinstance(theirs, list | tuple):
        return (
            isinstance(ours, list | tuple)
            and len(ours) == len(theirs)
            and all(same(a, b) for a, b in zip(ours, theirs, strict=True))
        )
    return type(ours) is type(theirs) and ours == theirs


def bits(tensor: Tensor) -> tuple[tuple[int, ...], bytes]:
    """Shape and row-major bytes of a tensor of any dtype."""
    flat = tensor.detach().clone(memory_format=torch.contiguous_format).reshape(-1)
    return tuple(tensor.shape), flat.view(torch.uint8).numpy().tobytes() if len(flat) else b""
