"""torch's older files (0.1.10 to 1.5, and ``_use_new_zipfile_serialization=False``): five pickles, then raw storages.

In order: a magic number, the version 1001, facts about the writer, the object, the list of storage keys; then for each
key its number of elements (int64) and the elements, without padding. Source: torch/serialization.py, ``_legacy_save``.
"""

import struct
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import IO, cast

from torch import Tensor

from sparse_transfer.checkpoints.readers.container import Container, Tree
from sparse_transfer.checkpoints.readers.pickled import no_persistent_ids, read_pickle
from sparse_transfer.checkpoints.readers.pickled_values import Reference
from sparse_transfer.checkpoints.readers.refusal import ASK_AUTHORS, Refusal, refusals_of, shown
from sparse_transfer.checkpoints.readers.storage import STORAGE_DTYPES, Room, Storage, read_bytes

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001


def read_torch_legacy(path: Path) -> Container:
    """Open ``path``; reads its pickles and the lengths before each storage only. Raises ``Refusal``."""
    size = path.stat().st_size
    with path.open("rb") as file:
        stream = cast("IO[bytes]", _Bounded(file, size))

        def plain() -> Tree:
            return read_pickle(stream, no_persistent_ids, size=size)[0]

        if plain() != MAGIC:
            raise Refusal(
                "this is a pickle and not a checkpoint of torch",
                "load it where you trust it and save the tensors with torch.save",
            )
        if plain() != VERSION:
            raise Refusal(f"its version is not {VERSION}, the only one there is", ASK_AUTHORS)
        plain()
        storages = _Storages(path, size, Room(size))
        root, stand_ins = read_pickle(stream, storages.find, size=size)
        storages.locate(file, plain())
    return Container("torch-legacy", path, root, tuple(stand_ins))


@dataclass
class _Storages:
    """The storages the object refers to by key; where they lie is known only once the object has been read."""

    path: Path
    file_bytes: int
    room: Room
    sizes: dict[str, tuple[int, int]] = field(
        default_factory=dict[str, tuple[int, int]]
    )  # key: (elements, bytes of one)
    starts: dict[str, int] = field(default_factory=dict[str, int])

    def find(self, identity: object) -> object:
        match identity:
            case ("module", Reference() as cls, *_):
                return cls
            case ("storage", Reference(name=kind), str() as key, str(), int() as numel, view) if kind in STORAGE_DTYPES:
                dtype = STORAGE_DTYPES[kind]
                if numel < 0 or numel * dtype.itemsize > self.file_bytes:
                    raise Refusal(f"storage {shown(key)} should have {numel:,} elements, more than the file holds")
                if self.sizes.setdefault(key, (numel, dtype.itemsize)) != (numel, dtype.itemsize):
                    raise Refusal(f"the pickle gives storage {shown(key)} two sizes", ASK_AUTHORS)
                first, count = self._part(key, numel, view)
                start = first * dtype.itemsize
                return Storage(dtype, count * dtype.itemsize, lambda at, n: self._read(key, start + at, n), self.room)
            case _:
                raise Refusal("the pickle refers to something that is not a storage", ASK_AUTHORS)

    def _part(self, key: str, numel: int, view: object) -> tuple[int, int]:
        """First element and number of elements that a storage shows of its root."""
        match view:
            case None:
                return 0, numel
            case (_, int() as first, int() as count) if 0 <= first <= first + count <= numel:
                return first, count
            case _:
                raise Refusal(f"the pickle shows a part of storage {shown(key)} that it does not have", ASK_AUTHORS)

    def locate(self, file: BufferedReader, keys: Tree) -> None:
        """Find each storage; the file must hold exactly those referred to, and nothing after them."""
        if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(self.sizes):
            raise Refusal("the storages in the file are not those the pickle refers to", ASK_AUTHORS)
        place = file.tell()
        for key in map(str, keys):
            file.seek(place)
            length = file.read(8)
            numel, itemsize = self.sizes[key]
            if len(length) < 8 or place + 8 + numel * itemsize > self.file_bytes:
                raise Refusal(f"the file ends before storage {shown(key)} does")
            if struct.unpack("<q", length)[0] != numel:
                raise Refusal(f"storage {shown(key)} should have {numel:,} elements and the file says otherwise")
            self.starts[key] = place + 8
            place += 8 + numel * itemsize
        if place != self.file_bytes:
            raise Refusal(f"{self.file_bytes - place:,} bytes follow the last tensor", ASK_AUTHORS)

    def _read(self, key: str, first: int, count: int) -> Tensor:
        with refusals_of(self.path):
            return read_bytes(self.path, self.starts[key] + first, count)


class _Bounded:
    """A file that never makes room for more than it holds: a damaged length may ask for 2^63 bytes."""

    def __init__(self, file: BufferedReader, size: int) -> None:
        self._file = file
        self._size = size
        self.readline = file.readline
        self.tell = file.tell

    def read(self, count: int) -> bytes:
        return self._file.read(count if count < 4096 else min(count, self._size - self._file.tell()))
