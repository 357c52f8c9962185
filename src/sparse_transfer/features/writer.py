"""One entry of the feature cache being written: features.npy by chunks, their journal, and about.json."""

import errno
import hashlib
import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from sparse_transfer.core import canonical
from sparse_transfer.core.canonical import Json
from sparse_transfer.core.files import atomic_write, sync_folder, write_text

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
