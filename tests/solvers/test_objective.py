"""The objective against SciPy's numerical gradient, scikit-learn's loss, and arithmetic in 50 digits."""

from decimal import Decimal, getcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime
from sklearn.metrics import log_loss

from sparse_transfer.models.network import Head
from sparse_transfer.solvers import inputs
from sparse_transfer.solvers.objective import cross_entropy, objective
from support.made_features import made_features

N, D, C = 31, 5, 4
FEATURES, LABELS = made_features(N, D, C)


def _head(seed: int = 0) -> Head:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(C, D, generator=generator, dtype=torch.float64)
    return Head(weight, torch.randn(C, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_the_gradient_is_that_of_a_numerical_derivative(l2: float) -> None:
    head = _head()

    def value(flat: np.ndarray) -> float:
        moved = torch.from_numpy(flat).reshape(C, D + 1)
        return objective(Head(moved[:, :D], moved[:, D]), FEATURES, LABELS, l2=l2).value

    at = torch.cat([head.weight, head.bias[:, None]], dim=1).flatten().numpy()
    numerical = approx_fprime(at, value, 1e-6).reshape(C, D + 1)
    exact = objective(head, FEATURES, LABELS, l2=l2)
    np.testing.assert_allclose(exact.weight_gradient, numerical[:, :D], atol=2e-5)
    np.testing.assert_allclose(exact.bias_gradient, numerical[:, D], atol=2e-5)
    assert exact.gradient_norm == pytest.approx(np.abs(numerical).max(), abs=2e-5)


def test_the_value_is_scikit_learns_log_loss_plus_half_l2_times_the_squared_weights() -> None:
    head = _head()
    probabilities = torch.softmax(head(torch.from_numpy(FEATURES).double()), dim=1).numpy()
    expected = log_loss(LABELS, probabilities) + 0.3 / 2 * float((head.weight**2).sum())
    assert objective(head, FEATURES, LABELS, l2=0.3).value == pytest.approx(expected, rel=1e-12)


def test_the_bias_is_not_penalised() -> None:
    head = _head()
    shifted = Head(head.weight, head.bias + 100)
    assert objective(shifted, FEATURES, LABELS, l2=0.3).value == pytest.approx(
        objective(head, FEATURES, LABELS, l2=0.3).value, rel=1e-12
    )


@pytest.mark.parametrize("rows", [1, N - 1, N, N + 1])
def test_blocks_of_any_size_give_the_same_value(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    whole = objective(_head(), FEATURES, LABELS, l2=0.1)
    monkeypatch.setattr(inputs, "BLOCK_BYTES", rows * D * 4)
    parts = objective(_head(), FEATURES, LABELS, l2=0.1)
    assert parts.value == pytest.approx(whole.value, rel=1e-13)
    np.testing.assert_allclose(parts.weight_gradient, whole.weight_gradient, rtol=1e-11, atol=1e-14)


def test_a_nearly_perfect_fit_keeps_its_relative_precision_in_float32() -> None:
    """exp(-30) is 1e-13: logsumexp(z) - z_y in float32 would give 0, and p_y - 1 would too."""
    loss, slopes = cross_entropy(torch.tensor([[40.0], [10.0], [5.0]]), torch.tensor([0]))
    getcontext().prec = 50
    odds = [Decimal(-30).exp(), Decimal(-35).exp()]
    assert loss == pytest.approx(float((1 + sum(odds)).ln()), rel=1e-6)
    assert slopes[:, 0].tolist() == pytest.approx([-float(sum(odds)), *map(float, odds)], rel=1e-6)


def test_a_hopeless_fit_has_a_finite_loss_and_slopes_of_one() -> None:
    loss, slopes = cross_entropy(torch.tensor([[-1e4], [1e4], [0.0]]), torch.tensor([0]))
    assert loss == 2e4
    assert slopes[:, 0].tolist() == [-1.0, 1.0, 0.0]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(2, 6), st.sampled_from([0.1, 3.0, 40.0]))
def test_cross_entropy_and_its_slopes_are_those_of_torch(seed: int, images: int, classes: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = (scale * torch.randn(images, classes, generator=generator, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(classes, (images,), generator=generator)
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    expected.backward()
    loss, slopes = cross_entropy(logits.detach().T, labels)
    assert loss == pytest.approx(float(expected.detach()), rel=1e-9, abs=1e-12)
    assert logits.grad is not None
    torch.testing.assert_close(slopes.T, logits.grad, rtol=1e-9, atol=1e-12)
