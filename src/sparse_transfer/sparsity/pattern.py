"""Which pattern a mask has, computed from it: N:M, blocks, channels, or none.

A very sparse unstructured mask can look like a pattern by accident: at 99 % almost every group of four keeps two or
fewer, and a mask with a single kept weight is one channel. So a pattern is named only where an unstructured mask that
keeps as many weights would show it with a chance below ``ACCIDENT``, by counting the masks of both kinds.
"""

from math import lgamma, log

import torch
from torch import Tensor

from sparse_transfer.core.errors import UserError

ACCIDENT = 1e-6
GROUPS = (2, 4, 8, 16, 32)
LARGEST_BLOCK = 64
FULL_GROUPS = 0.9


def pattern(kept: Tensor) -> str:
    """The pattern of one mask [O, I, ...] bool: the first of these that holds.

    - ``dense``: everything is kept. ``empty``: nothing is.
    - ``channel``: whole output channels (rows) or whole input channels, or both, are pruned and nothing else.
    - ``N:M``: every group of M neighbours along the input channels (groups start at multiples of M, I is a multiple
      of M, each kernel position on its own) keeps at most N, and nine groups in ten keep exactly N. Smallest M first,
      M in 2, 4, ..., 32: a 2:4 mask is not called 4:8.
    - ``kernel``: every kernel of a spatial convolution is kept or pruned as a whole.
    - ``block RxC``: every block of R output × C input channels, at each kernel position, is kept or pruned as a
      whole; the largest powers of two up to 64 that divide O and I.
    - ``unstructured``: none of these, or one that chance explains.

    Raises:
        UserError: not bool, or fewer than two dimensions.
    """
    if kept.dtype != torch.bool or kept.ndim < 2:
        raise UserError(f"a mask of {kept.dtype} with shape {list(kept.shape)}", do="it is bool and [O, I, ...]")
    kept = kept.detach().cpu()
    kernels = kept.reshape(kept.shape[0], kept.shape[1], -1)
    count = int(kernels.sum())
    if count == kernels.numel():
        return "dense"
    if count == 0:
        return "empty"
    # ln of how many masks keep as many weights: what the patterns' numbers of masks are compared with.
    unstructured = log_choose(kernels.numel(), count)
    for name, masks in (channel(kernels), n_of_m(kernels), kernel(kernels), block(kernels)):
        if name and masks - unstructured < log(ACCIDENT):
            return name
    return "unstructured"


def log_choose(n: int, k: int) -> float:
    """ln of the number of ways to choose k of n."""
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


# Each of these takes a mask [O, I, kernel positions] and gives the pattern's name, or "" where the mask does not have
# it, and ln of the number of masks that have it and keep as much.


def channel(kept: Tensor) -> tuple[str, float]:
    rows, columns = kept.any(2).any(1), kept.any(2).any(0)
    if not torch.equal(kept, (rows[:, None] & columns)[:, :, None].expand_as(kept)):
        return "", 0.0
    return "channel", log_choose(len(rows), int(rows.sum())) + log_choose(len(columns), int(columns.sum()))


def n_of_m(kept: Tensor) -> tuple[str, float]:
    outputs, inputs, positions = kept.shape
    for m in GROUPS:
        if inputs % m:
            break  # then no larger power of two divides it either
        in_group = kept.reshape(outputs, inputs // m, m, positions).sum(2)
        n, groups = int(in_group.max()), in_group.numel()
        if n == m or int((in_group == n).sum()) < FULL_GROUPS * groups:
            continue
        held = torch.bincount(in_group.flatten(), minlength=n + 1).tolist()  # groups that keep 0, 1, ..., n
        arrangements = lgamma(groups + 1) - sum(lgamma(number + 1) for number in held)
        return f"{n}:{m}", arrangements + sum(number * log_choose(m, j) for j, number in enumerate(held))
    return "", 0.0


def kernel(kept: Tensor) -> tuple[str, float]:
    positions = kept.shape[2]
    whole = kept.all(2)
    if positions == 1 or not torch.equal(whole, kept.any(2)):
        return "", 0.0
    if largest_run(kept, 0) * largest_run(kept, 1) > 1:
        return "", 0.0  # blocks of whole kernels: the block says more
    return "kernel", log_choose(whole.numel(), int(whole.sum()))


def block(kept: Tensor) -> tuple[str, float]:
    rows, columns = largest_run(kept, 0), largest_run(kept, 1)
    size = rows * columns
    if size == 1:
        return "", 0.0
    return f"block {rows}x{columns}", log_choose(kept.numel() // size, int(kept.sum()) // size)


def largest_run(kept: Tensor, dim: int) -> int:
    """The largest power of two by which channels along ``dim`` are kept or pruned together; 1 where there is none.

    A mask consists of R×C blocks exactly when it does so of R×1 and of 1×C blocks.
    """
    channels, run = kept.transpose(0, dim).flatten(1), 1
    while run < LARGEST_BLOCK and len(channels) % (2 * run) == 0:
        groups = channels.reshape(-1, 2 * run, channels.shape[1])
        if not torch.equal(groups.all(1), groups.any(1)):
            break
        run *= 2
    return run
