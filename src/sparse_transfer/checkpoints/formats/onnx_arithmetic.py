"""Whole numbers that an exporter leaves to be computed: torch's writes the sides of a padding as ten operations.

Source: onnx/onnx, docs/Operators.md.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

Whole = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Operation = Callable[[Sequence[Whole], int, int], "Whole | np.int64"]
MOST = 64  # numbers in one value: a padding has eight


def computed(op: str, held: Sequence[Whole], *, axis: int, fill: int) -> Whole | None:
    """The value of an operation on small constants; None where it is another one, or does not fit them."""
    if (operation := OPERATIONS.get(op)) is None or any(value.size > MOST for value in held):
        return None
    try:
        with np.errstate(over="ignore"):
            value = np.asarray(operation(held, axis, fill))
    except (ArithmeticError, IndexError, TypeError, ValueError):
        return None
    return value if value.size <= MOST else None


def _filled(held: Sequence[Whole], axis: int, fill: int) -> Whole:
    del axis
    (length,) = (int(each) for each in held[0])
    if length > MOST:
        raise ValueError
    return np.full(length, fill, dtype=np.int64)


def _sliced(held: Sequence[Whole], axis: int, fill: int) -> Whole:
    del axis, fill
    data, *bounds = held
    first, last, along, step = (int(bound.item()) for bound in bounds)
    return data[(slice(None),) * along + (slice(first, last, step),)]


OPERATIONS: Mapping[str, Operation] = {
    "Cast": lambda held, axis, fill: held[0],
    "Concat": lambda held, axis, fill: np.concatenate(held, axis=axis),
    "ConstantOfShape": _filled,
    "Gather": lambda held, axis, fill: np.take(held[0], held[1], axis=axis),
    "Mul": lambda held, axis, fill: held[0] * held[1],
    "Reshape": lambda held, axis, fill: held[0].reshape([int(length) for length in held[1]]),
    "Shape": lambda held, axis, fill: np.array(held[0].shape, dtype=np.int64),
    "Slice": _sliced,
    "Sub": lambda held, axis, fill: held[0] - held[1],
}
