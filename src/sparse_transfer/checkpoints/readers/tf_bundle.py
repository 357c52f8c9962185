"""TensorFlow's checkpoints (Saver V2, since 0.12): ``PREFIX.index``, a table of what lies where in ``PREFIX.data-*``.

Source: tensorflow/core/protobuf/tensor_bundle.proto, tensorflow/core/util/tensor_bundle/tensor_bundle.cc.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sparse_transfer.checkpoints.readers.container import Container, LazyTensor, Tree
from sparse_transfer.checkpoints.readers.crc32c import crc32c, masked
from sparse_transfer.checkpoints.readers.refusal import ASK_AUTHORS, FETCH_AGAIN, Refusal, refusals_of, shown
from sparse_transfer.checkpoints.readers.sstable import read_table
from sparse_transfer.checkpoints.readers.storage import DIMENSIONS_MOST, bytes_of, read_bytes, values
from sparse_transfer.checkpoints.readers.wire import fields, signed

SAVE_AGAIN = "restore it in TensorFlow and save it with tf.compat.v1.train.Saver"
SHARDS_MOST = 99_999  # their numbers have five digits
VERSION = 1  # of the layout, which is the only one there has been

# tensorflow/core/framework/types.proto
DTYPES = {
    1: torch.float32,
    2: torch.float64,
    3: torch.int32,
    4: torch.uint8,
    5: torch.int16,
    6: torch.int8,
    8: torch.complex64,
    9: torch.int64,
    10: torch.bool,
    14: torch.bfloat16,
    17: torch.uint16,
    18: torch.complex128,
    19: torch.float16,
    22: torch.uint32,
    23: torch.uint64,
}
TEXT = 7


@dataclass(frozen=True)
class Header:
    """Of the whole bundle: in how many files its tensors lie, and in which order the bytes of a number stand."""

    shards: int = 0
    is_big_endian: bool = False


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies. ``crc`` is of its bytes, masked."""

    dtype: int = 0
    shape: tuple[int, ...] = ()
    shard: int = 0
    start: int = 0
    size_bytes: int = 0
    crc: int = 0

    @property
    def end(self) -> int:
        return self.start + self.size_bytes


def read_tf_bundle(path: Path) -> Container:
    """Open ``path``, the ``.index`` file: reads it alone, and looks at the lengths of the others. Raises ``Refusal``.

    The tensors are those of the file by name, optimiser's slots and counters too; a text in it is None. The checksum
    of a tensor is verified whenever it is read.
    """
    pairs = read_table(path)
    key, value = next(pairs, (b"", b""))
    if key:
        raise Refusal("its index does not begin with its header")
    header = _header(value)
    entries = {_name(key): _entry(key, value) for key, value in pairs if not key.startswith(b"\0")}
    prefix = path.name.removesuffix(".index")
    shards = [path.with_name(f"{prefix}.data-{i:05d}-of-{header.shards:05d}") for i in range(header.shards)]
    used = sorted({entry.shard for entry in entries.values()})
    if used and used[-1] >= header.shards:
        raise Refusal(f"a tensor lies in file {used[-1]} of {header.shards}", ASK_AUTHORS)
    _check_places(entries, {number: _size(shards[number]) for number in used})
    root: dict[str | int, Tree] = {
        name: None if entry.dtype == TEXT else _lazy(name, entry, shards[entry.shard], header)
        for name, entry in entries.items()
    }
    return Container("tf-bundle", path, root, files=(path, *(shards[number] for number in used)))


def _header(value: bytes) -> Header:
    shards, endianness, oldest = 0, 0, 0
    for number, content in fields(value):
        match number, content:
            case 1, bytes():  # the old layout has a message here: SavedTensorSlices.meta
                raise Refusal("this is a checkpoint of the oldest kind (V1), one file for all, which is not read",
                              SAVE_AGAIN)  # fmt: skip
            case 1, int():
                shards = content
            case 2, int():
                endianness = content
            case 3, bytes():
                oldest = next((n for field, n in fields(content) if field == 2 and isinstance(n, int)), 0)
            case _:
                pass
    if not 0 < shards <= SHARDS_MOST or endianness > 1:
        raise Refusal("the header of its index is damaged")
    if oldest > VERSION:
        raise Refusal(f"it wants a reader of version {oldest}, and {VERSION} is the one there is", SAVE_AGAIN)
    return Header(shards, endianness == 1)


def _name(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise Refusal("a name in its index is not UTF-8") from None


def _entry(key: bytes, value: bytes) -> Entry:
    numbers = dict.fromkeys(range(1, 7), 0)
    shape: tuple[int, ...] = ()
    for number, content in fields(value):
        if number == 7:
            raise Refusal(
                f"{shown(_name(key))} is stored in parts (a partitioned variable), which is not read", SAVE_AGAIN
            )
        if number == 2 and isinstance(content, bytes):
            shape = _shape(key, content)
        elif number in numbers and isinstance(content, int):
            numbers[number] = content
    entry = Entry(numbers[1], shape, numbers[3], numbers[4], numbers[5], numbers[6])
    if entry.dtype == TEXT:
        return entry
    if entry.dtype not in DTYPES:
        raise Refusal(f"{shown(_name(key))} has TensorFlow's type number {entry.dtype}, which is not read", SAVE_AGAIN)
    expected = math.prod(shape) * DTYPES[entry.dtype].itemsize
    if entry.size_bytes != expected:
        raise Refusal(
            f"{shown(_name(key))} of shape {list(shape)} should have {expected:,} bytes and has {entry.size_bytes:,}",
            ASK_AUTHORS,
        )
    return entry


def _shape(key: bytes, message: bytes) -> tuple[int, ...]:
    sizes: list[int] = []
    for number, content in fields(message):
        if number == 2 and isinstance(content, bytes):
            sizes.append(signed(next((n for field, n in fields(content) if field == 1 and isinstance(n, int)), 0)))
        elif number == 3 and content:
            sizes.append(-1)
    if len(sizes) > DIMENSIONS_MOST or any(size < 0 for size in sizes):
        raise Refusal(f"{shown(_name(key))} has no shape", ASK_AUTHORS)
    return tuple(sizes)


def _size(shard: Path) -> int:
    try:
        return shard.stat().st_size
    except FileNotFoundError:
        raise Refusal(f"{shown(shard.name)} is missing", "put it beside the index") from None


def _check_places(entries: Mapping[str, Entry], sizes: Mapping[int, int]) -> None:
    """Every tensor lies inside its file, and no two share a byte: together they are no larger than the files."""
    end, shard = 0, -1
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].shard, item[1].start, item[1].end)):
        if entry.end > sizes[entry.shard]:
            raise Refusal(
                f"{shown(name)} ends at byte {entry.end:,} of a data file of {sizes[entry.shard]:,}", FETCH_AGAIN
            )
        if entry.shard == shard and entry.start < end and entry.size_bytes:
            raise Refusal(f"{shown(name)} overlaps the tensor before it", ASK_AUTHORS)
        end, shard = max(entry.end, end if entry.shard == shard else 0), entry.shard


def _lazy(name: str, entry: Entry, shard: Path, header: Header) -> LazyTensor:
    dtype = DTYPES[entry.dtype]

    def read() -> Tensor:
        with refusals_of(shard):
            raw = read_bytes(shard, entry.start, entry.size_bytes)
            if masked(crc32c(bytes_of(raw))) != entry.crc:
                raise Refusal(f"the bytes of {shown(name)} are not the ones that were written (CRC-32C)")
        return values(raw, dtype, is_swapped=header.is_big_endian).reshape(entry.shape)

    return LazyTensor(entry.shape, dtype, read)
