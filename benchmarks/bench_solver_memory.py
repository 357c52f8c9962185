"""Anonymous memory of each solver on 100,000 x 2,048 features of 100 classes that lie in a memory-mapped file.

    PYTHONPATH=src python benchmarks/bench_solver_memory.py [--threads 1] [--save]

Makes a file of 819 MB in a temporary folder. Each solver runs in a process of its own; its peak is counted above what
the process holds once the libraries are loaded and a small fit is done. The target is 1.5 GB.
"""

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from measure import anonymous_peak, arguments, report, use_threads

IMAGES, WIDTH, CLASSES = 100_000, 2048, 100
SOLVERS = ("sgd", "lbfgs", "selection")


def make(folder: Path) -> None:
    """Features block by block: noise around a mean of each class."""
    random = np.random.default_rng(0)
    labels = np.arange(IMAGES, dtype=np.int64) % CLASSES
    np.save(folder / "labels.npy", labels)
    means = random.random((CLASSES, WIDTH), dtype=np.float32)
    mapped = np.lib.format.open_memmap(folder / "features.npy", "w+", np.float32, (IMAGES, WIDTH))
    for start in range(0, IMAGES, 5000):
        part = slice(start, start + 5000)
        mapped[part] = means[labels[part]] + 2 * random.random((5000, WIDTH), dtype=np.float32)
    mapped.flush()


def fit(solver: str, features: np.ndarray, labels: np.ndarray) -> None:
    from sparse_transfer.solvers import lbfgs, selection, sgd

    classes = int(labels.max()) + 1
    strengths = lbfgs.LbfgsSettings(l2=(1.0, 0.1, 0.01))
    if solver == "sgd":
        sgd.fit(features, labels, classes, sgd.SgdSettings(epochs=1), [21, 51, 81, 111, 141])
    elif solver == "lbfgs":
        lbfgs.fit(features, labels, classes, strengths)
    else:
        rest, out = selection.held_out(labels, 0.2, 0)
        heads = lbfgs.fit(features[rest], labels[rest], classes, strengths)
        best, _ = selection.best_of(heads, features[out], labels[out])
        lbfgs.fit(features, labels, classes, replace(strengths, l2=best.strength), start=best.head)


def peak(solver: str, folder: Path, threads: int) -> None:
    use_threads(threads)
    features = np.load(folder / "features.npy", mmap_mode="r")
    labels = np.load(folder / "labels.npy")
    fit(solver, np.ascontiguousarray(features[:500]), labels[:500])
    with anonymous_peak() as highest:
        fit(solver, features, labels)
        print(highest() / 1e9)


def main() -> None:
    options = arguments(__doc__)
    options.add_argument("--one", nargs=2, metavar=("SOLVER", "FOLDER"), help="what each process is started with")
    asked = options.parse_args()
    if asked.one:
        peak(asked.one[0], Path(asked.one[1]), asked.threads)
        return
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        command = [sys.executable, __file__, "--threads", str(asked.threads), "--one"]
        gigabytes = {
            solver: round(float(subprocess.run([*command, solver, folder], check=True, capture_output=True).stdout), 3)
            for solver in SOLVERS
        }
    report(
        "solver_memory",
        asked.threads,
        {"setting": f"N {IMAGES}, D {WIDTH}, C {CLASSES}, features in a file", "target_gb": 1.5, "peak_gb": gigabytes},
        save=asked.save,
    )


if __name__ == "__main__":
    main()
