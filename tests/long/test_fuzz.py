"""A hundred thousand changed files of every container: no crash, no hang, no memory but 4 times the file and 256 MB."""

import faulthandler
import os
import signal
from collections.abc import Callable

import pytest

from support import fuzzing
from support.fuzzing import CASES, MEMORY_MOST, SECONDS_MOST, Case, fuzz

INPUTS = 100_000
pytestmark = pytest.mark.filterwarnings("ignore:invalid escape sequence")  # of pickletools, on damaged bytes


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", CASES)
def test_a_hundred_thousand_changed_files_are_read_or_refused(kind: str) -> None:
    found = fuzz(kind, range(1000, 1000 + INPUTS))
    assert found.inputs == INPUTS
    assert INPUTS // 1000 < found.read < INPUTS * 9 // 10  # the changes reach what is behind the first check
    assert found.slowest_s < SECONDS_MOST
    assert found.memory_bytes <= MEMORY_MOST + 4 * found.file_bytes


def crash() -> bytes:
    faulthandler.disable()  # pytest's, which would say so at length
    os.kill(os.getpid(), signal.SIGSEGV)
    return b""


def hang() -> bytes:
    while True:
        pass


@pytest.mark.parametrize(
    ("happens", "said"),
    [
        (crash, "the process ended with -11"),
        (hang, "the process ended with -27"),  # SIGPROF
        (lambda: bytes(16 * MEMORY_MOST), "MemoryError"),
        (lambda: b"x" if [].pop() else b"", "IndexError: pop from empty list"),
    ],
    ids=["crash", "hang", "memory", "exception"],
)
def test_whatever_ends_the_process_is_told_with_its_seed(
    happens: Callable[[], bytes], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail."""
    honest = CASES["safetensors"]
    monkeypatch.setattr(fuzzing, "SECONDS_MOST", 0.5)

    def broken(folder) -> Case:  # type: ignore[no-untyped-def]
        case = honest(folder)
        return Case(case.place, case.data, (lambda draw: happens(),))

    monkeypatch.setitem(CASES, "broken", broken)
    with pytest.raises(AssertionError, match=f"broken, seed 1 *: {said}"):
        fuzz("broken", range(10))


def test_a_file_that_is_read_otherwise_than_it_was_written_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        CASES,
        "broken",
        lambda folder: Case(folder / "x", CASES["safetensors"](folder).data, (), under_checksums={"another": "tree"}),
    )
    with pytest.raises(AssertionError, match="was read otherwise than it was written"):
        fuzz("broken", range(0, 400, 2))
