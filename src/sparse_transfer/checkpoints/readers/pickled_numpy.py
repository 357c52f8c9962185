"""NumPy's scalars and arrays as pickles hold them: numbers, and tensors over bytes that are in memory already."""

import math
from typing import cast

import torch
from torch import Tensor

from sparse_transfer.checkpoints.readers.container import LazyTensor, StandIn, Tree
from sparse_transfer.checkpoints.readers.refusal import ASK_AUTHORS, Refusal
from sparse_transfer.checkpoints.readers.storage import DIMENSIONS_MOST, ROOM_BYTES, values

_DTYPES = {
    "f8": torch.float64,
    "f4": torch.float32,
    "f2": torch.float16,
    "i8": torch.int64,
    "i4": torch.int32,
    "i2": torch.int16,
    "i1": torch.int8,
    "u8": torch.uint64,
    "u4": torch.uint32,
    "u2": torch.uint16,
    "u1": torch.uint8,
    "b1": torch.bool,
    "c8": torch.complex64,
    "c16": torch.complex128,
}


class NumpyDtype:
    """``numpy.dtype(code)``, with the byte order its state brings. Strings, records and objects have no torch dtype."""

    def __init__(self, code: str) -> None:
        self.is_swapped = code[:1] == ">"
        self.torch_dtype = _DTYPES.get(code.lstrip("<>=|"))

    def set_state(self, state: object) -> None:
        """State of ``numpy.dtype.__reduce__``: (version, byte order, subarray, names, fields, size, …)."""
        match state:
            case (_, str() as order, None, None, None, *_):
                self.is_swapped = order == ">"
            case _:
                self.torch_dtype = None


class NumpyArray:
    """``numpy.ndarray`` before and after its state; unreadable dtypes stay an inert stand-in."""

    def __init__(self) -> None:
        self.finished: LazyTensor | StandIn = StandIn("numpy.ndarray")

    def set_state(self, state: object) -> None:
        """State of ``numpy.ndarray.__reduce__``: (version, shape, dtype, is Fortran order, bytes)."""
        match state:
            case (_, tuple() as shape, NumpyDtype() as dtype, bool() | int() as fortran, bytes() | str() as data):
                self.finished = array(as_bytes(data), dtype, sizes(shape), is_fortran=bool(fortran))
            case (_, _, NumpyDtype(torch_dtype=None), *_):
                pass
            case _:
                raise Refusal("the state of a NumPy array is not one that NumPy writes", ASK_AUTHORS)


def array(data: bytes, dtype: NumpyDtype, shape: tuple[int, ...], *, is_fortran: bool) -> LazyTensor | StandIn:
    """The tensor in ``data``; raises ``Refusal`` unless shape and dtype account for every byte."""
    torch_dtype, is_swapped = dtype.torch_dtype, dtype.is_swapped
    if torch_dtype is None:
        return StandIn("numpy.ndarray")
    if len(shape) > DIMENSIONS_MOST or any(size < 0 for size in shape):
        raise Refusal(f"a NumPy array has {len(shape)} dimensions or a negative size", ASK_AUTHORS)
    if math.prod(shape) * torch_dtype.itemsize != len(data) or math.prod(size or 1 for size in shape) > (
        ROOM_BYTES + len(data)
    ):
        raise Refusal(f"a NumPy array of {len(data):,} bytes does not have the size its shape says", ASK_AUTHORS)

    def read() -> Tensor:
        raw = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
        flat = values(raw, torch_dtype, is_swapped=is_swapped)
        if not is_fortran:
            return flat.reshape(shape)
        return flat.reshape(shape[::-1]).permute(*reversed(range(len(shape)))).contiguous()

    return LazyTensor(shape, torch_dtype, read)


def scalar(dtype: NumpyDtype, data: bytes) -> Tree:
    """A NumPy scalar as a Python number, exactly; of another dtype, an inert stand-in."""
    made = array(data, dtype, (), is_fortran=False)
    if isinstance(made, StandIn):
        return StandIn("numpy.generic")
    return cast("int | float | bool | complex", made.read().item())


def as_bytes(data: bytes | str) -> bytes:
    """Python 2 pickled bytes as text; what decoded as UTF-8 is encoded back unchanged."""
    return data if isinstance(data, bytes) else data.encode()


def sizes(items: object) -> tuple[int, ...]:
    """A tuple or list of integers from the pickle, else a refusal."""
    if not isinstance(items, (tuple, list)):
        raise Refusal("a tensor's shape or stride is not a list of integers", ASK_AUTHORS)
    for item in cast("tuple[object, ...]", items):
        if type(item) is not int:
            raise Refusal("a tensor's shape or stride is not a list of integers", ASK_AUTHORS)
    return tuple(cast("tuple[int, ...]", items))
