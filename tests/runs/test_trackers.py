import json
import subprocess
import sys
from pathlib import Path

import pytest

from sparse_transfer.core.canonical import Json
from sparse_transfer.core.errors import UserError
from sparse_transfer.runs.events import Event
from sparse_transfer.runs.record import RunRecord, RunResult
from sparse_transfer.runs.store import RunStore
from sparse_transfer.runs.trackers import TensorBoardTracker, Tracker, WandbTracker, published_job, published_project
from support.runs import identity, record, result

EPOCH = {"event": "epoch", "epoch": 2, "lr": 0.01, "train_loss": 0.5, "test_top1": 0.75, "done": True}


class Follower:
    """A tracker that remembers, and fails where it is told to."""

    def __init__(self, fails_at: str = "", error: BaseException | None = None) -> None:
        self.name = "Follower"
        self.seen: list[str] = []
        self._fails_at = fails_at
        self._error = error or ConnectionError("no route")

    def _see(self, what: str) -> None:
        self.seen.append(what)
        if what.startswith(self._fails_at or "-"):
            raise self._error

    def start(self, record: RunRecord, folder: Path) -> None:
        self._see(f"start {record.identity.seed} {folder.name}")

    def log(self, event: Event) -> None:
        self._see(f"log {event['event']}")

    def finish(self, result: RunResult | None) -> None:
        self._see("finish" if result else "failed")


def do(store: RunStore, *trackers: Tracker) -> RunResult:
    with store.open(record(), trackers=lambda: list(trackers)) as run:
        run.log(EPOCH)
        run.log(EPOCH)
        return run.finish(result()).result


def test_a_tracker_sees_the_same_events_as_the_log_between_start_and_finish(tmp_path: Path) -> None:
    follower = Follower()
    done = do(RunStore(tmp_path), follower)
    expected = [f"start 21 seed21-{identity().id}", "log start", "log epoch", "log epoch", "log finish", "finish"]
    assert follower.seen == expected
    assert done.warnings == result().warnings


@pytest.mark.parametrize(("place", "seen"), [("start", 1), ("log epoch", 3), ("log start", 2)])
def test_a_tracker_that_fails_is_reported_once_dropped_and_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, seen: int
) -> None:
    broken, whole = Follower(place), Follower()
    done = do(RunStore(tmp_path), broken, whole)
    said = "Follower stopped and logs no more of this run (ConnectionError: no route)"
    assert capsys.readouterr().err == f"warning: {said}\n"
    assert done.warnings == (*result().warnings, said)
    assert len(broken.seen) == seen
    assert whole.seen[-1] == "finish"


def test_a_tracker_that_fails_at_the_end_is_in_the_log_and_the_result_is_safe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = RunStore(tmp_path)
    do(store, Follower("finish"))
    finished = store.find(identity())
    assert finished is not None
    assert finished.events()[-1]["warning"] == (
        "Follower stopped and logs no more of this run (ConnectionError: no route)"
    )
    assert capsys.readouterr().err.count("warning:") == 1


def test_an_interruption_while_a_tracker_finishes_leaves_the_run_finished(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        do(store, Follower("finish", KeyboardInterrupt()))
    finished = store.find(identity())
    assert finished is not None
    assert finished.events()[-1]["event"] == "finish"


def test_a_tracker_is_told_of_a_run_that_failed(tmp_path: Path) -> None:
    follower = Follower()
    with pytest.raises(KeyError), RunStore(tmp_path).open(record(), trackers=lambda: [follower]):
        raise KeyError
    assert follower.seen[-1] == "failed"


def test_a_finished_run_is_not_tracked_again(tmp_path: Path) -> None:
    store, follower = RunStore(tmp_path), Follower()
    do(store)
    with store.open(record(), trackers=lambda: [follower]) as run:
        assert run.finished is not None
    assert follower.seen == []


@pytest.mark.parametrize(
    ("tracker", "module", "said"),
    [
        (WandbTracker(), "wandb", "wandb is not installed; make -B setup EXTRAS=wandb"),
        (
            TensorBoardTracker(),
            "torch.utils.tensorboard",
            "tensorboard is not installed; make -B setup EXTRAS=tensorboard",
        ),
    ],
)
def test_a_tracker_that_is_not_installed_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracker: Tracker, module: str, said: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError) as error:
        tracker.start(record(), tmp_path)
    assert str(error.value) == said
    assert do(RunStore(tmp_path), tracker).warnings[-1].endswith(f"({said})")


@pytest.mark.parametrize(
    ("transfer", "architecture", "project"),
    [
        ("linear", "resnet50,stride=v1", "transfer-pre-extracted-no-data-aug-imgnet-stats-resnet50"),
        ("linear", "mobilenet_v1", "transfer-pre-extracted-no-data-aug-imgnet-stats-mobilenet"),
        ("full", "resnet50", "sparse-imagenet-transfer-fullnetwork"),
        ("full", "mobilenet_v1", "sparse-mobilenet-transfer-fullnetwork"),
    ],
)
def test_projects_are_named_as_the_published_ones(transfer: str, architecture: str, project: str) -> None:
    assert published_project(RunRecord(identity(transfer=transfer), architecture=architecture)) == project


def test_heads_on_augmented_pictures_are_not_filed_under_no_data_augmentation() -> None:
    augmented = RunRecord(identity(settings={"pictures": "augmented"}), architecture="resnet50,stride=v1")
    assert published_project(augmented) == "sparse-imagenet-transfer-deepsparse"
    plain = RunRecord(identity(settings={"pictures": "plain"}), architecture="resnet50,stride=v1")
    assert published_project(plain) == "transfer-pre-extracted-no-data-aug-imgnet-stats-resnet50"


@pytest.mark.parametrize(
    ("transfer", "interpolation", "lr", "job"),
    [
        ("linear", "bilinear", 0.01, "acdc80-pets"),
        ("linear", "bicubic", 0.01, "acdc80-bicubic-pets"),
        ("full", "bicubic", 0.01, "acdc80-pets-bicubic"),
        ("full", "bicubic", 0.001, "acdc80-pets-bicubic-small-lr"),
    ],
)
def test_job_types_are_named_as_the_published_ones(transfer: str, interpolation: str, lr: float, job: str) -> None:
    settings: dict[str, Json] = {
        "transforms": {"test": {"preprocessing": {"interpolation": interpolation}}},
        "training": {"optimiser": {"lr": lr}},
    }
    of = identity(transfer=transfer, settings=settings)
    assert published_job(RunRecord(of, architecture="resnet50")) == job


def test_tensorboard_reads_what_was_logged(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    store = RunStore(tmp_path / "runs")
    done = do(store, TensorBoardTracker())
    assert done.warnings == result().warnings
    accumulator = EventAccumulator(str(tmp_path / "runs" / identity().folder))
    accumulator.Reload()
    tags = {tag for tag in accumulator.Tags()["scalars"] if not tag.startswith("final/")}
    assert tags == {"lr", "train_loss", "test_top1"}
    assert [(scalar.step, scalar.value) for scalar in accumulator.Scalars("test_top1")] == [(2, 0.75), (2, 0.75)]
    assert accumulator.Scalars("final/mean_per_class")[0].value == pytest.approx(0.95)


def test_tensorboard_writes_elsewhere_when_told(tmp_path: Path) -> None:
    do(RunStore(tmp_path / "runs"), TensorBoardTracker(tmp_path / "board"))
    assert list((tmp_path / "board" / identity().folder).glob("events.out.tfevents.*"))


@pytest.mark.long
def test_wandb_offline_holds_two_runs_at_once_grouped_as_published(tmp_path: Path) -> None:
    """In a process of its own: wandb starts a service and keeps global state."""
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import json, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from support.runs import identity, record, result
from sparse_transfer.runs.store import RunStore
from sparse_transfer.runs.trackers import WandbTracker
made = []
def trackers():
    made.append(WandbTracker(mode="offline"))
    return [made[-1]]
store = RunStore(Path({str(tmp_path / "runs")!r}))
with store.open_many([record(identity(21)), record(identity(51))], trackers=trackers) as runs:
    said = [[t._run.name, t._run.group, t._run.job_type, t._run.project] for t in made]
    for run in runs:
        run.log({EPOCH!r})
    summaries = [dict(t._run.summary) for t in made]
    warnings = [run.finish(result(run.record.identity)).result.warnings for run in runs]
print(json.dumps([said, summaries, warnings]))
"""
    )
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    said, summaries, warnings = json.loads(ended.stdout)
    project = "transfer-pre-extracted-no-data-aug-imgnet-stats-resnet50"
    assert said == [[f"seed_{seed}", "pets", "acdc80-pets", project] for seed in (21, 51)]
    for summary in summaries:
        kept = {key: value for key, value in summary.items() if not key.startswith("_")}
        assert kept == {"epoch": 2, "lr": 0.01, "train loss": 0.5, "val acc": 0.75}
    assert warnings == [list(result().warnings)] * 2
    assert len(list((tmp_path / "runs").rglob("*.wandb"))) == 2
