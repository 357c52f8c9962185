"""Choosing l2 on held-out images, predicting in blocks, and the nearest-neighbour line."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from sparse_transfer.core.errors import UserError
from sparse_transfer.data.split import stratified_indices
from sparse_transfer.models.network import Head
from sparse_transfer.solvers import Ended, inputs, knn, lbfgs, selection
from sparse_transfer.solvers.lbfgs import LbfgsSettings
from sparse_transfer.solvers.predict import predict
from sparse_transfer.solvers.report import FittedHead
from support.made_features import made_features

PATH = LbfgsSettings(l2=(10.0, 0.1, 1e-3, 1e-6))


def test_the_scores_are_scikit_learns_on_images_that_were_not_fitted() -> None:
    features, labels = made_features(240, 20, 4, spread=3.0)
    labels[labels == 3] = np.where(np.arange((labels == 3).sum()) < 10, 3, 0)  # one rare class: the two metrics differ
    found = selection.choose(features, labels, 4, PATH, metric="mean_per_class", seed=5)
    rest, held_out = stratified_indices(labels, 0.2, 5)
    for score, fitted in zip(found.scores, lbfgs.fit(features[rest], labels[rest], 4, PATH), strict=True):
        said = predict(fitted.head.weight, fitted.head.bias, features[held_out])
        assert score.top1 == pytest.approx(accuracy_score(labels[held_out], said))
        assert score.mean_per_class == pytest.approx(balanced_accuracy_score(labels[held_out], said))
    assert found.chosen.mean_per_class == max(score.mean_per_class for score in found.scores)


def test_the_head_is_refitted_on_all_images_at_the_chosen_strength() -> None:
    features, labels = made_features(200, 20, 4, spread=3.0)
    found = selection.choose(features, labels, 4, PATH, seed=9)
    alone = lbfgs.fit(features, labels, 4, LbfgsSettings(l2=found.chosen.strength))[0]
    assert found.head.strength == found.chosen.strength
    assert found.head.seed == 9
    assert found.head.ended is Ended.CONVERGED
    assert found.head.objective == pytest.approx(alone.objective, rel=2e-5)
    assert found.head.iterations < alone.iterations  # it starts from the head that was chosen


@pytest.mark.parametrize("path", [(1e-3, 1e-2, 1e-1), (1e-1, 1e-2, 1e-3)])
def test_a_tie_goes_to_the_stronger_regularisation_in_any_order(path: tuple[float, ...]) -> None:
    labels = np.repeat(np.arange(2, dtype=np.int64), 20)
    features = np.eye(2, dtype=np.float32)[labels]  # every strength is perfect
    found = selection.choose(features, labels, 2, LbfgsSettings(l2=path))
    assert {score.top1 for score in found.scores} == {1.0}
    assert found.chosen.strength == 1e-1


def test_without_a_second_image_of_any_class_there_is_nothing_to_choose_on() -> None:
    features, labels = np.eye(3, dtype=np.float32), np.arange(3, dtype=np.int64)
    with pytest.raises(
        UserError, match="none of the 3 classes has a second image to choose l2 on; give --l2 one value"
    ):
        selection.choose(features, labels, 3, PATH)


def test_a_class_with_one_image_is_fitted_and_not_scored() -> None:
    features, labels = made_features(60, 6, 3)
    lonely = np.concatenate([labels, [3]])
    found = selection.choose(np.concatenate([features, features[:1] + 5]), lonely, 4, PATH)
    assert found.head.head.weight.shape == (4, 6)
    assert 0 < found.chosen.mean_per_class <= 1


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


def test_scores_know_their_strength() -> None:
    head = Head(torch.eye(2), torch.zeros(2))
    fitted = FittedHead(head, Ended.CONVERGED, 0, 0.5, (0.0,), 0.0, None, 0)
    features = np.array([[1, 0], [0, 1], [1, 0], [1, 0]], dtype=np.float32)
    (found,) = selection.score([fitted], features, np.array([0, 1, 1, 0]))
    assert (found.strength, found.top1, found.mean_per_class) == (0.5, 0.75, 0.75)


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
    with pytest.raises(UserError, match="--neighbours: 0 neighbours; give at least 1"):
        knn.KnnSettings(0)
