"""Small runs for tests: an identity, a record and a result that need no network and no pictures."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from sparse_transfer.core.canonical import Json
from sparse_transfer.metrics.confusion import Confusion
from sparse_transfer.runs.environment import Hardware
from sparse_transfer.runs.identity import RunIdentity
from sparse_transfer.runs.record import Accuracy, Cost, RunRecord, RunResult, SolverReport


def identity(seed: int = 21, *, settings: Mapping[str, Json] | None = None, **changes: object) -> RunIdentity:
    made = RunIdentity(
        transfer="linear",
        dataset="pets",
        checkpoint="acdc80",
        checkpoint_digest="d" * 64,
        splits={"train": "a" * 64, "test": "b" * 64},
        protocol="cvpr2022",
        settings={"solver": "sgd", "lr": 0.01, "epochs": 3} if settings is None else settings,
        seed=seed,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def record(of: RunIdentity | None = None) -> RunRecord:
    return RunRecord(
        of or identity(),
        architecture="resnet50,stride=v1",
        command=("sparse-transfer", "linear", "acdc80.safetensors", "pets"),
        versions={"torch": "2.15.0"},
        hardware=Hardware("a CPU", 2, 2**34),
        git_commit="c" * 40,
        started="2026-11-22T18:00:00+00:00",
        host="here",
        pid=4711,
    )


def confusion(right: int = 90, wrong: int = 10) -> Confusion:
    """Two classes: ``right`` of ``right + wrong`` images of the first, all 50 of the second."""
    return Confusion(np.array([[right, wrong], [0, 50]], dtype=np.int64), ("cat", "dog"))


def result(of: RunIdentity | None = None, *, right: int = 90) -> RunResult:
    matrix = confusion(right, 100 - right)
    return RunResult(
        of or identity(),
        metric="mean_per_class",
        last=Accuracy.of(matrix, epoch=3),
        best=Accuracy.of(confusion(95, 5), epoch=2, selected_on="test"),
        cross_entropy=0.25,
        ece=0.03,
        cost=Cost(macs_dense=4_089_184_256, macs_sparse=900_000_000, parameters=23_508_032, sparsity_prunable=0.79),
        solver=SolverReport("sgd", "it ran all 3 epochs", objective=0.2, iterations=3, chosen={"lr": 0.01}),
        model="AC/DC",
        sparsity=0.8,
        seconds={"features": 2.5, "fit": 1.5},
        warnings=("the licence is unknown; ask the authors",),
    )
