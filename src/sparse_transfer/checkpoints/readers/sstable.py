"""LevelDB's sorted table, as TensorFlow writes it: blocks of sorted keys with checksums, an index of blocks, a footer.

Source: google/leveldb, doc/table_format.md; tensorflow/core/lib/io/{format,block,table_builder}.cc.
"""

from collections.abc import Iterator
from pathlib import Path

from sparse_transfer.checkpoints.readers.crc32c import crc32c, masked
from sparse_transfer.checkpoints.readers.refusal import ASK_AUTHORS, Refusal
from sparse_transfer.checkpoints.readers.wire import varint

TABLE_MAGIC = bytes.fromhex("57fb808b247547db")  # the last bytes of the file
TABLE_BYTES_MOST = 64 << 20  # a ResNet-50 with its optimiser takes 30 KB: values are records of where tensors lie
KEY_BYTES_MOST = 1000  # a key may repeat its neighbour's for one byte: without a limit 64 MB would name terabytes
ENTRIES_MOST = 200_000
FOOTER_BYTES = 48

Pair = tuple[bytes, bytes]


def read_table(path: Path) -> Iterator[Pair]:
    """Keys and values in the order of the keys. Every checksum is verified. Raises ``Refusal``."""
    size = path.stat().st_size
    if size > TABLE_BYTES_MOST:
        raise Refusal(f"an index of {size:,} bytes is more than any network needs", ASK_AUTHORS)
    data = path.read_bytes()
    if len(data) < FOOTER_BYTES or not data.endswith(TABLE_MAGIC):
        raise Refusal("it does not end as an index of TensorFlow does: it is cut short")
    footer = data[-FOOTER_BYTES:]
    start, length, place = _handle(footer, 0)
    _block(data, start, length)  # of facts about the table, which TensorFlow leaves empty
    start, length, _ = _handle(footer, place)
    previous, end, count = None, 0, 0
    for _, value in _entries(_block(data, start, length)):
        start, length, _ = _handle(value, 0)
        if start < end:
            raise Refusal("two blocks of its index overlap", ASK_AUTHORS)
        end = start + length
        for key, content in _entries(_block(data, start, length)):
            if previous is not None and key <= previous:
                raise Refusal("the names in its index are not in order", ASK_AUTHORS)
            count += 1
            if count > ENTRIES_MOST:
                raise Refusal(f"its index has more than {ENTRIES_MOST:,} entries", ASK_AUTHORS)
            previous = key
            yield key, content


def _handle(data: bytes, place: int) -> tuple[int, int, int]:
    """Where a block starts, its length, and where the handle ends."""
    start, place = varint(data, place)
    length, place = varint(data, place)
    return start, length, place


def _block(data: bytes, start: int, length: int) -> bytes:
    """A block's content; after it stand a byte that says how it is packed, and the checksum of both."""
    if start + length + 5 > len(data) - FOOTER_BYTES:
        raise Refusal("its index points past its end")
    content, kind = data[start : start + length], data[start + length]
    stored = int.from_bytes(data[start + length + 1 : start + length + 5], "little")
    if masked(crc32c(data[start : start + length + 1])) != stored:
        raise Refusal("a part of its index is not what was written (CRC-32C)")
    if kind:
        raise Refusal(
            "its index is packed (snappy), which TensorFlow does not do to checkpoints",
            "restore it in TensorFlow and save it again",
        )
    return content


def _entries(block: bytes) -> Iterator[Pair]:
    """Each entry: length shared with the key before, length of the rest, length of the value, rest of key, value."""
    restarts = int.from_bytes(block[-4:], "little")
    stop = len(block) - 4 - 4 * restarts
    if len(block) < 4 or stop < 0:
        raise Refusal("a part of its index is damaged")
    entries = block[:stop]
    place, key = 0, b""
    while place < stop:
        shared, place = varint(entries, place)
        rest, place = varint(entries, place)
        length, place = varint(entries, place)
        if shared > len(key) or place + rest + length > stop:
            raise Refusal("an entry of its index reaches past its end")
        if shared + rest > KEY_BYTES_MOST:
            raise Refusal(f"a name in its index has {shared + rest:,} bytes", ASK_AUTHORS)
        key = key[:shared] + entries[place : place + rest]
        place += rest + length
        yield key, entries[place - length : place]
