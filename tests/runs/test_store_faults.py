"""What is left when the machine fails in the middle: every system call of a run fails, or kills, in turn."""

import errno
import json
import os
import signal
import subprocess
from collections.abc import Generator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
import torch

from sparse_transfer.models import Head
from sparse_transfer.runs.events import read_events
from sparse_transfer.runs.finished import records
from sparse_transfer.runs.record import RunResult
from sparse_transfer.runs.store import RunStore
from support.faults import at_call, in_child, killed
from support.runs import confusion, identity, record, result

HEAD = Head(torch.ones(2, 3), torch.zeros(2), ("cat", "dog"))


def do(store: RunStore, seed: int) -> None:
    with store.open(record(identity(seed))) as run:
        if run.finished is None:
            run.log({"event": "epoch", "epoch": 1, "test_top1": 0.5})
            run.save_head(HEAD)
            run.save_confusion(confusion())
            run.network_path.write_bytes(b"weights")
            run.finish(result(identity(seed)))


def error_of(machine: AbstractContextManager[object], store: RunStore) -> OSError | None:
    """What a run ends with on that machine."""
    try:
        with machine:
            do(store, 51)
    except OSError as error:
        return error
    return None


def calls_of_a_run(store: RunStore) -> list[str]:
    """The system calls of a second run in that store."""
    do(store, 21)
    with at_call(-1, lambda: None) as made:
        do(store, 51)
    return list(made)


def check(store: RunStore, capsys: pytest.CaptureFixture[str]) -> None:
    """The earlier run is whole; the broken one is absent or whole, and can be done."""
    before = capsys.readouterr().err
    assert "warning" not in before, before
    found = {run.result.identity.seed: run for run in records([store.root])}
    assert 21 in found
    for run in found.values():
        assert RunResult.from_json(json.loads((run.folder / "result.json").read_text())) == run.result
        assert run.confusion().correct == confusion().correct
        assert run.head() is not None
        assert run.record() is not None
        assert "finish" in [event["event"] for event in run.events()]
    for log in store.root.rglob("metrics.jsonl"):
        read_events(log)
    do(store, 51)
    assert {run.result.identity.seed for run in records([store.root])} >= {21, 51}
    assert not list(store.root.rglob("*.tmp"))
    assert capsys.readouterr().err == ""  # nothing was damaged, no line was lost in the middle


def test_a_process_killed_at_any_system_call_leaves_each_run_whole_or_not_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = calls_of_a_run(RunStore(tmp_path / "count"))
    assert {"open", "write", "mkdir"} <= set(made)
    # run.json, the head, the counts and the result: each is synced, renamed, and its folder synced
    assert [name for name in made if name in ("fsync", "replace")] == ["fsync", "replace", "fsync"] * 4
    for number in range(len(made)):
        store = RunStore(tmp_path / str(number))
        do(store, 21)

        def work(number: int = number, store: RunStore = store) -> None:
            with at_call(number, killed):
                do(store, 51)

        assert in_child(work) == -signal.SIGKILL, f"call {number}, {made[number]}"
        check(store, capsys)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_an_error_of_any_system_call_is_shown_with_its_file_and_spoils_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    made = calls_of_a_run(RunStore(tmp_path / "count"))

    def fails() -> None:
        raise OSError(code, os.strerror(code))

    for number, name in enumerate(made):
        store = RunStore(tmp_path / str(number))
        do(store, 21)
        error = error_of(at_call(number, fails), store)
        if error is None:
            assert name == "mkdir"  # of a folder that is there already
        else:
            assert error.errno == code
            assert str(store.root) in str(error), f"call {number}, {name}"
        check(store, capsys)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Generator[Path]:
    """A real file system of 256 KiB, where this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this user may not mount a file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_full_at_any_byte_is_an_error_that_names_the_file(
    tiny_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = RunStore(tiny_disk / "runs")
    do(store, 21)
    page = os.sysconf("SC_PAGE_SIZE")
    ballast = tiny_disk / "ballast"
    for pages in range(12):  # so many pages are left when the run begins
        free = os.statvfs(tiny_disk).f_bavail * page
        ballast.write_bytes(bytes(max(0, free - pages * page)))
        error = error_of(nullcontext(), store)
        if error is None:
            break
        assert error.errno == errno.ENOSPC
        assert str(tiny_disk) in str(error)
        assert [run.result.identity.seed for run in records([store.root])] == [21]
        ballast.unlink()
    assert 3 <= pages < 11  # the disk was full at several places, and sufficed in the end
    ballast.unlink()
    check(store, capsys)


def test_a_line_that_did_not_fit_is_taken_back(tiny_disk: Path) -> None:
    store = RunStore(tiny_disk / "runs")

    def work() -> None:
        with store.open(record()) as run:
            while True:
                run.log({"event": "epoch", "text": "x" * 1000})

    with pytest.raises(OSError, match=r"No space left on device: .*metrics\.jsonl"):
        work()
    path = store.root / identity().folder / "metrics.jsonl"
    assert path.read_bytes().endswith(b"\n")
    assert len(read_events(path)) == path.read_bytes().count(b"\n") > 100


@pytest.mark.long
def test_a_process_killed_at_any_moment_leaves_each_run_whole_or_not_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """200 children are killed by the clock, 0.1 to 20 ms after they began; a run takes about 10 ms."""
    killed_in_time = 0
    for number in range(200):
        store = RunStore(tmp_path / str(number))
        do(store, 21)
        child = os.fork()
        if child == 0:
            try:
                # First to die at once: until then the alarm is pytest-timeout's, whose exception would let a second
                # pytest go on in this child.
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.setitimer(signal.ITIMER_REAL, (number + 1) * 1e-4)
                do(store, 51)
            finally:
                os._exit(0)
        killed_in_time += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGALRM
        check(store, capsys)
    assert killed_in_time >= 10
