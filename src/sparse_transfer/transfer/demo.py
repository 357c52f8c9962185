"""The demo: the tiny networks of the zoo, dense and sparse, transferred to scikit-learn's digits."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparse_transfer import zoo
from sparse_transfer.checkpoints.file import load
from sparse_transfer.metrics.comparison import mcnemar
from sparse_transfer.runs.finished import FinishedRun
from sparse_transfer.transfer.compute import Compute
from sparse_transfer.transfer.linear import linear_transfer

SEED = 21


@dataclass(frozen=True)
class Demo:
    """The finished runs, dense first, and what they say in a sentence."""

    runs: tuple[FinishedRun, ...]
    answer: str


def demo(runs: str | Path, *, compute: Compute) -> Demo:
    """Transfer every network of the zoo to the digits, protocol ``clean``; runs that are there already are shown."""
    finished = tuple(
        linear_transfer(load(zoo.path(name)), "digits", seeds=[SEED], runs=runs, compute=compute)[0]
        for name in zoo.NAMES
    )
    return Demo(finished, _answer(finished[0], finished[-1]))


def _answer(dense: FinishedRun, sparse: FinishedRun) -> str:
    """The sparsest network against its dense twin, on the same test pictures."""
    of_dense, of_sparse = dense.predictions(), sparse.predictions()
    assert of_dense is not None
    assert of_sparse is not None
    paired = mcnemar(of_dense[0], of_dense[1], of_sparse[1])
    points = 100 * (sparse.result.last.top1 - dense.result.last.top1)
    # Wald's interval of a difference of paired proportions (Agresti, Categorical Data Analysis, section 11.1).
    n, only_dense, only_sparse = len(of_dense[0]), paired.only_first, paired.only_second
    half = 196 * np.sqrt(only_dense + only_sparse - (only_dense - only_sparse) ** 2 / n) / n
    cost, dense_cost = sparse.result.cost, dense.result.cost
    assert cost is not None
    assert dense_cost is not None
    verdict = "which may be chance" if paired.p_value > 0.05 else "more than chance explains"
    return (
        f"With {cost.sparsity_prunable:.0%} of its weights gone, the backbone needs"
        f" {dense_cost.macs_sparse / cost.macs_sparse:.1f} times fewer multiply-adds and its top-1 differs by"
        f" {points:+.1f} points (95 % interval {points - half:+.1f} to {points + half:+.1f}, {n} pictures),"
        f" {verdict} (McNemar p = {paired.p_value:.2g})."
    )
