"""Features on disk: a folder an entry, written by chunks with a checksum each, whole or visibly partial.

``ROOT/features/KEY/`` holds features.npy ([N, D] float32) and labels.npy ([N] int64), both memory-mappable,
about.json, and chunks.jsonl: one line {chunk, sha256, seconds} for each 512 rows. While it is built the folder is
called ``KEY.partial``; a chunk counts once its line is there and its checksum holds, so a killed extraction goes on at
the chunk where it stopped, and a damaged entry is made anew in its damaged chunks only.
"""

import errno
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from sparse_transfer.core.errors import UserError
from sparse_transfer.core.files import locked
from sparse_transfer.core.progress import note, warn
from sparse_transfer.features.writer import About, Writer


@dataclass(frozen=True)
class Entry:
    """One folder of the cache, as ``cache list`` shows it. ``about`` is None while the entry is partial."""

    folder: Path
    size_bytes: int
    last_used: float
    about: About | None

    @property
    def key(self) -> str:
        return self.folder.name.removesuffix(".partial")


def folder_of(root: Path, key: str) -> Path:
    return root / "features" / key


@contextmanager
def only_one(folder: Path, what: str) -> Generator[None]:
    """Hold the entry: one process works on it, another one that wants it waits and says so."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(Path(f"{folder}.lock"), lambda: note(f"{what}: another process is extracting them, waiting for it")):
        yield


@contextmanager
def explained(root: Path, needed_bytes: int) -> Generator[None]:
    """Say what a full disk or one that cannot be written means here. Finished chunks stay.

    Raises:
        OSError: the disk is full; ``filename`` is ``root``.
        UserError: the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(
                error.errno,
                f"the disk is full, and these features need {needed_bytes:,} bytes; what is done is kept, so "
                'free some space ("sparse-transfer cache prune --max-size SIZE") or name another place with --cache',
                str(root),
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise UserError(
                f"the cache cannot be written ({error.strerror})", where=root, do="name another place with --cache"
            ) from error
        raise


_verified: set[tuple[str, int, int]] = set()  # (path, mtime, size) of what this process has checked already


def damage(folder: Path, images: int, dim: int, labels: NDArray[np.int64]) -> str | None:
    """One sentence about what is wrong with a finished entry, or None. Bytes are checked once in a process.

    SHA-256 of 100,000 × 2048 features (800 MB) takes about 1 s.
    """
    try:
        About.read(folder / "about.json")
        if not np.array_equal(np.load(folder / "labels.npy"), labels):
            return "labels.npy holds other labels than the split"
        state = (folder / "features.npy").stat()
    except (OSError, ValueError, EOFError) as error:
        return f"it is not whole ({type(error).__name__})"
    seen = (str(folder), state.st_mtime_ns, state.st_size)
    if seen in _verified:
        return None
    writer = Writer(folder, images, dim)
    bad = writer.missing()
    if bad:
        return f"{len(bad)} of {writer.chunks} chunks of features.npy have another checksum than when they were written"
    _verified.add(seen)
    return None


def demote(folder: Path) -> None:
    """Call an entry partial again, so that its damaged chunks are made anew."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    folder.rename(partial)


def touch(folder: Path) -> None:
    """Note that the entry was used, for ``prune``. A cache that may only be read stays as it is."""
    with suppress(OSError):
        os.utime(folder / "about.json")


def entries(root: Path) -> list[Entry]:
    """What the cache holds, last used first."""
    place = root / "features"
    found = [_entry(folder) for folder in place.iterdir() if folder.is_dir()] if place.is_dir() else []
    return sorted(found, key=lambda entry: (-entry.last_used, entry.key))


def verify(root: Path) -> list[tuple[Entry, str | None]]:
    """Every finished entry with what is wrong with it, or None. Reads all bytes."""
    verdicts: list[tuple[Entry, str | None]] = []
    for entry in entries(root):
        if entry.folder.suffix == ".partial":
            continue
        if entry.about is None:
            verdicts.append((entry, "about.json is missing or unreadable"))
            continue
        writer = Writer(entry.folder, entry.about.images, entry.about.dim)
        bad = writer.missing()
        verdicts.append((entry, f"{len(bad)} of {writer.chunks} chunks are damaged" if bad else None))
    return verdicts


def prune(root: Path, max_bytes: int) -> list[Entry]:
    """Remove the entries used longest ago until at most ``max_bytes`` are left; gives what was removed.

    One that a process is working on stays. Who has one open can read on.
    """
    kept = entries(root)
    size, removed = sum(entry.size_bytes for entry in kept), list[Entry]()
    for entry in reversed(kept):
        if size <= max_bytes:
            break
        lock = FileLock(f"{folder_of(root, entry.key)}.lock")
        try:
            with lock.acquire(timeout=0):
                # Renamed first: a reader never sees half an entry.
                doomed = entry.folder.with_name(f"{entry.folder.name}.removed")
                entry.folder.rename(doomed)
                shutil.rmtree(doomed)
        except Timeout:
            continue
        except OSError as error:
            warn(f"{entry.folder}: cannot be removed ({error.strerror})")
            continue
        size -= entry.size_bytes
        removed.append(entry)
    return removed


def _entry(folder: Path) -> Entry:
    sizes = [file.stat().st_size for file in folder.iterdir() if file.is_file()]
    try:
        about = About.read(folder / "about.json")
        used = (folder / "about.json").stat().st_mtime
    except (OSError, ValueError):
        about, used = None, folder.stat().st_mtime
    return Entry(folder, sum(sizes), used, about)
