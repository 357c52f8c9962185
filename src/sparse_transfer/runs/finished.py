"""Finished runs, read: tolerant of what is new, never half-believing what is damaged."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from sparse_transfer.core.canonical import Json
from sparse_transfer.core.errors import UserError
from sparse_transfer.core.files import sha256
from sparse_transfer.core.progress import warn
from sparse_transfer.metrics.confusion import Confusion
from sparse_transfer.runs import events
from sparse_transfer.runs.events import read_events
from sparse_transfer.runs.identity import RunIdentity
from sparse_transfer.runs.record import RunRecord, RunResult

if TYPE_CHECKING:
    from sparse_transfer.models import Head

RUN, RESULT, CONFUSION = "run.json", "result.json", "confusion.npz"
HEAD, NETWORK = "head.safetensors", "network.safetensors"
STATES = "state-*.safetensors"  # of a run in work, by the number of updates


@dataclass(frozen=True)
class FinishedRun:
    """A run that has its ``result.json``, and what else lies in its folder."""

    folder: Path
    result: RunResult

    def record(self) -> RunRecord | None:
        """``run.json``; None, with a warning, if it cannot be read."""
        return read_record(self.folder / RUN)

    def events(self) -> list[dict[str, Json]]:
        return read_events(self.folder / events.NAME)

    def confusion(self, which: Literal["last", "best"] = "last") -> Confusion:
        """The exact counts; a file that is not the one that was written raises ``UserError``."""
        arrays = self._arrays()
        if which not in arrays:
            raise UserError(f'there is no confusion matrix of the "{which}" head', where=self.folder)
        return Confusion(arrays[which], tuple(arrays["classes"].tolist()))

    def predictions(self) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """(labels [N], predictions [N]) of the last head on the test images, if they were kept."""
        arrays = self._arrays()
        return (arrays["labels"], arrays["predictions"]) if "predictions" in arrays else None

    def head(self) -> "Head | None":
        """The head that was fitted, bit for bit, with its class names; None of a run that kept none."""
        from sparse_transfer.checkpoints.readers.safetensors_file import opened
        from sparse_transfer.models import Head

        path = self._as_written(HEAD)
        if path is None:
            return None
        with opened(path) as file:
            classes = tuple(json.loads(file.metadata()["classes"]))
            return Head(file.get_tensor("weight").clone(), file.get_tensor("bias").clone(), classes)

    def network(self) -> Path | None:
        """The file of the network that was trained; None of a run that kept none, or lost it."""
        return self._as_written(NETWORK)

    def _arrays(self) -> dict[str, NDArray[np.int64]]:
        path = self._as_written(CONFUSION)
        if path is None:
            raise UserError("there is no confusion matrix", where=self.folder)
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)

    def _as_written(self, name: str) -> Path | None:
        """The file of that name in the folder, if there is one; one that the run did not write is refused."""
        path = self.folder / name
        if not path.exists():
            return None
        if sha256(path) != self.result.digests.get(name):
            raise UserError("the file was changed after the run", where=path, do="run it again with --force")
        return path


def records(roots: Sequence[Path]) -> list[FinishedRun]:
    """All finished runs below the folders, each once, in the order of their paths; damaged ones are named, left out."""
    folders: set[Path] = set()
    for root in roots:
        if not root.is_dir():
            raise UserError("there is no such folder of runs", where=root, do="name the folder that --runs had")
        folders |= {path.parent.resolve() for path in root.rglob(RESULT)}
    finished = [(folder, _read_result(folder / RESULT)) for folder in sorted(folders)]
    return [FinishedRun(folder, result) for folder, result in finished if result is not None]


def load(folder: Path, identity: RunIdentity) -> FinishedRun | None:
    """The finished run in ``folder``, if there is one and it is of that identity."""
    result = _read_result(folder / RESULT)
    if result is not None and result.identity.id != identity.id:
        warn(f"{folder / RESULT}: it is the result of run {result.identity.id}; this run counts as not finished")
        return None
    return None if result is None else FinishedRun(folder, result)


def read_record(path: Path) -> RunRecord | None:
    """``run.json``; None, with a warning, if it cannot be read."""
    try:
        return RunRecord.from_json(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        warn(f"{path}: it cannot be read ({error})")
        return None


def _read_result(path: Path) -> RunResult | None:
    try:
        return RunResult.from_json(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        warn(f"{path}: it cannot be read ({error}); the run counts as not finished")
        return None
