"""L-BFGS against scikit-learn's logistic regression and SciPy's minimiser, in double."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from sparse_transfer.core.errors import UserError
from sparse_transfer.models.network import Head
from sparse_transfer.solvers import Ended, inputs, lbfgs
from sparse_transfer.solvers.lbfgs import Curvature, LbfgsSettings
from sparse_transfer.solvers.objective import objective
from sparse_transfer.solvers.predict import predict
from sparse_transfer.solvers.problem import Problem
from support.made_features import made_features

PATH = tuple(float(l2) for l2 in np.logspace(1, -5, 13))


def _scikit_learn(features: np.ndarray, labels: np.ndarray, l2: float) -> LogisticRegression:
    model = LogisticRegression(C=1 / (len(features) * l2), tol=1e-9, max_iter=20_000)
    return model.fit(features.astype(np.float64), labels)


def _double(head: Head) -> Head:
    return Head(head.weight.double(), head.bias.double())


@pytest.mark.parametrize(
    ("images", "width", "classes"), [(200, 20, 5), (30, 60, 3), (64, 8, 2)], ids=["many images", "few images", "two"]
)
def test_the_path_reaches_scikit_learns_objective_and_predicts_as_it_does(
    images: int, width: int, classes: int
) -> None:
    features, labels = made_features(images, width, classes)
    queries, _ = made_features(images, width, classes, seed=1)
    for fitted in lbfgs.fit(features, labels, classes, LbfgsSettings(l2=PATH)):
        assert fitted.ended is Ended.CONVERGED
        model = _scikit_learn(features, labels, fitted.strength)
        weight, bias = model.coef_, model.intercept_
        if classes == 2:  # scikit-learn keeps the difference of two opposite rows and penalises it as one
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
            model = LogisticRegression(C=2 / (images * fitted.strength), tol=1e-9, max_iter=20_000)
            model.fit(features.astype(np.float64), labels)
            weight, bias = (
                np.concatenate([-model.coef_, model.coef_]) / 2,
                np.concatenate([-model.intercept_, model.intercept_]) / 2,
            )
        oracle = Head(torch.from_numpy(weight), torch.from_numpy(bias))
        best = objective(oracle, features, labels, l2=fitted.strength).value
        ours = objective(_double(fitted.head), features, labels, l2=fitted.strength).value
        assert ours <= best * (1 + 1e-4)
        assert fitted.objective == pytest.approx(ours, rel=1e-5)

        logits = queries.astype(np.float64) @ weight.T + bias
        two_best = np.sort(logits, axis=1)[:, -2:]
        clear = two_best[:, 1] - two_best[:, 0] > 0.02 * np.abs(logits).max()  # else it is a tie to the tolerance
        assert clear.mean() > 0.7
        said = predict(fitted.head.weight, fitted.head.bias, queries)
        assert np.array_equal(said[clear], logits.argmax(axis=1)[clear])


def test_the_minimum_is_scipys() -> None:
    features, labels = made_features(80, 6, 4)
    fitted = lbfgs.fit(features, labels, 4, LbfgsSettings(l2=0.01, tolerance=1e-9))[0]

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        point = torch.from_numpy(flat).reshape(4, 7)
        found = objective(Head(point[:, :6], point[:, 6]), features, labels, l2=0.01)
        return found.value, torch.cat([found.weight_gradient, found.bias_gradient[:, None]], dim=1).flatten().numpy()

    best = minimize(value, np.zeros(28), jac=True, method="L-BFGS-B", options={"ftol": 0, "gtol": 1e-10}).x.reshape(
        4, 7
    )
    np.testing.assert_allclose(fitted.head.weight, best[:, :6], atol=2e-3 * np.abs(best).max())
    # the bias is known up to a common number
    bias = fitted.head.bias.numpy()
    np.testing.assert_allclose(bias - bias.mean(), best[:, 6] - best[:, 6].mean(), atol=2e-3 * np.abs(best).max())


def test_the_report_is_that_of_the_head() -> None:
    features, labels = made_features(120, 10, 3)
    for fitted in lbfgs.fit(features, labels, 3, LbfgsSettings(l2=(1.0, 1e-3), tolerance=1e-4)):
        found = objective(_double(fitted.head), features, labels, l2=fitted.strength)
        assert fitted.objective == pytest.approx(found.value, rel=1e-5)
        assert fitted.gradient_norm == pytest.approx(found.gradient_norm, rel=0.05, abs=1e-6)
        assert len(fitted.history) == fitted.iterations + 1
        assert list(fitted.history) == sorted(fitted.history, reverse=True)
        assert fitted.history[-1] == fitted.objective


def test_a_strength_reached_along_the_path_is_as_good_as_one_fitted_alone() -> None:
    features, labels = made_features(150, 30, 6)
    for fitted in lbfgs.fit(features, labels, 6, LbfgsSettings(l2=PATH)):
        alone = lbfgs.fit(features, labels, 6, LbfgsSettings(l2=fitted.strength))[0]
        assert fitted.objective == pytest.approx(alone.objective, rel=5e-5)


def test_the_path_may_go_in_any_order() -> None:
    features, labels = made_features(100, 12, 4)
    down = lbfgs.fit(features, labels, 4, LbfgsSettings(l2=PATH))
    shuffled = lbfgs.fit(features, labels, 4, LbfgsSettings(l2=tuple(np.random.default_rng(0).permutation(PATH))))
    best = {fitted.strength: fitted.objective for fitted in shuffled}
    for fitted in down:
        assert fitted.objective == pytest.approx(best[fitted.strength], rel=5e-5)


def test_starting_from_the_answer_takes_no_iteration() -> None:
    features, labels = made_features(100, 12, 4)
    rules = LbfgsSettings(l2=0.01)
    there = lbfgs.fit(features, labels, 4, LbfgsSettings(l2=0.01, tolerance=1e-9))[0]
    again = lbfgs.fit(features, labels, 4, rules, start=there.head)[0]
    assert again.iterations <= 1
    assert again.objective <= there.objective * (1 + 1e-6)


def test_every_seed_gets_the_same_heads() -> None:
    features, labels = made_features(60, 8, 3)
    heads = lbfgs.fit(features, labels, 3, LbfgsSettings(l2=(1.0, 0.1)), [7, 8])
    assert [(head.seed, head.strength) for head in heads] == [(7, 1.0), (7, 0.1), (8, 1.0), (8, 0.1)]
    assert torch.equal(heads[1].head.weight, heads[3].head.weight)


def test_running_out_of_iterations_is_said() -> None:
    features, labels = made_features(100, 12, 4)
    fitted = lbfgs.fit(features, labels, 4, LbfgsSettings(l2=1e-4, max_iter=2))[0]
    assert fitted.ended is Ended.MAX_ITERATIONS
    assert fitted.iterations == 2


def test_a_tolerance_below_float32_ends_in_a_stall_at_the_same_minimum() -> None:
    features, labels = made_features(100, 12, 4)
    usual = lbfgs.fit(features, labels, 4, LbfgsSettings(l2=0.01))[0]
    stalled = lbfgs.fit(features, labels, 4, LbfgsSettings(l2=0.01, tolerance=1e-16))[0]
    assert stalled.ended is Ended.STALLED
    assert stalled.objective == pytest.approx(usual.objective, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_features_far_from_zero_or_of_any_scale_are_fitted_as_well(scale: float, shift: float) -> None:
    """The optimum for (scale * x, l2 * scale^2) is that for (x, l2); a shift goes into the free bias."""
    features, labels = made_features(120, 10, 4)
    plain = lbfgs.fit(features, labels, 4, LbfgsSettings(l2=0.01))[0]
    moved = ((features + shift) * scale).astype(np.float32)
    other = lbfgs.fit(moved, labels, 4, LbfgsSettings(l2=0.01 * scale**2))[0]
    assert other.ended is Ended.CONVERGED
    # A shift of 100 costs features 100 · 6e-8 of their precision.
    assert other.objective == pytest.approx(plain.objective, rel=1e-4)


def test_constant_and_single_images_are_fitted() -> None:
    one = lbfgs.fit(np.ones((1, 3), np.float32), np.zeros(1, np.int64), 2, LbfgsSettings(l2=0.1))[0]
    assert predict(one.head.weight, one.head.bias, np.ones((1, 3), np.float32)).tolist() == [0]
    labels = np.array([0, 0, 0, 1], dtype=np.int64)
    constant = lbfgs.fit(np.ones((4, 3), np.float32), labels, 2, LbfgsSettings(l2=0.1))[0]
    # Nothing but the class shares can be known: the loss is their entropy.
    assert constant.objective == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)), rel=1e-5)


def test_a_class_without_images_is_never_said_and_spoils_nothing() -> None:
    features, labels = made_features(90, 8, 3)
    three = lbfgs.fit(features, labels, 3, LbfgsSettings(l2=PATH))
    for fitted, plain in zip(lbfgs.fit(features, labels, 4, LbfgsSettings(l2=PATH)), three, strict=True):
        assert fitted.ended is Ended.CONVERGED
        assert predict(fitted.head.weight, fitted.head.bias, features).max() <= 2
        assert fitted.objective == pytest.approx(plain.objective, rel=1e-4)


def test_pairs_carried_to_another_strength_are_those_of_that_strength_and_the_oldest_go() -> None:
    features, labels = made_features(60, 7, 3)
    problem = Problem(features, labels, 3)
    points = [0.1 * torch.randn(3, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    curvature = Curvature(memory=2, l2=0.5)
    before, after = ([problem.at(point, problem.logits(point), l2) for point in points] for l2 in (0.5, 0.01))
    for here, there in pairwise(before):
        curvature.learn(here, there)
    curvature.change_l2(0.01)
    expected = [(b.point - a.point, b.gradient - a.gradient) for a, b in pairwise(after[1:])]
    assert len(curvature.pairs) == len(expected) == 2
    for pair, other in zip(curvature.pairs, expected, strict=True):
        torch.testing.assert_close(pair, other, rtol=1e-4, atol=1e-6)


def test_blocks_change_nothing_but_the_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = made_features(101, 12, 4)
    whole = lbfgs.fit(features, labels, 4, LbfgsSettings(l2=PATH))
    monkeypatch.setattr(inputs, "BLOCK_BYTES", 10 * 12 * 4)
    for one, other in zip(whole, lbfgs.fit(features, labels, 4, LbfgsSettings(l2=PATH)), strict=True):
        assert one.objective == pytest.approx(other.objective, rel=2e-5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"l2": 0.0},
            "--l2: a strength of 0; give a finite value above 0: without it, the weights of separable classes grow"
            " without end",
        ),
        ({"tolerance": 0.0}, "tolerance: a tolerance of 0; it lies between 0 and 1"),
        ({"max_iter": 0}, "0 iterations, a memory of 20; both are at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, float], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        LbfgsSettings(**change)  # type: ignore[arg-type]
    assert str(caught.value) == sentence


def test_a_start_of_another_shape_and_features_beyond_float32_are_refused() -> None:
    features, labels = made_features(20, 6, 3)
    with pytest.raises(UserError, match=r"starts from a head \[3, 5\]; these features and labels need \[3, 6\]"):
        lbfgs.fit(features, labels, 3, LbfgsSettings(l2=1.0), start=Head(torch.zeros(3, 5), torch.zeros(3)))
    with pytest.raises(UserError, match="features: their variance is "):
        lbfgs.fit(features * np.float32(1e20), labels, 3, LbfgsSettings(l2=1.0))


def test_a_cold_start_at_a_weak_strength_gets_going() -> None:
    # Few images in tight groups: the first step overshoots by far, onto the straight part of the loss, where the slope
    # is a fraction of the first one's, F is higher than at the start, and every image is fitted perfectly.
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(12), 16)
    features = (rng.exponential(size=(12, 512))[labels] + 0.3 * rng.exponential(size=(192, 512))).astype(np.float32)
    cold = lbfgs.fit(features, labels, 12, LbfgsSettings(l2=1e-3))[0]
    warm = lbfgs.fit(features, labels, 12, LbfgsSettings(l2=(1e2, 1.0, 1e-1, 1e-2, 1e-3)))[-1]
    assert cold.ended is Ended.CONVERGED
    assert cold.objective == pytest.approx(warm.objective, rel=1e-4)
