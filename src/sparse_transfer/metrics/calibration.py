"""Do the probabilities mean what they say: cross-entropy and expected calibration error, in float64."""

import numpy as np
from numpy.typing import NDArray

from sparse_transfer.core.errors import UserError
from sparse_transfer.metrics.confusion import check_labels, check_logits

BINS = 15  # Guo et al. 2017, section 5


def cross_entropy(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Mean of -log softmax(logits)[label], in nats. logits: [N, C] finite.   labels: [N] in [0, C)."""
    _check(logits, labels)
    return float(-np.take_along_axis(log_softmax(logits), labels[:, None].astype(np.int64), axis=1).mean())


def expected_calibration_error(logits: NDArray[np.floating], labels: NDArray[np.integer], bins: int = BINS) -> float:
    """Mean over images of |accuracy - confidence| of the bin the image is in; a share in [0, 1].

    Confidence is the largest softmax probability; bin b holds ((b - 1)/bins, b/bins]; of equal logits the first
    is the prediction. Source: Guo et al. 2017, ICML, equation 3; the bins are those of section 2.
    """
    _check(logits, labels)
    if bins < 1:
        raise UserError(f"{bins} bins", do="at least 1")
    confidence = np.exp(log_softmax(logits).max(axis=1))
    correct = logits.argmax(axis=1) == labels
    edges = np.arange(1, bins + 1) / bins
    # Rounding can lift a confidence a hair above 1; it belongs to the last bin.
    bin_of = np.searchsorted(edges, np.minimum(confidence, 1.0), side="left")
    gaps = np.bincount(bin_of, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum()) / len(labels)


def _check(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> None:
    check_logits(logits)
    check_labels(labels, logits.shape[1])
    if len(labels) != len(logits):
        raise UserError(f"{len(labels):,} labels and logits of {len(logits):,} images")


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """[N, C]; the largest logit is taken out first, so nothing overflows."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
