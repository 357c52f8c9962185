"""Files that are whole or absent: atomic writes, digests, locks."""

import hashlib
import json
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from sparse_transfer.core.canonical import Json
from sparse_transfer.core.errors import UserError

BLOCK_BYTES = 1 << 20


@contextmanager
def atomic_write(path: Path) -> Generator[IO[bytes]]:
    """Open a temporary file beside ``path``; on leaving, fsync it, rename it over ``path``, fsync the folder.

    A reader sees the old file or the whole new one, whatever happens in between. On an exception the
    temporary file is removed and ``path`` is untouched. The new file has the mode a plain ``open`` would give.
    An ``OSError`` names ``path``, unless it names another file already.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with named(path, instead_of=temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


@contextmanager
def named(path: Path, *, instead_of: Path | None = None) -> Generator[None]:
    """An ``OSError`` inside names ``path`` where the system named no file (a full disk), or ``instead_of``."""
    try:
        yield
    except OSError as error:
        if error.filename is None or error.filename == str(instead_of):
            error.filename = str(path)
        raise


@contextmanager
def locked(path: Path, taken: Callable[[], None]) -> Generator[None]:
    """Hold the lock file ``path``. Where another process holds it, ``taken`` says so, or raises; then we wait."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    with suppress(Timeout), named(path):
        lock.acquire(timeout=0)
    if not lock.is_locked:
        taken()
        lock.acquire(poll_interval=0.2)
    try:
        yield
    finally:
        lock.release()


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically; what is none, of a name on disk, as its escape, as on the terminal."""
    with atomic_write(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Json) -> None:
    """Write ``value`` for people to read, atomically. NaN and infinity raise ``ValueError``."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_lines(path: Path) -> list[str]:
    """The lines of a small text file that are not empty, stripped.

    Raises:
        UserError: it is missing, or no UTF-8 text.
    """
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        raise UserError("there is no such file", where=path) from None
    except UnicodeDecodeError:
        raise UserError("this is no text in UTF-8", where=path, do="save it as UTF-8, one name a line") from None
