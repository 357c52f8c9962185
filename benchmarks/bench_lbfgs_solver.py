"""A path of 45 strengths: our L-BFGS against scikit-learn's, on the same features, in the same order, warm-started.

    PYTHONPATH=src python benchmarks/bench_lbfgs_solver.py [--threads 1] [--limit 150] [--save]

scikit-learn's LogisticRegression stops where the largest entry of the gradient is below ``tol``; it is run with its
default 1e-4 and with smaller ones, since at 1e-4 it leaves weak strengths far from their minimum. A path that takes
longer than ``--limit`` seconds is given up, and what it took is a lower bound. Seconds are of processor time: on a
busy machine the clock on the wall measures the neighbours. "Reached": strengths whose objective,
penalty included and evaluated in float64, is within 1e-4 of the lowest that anything here found. In float32
scikit-learn does not reach the weak ones at any ``tol``: its time is then a lower bound too. ``--double`` adds float64.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from measure import arguments, processor_seconds, report, use_threads
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from sparse_transfer.models.network import Head
from sparse_transfer.solvers import lbfgs
from sparse_transfer.solvers.objective import objective
from support.made_features import made_features

Objectives = NDArray[np.float64]  # one a strength; NaN where the path was given up


def values(heads: list[Head], features: NDArray[np.float32], labels: NDArray[np.int64]) -> Objectives:
    found = np.full(len(lbfgs.DEFAULT_PATH), np.nan)
    for index, (head, l2) in enumerate(zip(heads, lbfgs.DEFAULT_PATH, strict=False)):
        double = Head(head.weight.double(), head.bias.double())
        found[index] = objective(double, features, labels, l2=l2).value
    return found


def ours(
    features: NDArray[np.float32], labels: NDArray[np.int64], classes: int, tolerance: float
) -> tuple[float, list[Head]]:
    began = processor_seconds()
    heads = lbfgs.fit(features, labels, classes, lbfgs.LbfgsSettings(tolerance=tolerance))
    return processor_seconds() - began, [fitted.head for fitted in heads]


def theirs(
    features: NDArray[np.floating], labels: NDArray[np.int64], tolerance: float, limit: float
) -> tuple[float, list[Head]]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(warm_start=True, tol=tolerance, max_iter=100_000)
    spent, heads = 0.0, list[Head]()
    for l2 in lbfgs.DEFAULT_PATH:
        model.set_params(C=1 / (len(features) * l2))
        began = processor_seconds()
        model.fit(features, labels)
        spent += processor_seconds() - began
        heads.append(Head(torch.tensor(model.coef_), torch.tensor(model.intercept_)))
        if spent > limit:
            break
    return spent, heads


def main() -> None:
    options = arguments(__doc__)
    options.add_argument("--images", type=int, default=3680)
    options.add_argument("--width", type=int, default=2048)
    options.add_argument("--classes", type=int, default=37)
    options.add_argument("--spread", type=float, default=4.0, help="noise of the made features")
    options.add_argument("--features", type=Path, help="an .npz with X [N, D] and y [N] instead of made features")
    options.add_argument("--tolerances", type=float, nargs="+", default=[1e-4, 1e-8], help="of scikit-learn")
    options.add_argument("--double", action="store_true", help="scikit-learn in float64 too, at its last tolerance")
    options.add_argument("--limit", type=float, default=150.0, help="seconds after which a path is given up")
    asked = options.parse_args()
    use_threads(asked.threads)
    warnings.simplefilter("ignore")
    if asked.features is None:
        features, labels = made_features(asked.images, asked.width, asked.classes, spread=asked.spread)
        classes = asked.classes
    else:
        loaded = np.load(asked.features)
        features, labels = np.ascontiguousarray(loaded["X"], np.float32), loaded["y"].astype(np.int64)
        classes = int(labels.max()) + 1

    runs = {"ours, first time": ours(features, labels, classes, lbfgs.LbfgsSettings().tolerance)}
    for tolerance in asked.tolerances:
        runs[f"scikit-learn, tol {tolerance:g}"] = theirs(features, labels, tolerance, asked.limit)
    if asked.double:
        name = f"scikit-learn in float64, tol {asked.tolerances[-1]:g}"
        runs[name] = theirs(features.astype(np.float64), labels, asked.tolerances[-1], asked.limit)
    runs["ours, second time"] = ours(features, labels, classes, lbfgs.LbfgsSettings().tolerance)
    runs["ours, tolerance 1e-9"] = ours(features, labels, classes, 1e-9)

    found = {name: values(heads, features, labels) for name, (_, heads) in runs.items()}
    best = np.nanmin(np.stack(list(found.values())), axis=0)
    rows = {
        name: {
            "processor_s": round(seconds, 2),
            "strengths fitted": len(heads),
            "reached": int(np.sum(found[name] <= best * (1 + 1e-4))),
            "worst gap": float(f"{np.nanmax(found[name] / best - 1):.2e}"),
        }
        for name, (seconds, heads) in runs.items()
    }
    fast = (runs["ours, first time"][0] + runs["ours, second time"][0]) / 2
    report(
        "lbfgs_solver",
        asked.threads,
        {
            "setting": f"{len(lbfgs.DEFAULT_PATH)} strengths, N {len(features)}, D {features.shape[1]}, C {classes}",
            **rows,
            **{
                f"speed-up over {name}": round(seconds / fast, 1)
                for name, (seconds, _) in runs.items()
                if name.startswith("scikit")
            },
        },
        save=asked.save,
    )


if __name__ == "__main__":
    main()
