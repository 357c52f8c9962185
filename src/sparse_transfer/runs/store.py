"""The folder of all runs: each run is whole or not finished, and is done once.

``<root>/<transfer>/<dataset>/<checkpoint>/seed<k>-<id>/``; a run done again with ``force`` stands beside it as
``seed<k>-<id>.2``, ``.3``, ... A lock beside the folders lets one process work on a run at a time.
"""

import errno
import itertools
import json
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sparse_transfer.core.errors import UserError
from sparse_transfer.core.files import atomic_write, locked, named, sha256, write_json
from sparse_transfer.core.progress import note
from sparse_transfer.metrics.confusion import Confusion
from sparse_transfer.runs import events
from sparse_transfer.runs.events import Event, EventLog
from sparse_transfer.runs.finished import (
    CONFUSION,
    HEAD,
    NETWORK,
    RESULT,
    RUN,
    STATES,
    FinishedRun,
    load,
    read_record,
)
from sparse_transfer.runs.identity import RunIdentity
from sparse_transfer.runs.record import RunRecord, RunResult, now
from sparse_transfer.runs.tolerant import encode, finite
from sparse_transfer.runs.trackers import TrackerFactory, Trackers, no_trackers

if TYPE_CHECKING:
    from sparse_transfer.models import Head

FULL = (errno.ENOSPC, errno.EDQUOT)


class Run:
    """A run in work: made by ``RunStore.open``. If ``finished`` is set on entering, there is nothing to do.

    record: what ``run.json`` holds.   folder: where the run's files go, ``state-*`` too.
    """

    def __init__(
        self,
        record: RunRecord,
        folder: Path,
        log: EventLog | None,
        trackers: Trackers,
        finished: FinishedRun | None = None,
    ) -> None:
        self.record = record
        self.folder = folder
        self.finished = finished
        self._log = log
        self._trackers = trackers
        self._started_s = time.monotonic()

    @property
    def network_path(self) -> Path:
        """Where the transferred network goes, when it is asked for; written before ``finish``."""
        return self.folder / NETWORK

    def log(self, event: Event) -> None:
        """Append one event to ``metrics.jsonl``, with the seconds since the start as ``t_s``, and tell the trackers."""
        self._in_work().append({**event, "t_s": round(time.monotonic() - self._started_s, 3)})
        self._trackers.log(event)

    def save_confusion(
        self,
        last: Confusion,
        *,
        best: Confusion | None = None,
        labels: NDArray[np.integer] | None = None,
        predictions: NDArray[np.integer] | None = None,
    ) -> None:
        """Keep the exact counts and, for tests image by image, labels [N] and the last head's predictions [N]."""
        self._in_work()
        arrays = {"last": last.counts, "classes": np.array(last.classes, dtype=np.str_)}
        if best is not None:
            arrays["best"] = best.counts
        if labels is not None and predictions is not None:
            arrays |= {"labels": labels.astype(np.int64), "predictions": predictions.astype(np.int64)}
        with atomic_write(self.folder / CONFUSION) as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    def save_head(self, head: "Head") -> None:
        """Keep the head that was fitted, float32, with its class names."""
        from safetensors.torch import save

        self._in_work()
        tensors = {"weight": head.weight.contiguous(), "bias": head.bias.contiguous()}
        with atomic_write(self.folder / HEAD) as file:
            file.write(save(tensors, {"classes": json.dumps(head.classes)}))

    def finish(self, result: RunResult) -> FinishedRun:
        """Write ``result.json``: from now on the run is finished. Digests, warnings and the time are filled in.

        The states that served an unfinished run (``runs/states.py``) are removed.
        """
        self._in_work()
        if result.identity.id != self.record.identity.id:
            raise ValueError("the result is of another run")
        files = [self.folder / name for name in (CONFUSION, HEAD, NETWORK)]
        result = replace(
            result,
            warnings=(*result.warnings, *self._trackers.warnings),
            digests={**result.digests, **{path.name: sha256(path) for path in files if path.exists()}},
            finished=now(),
        )
        clean, lost = finite(encode(replace(result, not_finite={})))
        assert isinstance(clean, dict)
        clean["not_finite"] = lost
        result = RunResult.from_json(clean)  # what cannot be read again is not written
        self.log({"event": "finish"})
        write_json(self.folder / RESULT, clean)
        self.finished = FinishedRun(self.folder, result)
        for state in self.folder.glob(STATES):
            state.unlink(missing_ok=True)
        reported = len(self._trackers.warnings)
        self._trackers.finish(result)  # after the result is safe: a tracker may wait for a network
        for warning in self._trackers.warnings[reported:]:
            self.log({"event": "warning", "warning": warning})
        self._close()
        return self.finished

    def start(self) -> None:
        """Tell the trackers and the log; called by ``RunStore.open``."""
        self._trackers.start(self.record, self.folder)
        self.log({"event": "start", "started": self.record.started})

    def leave(self, error: BaseException | None) -> None:
        """End the run; called by ``RunStore.open``. Without a result its files stay, for the next process to go on."""
        if self._log is None:
            return
        if self.finished is None:
            reason = "it ended without a result" if error is None else f"{type(error).__name__}: {error}"
            with suppress(OSError):  # what ended the run, a full disk perhaps, is what must be seen
                self._log.append({"event": "failed", "reason": reason})
            self._trackers.finish(None)
        self._close()

    def _in_work(self) -> EventLog:
        if self._log is None:
            raise RuntimeError(f"{self.folder} is finished")
        return self._log

    def _close(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None


class RunStore:
    """All runs below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, identity: RunIdentity) -> FinishedRun | None:
        """The newest finished run of that identity. A damaged result is named and counts as not finished."""
        found = None
        for folder in itertools.takewhile(Path.exists, self._attempts(identity)):
            found = load(folder, identity) or found
        return found

    @contextmanager
    def open(
        self, record: RunRecord, *, force: bool = False, wait: bool = True, trackers: TrackerFactory = no_trackers
    ) -> Generator[Run]:
        """Take the run's lock and go to work on it; ``run.finished`` is set if it was done before, by anyone.

        ``force`` does it again beside the finished one. An unfinished run's folder is taken up as it is. Leaving
        without ``finish`` leaves it unfinished.

        Raises:
            UserError: another process works on the run and ``wait`` is off; the folder cannot be made.
        """
        identity = record.identity
        with self._lock(identity, wait):
            finished = None if force else self.find(identity)
            if finished is not None:
                yield Run(record, finished.folder, None, Trackers(()), finished)
                return
            folder = next(path for path in self._attempts(identity) if load(path, identity) is None)
            run = _prepared(record, folder, Trackers(trackers()))
            try:
                run.start()
                yield run
            except BaseException as error:
                if isinstance(error, OSError) and error.errno in FULL:  # from whatever wrote into the folder
                    error.filename = error.filename or str(folder)
                run.leave(error)
                raise
            run.leave(None)

    @contextmanager
    def open_many(
        self,
        records: Sequence[RunRecord],
        *,
        force: bool = False,
        wait: bool = True,
        trackers: TrackerFactory = no_trackers,
    ) -> Generator[list[Run]]:
        """``open`` for the runs of one fit (its seeds), in the order given.

        Locks are taken in the order of their folders, so two processes with common seeds never wait for each other.
        """
        folders = [record.identity.folder for record in records]
        if len(set(folders)) < len(folders):
            twice = next(folder for folder in folders if folders.count(folder) > 1)
            raise UserError("the same run is asked for twice", where=twice, do="name each seed once")
        with ExitStack() as stack:
            runs = {
                record.identity.folder: stack.enter_context(
                    self.open(record, force=force, wait=wait, trackers=trackers)
                )
                for record in sorted(records, key=lambda record: record.identity.folder)
            }
            yield [runs[folder] for folder in folders]

    def _attempts(self, identity: RunIdentity) -> Iterator[Path]:
        """The run's own folder, then those of its repetitions, whether they exist or not."""
        folder = self.root / identity.folder
        yield folder
        yield from (folder.with_name(f"{folder.name}.{count}") for count in itertools.count(2))

    @contextmanager
    def _lock(self, identity: RunIdentity, wait: bool) -> Generator[None]:
        folder = self.root / identity.folder

        def taken() -> None:
            owner = self._owner(identity)
            if not wait:
                raise UserError(f"{owner} works on this run", where=folder, do="wait for it or stop it")
            note(f"{folder}: {owner} works on this run; waiting for it")

        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"no run can be kept here ({error.strerror})", where=self.root, do="name another folder with --runs"
            ) from None
        with locked(folder.with_name(f".{folder.name}.lock"), taken):
            yield

    def _owner(self, identity: RunIdentity) -> str:
        folders = list(itertools.takewhile(Path.exists, self._attempts(identity)))
        record = read_record(folders[-1] / RUN) if folders and (folders[-1] / RUN).exists() else None
        if record is None or record.pid is None:
            return "another process"
        return f"process {record.pid} on {record.host}"


def _prepared(record: RunRecord, folder: Path, trackers: Trackers) -> Run:
    with named(folder):
        folder.mkdir(exist_ok=True)
        for leftover in folder.glob(".*.tmp"):  # of a process killed while it wrote
            leftover.unlink()
        write_json(folder / RUN, record.to_json())
        return Run(record, folder, EventLog(folder / events.NAME), trackers)
