"""An augmented fit killed by a real signal goes on at its last whole epoch and ends bit for bit as if never killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sparse_transfer.cli import main as program
from sparse_transfer.core.canonical import Json
from sparse_transfer.runs.finished import FinishedRun, records
from sparse_transfer.runs.record import Accuracy
from support.pictures import class_folders
from support.processes import SOURCE
from support.trees import bits

EPOCHS = 3


@dataclass(frozen=True)
class Left:
    """What a run leaves, less the clock: equal for equal work."""

    head: tuple[object, object]
    accuracies: tuple[Accuracy, Accuracy | None]
    solver: object
    counts: bytes

    @classmethod
    def of(cls, run: FinishedRun) -> "Left":
        head = run.head()
        assert head is not None
        counts, result = run.confusion("best").counts.tobytes(), run.result
        return cls((bits(head.weight), bits(head.bias)), (result.last, result.best), result.solver, counts)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("pictures") / "set", train=8, test=6)


@pytest.fixture(scope="module")
def whole(network: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> "list[Left]":
    """What is left where nothing happens."""
    place = tmp_path_factory.mktemp("whole")
    assert program.run(words(network, pictures, place)) == 0
    assert len(left(place)) == 2
    return left(place)


def words(network: Path, pictures: Path, runs: Path) -> list[str]:
    return [
        "linear", str(network), f"folder:{pictures}", "--protocol", "cvpr2022", "--augment", "--lr", "0.05",
        "--epochs", str(EPOCHS), "--seeds", "21,51", "--threads", "1", "--workers", "1", "--runs", str(runs),
    ]  # fmt: skip


def left(runs: Path) -> list[Left]:
    return [Left.of(run) for run in records([runs])]


def states(runs: Path) -> list[Path]:
    return sorted(runs.rglob("state-*.safetensors"))


# Runs the command, and kills itself at the n-th return of a method.
KILLED_AFTER = """
import os, signal, sys
from sparse_transfer.cli.main import run
from sparse_transfer.runs.states import EpochStates
from sparse_transfer.runs.store import Run

place, name, number, *words = sys.argv[1:]
kind = {"EpochStates": EpochStates, "Run": Run}[place]
usual, left = getattr(kind, name), [int(number)]

def watched(self, *values):
    usual(self, *values)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

setattr(kind, name, watched)
run(words)
"""


def killed_after(method: str, number: int, command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AFTER, *method.split("."), str(number), *command],
        env=os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")


def of_kind(run: FinishedRun, kind: str) -> list[Json]:
    return [event["epoch"] for event in run.events() if event["event"] == kind]


@pytest.mark.parametrize(
    ("method", "number", "epochs_done", "runs_done"),
    [("EpochStates.keep", 1, 1, 0), ("Run.finish", 1, EPOCHS, 1)],
    ids=["after the first epoch", "after the first seed"],
)
def test_killed_it_goes_on_after_its_last_epoch_and_ends_as_if_never_killed(
    method: str,
    number: int,
    epochs_done: int,
    runs_done: int,
    whole: list[Left],
    network: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    again = words(network, pictures, tmp_path)
    killed_after(method, number, again)
    assert len(records([tmp_path])) == runs_done
    assert [path.name for path in states(tmp_path)] == [f"state-{epochs_done}.safetensors"] * (2 - runs_done)
    capsys.readouterr()
    assert program.run(again) == 0
    said = f"{epochs_done} of {EPOCHS} epochs were done before; the fit goes on from there\n"
    assert capsys.readouterr().err == said
    assert left(tmp_path) == whole
    for run in records([tmp_path]):
        assert of_kind(run, "epoch") == [1, 2, 3], "none was done twice"
    assert of_kind(records([tmp_path])[1], "resume") == [epochs_done]
    assert states(tmp_path) == []


def test_a_damaged_state_is_said_and_the_fit_begins_again(
    whole: list[Left], network: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = words(network, pictures, tmp_path)
    killed_after("EpochStates.keep", 1, again)
    path = states(tmp_path)[1]  # of the second seed: what was read of the first is dropped too
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    capsys.readouterr()
    assert program.run(again) == 0
    assert capsys.readouterr().err == f"warning: {path}: the state is damaged; the fit begins again\n"
    assert left(tmp_path) == whole


def test_seconds_of_earlier_attempts_count(
    network: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sparse_transfer.transfer import augmented

    class Stopped(Exception):
        pass

    def stop_after(epochs: int, seconds: float) -> Callable[[object, int], None]:
        def end_epoch(fit: object, epoch: int) -> None:
            if epoch == epochs:
                raise Stopped
            fit.began -= seconds  # type: ignore[attr-defined]
            usual(fit, epoch)  # type: ignore[arg-type]

        return end_epoch

    usual = augmented._Fit.end_epoch  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr("sparse_transfer.cli.main._bug", lambda error: 70)
    monkeypatch.setattr(augmented._Fit, "end_epoch", stop_after(1, 1000.0))  # pyright: ignore[reportPrivateUsage]
    assert program.run(words(network, pictures, tmp_path)) == 70
    monkeypatch.undo()
    assert program.run(words(network, pictures, tmp_path)) == 0
    for run in records([tmp_path]):
        assert 500 <= run.result.seconds["fit"] < 600, "a thousand earlier seconds, for two seeds"
