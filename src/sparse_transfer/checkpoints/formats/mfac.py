"""M-FAC: one flat mask over all pruned weights, laid end to end in the network's order.

Which weights those are is not in the file. Its script's list is tried first, then the other lists that papers prune;
the lengths must agree. IST-DASLab/M-FAC 8116367, main_prun.py.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from math import prod

from torch import Tensor

from sparse_transfer.checkpoints.formats.contract import Decoded, Encoding, encodings
from sparse_transfer.checkpoints.formats.masks import is_sparse
from sparse_transfer.checkpoints.formats.source import Source
from sparse_transfer.checkpoints.readers.container import LazyTensor

MASK = "mask"
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def recognise(source: Source) -> str | None:
    mask = source.beside.get(MASK)
    return f'"{MASK}" is one tensor of {prod(mask.shape):,} values' if isinstance(mask, LazyTensor) else None


def decode(source: Source) -> Decoded:
    mask = source.beside[MASK]
    assert isinstance(mask, LazyTensor)
    decoded = Decoded(weights=source.tensors, keys={key: key for key in source.tensors}, read_beside=(MASK,))
    fitting = _fitting(source.tensors, prod(mask.shape)) if len(mask.shape) == 1 else []
    if len(fitting) != 1:
        return _by_zeros(source, decoded, mask, len(fitting))
    masks = _cut(mask, fitting[0], source.tensors)
    return replace(decoded, masks=masks, mask_keys={key: f"{MASK} (of {key})" for key in masks})


def _fitting(tensors: Mapping[str, LazyTensor], length: int) -> list[tuple[str, ...]]:
    """The lists of parameters, each in the network's order, that have so many weights together."""
    parameters = [key for key in tensors if key.rpartition(".")[2] not in BUFFERS]
    matrices = tuple(key for key in parameters if len(tensors[key].shape) >= 2)
    lists = (
        tuple(key for key in parameters if ("conv" in key or "fc" in key) and "bias" not in key),  # the script's
        matrices,
        matrices[:-1],  # the classifier is dense
        matrices[1:],  # the first convolution is dense
        matrices[1:-1],
        tuple(parameters),
    )
    return [keys for keys in dict.fromkeys(lists) if keys and sum(prod(tensors[key].shape) for key in keys) == length]


def _cut(mask: LazyTensor, keys: tuple[str, ...], tensors: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """The part of the flat mask that each weight has."""
    whole = lru_cache(maxsize=1)(mask.read)
    parts: dict[str, LazyTensor] = {}
    start = 0
    for key in keys:
        shape = tensors[key].shape

        def read(start: int = start, shape: tuple[int, ...] = shape) -> Tensor:
            return whole()[start : start + prod(shape)].reshape(shape)

        parts[key] = LazyTensor(shape, mask.dtype, read)
        start += prod(shape)
    return parts


def _by_zeros(source: Source, decoded: Decoded, mask: LazyTensor, fitting: int) -> Decoded:
    """A mask of which nobody can say where it lies: the weights' own zeros, or nothing at all."""
    fits = f"fits {fitting or 'none'} of the lists of weights that are known" + (", and they differ" if fitting else "")
    what = f'"{MASK}" {list(mask.shape)} {fits}'
    matrices = [tensor for tensor in source.tensors.values() if len(tensor.shape) >= 2]
    if is_sparse([(int((tensor.read() == 0).sum()), prod(tensor.shape)) for tensor in matrices]):
        return replace(decoded, read_beside=(), warnings=(f"{what}: the zeros of the weights decide",))
    return replace(decoded, problems=(f"{what}, and the weights hold no zeros",))


encodings.add("mfac", Encoding(cite="IST-DASLab/M-FAC 8116367, main_prun.py", recognise=recognise, decode=decode))
