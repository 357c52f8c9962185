"""``linear`` stopped, killed, crowded out, short of disk, at many points: what is finished stays, the rest goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from sparse_transfer.checkpoints.file import load
from sparse_transfer.cli import main as program
from sparse_transfer.runs.finished import records
from support.processes import AUGMENTED, QUICKLY, SOURCE, STOPPED, Outcome, ended, start, transfer, wait_for

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

POINTS = 8


@pytest.fixture(scope="module")
def unbroken(network: Path, many: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, float]:
    return left_alone(network, many, tmp_path_factory.mktemp("unbroken"), QUICKLY)


def left_alone(network: Path, many: Path, place: Path, how: Sequence[str]) -> tuple[Outcome, float]:
    """What it leaves when nothing happens, and how many seconds it takes from its first line of code on."""
    process = start(*transfer(network, many, place, how))
    wait_for(lambda: runs_our_code(process), process)
    began = time.monotonic()
    assert ended(process).status == 0
    return Outcome.of(place), time.monotonic() - began


def runs_our_code(process: subprocess.Popen[str]) -> bool:
    """Whether the process has come to where SIGTERM is caught: Python and the command line itself have started."""
    with suppress(OSError):
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def signalled(process: subprocess.Popen[str], seconds: float, number: signal.Signals) -> None:
    """Send the signal that long after the start, if it is still there."""
    wait_for(lambda: runs_our_code(process), process)
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    process.send_signal(number)


@pytest.mark.parametrize("point", range(POINTS))
def test_killed_at_any_point_it_ends_as_if_never_killed(
    point: int, network: Path, many: Path, unbroken: tuple[Outcome, float], tmp_path: Path
) -> None:
    outcome, whole_s = unbroken
    words = transfer(network, many, tmp_path)
    process = start(*words)
    signalled(process, whole_s * point / POINTS, signal.SIGKILL)
    assert ended(process).status in (-signal.SIGKILL, 0)
    assert program.run(words) == 0
    assert Outcome.of(tmp_path) == outcome


@pytest.fixture(scope="module")
def unbroken_augmented(network: Path, many: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, float]:
    return left_alone(network, many, tmp_path_factory.mktemp("augmented"), AUGMENTED)


@pytest.mark.parametrize("point", range(0, POINTS, 2))
def test_an_augmented_fit_killed_at_any_point_and_again_ends_as_if_never_killed(
    point: int, network: Path, many: Path, unbroken_augmented: tuple[Outcome, float], tmp_path: Path
) -> None:
    outcome, whole_s = unbroken_augmented
    words = transfer(network, many, tmp_path, AUGMENTED)
    for _ in range(2):
        process = start(*words)
        signalled(process, whole_s * point / POINTS, signal.SIGKILL)
        assert ended(process).status in (-signal.SIGKILL, 0)
    assert program.run(words) == 0
    assert Outcome.of(tmp_path) == outcome
    assert not list(tmp_path.rglob("state-*"))


def test_killed_again_and_again_it_gets_there(
    network: Path, many: Path, unbroken: tuple[Outcome, float], tmp_path: Path
) -> None:
    outcome, whole_s = unbroken
    words = transfer(network, many, tmp_path)
    for share in (0.5, 0.8, 0.6, 0.9):
        process = start(*words)
        signalled(process, whole_s * share, signal.SIGKILL)
        ended(process)
    assert program.run(words) == 0
    assert Outcome.of(tmp_path) == outcome


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("point", range(POINTS))
def test_stopped_at_any_point_it_says_so_in_one_sentence_and_goes_on(
    point: int,
    number: signal.Signals,
    network: Path,
    many: Path,
    unbroken: tuple[Outcome, float],
    tmp_path: Path,
) -> None:
    outcome, whole_s = unbroken
    words = transfer(network, many, tmp_path)
    process = start(*words)
    signalled(process, whole_s * point / POINTS, number)
    over = ended(process)
    if over.status == 0:  # it was faster than the signal
        assert (tmp_path / "out.safetensors").exists()
    else:
        assert (over.status, over.out, over.err.lstrip("\n")) == (130, "", STOPPED)
    assert program.run(words) == 0
    assert Outcome.of(tmp_path) == outcome


def test_three_at_once_do_it_once(network: Path, many: Path, unbroken: tuple[Outcome, float], tmp_path: Path) -> None:
    processes = [start(*transfer(network, many, tmp_path)) for _ in range(3)]
    endings = [ended(process) for process in processes]
    assert [ending.status for ending in endings] == [0, 0, 0], endings
    assert len({ending.out for ending in endings}) == 1
    assert Outcome.of(tmp_path) == unbroken[0]


def test_of_two_at_once_that_do_not_wait_one_is_refused(
    network: Path, many: Path, unbroken: tuple[Outcome, float], tmp_path: Path
) -> None:
    processes = [start(*transfer(network, many, tmp_path), "--no-wait") for _ in range(2)]
    first, second = sorted((ended(process) for process in processes), key=lambda ending: ending.status)
    assert (first.status, second.status) == (0, 2)
    assert second.out == ""
    assert second.err.startswith("error: ")
    assert second.err.endswith(" works on this run; wait for it or stop it\n")
    assert Outcome.of(tmp_path) == unbroken[0]


# Runs the command on a file system of that size, makes it large, runs it again, and takes out a copy of what is there.
ON_A_SMALL_DISK = """
disk=$1 size=$2; shift 2
mount -t tmpfs -o size=$size none "$disk" || exit 77
"$@" 2> "$disk.err" > "$disk.out"
echo $? > "$disk.status"
mount -o remount,size=64m "$disk"
"$@" > /dev/null || exit $?
cp -r "$disk" "$disk.copy"
"""


@pytest.mark.parametrize("size_kib", [4, 16, 32, 64, 200, 280, 320, 420, 560])
def test_a_disk_that_gets_full_is_one_sentence_and_the_rest_goes_on(
    size_kib: int, network: Path, many: Path, unbroken: tuple[Outcome, float], tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [sys.executable, "-m", "sparse_transfer", *transfer(network, many, disk)]
    try:
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", ON_A_SMALL_DISK, "sh", str(disk), f"{size_kib}k", *command],
            env=os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no file system can be mounted here")
    assert (done.returncode, done.stderr) == (0, "")
    status = int(disk.with_suffix(".status").read_text())
    said = disk.with_suffix(".err").read_text()
    if status == 0:
        assert (size_kib > 280, said) == (True, ""), "the features alone take 263 KiB"
    else:
        assert status == 1
        assert disk.with_suffix(".out").read_text() == ""
        assert said.startswith("error: ")
        assert "the disk is full" in said or "No space left on device" in said
        assert said.count("\n") == 1
    copy = disk.with_suffix(".copy")
    assert Outcome.of(copy) == unbroken[0]
    assert not list(copy.rglob("*.tmp"))


def test_a_full_disk_under_stdout_is_one_sentence(network: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with Path("/dev/full").open("w") as full:
        over = subprocess.run(
            [sys.executable, "-m", "sparse_transfer", "inspect", str(network)],
            env=os.environ | {"PYTHONPATH": str(SOURCE)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert over.returncode == 1
    assert over.stderr == "error: No space left on device\n"


@pytest.mark.parametrize(("words", "shown"), [([], True), (["--quiet"], False)], ids=["bar", "quiet"])
def test_a_terminal_has_a_bar_unless_it_is_to_be_quiet(
    words: list[str], shown: bool, network: Path, many: Path, tmp_path: Path
) -> None:
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "sparse_transfer", *transfer(network, many, tmp_path), *words],
        env=os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        seen = b""
        with suppress(OSError):  # EIO: the other side is closed
            while part := os.read(ours, 4096):
                seen += part
        assert process.wait() == 0
    os.close(ours)
    assert (b"features of train" in seen) is shown
    assert bool(seen) is shown
    assert load(tmp_path / "out.safetensors").head is not None
    assert len(list(records([tmp_path / "runs"]))) == 1
