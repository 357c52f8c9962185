"""Is one network better than another: on the same images, or over data sets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparse_transfer.core.errors import UserError


@dataclass(frozen=True)
class McNemar:
    """Two networks on the same images: the images that only one of them recognises decide.

    p_value: two-sided and exact, of both being equally likely to be the one that is right.
    """

    only_first: int
    only_second: int
    p_value: float


def mcnemar(labels: NDArray[np.integer], first: NDArray[np.integer], second: NDArray[np.integer]) -> McNemar:
    """Exact McNemar test of two prediction vectors [N] against labels [N]; without a difference p is 1.

    p = min(1, 2 · P(X <= min(b, c))), X ~ Binomial(b + c, 1/2). Source: McNemar 1947, Psychometrika 12.
    """
    if not labels.shape == first.shape == second.shape or labels.ndim != 1:
        raise UserError(
            f"labels {list(labels.shape)}, predictions {list(first.shape)} and {list(second.shape)}",
            do="McNemar's test needs both predictions of the same images",
        )
    only_first = int(((first == labels) & (second != labels)).sum())
    only_second = int(((first != labels) & (second == labels)).sum())
    if only_first == only_second:  # also 0 = 0, for which SciPy knows no test
        return McNemar(only_first, only_second, 1.0)
    from scipy.stats import binomtest

    p_value = float(binomtest(only_first, only_first + only_second, 0.5).pvalue)
    return McNemar(only_first, only_second, p_value)


def wilcoxon(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p of the Wilcoxon signed-rank test over data sets: one accuracy of each network per data set.

    Exact where there are no ties. Data sets without a difference are dropped (Wilcoxon's own rule); if none is
    left p is 1. Source: Wilcoxon 1945; for classifiers over data sets Demšar 2006, JMLR 7, section 3.1.3.
    """
    if len(first) != len(second) or not first:
        raise UserError(
            f"{len(first)} and {len(second)} accuracies", do="the signed-rank test needs one of each per data set"
        )
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    if not np.isfinite(differences).all():
        raise UserError(f"{int((~np.isfinite(differences)).sum())} of {len(differences)} accuracies are not finite")
    if not differences.any():  # older SciPys have no answer here
        return 1.0
    from scipy.stats import wilcoxon as signed_rank

    return float(np.asarray(signed_rank(differences, zero_method="wilcox"))[1])  # (statistic, p value)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given: compare each with the level of the whole family.

    The i-th smallest of m becomes max over j <= i of min(1, (m - j + 1) p_(j)).
    Source: Holm 1979, Scandinavian Journal of Statistics 6.
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise UserError("a p value outside [0, 1]", where="holm")
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
