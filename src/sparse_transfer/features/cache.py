"""Features on disk: a folder an entry, written by chunks with a checksum each, whole or visibly partial.

``ROOT/features/KEY/`` holds features.npy ([N, D] float32) and labels.npy ([N] int64), both memory-mappable,
about.json, and chunks.jsonl: one line {chunk, sha256, seconds} for each 512 rows. While it is built the folder is
called ``KEY.partial``; a chunk counts once its line is there and its checksum holds, so a killed extraction goes on at
the chunk where it stopped, and a damaged entry is made anew in its damaged chunks only.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from sparse_transfer.core import canonical
from sparse_transfer.core.canonical import Json
from sparse_transfer.core.errors import UserError
from sparse_transfer.core.files import atomic_write, sync_folder, write_text
from sparse_transfer.core.progress import note, warn

CHUNK_ROWS = 512
"""Rows that a kill may cost: at 50 images/s some 10 s of work; 4 MiB at D = 2048."""


@dataclass(frozen=True)
class About:
    """Where the features of an entry come from.

    key, backbone, fingerprint: SHA-256.   split: its name.   images: N.   dim: D.   seconds: spent on extraction, over
    all attempts.   created: UTC, ISO 8601.   versions: of the libraries that decoded and computed.
    """

    key: str
    backbone: str
    architecture: str
    split: str
    fingerprint: str
    transform: Mapping[str, object]
    view: Mapping[str, object] | None
    numerics: str
    engine: str
    images: int
    dim: int
    seconds: float = 0.0
    created: str = ""
    versions: dict[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def read(cls, path: Path) -> "About":
        """Unknown entries are ignored; what is no about.json raises ``ValueError`` or ``OSError``."""
        from pydantic import TypeAdapter

        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise ValueError("about.json holds no object")
        known = {item.name for item in fields(cls)}
        return TypeAdapter(cls).validate_python({name: item for name, item in value.items() if name in known})


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


class Writer:
    """features.npy in the making; also what checks a finished one.

    Rows are written with plain writes, never through a memory map: a full disk is then an ``OSError``, not a SIGBUS.
    """

    def __init__(self, folder: Path, images: int, dim: int) -> None:
        self.folder, self.images, self.dim = folder, images, dim
        buffer = BytesIO()
        header = {"descr": "<f4", "fortran_order": False, "shape": (images, dim)}
        np.lib.format.write_array_header_1_0(buffer, header)
        self._header = buffer.getvalue()

    @property
    def chunks(self) -> int:
        return -(-self.images // CHUNK_ROWS)

    def rows(self, chunk: int) -> range:
        """The rows of a chunk; the last one may be shorter."""
        return range(chunk * CHUNK_ROWS, min((chunk + 1) * CHUNK_ROWS, self.images))

    def missing(self) -> list[int]:
        """Chunks without a line in the journal, or whose bytes have another checksum than it says."""
        journal = self._journal()
        try:
            with (self.folder / "features.npy").open("rb") as file:
                if file.read(len(self._header)) != self._header:
                    return list(range(self.chunks))
                return [
                    chunk for chunk in range(self.chunks) if self._digest(file, chunk) != journal.get(chunk, ("",))[0]
                ]
        except FileNotFoundError:
            return list(range(self.chunks))

    def seconds(self) -> float:
        return sum(seconds for _, seconds in self._journal().values())

    @contextmanager
    def writing(self) -> Generator[None]:
        """Reserve the whole file first, so that a full disk shows before hours of work and not after."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (
            open_for_update(self.folder / "features.npy") as self._file,
            (self.folder / "chunks.jsonl").open("ab") as self._log,
        ):
            if self._log.tell():
                self._log.write(b"\n")  # ends a line that a kill has torn
            self._file.write(self._header)
            reserve(self._file, len(self._header) + self.images * self.dim * 4)
            yield
            for file in (self._file, self._log):
                file.flush()
                os.fsync(file.fileno())

    def write(self, chunk: int, rows: NDArray[np.float32], seconds: float) -> None:
        """Rows [rows of the chunk, D], then their line in the journal."""
        data = np.ascontiguousarray(rows, dtype="<f4").tobytes()
        self._file.seek(self._offset(chunk))
        self._file.write(data)
        self._file.flush()
        line: Json = {"chunk": chunk, "sha256": hashlib.sha256(data).hexdigest(), "seconds": round(seconds, 3)}
        self._log.write(canonical.dumps(line).encode() + b"\n")
        self._log.flush()

    def finish(self, labels: NDArray[np.int64], about: About) -> Path:
        """Add labels and about.json and give the folder its name."""
        with atomic_write(self.folder / "labels.npy") as file:
            np.save(file, labels)
        write_text(self.folder / "about.json", json.dumps(asdict(about), indent=1))
        whole = self.folder.with_name(about.key)
        self.folder.rename(whole)
        sync_folder(whole.parent)
        return whole

    def _offset(self, chunk: int) -> int:
        return len(self._header) + chunk * CHUNK_ROWS * self.dim * 4

    def _digest(self, file: IO[bytes], chunk: int) -> str:
        file.seek(self._offset(chunk))
        return hashlib.sha256(file.read(len(self.rows(chunk)) * self.dim * 4)).hexdigest()

    def _journal(self) -> dict[int, tuple[str, float]]:
        """Chunk -> (SHA-256, seconds); the last line of a chunk holds, a torn line is none."""
        lines: dict[int, tuple[str, float]] = {}
        with suppress(FileNotFoundError):
            for line in (self.folder / "chunks.jsonl").read_bytes().splitlines():
                with suppress(ValueError, KeyError, TypeError):
                    entry = json.loads(line)
                    lines[int(entry["chunk"])] = str(entry["sha256"]), float(entry["seconds"])
        return lines


def folder_of(root: Path, key: str) -> Path:
    return root / "features" / key


@contextmanager
def only_one(folder: Path, what: str) -> Generator[None]:
    """Hold the entry: one process works on it, another one that wants it waits and says so."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{folder}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        note(f"{what}: another process is extracting them, waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def explained(root: Path, needed_bytes: int) -> Generator[None]:
    """Say what a full disk or one that cannot be written means here. Finished chunks stay.

    Raises:
        OSError: the disk is full.
        UserError: the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(
                error.errno,
                f"{root}: the disk is full, and these features need {needed_bytes:,} bytes; what is done is kept, so "
                'free some space ("sparse-transfer cache prune --max-size SIZE") or name another place with --cache',
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


def open_for_update(path: Path) -> IO[bytes]:
    """Open for reading and writing, made if absent, never emptied."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")


def reserve(file: IO[bytes], size_bytes: int) -> None:
    """Give the file exactly that size, with its blocks allocated where the system can (``OSError`` if it is full)."""
    file.flush()
    file.truncate(size_bytes)
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    try:
        os.posix_fallocate(file.fileno(), 0, size_bytes)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot reserve
            raise


def _entry(folder: Path) -> Entry:
    sizes = [file.stat().st_size for file in folder.iterdir() if file.is_file()]
    try:
        about = About.read(folder / "about.json")
        used = (folder / "about.json").stat().st_mtime
    except (OSError, ValueError):
        about, used = None, folder.stat().st_mtime
    return Entry(folder, sum(sizes), used, about)
