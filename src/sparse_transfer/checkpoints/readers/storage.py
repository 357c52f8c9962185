"""Storages, the flat runs of bytes in torch's files, and the strided tensors that look into them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from sparse_transfer.checkpoints.readers.container import LazyTensor
from sparse_transfer.checkpoints.readers.refusal import ASK_AUTHORS, Refusal

DIMENSIONS_MOST = 64  # torch's own kernels stop at 64 (c10 TensorIterator)
ROOM_BYTES = 64 << 20  # what the tensors of a small file may fill together: views and zero strides repeat its bytes
ROOM_TIMES = 8  # and of a large one, in times its size

_LEGACY_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
    "QInt8": torch.qint8,
    "QUInt8": torch.quint8,
    "QInt32": torch.qint32,
    "QUInt4x2": torch.quint4x2,
    "QUInt2x4": torch.quint2x4,
}

_UNTYPED = ("torch.UntypedStorage", "torch.storage.UntypedStorage", "torch.storage._UntypedStorage")
DTYPES: dict[str, torch.dtype] = {
    f"torch.{name}": dtype for name, dtype in sorted(vars(torch).items()) if isinstance(dtype, torch.dtype)
}
"""Dtypes by the name a pickle gives them."""

_QUANTISED = {torch.qint8, torch.quint8, torch.qint32, torch.quint4x2, torch.quint2x4}

STORAGE_DTYPES: dict[str, torch.dtype] = dict.fromkeys(_UNTYPED, torch.uint8) | {
    f"{module}.{name}Storage": dtype
    for name, dtype in _LEGACY_STORAGES.items()
    for module in ("torch", "torch.cuda", "torch.storage")
}
"""Storage classes by the name a pickle gives them. An untyped storage counts bytes."""


class Room:
    """How many bytes the tensors of one file may fill when all are read: an expanded tensor costs the file nothing."""

    def __init__(self, file_bytes: int) -> None:
        self._file_bytes = file_bytes
        self._left = ROOM_BYTES + ROOM_TIMES * file_bytes

    def take(self, count: int) -> None:
        """Raises ``Refusal`` where there is not that much left."""
        self._left -= count
        if self._left < 0:
            raise Refusal(
                f"a tensor of {count:,} bytes, with those before it, is too much for a file of {self._file_bytes:,}",
                ASK_AUTHORS,
            )


@dataclass(frozen=True, eq=False)
class Storage:
    """A run of elements still on disk.

    read: (first byte, number of bytes) → a fresh uint8 tensor of them.
    is_swapped: the bytes of an element stand in big-endian order.
    room: what is left for all tensors of the file.
    """

    dtype: torch.dtype
    size_bytes: int
    read: Callable[[int, int], Tensor]
    room: "Room"
    is_swapped: bool = False


def tensor_over(
    storage: Storage, *, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype | None = None
) -> LazyTensor:
    """The tensor whose element i stands at offset + Σ i_k · stride_k of the storage; offset and stride in elements.

    Raises ``Refusal`` where an element would lie outside the storage, or expansion goes past every bound.
    """
    dtype = storage.dtype if dtype is None else dtype
    if dtype in _QUANTISED:
        raise Refusal("quantised tensors are not read yet", "ask its authors for plain dense tensors")
    if len(shape) != len(stride) or len(shape) > DIMENSIONS_MOST:
        raise Refusal(f"a tensor has {len(shape)} sizes and {len(stride)} strides", ASK_AUTHORS)
    if offset < 0 or any(size < 0 for size in shape) or any(step < 0 for step in stride):
        raise Refusal("a tensor has a negative size, stride or offset", ASK_AUTHORS)
    itemsize = dtype.itemsize
    span = sum((size - 1) * step for size, step in zip(shape, stride, strict=True)) + 1 if 0 not in shape else 0
    if (offset + span) * itemsize > storage.size_bytes:
        raise Refusal(
            f"a tensor reaches to byte {(offset + span) * itemsize:,} of a storage of {storage.size_bytes:,} bytes",
            ASK_AUTHORS,
        )
    dense_bytes = math.prod(max(size, 1) for size in shape) * itemsize
    storage.room.take(dense_bytes)

    # The stride of a size of 1 says nothing and may be any number: torch would overflow on a large one.
    steps = tuple(step if size > 1 else 0 for size, step in zip(shape, stride, strict=True))

    def read() -> Tensor:
        if span == 0:
            return torch.empty(shape, dtype=dtype)
        raw = storage.read(offset * itemsize, span * itemsize)
        return values(raw, dtype, is_swapped=storage.is_swapped).as_strided(shape, steps).contiguous()

    return LazyTensor(shape, dtype, read)


def values(raw: Tensor, dtype: torch.dtype, *, is_swapped: bool = False) -> Tensor:
    """The elements in ``raw`` (uint8, 1-D), not copied where possible. A bool is any byte but 0."""
    if is_swapped and dtype.itemsize > 1:
        width = dtype.itemsize // 2 if dtype.is_complex else dtype.itemsize
        raw = raw.view(-1, width).flip(1).reshape(-1)
    return raw.ne(0) if dtype == torch.bool else raw.view(dtype)


def bytes_of(raw: Tensor) -> memoryview:
    """The memory of a uint8 tensor, not copied."""
    return memoryview(cast("bytearray", raw.numpy())).cast("B")  # an ndarray has the buffer protocol


def read_bytes(path: Path, start: int, count: int) -> Tensor:
    """``count`` bytes from ``start`` as a fresh uint8 tensor; raises ``Refusal`` where the file ends before."""
    raw = torch.empty(count, dtype=torch.uint8)
    rest = bytes_of(raw)
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while rest:
            got = file.readinto(rest)
            if not got:
                raise Refusal(f"the file ends {len(rest):,} bytes before the end of a tensor")
            rest = rest[got:]
    return raw
