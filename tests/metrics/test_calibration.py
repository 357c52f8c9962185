import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from sparse_transfer.core.errors import UserError
from sparse_transfer.metrics.calibration import cross_entropy, expected_calibration_error


def logits_of(confidences: list[float]) -> np.ndarray:
    """Two classes, the first with these probabilities (all >= 1/2)."""
    return np.array([[math.log(p), math.log1p(-p) if p < 1 else -800.0] for p in confidences])


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.float32, np.float64]))
def test_cross_entropy_is_that_of_torch_and_scikit_learn(seed: int, dtype: type) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = (30 * rng.normal(size=(20, 4))).astype(dtype), rng.integers(0, 4, 20)
    double = torch.from_numpy(logits).double()
    ours = cross_entropy(logits, labels)
    assert ours == pytest.approx(torch.nn.functional.cross_entropy(double, torch.from_numpy(labels)).item(), rel=1e-12)
    gentle = logits.astype(np.float64) / 30
    probabilities = torch.from_numpy(gentle).softmax(dim=1).numpy()
    assert cross_entropy(gentle, labels) == pytest.approx(log_loss(labels, probabilities, labels=range(4)), rel=1e-10)


def test_huge_logits_neither_overflow_nor_vanish() -> None:
    assert cross_entropy(np.array([[1e30, 0.0]]), np.array([1])) == 1e30
    assert cross_entropy(np.array([[1e30, 0.0]]), np.array([0])) == 0
    assert cross_entropy(np.zeros((1, 8)), np.array([3])) == pytest.approx(math.log(8))


def test_calibration_error_by_hand() -> None:
    # bin (0.8, 0.8667]: confidences 0.82 right, 0.84 wrong: |0.5 - 0.83|; bin (0.5333, 0.6]: 0.55 right: |1 - 0.55|
    error = expected_calibration_error(logits_of([0.82, 0.84, 0.55]), np.array([0, 1, 0]))
    assert error == pytest.approx((2 / 3) * 0.33 + (1 / 3) * 0.45, abs=1e-12)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below() -> None:
    # two bins, (0, 1/2] and (1/2, 1]: 1/2 (wrong) and 0.7 (right) must not share one, or the gaps would offset
    logits = np.array([[0.0, 0.0], [math.log(0.7), math.log(0.3)]])
    error = expected_calibration_error(logits, np.array([1, 0]), bins=2)
    assert error == pytest.approx(0.5 * 0.5 + 0.5 * 0.3, abs=1e-12)


def test_a_sure_and_right_network_is_calibrated_and_a_sure_and_wrong_one_is_not() -> None:
    logits = np.array([[1000.0, 0.0]] * 4)
    assert expected_calibration_error(logits, np.zeros(4, dtype=np.int64)) == 0
    assert expected_calibration_error(logits, np.ones(4, dtype=np.int64)) == 1


@given(st.integers(0, 2**32 - 1), st.integers(1, 20))
def test_calibration_error_is_that_of_a_plain_loop_over_bins(seed: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(40, 3)) * 2, rng.integers(0, 3, 40)
    probabilities = torch.from_numpy(logits).softmax(dim=1).numpy()
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    expected = 0.0
    for index in range(bins):
        inside = (confidence > index / bins) & (confidence <= (index + 1) / bins)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(logits, labels, bins) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", [cross_entropy, expected_calibration_error])
def test_bad_logits_and_labels_are_refused(metric) -> None:  # type: ignore[no-untyped-def]
    labels = np.array([0, 1])
    with pytest.raises(UserError, match="of 1 of 2 images are not finite"):
        metric(np.array([[0.0, np.inf], [0.0, 1.0]]), labels)
    with pytest.raises(UserError, match="of 1 of 2 images are not finite"):
        metric(np.array([[0.0, 1.0], [0.0, np.nan]]), labels)
    with pytest.raises(UserError, match="2 labels and logits of 3 images"):
        metric(np.zeros((3, 2)), labels)
    with pytest.raises(UserError, match=r"lie outside \[0, 1\)"):
        metric(np.zeros((2, 1)), labels)
    with pytest.raises(UserError, match=r"logits of shape \[2\]"):
        metric(np.zeros(2), labels)


def test_no_bins_are_refused() -> None:
    with pytest.raises(UserError, match="0 bins; at least 1"):
        expected_calibration_error(np.zeros((1, 2)), np.array([0]), bins=0)
