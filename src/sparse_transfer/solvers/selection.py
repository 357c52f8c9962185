"""Choosing a strength without the test images: fit on a part of the training images, score on the rest."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from sparse_transfer.core.errors import UserError
from sparse_transfer.data.split import stratified_indices
from sparse_transfer.metrics.confusion import Confusion
from sparse_transfer.solvers import lbfgs
from sparse_transfer.solvers.inputs import Features, Labels, check
from sparse_transfer.solvers.lbfgs import LbfgsSettings
from sparse_transfer.solvers.predict import predict
from sparse_transfer.solvers.report import FittedHead


@dataclass(frozen=True)
class Score:
    """How well one strength did on the held-out images; shares in [0, 1]."""

    strength: float
    top1: float
    mean_per_class: float


@dataclass(frozen=True)
class Selection:
    """scores: one a strength, in the order of the path.   chosen: the best of them.   head: refitted on all images."""

    scores: tuple[Score, ...]
    chosen: Score
    head: FittedHead


def choose(
    features: Features,
    labels: Labels,
    classes: int,
    settings: LbfgsSettings,
    *,
    metric: Literal["top1", "mean_per_class"] = "top1",
    share: float = 0.2,
    seed: int = 0,
) -> Selection:
    """Fit the path on 1 - ``share`` of every class, score on the others, refit on all images at the best l2.

    A tie goes to the stronger regularisation. A class with a single image stays in the fitting part. The parts are
    copies: memory is that of the features once more.
    features: [N, D] float32, finite.   labels: [N] int64 in [0, classes); at least one class has two images.
    """
    check(features, labels, classes)
    rest, held_out = stratified_indices(labels, share, seed)
    if len(held_out) == 0:
        raise UserError(
            f"none of the {classes} classes has a second image to choose l2 on",
            where="labels",
            do="give --l2 one value",
        )
    candidates = lbfgs.fit(features[rest], labels[rest], classes, settings, [seed])
    scores = score(candidates, features[held_out], labels[held_out])
    best = max(range(len(scores)), key=lambda index: (getattr(scores[index], metric), scores[index].strength))
    there = replace(settings, l2=scores[best].strength)
    head = lbfgs.fit(features, labels, classes, there, [seed], start=candidates[best].head)[0]
    return Selection(tuple(scores), scores[best], head)


def score(heads: Sequence[FittedHead], features: Features, labels: Labels) -> list[Score]:
    """How well each head does on images that it has not seen."""
    scores: list[Score] = []
    for fitted in heads:
        predictions = predict(fitted.head.weight, fitted.head.bias, np.ascontiguousarray(features))
        confusion = Confusion.of(labels, predictions, len(fitted.head.weight))
        scores.append(Score(fitted.strength, confusion.top1, confusion.mean_per_class))
    return scores
