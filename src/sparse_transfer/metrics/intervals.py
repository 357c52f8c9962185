"""How sure one may be of an accuracy: over images (one trained head) or over seeds (several)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import Literal

import numpy as np

from sparse_transfer.core.errors import UserError
from sparse_transfer.metrics.confusion import Confusion

LEVEL = 0.95

Over = Literal["images", "seeds"]


@dataclass(frozen=True)
class Interval:
    """A confidence interval, and what it is over.

    ``images``: other test images of the same kind, with this one head. ``seeds``: other seeds, on these images.
    """

    low: float
    high: float
    level: float
    over: Over
    method: str


@dataclass(frozen=True)
class SeedSummary:
    """One accuracy over n seeds: mean, sample standard deviation (n - 1), t interval. Of one seed, only the mean."""

    mean: float
    std: float | None
    n: int
    interval: Interval | None


def wilson(correct: int, total: int, level: float = LEVEL) -> Interval:
    """Wilson's score interval for ``correct`` of ``total`` images, without continuity correction.

    (p + z²/2n ± z √(p(1 - p)/n + z²/4n²)) / (1 + z²/n), p = correct/total; always within [0, 1] and never empty.
    Source: Wilson 1927, JASA 22; recommended by Brown, Cai and DasGupta 2001, Statistical Science 16.
    """
    if not 0 <= correct <= total or total < 1:
        raise UserError(f"{correct:,} of {total:,} images correct", do="0 <= correct <= total, of at least one image")
    z = _z(level)
    share = correct / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    # At 0 and at all correct one limit is exact; rounding must not put it beside.
    low = 0.0 if correct == 0 else max(0.0, centre - half)
    high = 1.0 if correct == total else min(1.0, centre + half)
    return Interval(low, high, level, "images", "wilson")


def mean_per_class_interval(confusion: Confusion, level: float = LEVEL) -> Interval:
    """Interval for the mean per class, from the binomial variance of each class.

    m ± z √V,  V = 1/K² Σ q_c (1 - q_c) / n_c,  q_c = (correct_c + 1) / (n_c + 2), over the K classes that have
    test images, cut off at [0, 1]. The plain p_c in place of q_c has no variance at p_c = 0 or 1, which most
    classes of a good network have: on simulated test sets of 10..100 classes with 5..100 images each its 95 %
    intervals held the truth in 88 % (worst case 57 %), with q_c in 97 % (worst case 93 %), at about a quarter more
    width. The centre stays the measured mean: moving it by the same pseudo-images would pull every class towards
    1/2 and add up over classes.
    Source: one success and one failure added to each sample, Agresti and Caffo 2000, The American Statistician 54;
    for sums of several proportions Price and Bonett 2004, Computational Statistics & Data Analysis 45.
    """
    z = _z(level)
    filled = confusion.images > 0
    images = confusion.images[filled].astype(np.float64)
    smoothed = (np.diagonal(confusion.counts)[filled] + 1) / (images + 2)
    variance = float((smoothed * (1 - smoothed) / images).sum()) / len(images) ** 2
    mean, half = confusion.mean_per_class, z * math.sqrt(variance)
    return Interval(max(0.0, mean - half), min(1.0, mean + half), level, "images", "per-class binomial")


def over_seeds(values: Sequence[float], level: float = LEVEL) -> SeedSummary:
    """Mean, sample standard deviation (divisor n - 1) and t interval of one accuracy per seed.

    mean ± t(n - 1) · std / √n. One seed says nothing of the spread: no std, no interval.
    """
    if not values or not all(math.isfinite(value) for value in values):
        raise UserError(f"{len(values)} accuracies, of which some are missing or not finite", where="over seeds")
    if len(values) == 1:
        return SeedSummary(values[0], None, 1, None)
    from scipy.stats import t

    _z(level)  # the same check of the level
    mean, std, n = fmean(values), stdev(values), len(values)
    half = float(t.ppf((1 + level) / 2, n - 1)) * std / math.sqrt(n)
    return SeedSummary(mean, std, n, Interval(mean - half, mean + half, level, "seeds", "t"))


def _z(level: float) -> float:
    if not 0 < level < 1:
        raise UserError(f"a confidence level of {level}", do="it lies between 0 and 1")
    return NormalDist().inv_cdf((1 + level) / 2)
