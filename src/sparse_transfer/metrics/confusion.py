"""The exact confusion matrix, from which every accuracy is made."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sparse_transfer.core.errors import UserError

Metric = Literal["top1", "mean_per_class"]
"""Which accuracy is the headline."""


@dataclass(frozen=True, eq=False)
class Confusion:
    """How often an image of one class was taken for another.

    counts: [C, C] int64, rows = true class, columns = predicted class; read-only.   classes: C names.
    Matrices of parts of a test set add up to the matrix of the whole.
    """

    counts: NDArray[np.int64]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        size = len(self.classes)
        if self.counts.shape != (size, size) or self.counts.dtype != np.int64:
            raise ValueError(f"counts of {self.counts.dtype} {list(self.counts.shape)} for {size} classes")
        if self.counts.size and self.counts.min() < 0:
            raise ValueError("a count below 0")
        counts = self.counts.copy()
        counts.flags.writeable = False
        object.__setattr__(self, "counts", counts)

    @classmethod
    def of(
        cls, labels: NDArray[np.integer], predictions: NDArray[np.integer], classes: int | Sequence[str]
    ) -> "Confusion":
        """Count labels [N] against predictions [N]; ``classes``: C names, or C alone.

        Raises:
            UserError: the lengths differ, there is no image, or a label or prediction lies outside [0, C).
        """
        names = tuple(str(index) for index in range(classes)) if isinstance(classes, int) else tuple(classes)
        check_labels(labels, len(names))
        check_labels(predictions, len(names), what="predictions")
        if len(labels) != len(predictions):
            raise UserError(f"{len(labels):,} labels and {len(predictions):,} predictions")
        pairs = labels.astype(np.int64) * len(names) + predictions.astype(np.int64)
        counts = np.bincount(pairs, minlength=len(names) ** 2).reshape(len(names), len(names))
        return cls(counts.astype(np.int64), names)

    def __add__(self, other: "Confusion") -> "Confusion":
        if self.classes != other.classes:
            raise ValueError("the matrices are of different classes")
        return Confusion(self.counts + other.counts, self.classes)

    @cached_property
    def images(self) -> NDArray[np.int64]:
        """[C] test images of each class."""
        return self.counts.sum(axis=1)

    @property
    def correct(self) -> int:
        return int(np.trace(self.counts))

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    @property
    def top1(self) -> float:
        """Share of all test images whose class was predicted."""
        return self.correct / self.total

    @property
    def recall(self) -> NDArray[np.float64]:
        """[C] share of each class's test images that were recognised; NaN for a class without any."""
        images = np.where(self.images > 0, self.images, 1)
        return np.where(self.images > 0, np.diagonal(self.counts) / images, np.nan)

    @property
    def mean_per_class(self) -> float:
        """Plain mean of the recalls of the classes that have test images."""
        return float(self.recall[self.images > 0].mean())

    @property
    def empty_classes(self) -> tuple[str, ...]:
        """Names of the classes without test images, which ``mean_per_class`` leaves out."""
        return tuple(name for name, images in zip(self.classes, self.images.tolist(), strict=True) if images == 0)


def predict(logits: NDArray[np.floating]) -> NDArray[np.int64]:
    """Class of the largest logit: [N, C] -> [N]; of equal ones the first. NaN has no largest and is refused."""
    check_logits(logits, allow_infinity=True)
    return logits.argmax(axis=1).astype(np.int64)


def check_logits(logits: NDArray[np.floating], *, allow_infinity: bool = False) -> None:
    """Raise ``UserError`` unless logits is [N, C] with N, C >= 1 and without NaN (or infinity)."""
    if logits.ndim != 2 or 0 in logits.shape:
        raise UserError(f"logits of shape {list(logits.shape)}", do="they are [N, C], of at least one image and class")
    bad = np.isnan(logits) if allow_infinity else ~np.isfinite(logits)
    rows = np.flatnonzero(bad.any(axis=1))
    if len(rows):
        raise UserError(
            f"the logits of {len(rows):,} of {len(logits):,} images are {'NaN' if allow_infinity else 'not finite'}"
            f" (first: image {rows[0]:,})",
            do="look for NaN in the features, or lower --lr",
        )


def check_labels(labels: NDArray[np.integer], classes: int, *, what: str = "labels") -> None:
    """Raise ``UserError`` unless ``labels`` is [N] integers in [0, classes), N >= 1."""
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"{what} of {labels.dtype} {list(labels.shape)}", do="they are [N] integers")
    if not len(labels):
        raise UserError("there are no test images")
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        raise UserError(
            f"{int(outside.sum()):,} of {len(labels):,} {what} lie outside [0, {classes})"
            f" (first: {int(labels[first])} at {first:,})"
        )
