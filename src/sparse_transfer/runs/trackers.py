"""Weights & Biases and TensorBoard beside our own records: one seam of three methods, none of which may stop a run."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from sparse_transfer.core.canonical import Json
from sparse_transfer.core.environment import how_to_install
from sparse_transfer.core.errors import UserError
from sparse_transfer.core.progress import warn
from sparse_transfer.runs.events import Event
from sparse_transfer.runs.record import RunRecord, RunResult

# The names under which the published runs logged (finetune_pre_extracted_features.py, policies/manager.py).
PUBLISHED_KEYS = {
    "train_loss": "train loss",
    "train_top1": "train acc",
    "test_loss": "val loss",
    "test_top1": "val acc",
    "test_mean_per_class": "val avg class acc",
    "sparsity": "(overall sparsity)",  # theirs is a share of the biases and BatchNorms of wrapped layers too
}


WandbMode = Literal["online", "offline", "disabled"]


class Tracker(Protocol):
    """Follows one run: ``start`` once, ``log`` for each event, ``finish`` once, with None if the run failed."""

    @property
    def name(self) -> str: ...

    def start(self, record: RunRecord, folder: Path) -> None: ...

    def log(self, event: Event) -> None: ...

    def finish(self, result: RunResult | None) -> None: ...


TrackerFactory = Callable[[], Sequence[Tracker]]  # every run gets trackers of its own


def no_trackers() -> Sequence[Tracker]:
    """``metrics.jsonl`` alone."""
    return ()


class Trackers:
    """Several trackers as one. The first that fails is reported once, on stderr and in ``warnings``, and dropped."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self.warnings: list[str] = []
        self._alive = list(trackers)

    def start(self, record: RunRecord, folder: Path) -> None:
        self._each(lambda tracker: tracker.start(record, folder))

    def log(self, event: Event) -> None:
        self._each(lambda tracker: tracker.log(event))

    def finish(self, result: RunResult | None) -> None:
        self._each(lambda tracker: tracker.finish(result))

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for tracker in list(self._alive):
            try:
                call(tracker)
            except Exception as error:
                self._alive.remove(tracker)
                reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                self.warnings.append(f"{tracker.name} stopped and logs no more of this run ({reason})")
                warn(self.warnings[-1])


class WandbTracker:
    """Weights & Biases, grouped as the published runs were.

    Group = data set, job type, run name (``seed_<n>``) and keys as published; the project is the published one of the
    same kind unless another is named. ``mode="offline"`` writes to the run's folder
    alone; by default ``WANDB_MODE`` decides. Source: the published scripts and ``utils/`` of sparse-imagenet-transfer.
    """

    name = "W&B"

    def __init__(self, project: str | None = None, *, mode: WandbMode | None = None) -> None:
        self._project = project
        self._mode: WandbMode | None = mode
        self._run: Any = None  # wandb is not a dependency: its types are not known here

    def start(self, record: RunRecord, folder: Path) -> None:
        try:
            import wandb
        except ImportError:
            raise UserError("wandb is not installed", do=how_to_install("wandb")) from None
        identity = record.identity
        self._run = wandb.init(
            project=self._project or published_project(record),
            group=identity.dataset,
            job_type=published_job(record),
            name=f"seed_{identity.seed}",
            config={**identity.to_json(), "architecture": record.architecture},
            dir=str(folder),
            mode=self._mode,
            reinit="create_new",  # the seeds of one fit are followed side by side
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, event: Event) -> None:
        scalars = {PUBLISHED_KEYS.get(key, key): value for key, value in _scalars(event).items()}
        if scalars:
            self._run.log(scalars)

    def finish(self, result: RunResult | None) -> None:
        if result is not None:
            self._run.summary.update(_summary(result))
        self._run.finish(exit_code=0 if result is not None else 1)


class TensorBoardTracker:
    """TensorBoard event files, in the run's folder or in ``<root>/<transfer>/<dataset>/<checkpoint>/seed<k>-<id>``."""

    name = "TensorBoard"

    def __init__(self, root: Path | None = None) -> None:
        self._root = root
        self._writer: Any = None
        self._step = 0

    def start(self, record: RunRecord, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError("tensorboard is not installed", do=how_to_install("tensorboard")) from None
        self._writer = SummaryWriter(str(folder if self._root is None else self._root / record.identity.folder))

    def log(self, event: Event) -> None:
        step = event.get("epoch")
        self._step = step if isinstance(step, int) else self._step
        for key, value in _scalars(event).items():
            if key != "epoch":
                self._writer.add_scalar(key, value, self._step)

    def finish(self, result: RunResult | None) -> None:
        if result is not None:
            for key, value in _summary(result).items():
                self._writer.add_scalar(f"final/{key}", value, self._step)
        self._writer.close()


def published_project(record: RunRecord) -> str:
    """The W&B project of the published runs of the same kind (scripts; finetune_pre_extracted_features.py).

    Heads on augmented pictures were fitted in the runs with DeepSparse; the others' project says "no-data-aug".
    """
    base, identity = record.architecture.partition(",")[0] or "unknown", record.identity
    if identity.transfer == "linear" and identity.settings.get("pictures", "plain") == "plain":
        return f"transfer-pre-extracted-no-data-aug-imgnet-stats-{base.replace('mobilenet_v1', 'mobilenet')}"
    family = "mobilenet" if base.startswith("mobilenet") else "imagenet"
    return f"sparse-{family}-transfer-{'deepsparse' if identity.transfer == 'linear' else 'fullnetwork'}"


def published_job(record: RunRecord) -> str:
    """The W&B job type: ``<checkpoint>[-bicubic]-<dataset>``; of a full transfer
    ``<checkpoint>-<dataset>[-bicubic][-small-lr]``, where the small learning rate is the published 0.001.
    """
    identity = record.identity
    match identity.settings:
        case {"transforms": {"test": {"preprocessing": {"interpolation": "bicubic"}}}}:
            bicubic = "-bicubic"
        case _:
            bicubic = ""
    if identity.transfer == "linear":
        return f"{identity.checkpoint}{bicubic}-{identity.dataset}"
    match identity.settings:
        case {"training": {"optimiser": {"lr": 0.001}}}:
            small = "-small-lr"
        case _:
            small = ""
    return f"{identity.checkpoint}-{identity.dataset}{bicubic}{small}"


def _scalars(event: Event) -> dict[str, Json]:
    """The numbers of an event; ``t_s`` is ours and left out."""
    return {
        key: value
        for key, value in event.items()
        if key != "t_s" and isinstance(value, int | float) and not isinstance(value, bool)
    }


def _summary(result: RunResult) -> dict[str, float]:
    return {
        "headline": result.value,
        "top1": result.last.top1,
        "mean_per_class": result.last.mean_per_class,
        **({"cross_entropy": result.cross_entropy} if result.cross_entropy is not None else {}),
        **({"ece": result.ece} if result.ece is not None else {}),
    }
