"""A split: which pictures, in which order, with which label. Pure data, nothing is decoded."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparse_transfer.core.errors import UserError


@dataclass(frozen=True)
class Split:
    """An ordered list of labelled pictures.

    name: ``train``, ``val`` or ``test``.   root: folder that ``paths`` are relative to.
    paths: N relative paths with "/" between parts; for a container, ``FILE#INDEX``.
    labels: [N] int64 in [0, C).   sizes: [N] int64, bytes of each picture.   classes: C names, in label order.
    storage: how ``data/decode.py`` finds the pixels: ``files`` (one picture a file), ``cifar`` (python batches),
    ``digits`` (scikit-learn's own).
    """

    name: str
    root: Path
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    sizes: NDArray[np.int64]
    classes: tuple[str, ...]
    storage: str = "files"

    def __post_init__(self) -> None:
        if not len(self.paths) == len(self.labels) == len(self.sizes):
            raise ValueError(f"{len(self.paths)} paths, {len(self.labels)} labels, {len(self.sizes)} sizes")
        if len(self.labels) and (self.labels.min() < 0 or self.labels.max() >= len(self.classes)):
            raise ValueError(f"labels outside [0, {len(self.classes)})")

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over path, size and label of every picture and the class names: equal lists, equal fingerprint."""
        sha = hashlib.sha256("\0".join((self.storage, *self.classes)).encode("utf-8", "surrogateescape"))
        for path, size, label in zip(self.paths, self.sizes.tolist(), self.labels.tolist(), strict=True):
            sha.update(f"\n{path}\0{size}\0{label}".encode("utf-8", "surrogateescape"))
        return sha.hexdigest()

    def take(self, indices: Sequence[int] | NDArray[np.int64], name: str | None = None) -> "Split":
        """The pictures at those positions, in that order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            name=name or self.name,
            paths=tuple(self.paths[index] for index in chosen.tolist()),
            labels=self.labels[chosen],
            sizes=self.sizes[chosen],
        )

    def counts(self) -> NDArray[np.int64]:
        """[C] pictures of each class."""
        return np.bincount(self.labels, minlength=len(self.classes)).astype(np.int64)


@dataclass(frozen=True)
class Splits:
    """The splits of one dataset as found on disk; all have the same classes.

    train: without a picture in a copy of ImageNet's validation pictures alone.
    partial: one sentence saying what is missing against the published sizes, or None where the copy is whole.
    """

    dataset: str
    train: Split
    test: Split
    val: Split | None = None
    partial: str | None = None

    def __post_init__(self) -> None:
        for split in (self.test, self.val):
            if split is not None and split.classes != self.train.classes:
                raise ValueError("the splits differ in their classes")

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of each split that is there, by ``train``, ``test``, ``val``: part of a run's identity."""
        parts = {"train": self.train, "test": self.test} | ({"val": self.val} if self.val else {})
        return {name: split.fingerprint for name, split in parts.items()}


def stratified_part(split: Split, share: float, seed: int, *, name: str | None = None) -> tuple[Split, Split]:
    """Cut ``split`` in two: (the rest, about ``share`` of every class), by the rule of ``stratified_indices``."""
    rest, part = stratified_indices(split.labels, share, seed)
    return split.take(rest), split.take(part, name)


def stratified_indices(
    labels: NDArray[np.int64], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut positions in two: (the rest, about ``share`` of every class), each ascending. labels: [N] int64, >= 0.

    Of a class with n >= 2 pictures, round(share · n) are taken, at least 1 and at most n - 1; of a class with one,
    none. A class draws from its own generator (seed, label), so the others do not change with it.
    """
    if not 0 < share < 1:
        raise UserError(f"a share of {share}", do="it lies between 0 and 1")
    taken = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels).tolist():
        members = np.flatnonzero(labels == label)
        if len(members) >= 2:
            count = min(max(round(share * len(members)), 1), len(members) - 1)
            taken[np.random.default_rng((seed, label)).permutation(members)[:count]] = True
    return np.flatnonzero(~taken), np.flatnonzero(taken)
