"""SuperBlock: one score for each block of a weight; the blocks with the smallest scores are pruned.

Of a layer's n scores the k-th smallest, k = 1 + round(q · (n - 1)), is the threshold, and a block below it is pruned; q
is the sparsity, at most 1 - 1/n. The weight is w · scale + shift. torchvision's attention reads ``out_proj.weight``
itself and never calls that layer, so scores there prune nothing, in the authors' evaluation as in ours.
arXiv 2207.00670 for supermasks; pytorch-labs/superblock 3000fc0, supermask.py, ``SupermaskLinear``.
"""

import re
from functools import partial
from math import ceil, prod

import torch
from torch import Tensor

from sparse_transfer.checkpoints.formats.contract import Decoded, Encoding, encodings
from sparse_transfer.checkpoints.formats.source import Source
from sparse_transfer.checkpoints.readers.container import LazyTensor
from sparse_transfer.core.errors import UserError, listed

SCORES, SCALE, SHIFT = ".scores", ".scale", ".shift"
NOT_CALLED = ".self_attention.out_proj"
UNREAD = "torchvision's attention takes out_proj.weight itself, so these prune nothing"
LARGEST_SCORE = 9e9
SIDES = tuple(2**power for power in range(13))  # of a block: for each shape at most one of them fits
IN_NAME = r"sp(0?\.\d+)(?:-ts(\d+))?"  # as the published files are called: sp0.90-ts32.pth


def recognise(source: Source) -> str | None:
    """hidden-networks has scores too, without a scale."""
    scored = [layer for layer in _scored(source) if layer + SCALE in source.tensors]
    if not scored:
        return None
    return f"{len(scored)} layers have a score for each block of weights ({listed([scored[0] + SCORES])})"


def decode(source: Source) -> Decoded:
    tensors = dict(source.tensors)
    masks: dict[str, LazyTensor] = {}
    dropped: dict[str, str] = {}
    problems: list[str] = []
    notes: dict[str, None] = {}
    side_stated = _side_stated(source)
    for layer in _scored(source):
        name = f"{layer}.weight"
        scores, scale, shift = (tensors.pop(layer + ending, None) for ending in (SCORES, SCALE, SHIFT))
        dropped |= dict.fromkeys((layer + SCALE, layer + SHIFT), "applied to the weight")
        weight = tensors.get(name)
        if scores is None or scale is None or shift is None or weight is None:
            problems.append(f'"{layer}" has not all of weight, scores, scale and shift')
        elif prod(scale.shape) != 1 or prod(shift.shape) != 1:
            problems.append(
                f'"{layer}{SCALE}" is {list(scale.shape)} and its shift {list(shift.shape)}, not one number'
            )
        elif layer.endswith(NOT_CALLED):
            dropped |= dict.fromkeys((layer + SCORES, layer + SCALE, layer + SHIFT), UNREAD)
        elif (side := _side(weight.shape, scores.shape, side_stated)) is None:
            problems.append(f'"{layer}{SCORES}" is {list(scores.shape)}: no blocks of a weight {list(weight.shape)}')
        else:
            share, stated = _share(source, weight.shape)
            notes[f"blocks of side {side}, {share:.4g} of each layer's pruned: {stated}"] = None
            tensors[name] = LazyTensor(weight.shape, weight.dtype, partial(_weight, weight, scale, shift))
            masks[name] = LazyTensor(weight.shape, torch.bool, partial(_mask, scores, share, side, weight.shape))
    return Decoded(
        weights=tensors,
        keys={key: key for key in tensors},
        masks=masks,
        mask_keys={name: name.removesuffix(".weight") + SCORES for name in masks},
        dropped=dropped,
        read_beside=("args",),
        problems=tuple(problems),
        notes=tuple(notes),
        masks_are="masks by the scores of the file",
    )


def _mask(stored: LazyTensor, sparsity: float, side: int, shape: tuple[int, ...]) -> Tensor:
    """bool, of ``shape``: each score stands for a block of that side, cut off where the weight ends."""
    scores = stored.read().float().clamp(max=LARGEST_SCORE)
    if not bool(scores.isfinite().all()):
        raise UserError("some of its scores are NaN or infinite", do="fetch the file again")
    number = scores.numel()
    percent = min(sparsity, 1 - 1 / number) * 100
    kept = scores >= scores.flatten().kthvalue(1 + round(0.01 * percent * (number - 1))).values
    for dim, size in enumerate(shape):
        kept = kept.repeat_interleave(side, dim).narrow(dim, 0, size)
    return kept


def _scored(source: Source) -> list[str]:
    return [key.removesuffix(SCORES) for key in source.tensors if key.endswith(SCORES)]


def _weight(weight: LazyTensor, scale: LazyTensor, shift: LazyTensor) -> Tensor:
    return weight.read() * scale.read() + shift.read()


def _side(weight: tuple[int, ...], scores: tuple[int, ...], stated: int | None) -> int | None:
    sides = SIDES if stated is None else (stated, *SIDES)
    return next((side for side in sides if tuple(ceil(size / side) for size in weight) == scores), None)


def _side_stated(source: Source) -> int | None:
    match = re.search(IN_NAME, source.container.path.name)
    side = source.setting("sp_linear_tile_size") or (match and match[2] and int(match[2]))
    return int(side) if side and side >= 1 else None


def _share(source: Source, shape: tuple[int, ...]) -> tuple[float, str]:
    """The sparsity of a layer of that shape, and who says so. Raises ``UserError`` where nobody does."""
    of = "linear" if len(shape) == 2 else "conv1x1" if prod(shape[2:]) == 1 else "conv"
    share = source.setting(f"sparsity_{of}")
    if share is not None and 0 < share < 1:
        return share, f"the file's settings say so (sparsity_{of})"
    if match := re.search(IN_NAME, source.container.path.name):
        return float(match[1]), "the file's name says so"
    if source.told.sparsity is None:
        raise UserError(
            "its scores say in which order blocks are pruned, and not how many of them",
            where=source.container.path,
            do="give --sparsity; the authors' files are called by it, sp0.90-ts32.pth is --sparsity 0.9",
        )
    return source.told.sparsity, "as --sparsity says"


encodings.add(
    "superblock", Encoding(cite="pytorch-labs/superblock 3000fc0, supermask.py", recognise=recognise, decode=decode)
)
