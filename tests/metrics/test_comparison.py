import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sparse_transfer.core.errors import UserError
from sparse_transfer.metrics.comparison import holm, mcnemar, wilcoxon


def vectors(only_first: int, only_second: int, both: int = 3, neither: int = 2) -> tuple[np.ndarray, ...]:
    first = [1] * only_first + [0] * only_second + [1] * both + [0] * neither
    second = [0] * only_first + [1] * only_second + [1] * both + [0] * neither
    return np.ones(len(first), dtype=np.int64), np.array(first), np.array(second)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial_tail_in_fractions(only_first: int, only_second: int) -> None:
    result = mcnemar(*vectors(only_first, only_second))
    n = only_first + only_second
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1))
    exact = min(Fraction(1), Fraction(2 * tail, 2**n))
    assert (result.only_first, result.only_second) == (only_first, only_second)
    assert result.p_value == pytest.approx(float(exact), rel=1e-10)


def test_mcnemar_by_hand() -> None:
    assert mcnemar(*vectors(5, 0)).p_value == pytest.approx(2 / 32)
    assert mcnemar(*vectors(1, 4)).p_value == pytest.approx(2 * 6 / 32)
    assert mcnemar(*vectors(0, 0)).p_value == 1


def test_two_wrong_answers_that_differ_are_no_difference() -> None:
    result = mcnemar(np.array([0, 0]), np.array([1, 1]), np.array([2, 2]))
    assert (result.only_first, result.only_second, result.p_value) == (0, 0, 1)


def test_mcnemar_needs_the_same_images() -> None:
    with pytest.raises(UserError, match="needs both predictions of the same images"):
        mcnemar(np.array([0, 1]), np.array([0, 1]), np.array([0]))


def test_wilcoxon_by_hand() -> None:
    # five data sets, all better: two of 2^5 sign patterns are as extreme
    assert wilcoxon([0.6, 0.7, 0.8, 0.9, 0.95], [0.5, 0.5, 0.5, 0.5, 0.5]) == pytest.approx(2 / 32)


def test_wilcoxon_is_scipys_with_ties_and_zeros_left_out() -> None:
    first, second = [0.5, 0.75, 0.25, 0.5, 1.0, 0.0], [0.25, 0.5, 0.5, 0.5, 0.25, 0.125]
    differences = [a - b for a, b in zip(first, second, strict=True) if a != b]
    assert wilcoxon(first, second) == pytest.approx(float(stats.wilcoxon(differences).pvalue))
    assert wilcoxon(second, first) == pytest.approx(wilcoxon(first, second))


def test_no_difference_on_any_data_set_is_p_1() -> None:
    assert wilcoxon([0.5, 0.6], [0.5, 0.6]) == 1


@pytest.mark.parametrize(("first", "second"), [([], []), ([0.5], [0.5, 0.6]), ([math.nan], [0.5])])
def test_wilcoxon_refuses_what_is_not_paired_or_not_finite(first: list[float], second: list[float]) -> None:
    with pytest.raises(UserError):
        wilcoxon(first, second)


def test_holm_by_hand() -> None:
    # sorted 0.01, 0.03, 0.04 become 0.03, 0.06, max(0.06, 0.04)
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    for level in (0.013, 0.05, 0.21):
        rejected = set()
        for rank, index in enumerate(order):  # Holm's own words: stop at the first that is not small enough
            if (len(p_values) - rank) * p_values[index] > level:
                break
            rejected.add(index)
        assert {index for index, p in enumerate(adjusted) if p <= level} == rejected
    assert all(p <= after for p, after in zip(p_values, adjusted, strict=True))
    assert sorted(adjusted) == [adjusted[index] for index in order]


def test_holm_refuses_what_is_no_p_value() -> None:
    with pytest.raises(UserError, match=r"outside \[0, 1\]"):
        holm([0.5, 1.5])
