"""How many pictures a second does finetuning learn from, and how busy is the device?

From JPEG files of 500 × 375 px, the same command's loop as users run it, second epoch of two: against timm's train.py
with the same network, batch, precision and augmentation (``--timm PATH/train.py``, of a checkout of
huggingface/pytorch-image-models; without it, ours alone), three times in turn. On CUDA also with decoded pictures kept
in memory, and with the crops left to the device as well.

    python benchmarks/bench_training_loop.py [--architecture resnet50] [--batch 32] [--threads 2] [--timm train.py]
    python benchmarks/bench_training_loop.py --device cuda --amp bf16 --batch 128 --pictures 10000 --threads 16

On two quiet cores it takes some seven minutes, with timm's.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import measure
import numpy as np
from bench_training import CLASSES, learner
from PIL import Image

from sparse_transfer.core.canonical import Json
from sparse_transfer.data.reading import dataset
from sparse_transfer.data.transforms import evaluation, training
from sparse_transfer.models import Backbone
from sparse_transfer.training.loop import Task, train
from sparse_transfer.training.settings import Execution, TrainSettings
from sparse_transfer.training.state import States


@dataclass(frozen=True)
class Setup:
    """What both loops are given. folder: the pictures, in class folders of train and test."""

    architecture: str
    batch: int
    execution: Execution
    folder: Path


@dataclass(frozen=True)
class Epoch:
    """pictures_per_s, and in ours the share of the time in which the device worked at updates."""

    pictures_per_s: float
    busy: float | None = None


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--architecture", default="resnet50")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pictures", type=int, default=128, help="of an epoch")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--amp", choices=["off", "bf16", "fp16"], default="off")
    parser.add_argument("--timm", type=Path, help="timm's train.py")
    options = parser.parse_args()
    measure.use_threads(options.threads)
    execution = Execution(options.device, options.amp, threads=options.threads, workers=options.threads)
    with tempfile.TemporaryDirectory() as place:
        folder = made_pictures(Path(place) / "pictures", options.pictures)
        epochs = measured(Setup(options.architecture, options.batch, execution, folder), options.timm)
    rates = {case: [epoch.pictures_per_s for epoch in found] for case, found in epochs.items()}
    result: dict[str, object] = {
        "settings": f"{options.architecture}, {execution.numerics}, batch {options.batch} of 224 px",
        "pictures per second": {case: round(statistics.median(values), 2) for case, values in rates.items()},
        "busy": {case: [epoch.busy for epoch in found] for case, found in epochs.items() if case != "timm"},
    }
    if "timm" in rates:
        result["ours over timm's"] = measure.ratio(rates["ours"], rates["timm"])
    name = "training_loop" if options.device == "cpu" else "training_loop_cuda"
    measure.report(name, options.threads, result, save=options.save)


def measured(setup: Setup, timm: Path | None) -> dict[str, list[Epoch]]:
    """Each case three times, in turn."""
    cached = replace(setup, execution=replace(setup.execution, cache_bytes=2**36))
    found: dict[str, list[Epoch]] = {}
    for _ in range(3):
        found.setdefault("ours", []).append(our_epoch(setup))
        if setup.execution.device == "cuda":
            found.setdefault("ours, cached", []).append(our_epoch(cached))
            found.setdefault("ours, cached, cut on the device", []).append(our_epoch(cached, on_device=True))
        if timm:
            found.setdefault("timm", []).append(timm_epoch(setup, timm))
    return found


def our_epoch(setup: Setup, *, on_device: bool = False) -> Epoch:
    """The second of two. From one look at the few test pictures to the next, so that look is counted as well."""
    made = learner(setup.architecture, 0.8, setup.execution)
    made.settings = TrainSettings(epochs=2, batch_size=setup.batch)
    splits = dataset(f"folder:{setup.folder}")
    facts = Backbone.create(setup.architecture).preprocessing
    task = Task(splits.train, training(facts, on_device=on_device), splits.test, evaluation(facts), selects=False)
    ends: list[tuple[float, Json]] = []

    def log(event: Mapping[str, Json]) -> None:
        if event["event"] == "epoch":
            ends.append((time.perf_counter(), event["busy"]))

    train(made, task, States(None, "run"), 0, log)
    (first, _), (second, busy) = ends
    assert isinstance(busy, float)
    return Epoch(len(splits.train) / (second - first), round(busy, 3))


def timm_epoch(setup: Setup, script: Path) -> Epoch:
    """What timm's own log says of the second epoch's rate, its average over all batches."""
    execution, amp = setup.execution, {"off": [], "bf16": ["--amp", "--amp-dtype", "bfloat16"], "fp16": ["--amp"]}
    words = [
        sys.executable, str(script), "--data-dir", str(setup.folder), "--train-split", "train", "--val-split", "test",
        "--model", setup.architecture, "--num-classes", str(CLASSES), "-b", str(setup.batch), "--epochs", "2",
        "--device", execution.device, "--workers", str(execution.workers), "--opt", "sgd", "--lr", "0.001",
        "--weight-decay", "5e-4", "--sched", "step", "--warmup-epochs", "0", "--smoothing", "0", "--color-jitter", "0",
        "--train-interpolation", "bilinear", "--channels-last", "--log-interval", "1",
        "--output", str(setup.folder.parent / "timm"), *amp[execution.amp],
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": str(execution.cores)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    found = re.findall(r"Train: 1 .*?\(\s*[\d.]+s,\s*([\d.]+)/s\)", done.stdout + done.stderr)
    if not found:
        raise SystemExit(f"timm's train.py printed no rate:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return Epoch(float(found[-1]))


def made_pictures(place: Path, count: int) -> Path:
    rng = np.random.default_rng(0)
    for part, number in (("train", count), ("test", 2 * CLASSES)):
        for index in range(number):
            folder = place / part / f"class{index % CLASSES}"
            folder.mkdir(parents=True, exist_ok=True)
            small = Image.fromarray(rng.integers(0, 256, (38, 50, 3), dtype=np.uint8))
            small.resize((500, 375)).save(folder / f"{index}.jpg", quality=92)
    return place


if __name__ == "__main__":
    main()
