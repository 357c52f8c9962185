"""The command line in a process of its own: started, watched, stopped; and pictures enough to be stopped among."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import sparse_transfer
from sparse_transfer.checkpoints.file import load
from sparse_transfer.features.writer import CHUNK_ROWS
from sparse_transfer.runs.finished import records
from support.pictures import CLASSES, class_folders

T = TypeVar("T")

SOURCE = Path(sparse_transfer.__file__).parents[1]
# One head, quickly fitted: what takes time is the features.
QUICKLY = ("--seeds", "21,", "--l2", "0.01", "--threads", "1", "--workers", "1")
# What takes time is the fit: one head, three epochs of the pictures.
AUGMENTED = ("--augment", "--epochs", "3", "--lr", "0.05", "--seeds", "21,", "--threads", "1", "--workers", "1")
TRAIN_CHUNKS = 3
STOPPED = "interrupted: what was finished is kept, the same command goes on from there\n"


@dataclass(frozen=True)
class Ended:
    """A process that is over: exit status (negative for a signal that killed it), stdout, stderr."""

    status: int
    out: str
    err: str


def start(*words: object, **environment: str) -> subprocess.Popen[str]:
    """``python -m sparse_transfer WORDS`` with pipes for a terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", "sparse_transfer", *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"} | environment,
        preexec_fn=heed_interrupts,  # noqa: PLW1509 - it sets one signal and takes no lock
    )


def heed_interrupts() -> None:
    """A job that a shell put into the background ignores Ctrl-C, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def ended(process: subprocess.Popen[str], timeout_s: float = 120) -> Ended:
    out, err = process.communicate(timeout=timeout_s)
    return Ended(process.returncode, out, err)


def wait_for(look: Callable[[], T | None], process: subprocess.Popen[str], timeout_s: float = 120) -> T:
    """What ``look`` finds at last, while the process goes on."""
    stop = time.monotonic() + timeout_s
    while time.monotonic() < stop:
        found = look()
        if found:
            return found
        assert process.poll() is None, f"it ended too early: {ended(process)}"
        time.sleep(0.005)
    process.kill()
    raise AssertionError(f"nothing to be seen after {timeout_s} s")


def crowd(root: Path) -> Path:
    """The pictures of ``class_folders`` with 1,050 for training, by links: features in ``TRAIN_CHUNKS`` chunks."""
    class_folders(root)
    for name in CLASSES:
        folder = root / "train" / name
        for index in range(12, 350):
            os.link(folder / f"{index % 12:02d}.png", folder / f"{index:03d}.png")
    return root


def train_journal(cache: Path) -> bytes | None:
    """What chunks.jsonl of the unfinished training features of ``crowd`` holds, once a chunk is done."""
    for journal in cache.glob("features/*.partial/chunks.jsonl"):
        with suppress(FileNotFoundError):  # renamed this moment
            if journal.with_name("features.npy").stat().st_size > CHUNK_ROWS * 4 and b"\n" in journal.read_bytes():
                return journal.read_bytes()
    return None


@dataclass(frozen=True)
class Outcome:
    """What the ``transfer`` to a ``crowd`` left behind: equal for equal work, bit for bit."""

    correct: int
    predictions: bytes
    digest: str
    features: set[bytes]

    @classmethod
    def of(cls, place: Path) -> "Outcome":
        (found,) = records([place / "runs"])
        kept = found.predictions()
        assert kept is not None
        features = {path.read_bytes() for path in (place / "cache").glob("features/*/features.npy")}
        return cls(found.result.last.correct, kept[1].tobytes(), load(place / "out.safetensors").digest, features)


def transfer(network: Path, many: Path, place: Path, how: Sequence[str] = QUICKLY) -> list[str]:
    """The command whose ``Outcome`` is compared: all that it writes goes below ``place``."""
    return [
        "linear", str(network), f"folder:{many}", *how,
        "--runs", f"{place}/runs", "--cache", f"{place}/cache", "-o", f"{place}/out.safetensors",
    ]  # fmt: skip
