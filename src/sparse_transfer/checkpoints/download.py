"""Fetch one file: taken up where it stopped, and whole and verified or not there at all.

What has arrived lies in ``FILE.part``, and ``FILE.part.json`` says of which version of which file it is. A part is gone
on with only where the server shows that it still has that version (RFC 9110, 13.1.5 and 14.2), so no two are glued.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlparse

from sparse_transfer.checkpoints.web import Answer, BeyondTheEnd, Broken, a_page, ask, host, is_page
from sparse_transfer.core import canonical
from sparse_transfer.core.errors import UserError
from sparse_transfer.core.files import locked, sync_folder, write_text
from sparse_transfer.core.files import sha256 as digest_of
from sparse_transfer.core.progress import progress, warn

BROWSER = "fetch it in a browser"


@dataclass(frozen=True)
class Patience:
    """What a download bears.

    stall_s: seconds without a byte.   tries: in a row that bring nothing new; the pause between them doubles from
    pause_s.   most_bytes: of a file; no published checkpoint comes near it.
    """

    stall_s: float = 30.0
    tries: int = 4
    pause_s: float = 1.0
    most_bytes: int = 8 << 30


@dataclass(frozen=True)
class Version:
    """Which file a server has, by what it says of it. ``size`` in bytes, None where it does not say."""

    address: str
    etag: str | None
    modified: str | None
    size: int | None

    @property
    def condition(self) -> str | None:
        """For ``If-Range``: a strong ETag, else the date; a weak ETag does not promise equal bytes."""
        strong = None if self.etag is None or self.etag.startswith("W/") else self.etag
        return strong or self.modified

    def is_still(self, now: "Version") -> bool:
        return self.condition == now.condition and self.size in (None, now.size)


def download(address: str, target: Path, *, sha256: str | None = None, patience: Patience | None = None) -> str:
    """Fetch ``address`` into ``target``, by way of ``target.part``; the SHA-256 of the file, 64 hex digits.

    sha256: what it must be, or its first digits. Without it all that is known is that the length is the server's.

    Raises:
        UserError: the host is gone, refuses, or sends a page or other bytes than it should. What the same command can
            go on with is kept, after an interrupt too.
        OSError: the disk is full; ``filename`` is the part.
    """
    if urlparse(address).scheme not in ("http", "https"):
        raise UserError("this is no address on the web", where=address, do="it begins with https://")
    patience = patience or Patience()
    part = target.with_name(f"{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone(part):
        if target.exists():
            return _there_already(target, sha256)
        size = _fetch(address, part, patience)
        found = digest_of(part)
        if sha256 is not None and not found.startswith(sha256.lower()):
            _forget(part)
            raise UserError(
                f"{host(address)} sends a file with SHA-256 {found[: len(sha256)]}, and it should be {sha256.lower()}",
                where=target,
                do="nothing was kept: fetch it again, and look at its page if it stays so",
            )
        part.replace(target)
        sync_folder(target.parent)
        _forget(part)
    if size is None and sha256 is None:
        warn(f"{target}: its server does not say how long it is, so whether it is whole is not known")
    return found


def _there_already(target: Path, sha256: str | None) -> str:
    found = digest_of(target) if target.is_file() else ""
    if sha256 is not None and found.startswith(sha256.lower()):
        return found
    raise UserError("something of that name is there already", where=target, do="remove it, or name another with -o")


def _fetch(address: str, part: Path, patience: Patience) -> int | None:
    """Try until the part is whole; its length as the server says it."""
    in_vain = 0
    while True:
        before = _length(part)
        try:
            return _transfer(address, part, patience)
        except Broken as broken:
            in_vain = in_vain + 1 if _length(part) <= before else 1
            if in_vain >= patience.tries:
                raise UserError(
                    f"{broken}; {_length(part):,} bytes are kept",
                    where=part.with_suffix(""),
                    do="the same command goes on from there",
                ) from broken
            time.sleep(patience.pause_s * 2 ** (in_vain - 1))


def _transfer(address: str, part: Path, patience: Patience) -> int | None:
    """One request: for the rest of the part if its server still has that version, else for the whole file."""
    known = _read_version(part, address)
    start = _length(part) if known is not None and known.condition is not None else 0
    if start and known is not None and known.size is not None:
        start = min(start, known.size - 1)  # of a part that is whole the last byte is asked for: still that version?
    headers = {"Range": f"bytes={start}-", "If-Range": known.condition or ""} if start and known is not None else {}
    try:
        with ask(address, headers, stall_s=patience.stall_s) as answer:
            first, version = _what_comes(answer, start)
            if not first or (known is not None and known.is_still(version)):
                _require_room(part, version, first, patience)
                if not first:
                    _forget(part)
                    write_text(_notes(part), canonical.dumps(asdict(version)))
                _receive(answer, part, first, version, patience)
                return version.size
    except BeyondTheEnd:
        pass
    _forget(part)  # the server has another version now
    return _transfer(address, part, patience)


def _what_comes(answer: Answer, start: int) -> tuple[int, Version]:
    """The first byte that comes, and of which version of the file."""
    status, length = answer.response.status, answer.header("Content-Length") or ""
    first, size = 0, int(length) if length.isdecimal() else None
    if status == 206:
        stated = answer.header("Content-Range") or ""
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", stated)
        if match is None or int(match[1]) != start or not start <= int(match[2]) < int(match[3]):
            raise UserError(
                f'the host {host(answer.address)} was asked for the bytes from {start:,} and sends "{stated[:60]}"',
                where=answer.address,
                do=BROWSER,
            )
        first, size = start, int(match[3])
    elif status != 200:
        raise UserError(f"the host {host(answer.address)} answers {status}", where=answer.address, do=BROWSER)
    return first, Version(answer.address, answer.header("ETag"), answer.header("Last-Modified"), size)


def _receive(answer: Answer, part: Path, first: int, version: Version, patience: Patience) -> None:
    """Write what comes from byte ``first`` on into the part. Raises ``Broken`` where it ends early."""
    most = patience.most_bytes if version.size is None else version.size
    position = first
    try:
        with (
            part.open("r+b" if first else "wb") as file,
            progress(part.stem, version.size or 0, unit="bytes", done=first) as advance,
        ):
            file.truncate(first)
            file.seek(first)
            while block := answer.block():
                if position == 0 and is_page(block):
                    raise a_page(block, version.address)
                position += len(block)
                if position > most:
                    raise UserError(f"more than its {most:,} bytes come", where=version.address, do=BROWSER)
                file.write(block)
                advance(len(block))
            file.flush()
            os.fsync(file.fileno())
        if position == 0 and not version.size:
            raise UserError(f"the host {host(version.address)} sends an empty file", where=version.address, do=BROWSER)
    except UserError:
        _forget(part)
        raise
    except OSError as error:  # of the disk: the network's are Broken
        raise OSError(error.errno, f"{error.strerror} ({position:,} bytes have come)", str(part)) from error
    if version.size is not None and position < version.size:
        raise Broken(f"the host {host(version.address)} stopped after {position:,} of {version.size:,} bytes")


def _require_room(part: Path, version: Version, first: int, patience: Patience) -> None:
    if version.size is None:
        return
    if version.size > patience.most_bytes:
        raise UserError(
            f"its host says that it has {version.size:,} bytes, and at most {patience.most_bytes:,} are fetched",
            where=version.address,
            do=f"{BROWSER} if that is right",
        )
    free = shutil.disk_usage(part.parent).free + (0 if first else _length(part))
    if version.size - first > free:
        raise UserError(
            f"{version.size - first:,} bytes are to come and {free:,} are free", where=part.parent, do="make room there"
        )


@contextmanager
def _alone(part: Path) -> Generator[None]:
    """One process on a part."""
    lock = Path(f"{part}.lock")

    def taken() -> NoReturn:
        raise UserError("another process is fetching it", where=part.with_suffix(""), do="wait for it")

    with locked(lock, taken):
        try:
            yield
        finally:
            if not part.exists():  # nothing to guard any more; who waits finds the file itself
                lock.unlink(missing_ok=True)


def _read_version(part: Path, address: str) -> Version | None:
    """Of which file the part is; None where nothing says so, or where it is that of another address."""
    try:
        version = Version(**json.loads(_notes(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return version if version.address == address else None


def _notes(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _notes(part).unlink(missing_ok=True)


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
