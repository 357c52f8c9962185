"""tar archives: as Python's tarfile writes them, and member by member for what it would not write."""

import io
import tarfile
from collections.abc import Mapping

END = bytes(1024)


def tar_of(files: Mapping[str, bytes], *, form: int = tarfile.GNU_FORMAT) -> bytes:
    """An honest archive of those files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def member(
    name: str | bytes,
    data: bytes = b"",
    *,
    kind: bytes = b"0",
    size: bytes | None = None,
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
) -> bytes:
    """One member, header and padded content. ``size``: what its 12 bytes say instead of the true one."""
    raw = name.encode() if isinstance(name, str) else name
    number = b"%011o\0" % len(data) if size is None else size
    fields = [
        (raw, 100), (b"0000644\0", 8), (b"0000000\0", 8), (b"0000000\0", 8), (number, 12), (b"00000000000\0", 12),
        (b"        ", 8), (kind, 1), (link, 100), (magic, 8), (b"", 32), (b"", 32), (b"", 8), (b"", 8), (prefix, 155),
    ]  # fmt: skip
    return with_checksum(b"".join(field.ljust(width, b"\0") for field, width in fields)) + data + padding(len(data))


def with_checksum(header: bytes) -> bytes:
    """The header, 512 bytes in the end, with the sum that it should have."""
    header = header.ljust(512, b"\0")
    blank = header[:148] + b" " * 8 + header[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def padding(size: int) -> bytes:
    return bytes(-size % 512)


def pax(**records: str) -> bytes:
    """A pax header for the next member; ``_`` in a key is a dot."""
    return member("PaxHeaders/x", pax_records(records), kind=b"x")


def pax_records(records: Mapping[str, str]) -> bytes:
    lines: list[bytes] = []
    for key, value in records.items():
        rest = f" {key.replace('_', '.')}={value}\n".encode()
        length = len(rest)
        while length != len(rest) + len(str(length)):
            length = len(rest) + len(str(length))
        lines.append(str(length).encode() + rest)
    return b"".join(lines)
