"""Fewer training pictures, evenly over the classes: so many shots of each, or a fraction of each."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sparse_transfer.core.errors import UserError, listed
from sparse_transfer.data.readers.found import counted
from sparse_transfer.data.reading import parse, read
from sparse_transfer.data.specs import DatasetSpec
from sparse_transfer.data.split import Split, Splits


def read_to_train(word: str, *, shots: int | None = None, fraction: float | None = None) -> tuple[DatasetSpec, Splits]:
    """The spec and the splits that ``NAME[:ROOT]`` names, less the training pictures that are not wanted.

    Raises ``UserError`` as ``parse``, ``read`` and ``subset`` do.
    """
    spec, root = parse(word)
    splits = read(spec, root, to_train=True)
    if shots is None and fraction is None:
        return spec, splits
    return spec, subset(splits, shots=shots, fraction=fraction)


def subset(splits: Splits, *, shots: int | None = None, fraction: float | None = None, seed: int = 0) -> Splits:
    """The same test pictures, and of each class ``shots`` training pictures, or round(fraction · n) of n, at least 1.

    A class's pictures are put into one random order, drawn from (seed, label), and the first of it are taken: with one
    seed the smaller subset is contained in the larger one. The split's own order is kept. ``Splits.partial`` says what
    was taken. A validation part is left as it is.

    Raises:
        UserError: not exactly one of ``shots`` and ``fraction``, either out of range, or a class with fewer pictures.
    """
    available = splits.train.counts()
    if shots is not None and fraction is None:
        wanted = _shots(splits.train, available, shots)
        what = f"{shots:,} a class"
    elif fraction is not None and shots is None:
        if not 0 < fraction <= 1:
            raise UserError(f"a fraction of {fraction:g}", do="it lies above 0 and is at most 1")
        wanted = np.minimum(np.maximum(np.rint(fraction * available).astype(np.int64), 1), available)
        what = f"{fraction:g} of each class"
    else:
        raise UserError("shots and a fraction are two ways to say one thing", do="give one of them")
    train = _first_in_random_order(splits.train, wanted, seed)
    said = f"{len(train):,} of {len(splits.train):,} training pictures taken, {what}, seed {seed}"
    return replace(splits, train=train, partial=said if splits.partial is None else f"{splits.partial}; {said}")


def _shots(train: Split, available: NDArray[np.int64], shots: int) -> NDArray[np.int64]:
    if shots < 1:
        raise UserError(f"{shots} shots", do="take 1 or more")
    short = [name for name, count in zip(train.classes, available.tolist(), strict=True) if count < shots]
    if short:
        raise UserError(
            f"{counted(len(short), 'class')} with fewer than {shots:,} training pictures ({listed(short)})",
            do=f"take at most {available.min():,} shots",
        )
    return np.full(len(train.classes), shots, dtype=np.int64)


def _first_in_random_order(split: Split, wanted: NDArray[np.int64], seed: int) -> Split:
    chosen = [
        np.random.default_rng((seed, label)).permutation(np.flatnonzero(split.labels == label))[:count]
        for label, count in enumerate(wanted.tolist())
    ]
    return split.take(np.sort(np.concatenate(chosen)))
