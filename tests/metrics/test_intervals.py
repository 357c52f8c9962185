import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sparse_transfer.core.errors import UserError
from sparse_transfer.metrics.confusion import Confusion
from sparse_transfer.metrics.intervals import mean_per_class_interval, over_seeds, wilson


def confusion_of(correct: list[int], images: list[int]) -> Confusion:
    """Class c has images[c] test images, of which correct[c] are recognised and the rest taken for the next class."""
    counts = np.zeros((len(images), len(images)), dtype=np.int64)
    for index, (right, total) in enumerate(zip(correct, images, strict=True)):
        counts[index, index] = right
        counts[index, (index + 1) % len(images)] += total - right
    return Confusion(counts, tuple(str(index) for index in range(len(images))))


@given(st.integers(1, 30_000), st.floats(0, 1), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_wilson_is_scipys(total: int, share: float, level: float) -> None:
    correct = round(share * total)
    ours = wilson(correct, total, level)
    theirs = stats.binomtest(correct, total).proportion_ci(level, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert 0 <= ours.low <= correct / total <= ours.high <= 1
    assert (ours.level, ours.over, ours.method) == (level, "images", "wilson")


def test_wilson_at_none_and_all_correct_has_one_exact_limit() -> None:
    assert wilson(0, 10).low == 0
    assert wilson(10, 10).high == 1
    assert wilson(0, 10).high == pytest.approx(1.959964**2 / (10 + 1.959964**2), abs=1e-6)  # z² / (n + z²)


@pytest.mark.parametrize(("correct", "total"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_refuses_impossible_counts(correct: int, total: int) -> None:
    with pytest.raises(UserError, match="0 <= correct <= total"):
        wilson(correct, total)


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_a_level_that_is_no_share_is_refused(level: float) -> None:
    for interval in (lambda: wilson(1, 2, level), lambda: over_seeds([0.1, 0.2], level)):
        with pytest.raises(UserError, match="it lies between 0 and 1"):
            interval()


def test_mean_per_class_interval_is_the_one_computed_by_hand() -> None:
    # classes: 15 of 20, 5 of 10, and one without images; q = 16/22 and 6/12
    interval = mean_per_class_interval(confusion_of([15, 5, 0], [20, 10, 0]), level=0.95)
    variance = ((16 / 22) * (6 / 22) / 20 + (6 / 12) * (6 / 12) / 10) / 2**2
    assert interval.low == pytest.approx(0.625 - 1.959963984540054 * math.sqrt(variance), abs=1e-15)
    assert interval.high == pytest.approx(0.625 + 1.959963984540054 * math.sqrt(variance), abs=1e-15)
    assert interval.over == "images"


def test_all_classes_recognised_wholly_still_leave_doubt() -> None:
    interval = mean_per_class_interval(confusion_of([10] * 5, [10] * 5))
    assert interval.high == 1
    assert 0.9 < interval.low < 1


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0, 1)), min_size=1, max_size=20))
def test_mean_per_class_interval_holds_the_mean_and_stays_within_0_and_1(classes: list[tuple[int, float]]) -> None:
    confusion = confusion_of([round(share * images) for images, share in classes], [images for images, _ in classes])
    interval = mean_per_class_interval(confusion)
    assert 0 <= interval.low <= confusion.mean_per_class <= interval.high <= 1
    assert interval.low < interval.high
    wider = mean_per_class_interval(confusion, level=0.99)
    assert wider.low <= interval.low
    assert wider.high >= interval.high


def test_of_many_images_mean_per_class_and_top1_of_one_class_agree() -> None:
    """With one class the mean per class is the top-1; at n = 10^6 all methods give p ± z √(p(1-p)/n)."""
    counts = np.array([[900_000, 100_000], [0, 0]], dtype=np.int64)
    confusion = Confusion(counts, ("a", "b"))
    ours, theirs = mean_per_class_interval(confusion), wilson(900_000, 1_000_000)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=5e-6)


def coverage(classes: int, images: int, shares: np.ndarray, repeats: int, seed: int) -> float:
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(repeats):
        correct = rng.binomial(images, shares)
        interval = mean_per_class_interval(confusion_of(correct.tolist(), [images] * classes))
        hits += interval.low <= shares.mean() <= interval.high
    return hits / repeats


def test_nine_in_ten_intervals_of_good_networks_hold_the_truth() -> None:
    """37 classes of 5 images, recall 0.98: the plain binomial variance covers 57..90 % here.

    200 test sets at a true coverage of at least 0.93: below 0.86 with a chance under 10^-4.
    """
    assert coverage(37, 5, np.full(37, 0.98), 200, seed=0) >= 0.86


@pytest.mark.long
@pytest.mark.parametrize("classes", [10, 37, 100])
@pytest.mark.parametrize("images", [5, 30, 100])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.98, None])
def test_mean_per_class_intervals_cover_the_truth(classes: int, images: int, share: float | None) -> None:
    """2,000 test sets each: with a true coverage of 0.93, 0.91 is missed with a chance under 10^-3."""
    shares = np.random.default_rng(1).beta(4, 1, classes) if share is None else np.full(classes, share)
    assert coverage(classes, images, shares, 2000, seed=2) >= 0.91


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12, unique=True))
def test_over_seeds_is_scipys_t_interval(values: list[float]) -> None:
    ours = over_seeds(values)
    theirs = stats.ttest_1samp(values, 0.5).confidence_interval(0.95)
    assert ours.n == len(values)
    assert ours.mean == pytest.approx(np.mean(values), abs=1e-14)
    assert ours.std == pytest.approx(np.std(values, ddof=1), rel=1e-9, abs=1e-15)
    assert ours.interval is not None
    assert (ours.interval.low, ours.interval.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9, abs=1e-12)
    assert ours.interval.over == "seeds"


def test_one_seed_has_no_spread_and_no_interval() -> None:
    summary = over_seeds([0.7])
    assert (summary.mean, summary.std, summary.n, summary.interval) == (0.7, None, 1, None)


def test_five_published_seeds_by_hand() -> None:
    # t(0.975, 4) = 2.776445; deviations of 1..5 have variance 2.5
    summary = over_seeds([0.1, 0.2, 0.3, 0.4, 0.5])
    assert summary.interval is not None
    assert summary.interval.high == pytest.approx(0.3 + 2.776445 * math.sqrt(0.025 / 5), abs=1e-6)


@pytest.mark.parametrize("values", [[], [0.5, math.nan], [math.inf]])
def test_missing_accuracies_are_refused(values: list[float]) -> None:
    with pytest.raises(UserError, match="over seeds: "):
        over_seeds(values)
