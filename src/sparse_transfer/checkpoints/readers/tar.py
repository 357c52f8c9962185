"""tar archives from a stream, read so strictly that every other reader must see the same files.

ustar, pax and GNU's long names; regular files and folders, nothing else: a link, a device or a second file of one name
refuses the archive. Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block"; GNU tar's manual,
"Basic Tar Format".
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from sparse_transfer.checkpoints.readers.refusal import ASK_AUTHORS, Refusal, shown
from sparse_transfer.core.files import BLOCK_BYTES

UNPACK = "unpack it where you trust it and name the file inside"
RECORD = 512  # bytes; headers and files are padded to it
HEADERS_MOST = 20_000  # a member has one or two
EXTRA_BYTES_MOST = 1 << 20  # of a long name or a pax header
NAME_BYTES_MOST, PART_BYTES_MOST = 1000, 255  # of a path, and of one name in it, as file systems have them

_KINDS = {b"1": "a link", b"2": "a link", b"K": "a link", b"3": "a device", b"4": "a device", b"6": "a pipe"}
_EMPTY = bytes(RECORD)


class Stream(Protocol):
    """What an archive is read from, once and forwards."""

    def read(self, count: int, /) -> bytes: ...


@dataclass(frozen=True)
class Member:
    """A regular file of the archive: its path with ``/``, its size, its content block by block."""

    name: str
    size_bytes: int
    blocks: Iterator[bytes]


@dataclass(frozen=True)
class _Header:
    name: bytes
    size_bytes: int
    kind: bytes


def is_tar(head: bytes) -> bool:
    """Whether the first 512 bytes of a file are the header of a tar archive."""
    return head[257:262] == b"ustar"


def members(stream: Stream) -> Iterator[Member]:
    """The files of an archive in its order, to its very end. Raises ``Refusal``.

    Each one's content must be used up, or left alone, before the next is asked for.
    """
    files: set[str] = set()
    folders: set[str] = set()
    for header, name in _headers(stream):
        path = _checked(name)
        if header.kind == b"5" or name.endswith("/"):
            if header.size_bytes:
                raise Refusal(f"the archive's folder {shown(path)} has {header.size_bytes:,} bytes", ASK_AUTHORS)
            _place_folder(path, files, folders)
        else:
            _place_file(path, files, folders)
            blocks = _content(stream, header.size_bytes)
            yield Member(path, header.size_bytes, blocks)
            for _ in blocks:
                pass


def _headers(stream: Stream) -> Iterator[tuple[_Header, str]]:
    """Every member's header with its whole name, which one or two members before it may give."""
    extra: dict[str, str] = {}
    count = 0
    while (header := _header(_exactly(stream, RECORD))) is not None:
        count += 1
        if count > HEADERS_MOST:
            raise Refusal(f"the archive has more than {HEADERS_MOST:,} headers", UNPACK)
        if header.kind in (b"x", b"g", b"L"):
            if header.size_bytes > EXTRA_BYTES_MOST:
                raise Refusal(f"the archive has a name of {header.size_bytes:,} bytes", ASK_AUTHORS)
            data = b"".join(_content(stream, header.size_bytes))
            more = {"path": _text(data.rstrip(b"\0"))} if header.kind == b"L" else _pax(data)
            said = {key for key in more if key in ("path", "size") or key.startswith("GNU.sparse")}
            if said & set(extra) or (header.kind == b"g" and said):
                raise Refusal("the archive describes a member in two ways", ASK_AUTHORS)
            extra |= {key: more[key] for key in said}
            continue
        name = extra.pop("path", None) or _text(header.name)
        if header.kind not in (b"0", b"\0", b"5", b"7") or any(key != "size" for key in extra):
            what = _KINDS.get(header.kind, "stored in a way that is not read")
            raise Refusal(f"the archive's member {shown(name)} is {what}", UNPACK)
        size = extra.pop("size", str(header.size_bytes))
        if not re.fullmatch(r"\d{1,18}", size, re.ASCII):
            raise Refusal(f"the archive gives its member {shown(name)} a size of {shown(size)}", ASK_AUTHORS)
        yield _Header(header.name, int(size), header.kind), name
    if extra:
        raise Refusal("the archive ends after the name of a member")
    if _exactly(stream, RECORD) != _EMPTY:
        raise Refusal("the archive goes on after its end", ASK_AUTHORS)
    while block := stream.read(BLOCK_BYTES):
        if block.strip(b"\0"):
            raise Refusal("the archive goes on after its end", ASK_AUTHORS)


def _header(record: bytes) -> _Header | None:
    """None for the empty record that ends an archive."""
    if record == _EMPTY:
        return None
    if _number(record[148:156]) != sum(record[:148]) + 8 * ord(" ") + sum(record[156:]):
        raise Refusal("a header of the archive is not what was written (checksum)")
    name, magic = record[:100].partition(b"\0")[0], record[257:263]
    if magic == b"ustar\0":
        prefix = record[345:500].partition(b"\0")[0]
        name = prefix + b"/" + name if prefix else name
    elif magic != b"ustar ":  # GNU's, which has times where the prefix stands
        raise Refusal("a member of the archive is of the tar before POSIX", UNPACK)
    return _Header(name, _number(record[124:136]), record[156:157])


def _number(field: bytes) -> int:
    """Octal digits, or GNU's binary with the first bit set."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:])
    digits = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]*", digits):
        raise Refusal("a header of the archive is damaged")
    return int(digits or b"0", 8)


def _pax(data: bytes) -> dict[str, str]:
    """Records of "LENGTH KEY=VALUE\\n", the length that of the whole record; the last of a key counts."""
    found: dict[str, str] = {}
    place = 0
    while place < len(data):
        match = re.match(rb"(\d{1,7}) ([^=\n]+)=", data[place : place + 300])
        stop = place + int(match[1]) if match else 0
        if match is None or not place + match.end() < stop <= len(data) or data[stop - 1 : stop] != b"\n":
            raise Refusal("a pax header of the archive is damaged")
        found[_text(match[2])] = _text(data[place + match.end() : stop - 1], is_name=match[2] in (b"path", b"size"))
        place = stop
    return found


def _text(raw: bytes, *, is_name: bool = True) -> str:
    try:
        return raw.decode(errors="strict" if is_name else "replace")
    except UnicodeDecodeError:
        raise Refusal("a name in the archive is not UTF-8", UNPACK) from None


def _checked(name: str) -> str:
    """The name as a path below the archive's root, without ``./`` in front; "" for the root itself."""
    parts = re.sub(r"^(\./)+", "", name).removesuffix("/").split("/")
    if parts in ([""], ["."]) and name:
        return ""
    is_odd = any(part in ("", ".", "..") or len(part.encode()) > PART_BYTES_MOST for part in parts)
    if is_odd or not name.isprintable() or "\\" in name or ":" in name or len(name.encode()) > NAME_BYTES_MOST:
        raise Refusal(f"the archive's member {shown(name)} would not lie in one folder with the others", UNPACK)
    return "/".join(parts)


def _place_file(path: str, files: set[str], folders: set[str]) -> None:
    """Refuses a file where another file or a folder is: some file systems make no difference between cases."""
    key = path.casefold()
    if key in folders or not key:
        raise _twice(path)
    _place_folder(path.rpartition("/")[0], files, folders)
    if key in files:
        raise _twice(path)
    files.add(key)


def _place_folder(path: str, files: set[str], folders: set[str]) -> None:
    key = path.casefold()
    around = {key[:place] for place, letter in enumerate(key) if letter == "/"} | {key}
    if around & files:
        raise _twice(path)
    folders |= around


def _twice(path: str) -> Refusal:
    return Refusal(f"two members of the archive are called {shown(path)}", ASK_AUTHORS)


def _content(stream: Stream, size: int) -> Iterator[bytes]:
    """The bytes of a member, whose padding is read too."""
    left = size
    while left:
        block = _exactly(stream, min(left, BLOCK_BYTES))
        left -= len(block)
        yield block
    _exactly(stream, -size % RECORD)


def _exactly(stream: Stream, count: int) -> bytes:
    parts: list[bytes] = []
    while count:
        part = stream.read(count)
        if not part:
            raise Refusal("the archive is cut short")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
