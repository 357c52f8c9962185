"""Heads for all seeds of a plan: features through the cache, then the solver the plan names."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sparse_transfer.core.progress import progress
from sparse_transfer.data.specs import DatasetSpec
from sparse_transfer.data.split import Split, Splits
from sparse_transfer.features import View
from sparse_transfer.metrics.confusion import Confusion
from sparse_transfer.models import Backbone, Head
from sparse_transfer.runs.record import SolverReport
from sparse_transfer.runs.store import Run
from sparse_transfer.solvers import knn, lbfgs, selection, sgd
from sparse_transfer.solvers.report import Ended, FittedHead
from sparse_transfer.solvers.sgd import SgdSettings
from sparse_transfer.transfer.augmented import VIEW_SEED, fit_augmented
from sparse_transfer.transfer.compute import Compute
from sparse_transfer.transfer.plan import Plan, SolverSettings
from sparse_transfer.transfer.watch import Watch

# k-nearest neighbours compares every pair; beyond this many it is left out.
KNN_PAIRS = 200_000_000


@dataclass(frozen=True)
class Fitted:
    """One seed's head and how it came about.

    test_features: [N, D] of the test pictures, in the split's order.   epochs: how many were run; None for lbfgs.
    best, best_epoch: of all epochs on the test pictures, where the protocol looks at them; epochs count from 1.
    seconds: this seed's equal share of what all were made with, so that a sum over seeds is what they took together.
    knn_top1: what 20 nearest neighbours reach on the same features: a head well below it deserves a look.
    """

    head: Head
    test_features: NDArray[np.float32]
    report: SolverReport
    seconds: dict[str, float]
    warnings: tuple[str, ...] = ()
    epochs: int | None = None
    best: Confusion | None = None
    best_epoch: int | None = None
    knn_top1: float | None = None


def fit_seeds(
    backbone: Backbone,
    spec: DatasetSpec,
    splits: Splits,
    plan: Plan,
    compute: Compute,
    seeds: Sequence[int],
    runs: Sequence[Run] = (),
) -> list[Fitted]:
    """Features, then one head a seed, by the plan.

    runs: of these seeds, in work: the epochs are logged in them, and augmented ones go on where they were stopped.
    """
    began = time.perf_counter()
    transforms = plan.transforms(backbone, spec)
    test = compute.features(backbone, splits.test, transforms.test)
    watch = Watch(test, splits.test, runs) if plan.protocol.selection == "none" else None
    sanity: float | None = None
    earlier_s = 0.0
    if plan.pictures == "augmented":
        features_s = time.perf_counter() - began
        assert isinstance(plan.settings, SgdSettings)
        heads, earlier_s = fit_augmented(
            backbone, splits.train, plan.settings, compute, transforms.train, seeds, watch, runs
        )
        chosen: list[dict[str, float]] = [{} for _ in heads]
    else:
        views = [None] if plan.pictures == "plain" else [View(VIEW_SEED, index) for index in range(plan.views)]
        train = [compute.features(backbone, splits.train, transforms.train, view) for view in views]
        plain, val = train[0], None
        if plan.protocol.selection == "validation":
            if plan.pictures != "plain":
                plain = compute.features(backbone, splits.train, transforms.test)
            if splits.val is not None:
                val = compute.features(backbone, splits.val, transforms.test)
        features_s = time.perf_counter() - began
        sanity = _nearest_neighbours(train[0], splits.train, test, splits.test)
        if plan.protocol.selection == "none":
            heads = fit_heads(train, splits.train.labels, len(splits.train.classes), plan.settings, seeds, watch)
            chosen = [{} for _ in heads]
        else:
            both = [best_by_validation(train, plain, val, splits, plan, seed) for seed in seeds]
            heads = [
                _refitted(best, train, val, splits, plan, seed) for (best, _), seed in zip(both, seeds, strict=True)
            ]
            chosen = [{plan.strength_name: best.strength, "validation_cross_entropy": loss} for best, loss in both]
    fit_s = (earlier_s + time.perf_counter() - began - features_s) / len(seeds)
    return [
        Fitted(
            head.head,
            test,
            SolverReport(plan.solver, head.ended.value, head.objective, head.gradient_norm, head.iterations, choice),
            {"features": round(features_s / len(seeds), 3), "fit": round(fit_s, 3)},
            _warnings(head),
            plan.settings.epochs if isinstance(plan.settings, SgdSettings) else None,
            None if watch is None else watch.best[position],
            None if watch is None else watch.best_epoch[position],
            sanity,
        )
        for position, (head, choice) in enumerate(zip(heads, chosen, strict=True))
    ]


def fit_heads(
    views: Sequence[NDArray[np.float32]],
    labels: NDArray[np.int64],
    classes: int,
    settings: SolverSettings,
    seeds: Sequence[int],
    watch: Watch | None = None,
    start: Head | None = None,
) -> list[FittedHead]:
    """Heads on the same pictures seen in one or several ways: SGD takes a view an epoch, L-BFGS all at once.

    ``start`` is where L-BFGS begins; its minimum does not depend on it.
    """
    if isinstance(settings, SgdSettings):
        with progress("fit", settings.epochs, unit="epochs") as advance:

            def on_epoch(epoch: int, weights: Tensor, biases: Tensor) -> None:
                if watch is not None:
                    watch.look(epoch, weights, biases, settings)
                advance(1)

            return sgd.fit(views, labels, classes, settings, seeds, on_epoch=on_epoch)
    features = views[0] if len(views) == 1 else np.concatenate(views)
    return lbfgs.fit(features, np.tile(labels, len(views)), classes, settings, seeds, start=start)


def best_by_validation(
    views: Sequence[NDArray[np.float32]],
    plain: NDArray[np.float32],
    val: NDArray[np.float32] | None,
    splits: Splits,
    plan: Plan,
    seed: int,
) -> tuple[FittedHead, float]:
    """The head whose strength is best on validation pictures, which it has not seen, and its loss on them in nats.

    views: features of the training pictures, seen in one or several ways; plain: as in evaluation.
    val: of the data set's own validation part, where it has one; else a stratified share of the training pictures
    is held out.
    """
    labels, classes = splits.train.labels, len(splits.train.classes)
    if val is not None and splits.val is not None:
        candidates = fit_heads(views, labels, classes, plan.settings, [seed])
        return selection.best_of(candidates, val, splits.val.labels)
    rest, out = selection.held_out(labels, plan.protocol.validation_share, seed)
    candidates = fit_heads([view[rest] for view in views], labels[rest], classes, plan.settings, [seed])
    return selection.best_of(candidates, plain[out], labels[out])


def _refitted(
    best: FittedHead,
    views: Sequence[NDArray[np.float32]],
    val: NDArray[np.float32] | None,
    splits: Splits,
    plan: Plan,
    seed: int,
) -> FittedHead:
    """A head of the best one's strength on all pictures but the test ones."""
    labels = splits.train.labels
    if val is not None and splits.val is not None:
        labels = np.concatenate([labels, splits.val.labels])
        views = [np.concatenate([view, val]) for view in views]
    settings = plan.with_strength(best.strength)
    return fit_heads(views, labels, len(splits.train.classes), settings, [seed], start=best.head)[0]


def _nearest_neighbours(
    features: NDArray[np.float32], train: Split, test_features: NDArray[np.float32], test: Split
) -> float | None:
    """Top-1 of k-nearest neighbours, a sanity line; None where there are too many pairs to compare."""
    if len(features) * len(test_features) > KNN_PAIRS:
        return None
    predictions = knn.predict(features, train.labels, test_features, knn.KnnSettings())
    return float((predictions == test.labels).mean())


def _warnings(head: FittedHead) -> tuple[str, ...]:
    return () if head.ended in (Ended.CONVERGED, Ended.ALL_EPOCHS) else (head.ended.value,)
