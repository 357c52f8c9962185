from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparse_transfer.core.errors import UserError
from sparse_transfer.data.split import Split, Splits
from sparse_transfer.data.subset import subset


def make(counts: list[int], partial: str | None = None) -> Splits:
    """Pictures of the classes mixed, so that order is something to keep."""
    labels = np.random.default_rng(5).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)
    paths = tuple(f"{index}.jpg" for index in range(len(labels)))
    split = Split("train", Path(), paths, labels, np.ones(len(labels), np.int64), tuple(map(str, range(len(counts)))))
    return Splits("set", split, split.take([0], "test"), split.take([1], "val"), partial)


classes = st.lists(st.integers(1, 12), min_size=2, max_size=5)


@given(classes, st.integers(0, 5), st.data())
def test_fewer_shots_are_contained_in_more(counts: list[int], seed: int, data: st.DataObject) -> None:
    more = data.draw(st.integers(1, min(counts)))
    fewer = data.draw(st.integers(1, more))
    splits = make(counts)
    small, large = (subset(splits, shots=shots, seed=seed).train for shots in (fewer, more))
    assert set(small.paths) <= set(large.paths)
    assert small.counts().tolist() == [fewer] * len(counts)
    assert list(small.paths) == sorted(small.paths, key=splits.train.paths.index)
    assert all(
        splits.train.labels[splits.train.paths.index(path)] == label
        for path, label in zip(small.paths, small.labels.tolist(), strict=True)
    )


@given(classes, st.integers(0, 5), st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_smaller_fraction_is_contained_in_a_larger(counts: list[int], seed: int, one: float, other: float) -> None:
    splits = make(counts)
    small, large = (subset(splits, fraction=share, seed=seed).train for share in sorted((one, other)))
    assert set(small.paths) <= set(large.paths)
    assert small.counts().tolist() == [max(1, round(min(one, other) * count)) for count in counts]


def test_all_of_it_is_all_of_it() -> None:
    splits = make([3, 4])
    assert subset(splits, fraction=1.0).train.fingerprint == splits.train.fingerprint


def test_the_seed_decides_and_a_class_does_not_feel_the_others() -> None:
    first = subset(make([40, 40]), shots=5, seed=1).train
    assert first.fingerprint == subset(make([40, 40]), shots=5, seed=1).train.fingerprint
    assert first.fingerprint != subset(make([40, 40]), shots=5, seed=2).train.fingerprint
    splits = make([40, 40])
    rest = np.flatnonzero((splits.train.labels == 0) | (np.arange(80) < 60))
    fewer = Splits("set", splits.train.take(rest), splits.test)
    chosen = [path for path, label in zip(first.paths, first.labels.tolist(), strict=True) if label == 0]
    again = subset(fewer, shots=5, seed=1).train
    assert [path for path, label in zip(again.paths, again.labels.tolist(), strict=True) if label == 0] == chosen


def test_classes_of_one_size_draw_apart() -> None:
    """The same positions in every class would be a pattern: pictures numbered alike are often taken alike."""
    labels = np.repeat(np.arange(2), 40).astype(np.int64)
    paths = tuple(map(str, range(80)))
    split = Split("train", Path(), paths, labels, np.ones(80, np.int64), ("a", "b"))
    chosen = [int(path) for path in subset(Splits("set", split, split), shots=5).train.paths]
    assert chosen[:5] != [position - 40 for position in chosen[5:]]


def test_what_was_taken_is_said_and_the_other_parts_stay() -> None:
    splits = make([10, 12], partial="set: this copy has less")
    part = subset(splits, shots=2, seed=3)
    assert part.partial == "set: this copy has less; 4 of 22 training pictures taken, 2 a class, seed 3"
    assert (part.test, part.val) == (splits.test, splits.val)
    assert subset(make([10, 12]), fraction=0.5).partial == (
        "11 of 22 training pictures taken, 0.5 of each class, seed 0"
    )


@pytest.mark.parametrize(
    ("shots", "fraction", "sentence"),
    [
        (None, None, "shots and a fraction are two ways to say one thing; give one of them"),
        (1, 0.5, "shots and a fraction are two ways to say one thing; give one of them"),
        (0, None, "0 shots; take 1 or more"),
        (None, 0.0, "a fraction of 0; it lies above 0 and is at most 1"),
        (None, 1.5, "a fraction of 1.5; it lies above 0 and is at most 1"),
        (None, float("nan"), "a fraction of nan; it lies above 0 and is at most 1"),
        (4, None, '1 class with fewer than 4 training pictures ("0"); take at most 3 shots'),
    ],
)
def test_what_cannot_be_taken_is_refused(shots: int | None, fraction: float | None, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        subset(make([3, 4]), shots=shots, fraction=fraction)
    assert str(caught.value) == sentence
