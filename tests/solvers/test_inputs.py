"""What a solver refuses, and in which words: the same for each, so the test loops over the registry."""

import numpy as np
import pytest

from sparse_transfer.core.errors import UserError
from sparse_transfer.solvers import lbfgs, sgd, solvers

FITS = {"sgd": sgd.fit, "lbfgs": lbfgs.fit}
FEATURES, LABELS = np.ones((6, 4), np.float32), np.array([0, 1, 2, 0, 1, 2], dtype=np.int64)


def _with(index: tuple[int, int], value: float) -> np.ndarray:
    changed = FEATURES.copy()
    changed[index] = value
    return changed


BAD = [
    (
        _with((1, 2), np.nan),
        LABELS,
        "features: 1 of 6 rows contain NaN or infinity; run `sparse-transfer evaluate` on the checkpoint first",
    ),
    (
        _with((5, 3), -np.inf),
        LABELS,
        "features: 1 of 6 rows contain NaN or infinity; run `sparse-transfer evaluate` on the checkpoint first",
    ),
    (
        FEATURES.astype(np.float64),
        LABELS,
        "features: an array [6, 4] of float64; a solver takes [N, D] float32 in C order:"
        " numpy.ascontiguousarray(x, dtype=numpy.float32)",
    ),
    (
        np.asfortranarray(FEATURES),
        LABELS,
        "features: an array [6, 4] of float32, not C-contiguous; a solver takes [N, D] float32 in C order:"
        " numpy.ascontiguousarray(x, dtype=numpy.float32)",
    ),
    (FEATURES[:0], LABELS[:0], "features: an empty array [0, 4]; give at least one image"),
    (FEATURES, LABELS[:5], "labels: an array [5] of int64; 6 images need [6] int64"),
    (FEATURES, LABELS + 1, "labels: 2 of 6 lie outside 0 to 2 (first: 3); number the 3 classes from 0"),
    (FEATURES, LABELS - 1, "labels: 2 of 6 lie outside 0 to 2 (first: -1); number the 3 classes from 0"),
]


@pytest.mark.parametrize("name", sorted(solvers))
@pytest.mark.parametrize(("features", "labels", "sentence"), BAD)
def test_every_solver_refuses_what_cannot_be_fitted(
    name: str, features: np.ndarray, labels: np.ndarray, sentence: str
) -> None:
    with pytest.raises(UserError) as caught:
        FITS[name](features, labels, 3, solvers.get(name)(), [1])
    assert str(caught.value) == sentence


@pytest.mark.parametrize("name", sorted(solvers))
def test_every_solver_needs_a_seed_and_two_classes(name: str) -> None:
    fit, usual = FITS[name], solvers.get(name)()
    with pytest.raises(UserError, match="--seeds: no seed was given; give at least one"):
        fit(FEATURES, LABELS, 3, usual, [])
    with pytest.raises(UserError, match="1 classes; a classifier needs at least 2"):
        fit(FEATURES, np.zeros(6, np.int64), 1, usual, [1])


def test_a_solver_that_is_not_there_is_answered_with_the_nearest() -> None:
    assert sorted(solvers) == ["lbfgs", "sgd"]
    with pytest.raises(UserError, match=r'no solver is called "lbgfs"; did you mean "lbfgs"\?'):
        solvers.get("lbgfs")
