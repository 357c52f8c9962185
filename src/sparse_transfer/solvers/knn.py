"""k nearest neighbours: no training, a sanity line beside every head."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparse_transfer.core.errors import UserError
from sparse_transfer.solvers.inputs import Features, Labels, check


@dataclass(frozen=True)
class KnnSettings:
    """neighbours: how many vote, one vote each; all images where there are fewer.   metric: scikit-learn's name."""

    neighbours: int = 20
    metric: str = "cosine"

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise UserError(f"{self.neighbours} neighbours", where="neighbours", do="give at least 1")


def predict(features: Features, labels: Labels, queries: Features, settings: KnnSettings) -> NDArray[np.int64]:
    """The class that most of a query's nearest images have; of equals the smallest label.

    features: [N, D] float32, finite.   labels: [N] int64, not negative.   queries: [M, D] float32, finite -> [M] int64.
    Source: sklearn.neighbors.KNeighborsClassifier, brute force.
    """
    from sklearn.neighbors import KNeighborsClassifier

    check(features, labels, max(2, int(labels.max(initial=0)) + 1))
    check(queries, np.zeros(len(queries), dtype=np.int64), 2)
    voters = min(settings.neighbours, len(features))
    model = KNeighborsClassifier(voters, metric=settings.metric, algorithm="brute")
    answers: NDArray[np.int64] = model.fit(features, labels).predict(queries)
    return answers
