"""Choosing a strength on held-out images, predicting in blocks, and the nearest-neighbour line."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier

from sparse_transfer.core.errors import UserError
from sparse_transfer.models.network import Head
from sparse_transfer.solvers import Ended, inputs, knn, lbfgs, selection
from sparse_transfer.solvers.lbfgs import LbfgsSettings
from sparse_transfer.solvers.predict import predict
from sparse_transfer.solvers.report import FittedHead
from support.made_features import made_features

PATH = LbfgsSettings(l2=(10.0, 0.1, 1e-3, 1e-6))


def test_the_best_head_has_the_lowest_loss_that_scikit_learn_counts() -> None:
    features, labels = made_features(240, 20, 4, spread=3.0)
    rest, out = selection.held_out(labels, 0.2, 5)
    heads = lbfgs.fit(features[rest], labels[rest], 4, PATH)
    losses = [
        log_loss(labels[out], head.head(torch.from_numpy(features[out])).double().softmax(dim=1).numpy())
        for head in heads
    ]
    best, loss = selection.best_of(heads, features[out], labels[out])
    assert best is heads[int(np.argmin(losses))]
    assert loss == pytest.approx(min(losses), rel=1e-5)


@pytest.mark.parametrize("order", [(2.0, 1.0), (1.0, 2.0)])
def test_of_equal_losses_the_larger_strength_counts(order: tuple[float, float]) -> None:
    head = Head(torch.eye(2), torch.zeros(2))
    heads = [FittedHead(head, Ended.CONVERGED, 0, strength, (), 0.0, 0.0, 1) for strength in order]
    best, _ = selection.best_of(heads, np.eye(2, dtype=np.float32), np.array([0, 1]))
    assert best.strength == 2.0


def test_without_a_second_image_of_any_class_there_is_nothing_to_choose_on() -> None:
    with pytest.raises(UserError, match="no class has a second training picture"):
        selection.held_out(np.arange(3), 0.2, 0)


def test_a_class_with_one_image_is_fitted_and_not_chosen_on() -> None:
    rest, out = selection.held_out(np.array([0, 0, 0, 1, 2, 2]), 0.2, 0)
    assert 3 in rest
    assert sorted([*rest, *out]) == list(range(6))


def test_logits_in_blocks_are_those_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "BLOCK_ROWS", 7)
    features, _ = made_features(30, 5, 3)
    head = Head(torch.arange(15.0).view(3, 5), torch.tensor([1.0, 2.0, 3.0]))
    expected = features @ head.weight.numpy().T + head.bias.numpy()
    np.testing.assert_allclose(selection.logits(head, features), expected, rtol=1e-5)


def test_predictions_of_many_heads_in_blocks_are_those_of_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    features, _ = made_features(23, 6, 3)
    weights, biases = torch.randn(4, 3, 6), torch.randn(4, 3)
    expected = [
        (torch.from_numpy(features) @ w.T + b).argmax(dim=1).tolist() for w, b in zip(weights, biases, strict=True)
    ]
    for rows in (1, 22, 23, 24):
        monkeypatch.setattr(inputs, "BLOCK_BYTES", rows * 6 * 4)
        assert predict(weights, biases, features).tolist() == expected
        assert predict(weights[2], biases[2], features).tolist() == expected[2]


@pytest.mark.parametrize("neighbours", [1, 5, 1000])
def test_the_nearest_neighbours_are_scikit_learns_and_no_more_than_there_are(neighbours: int) -> None:
    features, labels = made_features(90, 10, 4, spread=2.0)
    queries, _ = made_features(40, 10, 4, seed=2)
    model = KNeighborsClassifier(min(neighbours, 90), metric="cosine", algorithm="brute").fit(features, labels)
    said = knn.predict(features, labels, queries, knn.KnnSettings(neighbours))
    assert said.tolist() == model.predict(queries).tolist()
    assert said.dtype == np.int64


def test_nearest_neighbours_refuse_nan_queries_and_no_neighbours() -> None:
    features, labels = made_features(9, 4, 3)
    queries = features.copy()
    queries[4] = np.nan
    with pytest.raises(UserError, match="1 of 9 rows contain NaN or infinity"):
        knn.predict(features, labels, queries, knn.KnnSettings())
    with pytest.raises(UserError, match=r"^neighbours: 0 neighbours; give at least 1"):
        knn.KnnSettings(0)
