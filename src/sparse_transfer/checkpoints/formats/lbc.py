"""LBC: a score for each way to choose N of M weights, and a list of those ways, beside the weight of each layer.

A weight is kept where a way that keeps it has a score left, alpha @ index_list != 0. Groups of M are neighbours along
the inputs. The ways are in the file, so it says its N:M itself. First convolution and classifier are plain layers.
Zhang et al. (2022); zyxxmu/LBC d21077c, ResNet/utils/conv_type.py, ``NMConv``, and DeiT-small, ``NMLinear``.
"""

from math import prod

import torch
from torch import Tensor

from sparse_transfer.checkpoints.formats.contract import Decoded, Encoding, encodings
from sparse_transfer.checkpoints.formats.rules import out_of_order
from sparse_transfer.checkpoints.formats.source import Source
from sparse_transfer.checkpoints.readers.container import LazyTensor
from sparse_transfer.core.errors import UserError, listed

WAYS = ".index_list"
SCORES = ".alpha"


def recognise(source: Source) -> str | None:
    lists = [key for key in source.tensors if key.endswith(WAYS)]
    return f"{len(lists)} layers choose among ways to keep N of M ({listed(lists, most=1)})" if lists else None


def decode(source: Source) -> Decoded:
    tensors = dict(source.tensors)
    problems: list[str] = []
    masks: dict[str, LazyTensor] = {}
    owners = [key.removesuffix(WAYS) for key in tensors if key.endswith(WAYS)]
    for layer in owners:
        ways, scores = tensors.pop(layer + WAYS), tensors.pop(layer + SCORES, None)
        weight = tensors.get(f"{layer}.weight")
        if scores is None or weight is None:
            problems.append(f'"{layer}{WAYS}" has no {"scores" if scores is None else "weight"}')
        elif not _fit(ways.shape, scores.shape, weight.shape):
            problems.append(
                f'"{layer}{SCORES}" is {list(scores.shape)}, which with ways {list(ways.shape)} and a weight'
                f" {list(weight.shape)} makes no groups"
            )
        else:
            masks[f"{layer}.weight"] = _mask(weight, scores, ways, layer)
    return Decoded(
        weights=tensors,
        keys={key: key for key in tensors},
        masks=masks,
        mask_keys={f"{layer}.weight": layer + SCORES for layer in owners},
        dropped={layer + WAYS: "ways to choose, read into the masks" for layer in owners},
        problems=tuple(problems),
        masks_are="masks by the scores of the file",
    )


def _fit(ways: tuple[int, ...], scores: tuple[int, ...], weight: tuple[int, ...]) -> bool:
    if len(ways) != 2 or len(scores) != 2 or len(weight) not in (2, 4):
        return False
    return scores[1] == ways[0] and scores[0] * ways[1] == prod(weight)


def _mask(weight: LazyTensor, scores: LazyTensor, ways: LazyTensor, layer: str) -> LazyTensor:
    shape = weight.shape if len(weight.shape) == 2 else tuple(weight.shape[dim] for dim in (0, 2, 3, 1))

    def read() -> Tensor:
        left = scores.read().float()
        if not bool(left.isfinite().all()):
            raise UserError(f'"{layer}{SCORES}" has scores that are NaN or infinite', do="fetch the file again")
        return out_of_order((left @ ways.read().float() != 0).view(shape), "inputs")

    return LazyTensor(weight.shape, torch.bool, read)


encodings.add(
    "lbc",
    Encoding(cite="zyxxmu/LBC d21077c, ResNet/utils/conv_type.py, NMConv", recognise=recognise, decode=decode),
)
