"""What one run leaves behind: ``run.json`` (what was asked, where) and ``result.json`` (what came out)."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from sparse_transfer.core.canonical import Json
from sparse_transfer.metrics.confusion import Confusion, Metric
from sparse_transfer.metrics.intervals import Interval, mean_per_class_interval, wilson
from sparse_transfer.runs.environment import Hardware, git_commit, hardware, versions
from sparse_transfer.runs.identity import RECORD_VERSION, RunIdentity
from sparse_transfer.runs.tolerant import decode, encode

SelectedOn = Literal["validation", "test"]


@dataclass(frozen=True)
class RunRecord:
    """``run.json``: which run, asked how, on what.

    architecture: as typed on a command line.   command: the arguments of the process.   started: UTC, ISO 8601.
    extra: what a newer version wrote and this one does not know, by dotted path.
    """

    identity: RunIdentity
    architecture: str = ""
    command: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    hardware: Hardware | None = None
    git_commit: str | None = None
    started: str = ""
    host: str = ""
    pid: int | None = None
    extra: Mapping[str, Json] = field(default_factory=dict[str, Json])

    @classmethod
    def now(cls, identity: RunIdentity, *, architecture: str = "", command: Sequence[str] = ()) -> "RunRecord":
        """A record of a run that starts now, in this process, on this machine."""
        return cls(
            identity,
            architecture=architecture,
            command=tuple(command),
            versions=versions(),
            hardware=hardware(),
            git_commit=git_commit(),
            started=now(),
            host=platform.node(),
            pid=os.getpid(),
        )

    def to_json(self) -> Json:
        return encode(self)

    @classmethod
    def from_json(cls, value: Json) -> "RunRecord":
        """Raises ``tolerant.Damaged`` where ``value`` is no record."""
        return decode(cls, value)


@dataclass(frozen=True)
class Accuracy:
    """Both accuracies of one head on the test images; shares in [0, 1], with intervals over images.

    epoch: whose weights these are, counted from 1; None for a solver without epochs.
    selected_on: what that epoch was chosen by; None if it was not chosen. Chosen on the test images, it is too good.
    """

    top1: float
    mean_per_class: float
    correct: int
    total: int
    top1_interval: Interval
    mean_per_class_interval: Interval
    epoch: int | None = None
    selected_on: SelectedOn | None = None

    @classmethod
    def of(
        cls,
        confusion: Confusion,
        *,
        epoch: int | None = None,
        selected_on: SelectedOn | None = None,
    ) -> "Accuracy":
        return cls(
            top1=confusion.top1,
            mean_per_class=confusion.mean_per_class,
            correct=confusion.correct,
            total=confusion.total,
            top1_interval=wilson(confusion.correct, confusion.total),
            mean_per_class_interval=mean_per_class_interval(confusion),
            epoch=epoch,
            selected_on=selected_on,
        )

    def value(self, metric: Metric) -> float:
        return self.top1 if metric == "top1" else self.mean_per_class

    def interval(self, metric: Metric) -> Interval:
        return self.top1_interval if metric == "top1" else self.mean_per_class_interval


@dataclass(frozen=True)
class Cost:
    """What one image costs: multiply-adds of the dense and of the sparse network, and the shares of zeros."""

    macs_dense: int
    macs_sparse: int
    parameters: int | None = None
    sparsity_masked: float | None = None
    sparsity_prunable: float | None = None
    sparsity_total: float | None = None


@dataclass(frozen=True)
class SolverReport:
    """How the fit ended, in a sentence, and the settings that were chosen in it (e.g. ``l2``)."""

    name: str
    ended: str
    objective: float | None = None
    gradient_norm: float | None = None
    iterations: int | None = None
    chosen: Mapping[str, Json] = field(default_factory=dict[str, Json])


@dataclass(frozen=True)
class RunResult:
    """``result.json``. Its presence means that the run is finished.

    metric: the headline.   last: the head the protocol ends with, the one reported.   best: of all epochs, where
    the protocol has it.   cross_entropy: nats, of ``last``.   ece: expected calibration error.
    knn_top1: what nearest neighbours reach on the same features, a sanity line.
    model: pruning method, as in the published tables.   sparsity: as claimed by the checkpoint.
    seconds: by phase.   partial: what is missing of the data set, or None.   digests: file name -> SHA-256.
    finished: UTC, set by the store.   not_finite: what stood where JSON has null.   extra: as in ``RunRecord``.
    """

    identity: RunIdentity
    metric: Metric
    last: Accuracy
    best: Accuracy | None = None
    cross_entropy: float | None = None
    ece: float | None = None
    knn_top1: float | None = None
    empty_classes: tuple[str, ...] = ()
    cost: Cost | None = None
    solver: SolverReport | None = None
    model: str = ""
    sparsity: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    warnings: tuple[str, ...] = ()
    partial: str | None = None
    digests: Mapping[str, str] = field(default_factory=dict[str, str])
    not_finite: Mapping[str, Json] = field(default_factory=dict[str, Json])
    finished: str = ""
    version: int = RECORD_VERSION
    extra: Mapping[str, Json] = field(default_factory=dict[str, Json])

    @property
    def value(self) -> float:
        """The headline accuracy, a share."""
        return self.last.value(self.metric)

    @property
    def interval(self) -> Interval:
        """The headline's interval, over images."""
        return self.last.interval(self.metric)

    @property
    def n_test(self) -> int:
        return self.last.total

    def to_json(self) -> Json:
        return encode(self)

    @classmethod
    def from_json(cls, value: Json) -> "RunResult":
        """Raises ``tolerant.Damaged`` where ``value`` is no result."""
        return decode(cls, value)


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
