"""The table of contents of a zip file, read so strictly that every other reader must see the same entries.

A zip file says everything twice, in the directory at its end and in a header before each entry, and readers differ
in which they believe. Here both must agree, entries must follow each other without holes or overlaps from byte 0 to
the directory, and the directory must end where the file ends (APPNOTE.TXT 6.3.10, sections 4.3 and 4.4).
"""

import struct
import zlib
from dataclasses import dataclass
from typing import IO

from sparse_transfer.checkpoints.readers.refusal import ASK_AUTHORS, FETCH_AGAIN, Refusal, shown

STORED, DEFLATED = 0, 8
EXPANSION_MOST = 64  # times the file (1 MiB at least), all deflated entries together; zeros alone deflate 1,000-fold
DIRECTORY_BYTES_MOST = 16 << 20  # about 200,000 entries

_HAS_DESCRIPTOR, _UTF8 = 0x0008, 0x0800
_MAX16, _MAX32 = 0xFFFF, 0xFFFFFFFF
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")


@dataclass(frozen=True)
class Entry:
    """One member. ``start`` is where its ``packed_bytes`` begin in the file."""

    name: str
    method: int
    crc32: int
    packed_bytes: int
    size_bytes: int
    header: int
    start: int
    has_descriptor: bool

    @property
    def end(self) -> int:
        """One past the last packed byte."""
        return self.start + self.packed_bytes


def read_directory(file: IO[bytes], size: int) -> dict[str, Entry]:
    """Entries by name in the order of the directory; raises ``Refusal`` where two readers could disagree."""
    count, start, stop = _directory_place(file, size)
    file.seek(start)
    directory = file.read(stop - start)
    if not count:
        raise Refusal("the archive is empty")
    entries: dict[str, Entry] = {}
    folded: set[str] = set()
    place = 0
    for _ in range(count):
        entry, place = _entry(file, directory, place, start)
        name = entry.name.casefold()  # torch's reader (miniz) looks names up without regard to case
        if name in folded:
            raise Refusal(f"two entries of the archive are called {shown(entry.name)}", ASK_AUTHORS)
        folded.add(name)
        entries[entry.name] = entry
    if place != len(directory):
        raise Refusal("the archive's directory does not end where it says")
    _check_tiling(list(entries.values()), start)
    _check_expansion(list(entries.values()), size)
    return entries


def unpacked(packed: bytes, entry: Entry) -> bytes:
    """The bytes of an entry, whose size and CRC-32 are checked."""
    data = packed
    if entry.method == DEFLATED:
        machine = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            data = machine.decompress(packed, entry.size_bytes + 1)
        except zlib.error:
            raise Refusal(f"the archive's entry {shown(entry.name)} is damaged") from None
    if len(data) != entry.size_bytes:
        raise Refusal(f"the archive's entry {shown(entry.name)} does not have the {entry.size_bytes:,} bytes it says")
    check_crc(data, entry)
    return data


def check_crc(data: bytes | memoryview, entry: Entry) -> None:
    """Refuses bytes that are not the ones that were written."""
    if zlib.crc32(data) != entry.crc32:
        raise Refusal(
            f"the bytes of the archive's entry {shown(entry.name)} are not the ones that were written (CRC-32)",
            FETCH_AGAIN,
        )


def _directory_place(file: IO[bytes], size: int) -> tuple[int, int, int]:
    """Number of entries, first byte and end of the directory."""
    tail = _END.size + _LOCATOR64.size
    file.seek(max(0, size - tail))
    end = file.read(tail)
    if len(end) < _END.size or end[-_END.size :][:4] != b"PK\x05\x06":
        raise Refusal("the archive does not end with its directory: it is cut short, or something follows it")
    _, disk, start_disk, here, count, length, start, comment = _END.unpack(end[-_END.size :])
    if disk or start_disk or here != count or comment:
        raise Refusal("the archive has several parts or a comment, which torch never writes", ASK_AUTHORS)
    stop = size - _END.size
    locator = end[: -_END.size]
    if locator[:4] == b"PK\x06\x07":
        _, disk, record, disks = _LOCATOR64.unpack(locator)
        stop = size - tail - _END64.size
        if disk or disks != 1 or record != stop or stop < 0:
            raise Refusal("the archive's 64-bit directory is not where it says")
        file.seek(record)
        wide = _END64.unpack(file.read(_END64.size))
        small = (count, length, start)
        _, length64, _, _, disk, start_disk, here64, count, length, start = wide
        agrees = all(
            old in (new, ceiling)
            for old, new, ceiling in zip(small, (count, length, start), (_MAX16, _MAX32, _MAX32), strict=True)
        )
        if (
            wide[0] != b"PK\x06\x06"
            or length64 != _END64.size - 12
            or disk
            or start_disk
            or here64 != count
            or not agrees
        ):
            raise Refusal("the archive's two directories do not agree")
    if start + length != stop or length > DIRECTORY_BYTES_MOST or count * _CENTRAL.size > length:
        raise Refusal("the archive's directory is not where it says")
    return count, start, stop


def _entry(file: IO[bytes], directory: bytes, place: int, limit: int) -> tuple[Entry, int]:
    """The entry at ``place`` of the directory, held against its own header, and the next place."""
    fixed = directory[place : place + _CENTRAL.size]
    if len(fixed) < _CENTRAL.size or fixed[:4] != b"PK\x01\x02":
        raise Refusal("the archive's directory is damaged")
    (_, _, _, flags, method, _, _, crc, packed, size, name_length, extra_length, comment, disk, _, _, header) = (
        _CENTRAL.unpack(fixed)
    )
    place += _CENTRAL.size
    raw_name = directory[place : place + name_length]
    extra = directory[place + name_length : place + name_length + extra_length]
    place += name_length + extra_length + comment
    if place > len(directory) or disk:
        raise Refusal("the archive's directory is damaged")
    name = _name(raw_name)
    size, packed, header = _wide(extra, name, size, packed, header)
    if flags & ~(_HAS_DESCRIPTOR | _UTF8):
        raise Refusal(
            f"the archive's entry {shown(name)} is marked encrypted or special (flags {flags:#06x})", ASK_AUTHORS
        )
    if method not in (STORED, DEFLATED) or (method == STORED and packed != size):
        raise Refusal(f"the archive's entry {shown(name)} is packed in a way torch does not read", ASK_AUTHORS)
    file.seek(min(header, limit))
    local = file.read(_LOCAL.size)
    if len(local) < _LOCAL.size or local[:4] != b"PK\x03\x04":
        raise Refusal(f"the archive's entry {shown(name)} is not where the directory says")
    _, _, flags2, method2, _, _, crc2, packed2, size2, name_length2, extra_length2 = _LOCAL.unpack(local)
    raw_name2, extra2 = file.read(name_length2), file.read(extra_length2)
    has_descriptor = bool(flags & _HAS_DESCRIPTOR)
    if not (has_descriptor and crc2 == packed2 == size2 == 0):
        if _MAX32 in (packed2, size2):
            size2, packed2, _ = _wide(extra2, name, size2, packed2, 0)
        same = (crc2, packed2, size2) == (crc, packed, size)
    else:
        same = True
    if not same or (raw_name2, flags2, method2) != (raw_name, flags, method):
        raise Refusal(f"the archive describes its entry {shown(name)} in two ways that differ", ASK_AUTHORS)
    start = header + _LOCAL.size + name_length2 + extra_length2
    return Entry(name, method, crc, packed, size, header, start, has_descriptor), place


def _name(raw: bytes) -> str:
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise Refusal("an entry of the archive has a name that is not UTF-8", ASK_AUTHORS) from None
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or ".." in parts or name.startswith("/") or "" in parts[:-1]:
        raise Refusal(f"an entry of the archive has the unusual name {shown(name)}", ASK_AUTHORS)
    return name


def _wide(extra: bytes, name: str, size: int, packed: int, header: int) -> tuple[int, int, int]:
    """The 64-bit values that stand in the extra field (id 1) for those that are 0xFFFFFFFF, in this order."""
    narrow = [size, packed, header]
    wanted = [place for place, value in enumerate(narrow) if value == _MAX32]
    place, found = 0, False
    while wanted and place + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, place)
        body = extra[place + 4 : place + 4 + length]
        place += 4 + length
        if kind != 1:
            continue
        if found or len(body) < 8 * len(wanted):
            raise Refusal(f"the archive gives the size of its entry {shown(name)} twice or not at all", ASK_AUTHORS)
        found = True
        for slot, value in zip(wanted, struct.unpack_from(f"<{len(wanted)}Q", body), strict=True):
            narrow[slot] = value
    if wanted and not found:
        raise Refusal(f"the archive does not give the size of its entry {shown(name)}", ASK_AUTHORS)
    return narrow[0], narrow[1], narrow[2]


def _check_tiling(entries: list[Entry], limit: int) -> None:
    """Entries, each with its descriptor if it says so, fill the file from 0 to the directory."""
    ordered = sorted(entries, key=lambda entry: entry.header)
    if ordered[0].header:
        raise Refusal(f"{ordered[0].header:,} bytes stand before the archive's first entry", ASK_AUTHORS)
    for entry, after in zip(ordered, [*(entry.header for entry in ordered[1:]), limit], strict=True):
        # A descriptor is 12 or 20 bytes, 4 more with its signature; miniz leaves it out after an empty entry.
        gap = after - entry.end
        if gap and not (entry.has_descriptor and gap in (12, 16, 20, 24)):
            what = "overlaps what follows" if gap < 0 else "is followed by bytes that belong to no entry"
            raise Refusal(f"the archive's entry {shown(entry.name)} {what}", ASK_AUTHORS)


def _check_expansion(entries: list[Entry], size: int) -> None:
    grown = sum(entry.size_bytes for entry in entries if entry.method == DEFLATED)
    if grown > EXPANSION_MOST * max(size, 1 << 20):
        raise Refusal(f"the archive of {size:,} bytes would unfold to {grown:,}", ASK_AUTHORS)
