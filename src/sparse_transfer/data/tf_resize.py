"""TensorFlow 1's bicubic resizing (``tf.image.resize_bicubic``), which no library of today does.

Output pixel o reads at source coordinate o · n_in / n_out: pixels are points at their upper left corner, not squares
around a centre, and a smaller picture skips pixels instead of averaging them. Keys' kernel with a = -0.75, from a
table of 1,024 steps. Source: tensorflow/core/kernels/resize_bicubic_op.cc (half_pixel_centers False).
"""

import numpy as np
from numpy.typing import NDArray

STEPS = 1024
A = -0.75


def tf_resize(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """[H, W, 3] -> [size, size, 3], both uint8.

    TensorFlow's result is float: here it is rounded, and what overshoots 0..255 at an edge is cut off.
    """
    rows = _resized(pixels, size)  # [size, W, 3]
    both = _resized(rows.swapaxes(0, 1), size).swapaxes(0, 1)
    return np.rint(both).clip(0, 255).astype(np.uint8)


def _resized(values: NDArray[np.uint8] | NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """[n, ...] -> [size, ...] along the first axis; the border's pixels go on outside."""
    source = np.arange(size, dtype=np.float32) * np.float32(len(values) / size)
    first = np.floor(source).astype(np.int64)
    step = np.rint((source - first) * STEPS).astype(np.int64)
    out = np.zeros((size, *values.shape[1:]), np.float32)
    for tap, weight in (
        (-1, _far(STEPS + step)),
        (0, _near(step)),
        (1, _near(STEPS - step)),
        (2, _far(2 * STEPS - step)),
    ):
        place = (first + tap).clip(0, len(values) - 1)
        out += weight.reshape(-1, *(1,) * (values.ndim - 1)) * values[place]
    return out


def _near(step: NDArray[np.int64]) -> NDArray[np.float32]:
    """The kernel at step / 1024 in [0, 1]."""
    d = step / STEPS
    return (((A + 2) * d - (A + 3)) * d * d + 1).astype(np.float32)


def _far(step: NDArray[np.int64]) -> NDArray[np.float32]:
    """The kernel at step / 1024 in [1, 2]."""
    d = step / STEPS
    return (((A * d - 5 * A) * d + 8 * A) * d - 4 * A).astype(np.float32)
