"""How a mask, and the weight under it, lie in a checkpoint: bits, and the kept values alone."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparse_transfer.core.errors import UserError

FETCH = "the file was changed after it was written, fetch it again"
# By bytes an element: values travel as integers of their size, because NumPy has no bfloat16.
INTEGERS = {
    1: (torch.uint8, np.uint8),
    2: (torch.int16, np.int16),
    4: (torch.int32, np.int32),
    8: (torch.int64, np.int64),
}


def pack(kept: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Bool array -> ceil(n / 8) bytes, row-major, element i in bit i % 8 (least significant first) of byte i // 8."""
    return np.packbits(kept.reshape(-1), bitorder="little")


def unpack(packed: NDArray[np.uint8], shape: tuple[int, ...], name: str = "mask") -> NDArray[np.bool_]:
    """The inverse of ``pack``. A wrong length or a set padding bit raises: else two files hold one mask."""
    size = 1
    for length in shape:
        size *= length  # Python's integers: a product that a file made too large for int64 must not wrap around
    if packed.dtype != np.uint8 or packed.shape != (-(-size // 8),):
        raise UserError(
            f"the mask of {name} has {packed.nbytes * 8:,} bits and the weight has {size:,} elements", do=FETCH
        )
    bits = np.unpackbits(packed, bitorder="little")
    if bits[size:].any():
        raise UserError(f"{len(bits) - size} padding bits of the mask of {name} are not all 0", do=FETCH)
    return bits[:size].view(np.bool_).reshape(shape)  # each byte is 0 or 1: no copy


def gather(weight: Tensor, kept: Tensor) -> Tensor:
    """The kept values [E] of a weight, in row-major order."""
    as_integer, _ = INTEGERS[weight.itemsize]
    values = weight.contiguous().view(as_integer).numpy()[kept.numpy()]
    return torch.from_numpy(values).view(weight.dtype)


def scatter(values: Tensor, kept: NDArray[np.bool_], name: str = "weight") -> Tensor:
    """The inverse of ``gather``: ``values`` [E] where ``kept`` is True, in row-major order, and +0 elsewhere."""
    count = int(np.count_nonzero(kept))
    if values.shape != (count,):
        raise UserError(
            f"the mask of {name} keeps {count:,} weights and a tensor {list(values.shape)} is stored", do=FETCH
        )
    if values.itemsize not in INTEGERS:
        raise UserError(f"{name} has {values.itemsize} bytes a weight", do=FETCH)
    as_integer, integer = INTEGERS[values.itemsize]
    weight = np.zeros(kept.shape, dtype=integer)
    weight[kept] = values.view(as_integer).numpy()
    return torch.from_numpy(weight).view(values.dtype)
