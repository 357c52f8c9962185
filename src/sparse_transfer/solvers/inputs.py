"""What enters a solver is checked here, once: shapes, types, NaN, labels. Inside, the arrays are trusted."""

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparse_transfer.core.errors import UserError

Features = NDArray[np.float32]  # [N, D], C-contiguous; may be a read-only numpy.memmap
Labels = NDArray[np.int64]  # [N] in [0, C)

BLOCK_BYTES = 32 << 20  # features read at a time: bounds the memory of every pass over a memory-mapped file


def blocks(features: Features) -> Iterator[slice]:
    """Slices that cover the rows of ``features``, each of about ``BLOCK_BYTES``."""
    rows = max(1, BLOCK_BYTES // max(1, features.shape[1] * features.itemsize))
    return (slice(start, min(start + rows, len(features))) for start in range(0, len(features), rows))


def check(features: Features, labels: Labels, classes: int) -> None:
    """Raise ``UserError`` unless there are features [N, D] float32, finite, and labels [N] int64 in [0, classes)."""
    if features.ndim != 2 or features.dtype != np.float32 or not features.flags.c_contiguous:
        order = "" if features.flags.c_contiguous else ", not C-contiguous"
        raise UserError(
            f"an array {list(features.shape)} of {features.dtype}{order}",
            where="features",
            do="a solver takes [N, D] float32 in C order: numpy.ascontiguousarray(x, dtype=numpy.float32)",
        )
    if len(features) == 0 or features.shape[1] == 0:
        raise UserError(f"an empty array {list(features.shape)}", where="features", do="give at least one image")
    if labels.shape != (len(features),) or labels.dtype != np.int64:
        raise UserError(
            f"an array {list(labels.shape)} of {labels.dtype}",
            where="labels",
            do=f"{len(features):,} images need [{len(features)}] int64",
        )
    if classes < 2:
        raise UserError(f"{classes} classes", do="a classifier needs at least 2")
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise UserError(
            f"{len(outside):,} of {len(labels):,} lie outside 0 to {classes - 1} (first: {outside[0]})",
            where="labels",
            do=f"number the {classes} classes from 0",
        )
    bad = sum(int((~np.isfinite(features[rows]).all(axis=1)).sum()) for rows in blocks(features))
    if bad:
        raise UserError(
            f"{bad:,} of {len(features):,} rows contain NaN or infinity",
            where="features",
            do="run `sparse-transfer evaluate` on the checkpoint first",
        )


def as_tensor(features: Features) -> Tensor:
    """The features as a tensor on the same memory, not copied. It is only ever read, so a read-only map will do."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(features)
