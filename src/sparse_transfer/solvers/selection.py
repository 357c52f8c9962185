"""Choosing among fitted heads without the test images."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from sparse_transfer.core.errors import UserError
from sparse_transfer.data.split import stratified_indices
from sparse_transfer.metrics.calibration import cross_entropy
from sparse_transfer.models.network import Head
from sparse_transfer.solvers.inputs import Features, Labels
from sparse_transfer.solvers.report import FittedHead

BLOCK_ROWS = 4096


def held_out(labels: Labels, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the images to fit on and of those to choose on, about ``share`` of every class.

    A class with a single image stays in the fitting part. Raises ``UserError`` where nothing is left to choose on.
    """
    rest, out = stratified_indices(labels, share, seed)
    if not len(out):
        raise UserError(
            "no class has a second training picture, so there is nothing to choose the regularisation on",
            do="use --protocol cvpr2022, which chooses nothing, or give more pictures",
        )
    return rest, out


def best_of(heads: Sequence[FittedHead], features: Features, labels: Labels) -> tuple[FittedHead, float]:
    """The head with the lowest mean cross-entropy on features [N, D] and labels [N], and that loss in nats.

    Accuracy would be a step function of the strength: on the few images of a held-out part it has a plateau of ties,
    and either end of it is far from the best (docs/log.md). Of equal losses the larger strength counts.
    """
    losses = [cross_entropy(logits(fitted.head, features), labels) for fitted in heads]
    loss, _, fitted = min(
        zip(losses, [-fitted.strength for fitted in heads], heads, strict=True), key=lambda row: row[:2]
    )
    return fitted, loss


def logits(head: Head, features: Features) -> NDArray[np.float32]:
    """[N, C]; features may be a memory map, of which ``BLOCK_ROWS`` rows are read at a time."""
    parts = [
        head(torch.from_numpy(np.array(features[start : start + BLOCK_ROWS]))).numpy()
        for start in range(0, len(features), BLOCK_ROWS)
    ]
    return np.concatenate(parts)
