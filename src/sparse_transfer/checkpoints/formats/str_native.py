"""STR's own files: a threshold beside each weight, by which the weights that survive it shrink.

The weight that counts is sign(w) · relu(|w| - sigmoid(s)), s the one threshold of its layer: neither a zero nor a mask
is in the file, and stored weights are larger than those that count. Kusupati et al. (2020), equations 1 and 2;
RAIVNLab/STR cc74d38, utils/conv_type.py, ``STRConv``.
"""

import torch
from torch import Tensor

from sparse_transfer.checkpoints.formats.contract import Decoded, Encoding, encodings
from sparse_transfer.checkpoints.formats.source import Source
from sparse_transfer.checkpoints.readers.container import LazyTensor
from sparse_transfer.core.errors import listed

ENDING = ".sparseThreshold"


def recognise(source: Source) -> str | None:
    thresholds = [key for key in source.tensors if key.endswith(ENDING)]
    return f"{len(thresholds)} layers have a threshold ({listed(thresholds, most=1)})" if thresholds else None


def decode(source: Source) -> Decoded:
    """A layer without a threshold (``--first-layer-dense``) is dense, its weights are as stored."""
    tensors = dict(source.tensors)
    thresholds = {key.removesuffix(ENDING): key for key in tensors if key.endswith(ENDING)}
    problems: list[str] = []
    dropped: dict[str, str] = {}
    masks: dict[str, LazyTensor] = {}
    for layer, key in thresholds.items():
        threshold, weight = tensors.pop(key), tensors.get(f"{layer}.weight")
        if weight is None:
            problems.append(f'"{key}" has no weight')
        elif (amount := _amount(threshold)) is None:
            problems.append(f'"{key}" is {list(threshold.shape)} {threshold.dtype} and not one finite number')
        else:
            tensors[f"{layer}.weight"] = _shrunk(weight, amount)
            masks[f"{layer}.weight"] = _survivors(weight, amount)
            for copy in [name for name in tensors if _is_copy(name, layer, tensors[name], weight)]:
                del tensors[copy]
                dropped[copy] = "a copy of a weight, as STR's first files have it"
    return Decoded(
        weights=tensors,
        keys={key: key for key in tensors},
        masks=masks,
        mask_keys={f"{layer}.weight": key for layer, key in thresholds.items()},
        dropped=dropped,
        problems=tuple(problems),
        masks_are="what STR's thresholds leave",
    )


def _amount(threshold: LazyTensor) -> Tensor | None:
    """sigmoid(s), by how much the weights of a layer shrink; None where s is no finite number."""
    if any(size != 1 for size in threshold.shape) or not threshold.dtype.is_floating_point:
        return None
    value = threshold.read().reshape(()).float()
    return torch.sigmoid(value) if bool(value.isfinite()) else None


def _shrunk(weight: LazyTensor, amount: Tensor) -> LazyTensor:
    def read() -> Tensor:
        stored = weight.read()
        return stored.sign() * (stored.abs() - amount).relu()

    return LazyTensor(weight.shape, weight.dtype, read)


def _survivors(weight: LazyTensor, amount: Tensor) -> LazyTensor:
    return LazyTensor(weight.shape, torch.bool, lambda: weight.read().abs() > amount)


def _is_copy(key: str, layer: str, tensor: LazyTensor, weight: LazyTensor) -> bool:
    """A further tensor of the layer with the shape of its weight: no layer of these networks has one."""
    owner, _, name = key.rpartition(".")
    return owner == layer and name not in ("weight", "bias") and tensor.shape == weight.shape


encodings.add(
    "str_native", Encoding(cite="RAIVNLab/STR cc74d38, utils/conv_type.py", recognise=recognise, decode=decode)
)
