"""What does holding the mask cost, in a training step, in memory and between epochs; and how fast is the whole loop?

- step: the same update of the same network with a mask over 80 % of its weights, and without any, interleaved;
- memory: the highest anonymous memory of such updates, each in a process of its own;
- bookkeeping: audit, counting zeros and a saved state, as a share of an epoch of pets' 3,680 training pictures;
- loop: pictures per second from files, against timm's train.py with the same network, batch, precision and augmentation
  (``--timm PATH/train.py``, of a checkout of huggingface/pytorch-image-models; without it, ours alone).

    python benchmarks/bench_training.py [--architecture resnet50] [--batch 32] [--threads 2] [--timm train.py] [--save]
"""

import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import measure
import numpy as np
import torch
from PIL import Image
from torch import nn

from sparse_transfer.data.reading import dataset
from sparse_transfer.data.transforms import evaluation, training
from sparse_transfer.models import Backbone
from sparse_transfer.sparsity import Mask, prunable_weights
from sparse_transfer.training.distributed import Group
from sparse_transfer.training.learner import Learner, Part
from sparse_transfer.training.loop import Task, train
from sparse_transfer.training.model import Trainable
from sparse_transfer.training.settings import Execution, TrainSettings
from sparse_transfer.training.state import Position, State, States

CLASSES = 10
EPOCH = 3680


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--architecture", default="resnet50")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pictures", type=int, default=320, help="of one epoch of the loop")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--timm", type=Path, help="timm's train.py")
    options = parser.parse_args()
    measure.use_threads(options.threads)
    name, batch = options.architecture, options.batch

    masked, plain = (learner(name, sparsity, options.threads) for sparsity in (0.8, None))
    seconds = measure.interleaved({"masked": step(masked, batch), "plain": step(plain, batch)}, repeats=options.repeats)
    slower = measure.ratio(seconds["masked"], seconds["plain"])
    peaks = {sparsity: memory(name, sparsity, options.threads, batch) for sparsity in (0.8, None)}
    an_epoch = statistics.median(seconds["masked"]) * EPOCH / batch
    between = bookkeeping(masked)
    result: dict[str, object] = {
        "settings": f"{name}, batch {batch}, 224 px, fp32",
        "step, seconds": {case: round(statistics.median(times), 3) for case, times in seconds.items()},
        "step, masked over plain": f"{slower.median:.3f} ({slower.least:.3f} to {slower.most:.3f}, n = {slower.n})",
        "peak memory, MB": {"masked": peaks[0.8] // 2**20, "plain": peaks[None] // 2**20},
        "peak memory, masked over plain": round(peaks[0.8] / peaks[None], 3),
        "between epochs, seconds": {what: round(spent, 3) for what, spent in between.items()},
        "between epochs, share of an epoch of 3,680 pictures": round(sum(between.values()) / an_epoch, 5),
    }
    rates = loop(name, batch, options.pictures, options.threads, options.timm)
    result["loop, pictures per second"] = {case: round(statistics.median(values), 2) for case, values in rates.items()}
    if "timm" in rates:
        result["loop, ours over timm's"] = measure.ratio(rates["ours"], rates["timm"])
    measure.report("training", options.threads, result, save=options.save)


def learner(name: str, sparsity: float | None, threads: int) -> Learner:
    """The network with random zeros, held or not: where they are makes no difference to a dense step."""
    torch.manual_seed(0)
    backbone = Backbone.create(name)
    if sparsity is not None:
        for weight in prunable_weights(backbone.module).values():
            weight.data[torch.rand_like(weight) < sparsity] = 0
    mask = Mask.none() if sparsity is None else Mask.from_zeros(backbone.module)
    model = Trainable(backbone.module, nn.Linear(backbone.feature_dim, CLASSES))
    return Learner(model, mask, TrainSettings(), Execution(threads=threads), Group())


def step(made: Learner, batch: int) -> Callable[[], object]:
    images = torch.randn(batch, 3, 224, 224).to(memory_format=torch.channels_last)
    part = Part(images, torch.randint(CLASSES, (batch,)))
    return lambda: made.update([part], batch, 1.0)


def memory(name: str, sparsity: float | None, threads: int, batch: int) -> int:
    """Bytes of anonymous memory that three updates need, in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(peak_of_updates, (name, sparsity, threads, batch))


def peak_of_updates(name: str, sparsity: float | None, threads: int, batch: int) -> int:
    measure.use_threads(threads)
    with measure.anonymous_peak() as peak:
        run = step(learner(name, sparsity, threads), batch)
        for _ in range(3):
            run()
        return int(peak())


def bookkeeping(made: Learner) -> dict[str, float]:
    """Seconds of what is done between two epochs, the look at the test pictures apart."""
    with tempfile.TemporaryDirectory() as folder:
        states = States(Path(folder), "run")
        return {
            "audit": timed(made.audit),
            "count zeros": timed(made.mask.sparsity),
            "save a state": timed(lambda: states.save(State(Position(), *made.state()))),
        }


def timed(case: Callable[[], object]) -> float:
    case()
    began = time.perf_counter()
    case()
    return time.perf_counter() - began


def loop(name: str, batch: int, pictures: int, threads: int, timm: Path | None) -> dict[str, list[float]]:
    """Pictures per second of one epoch each, from JPEG files of 500 × 375 px, three times in turn."""
    rates: dict[str, list[float]] = {"ours": []} | ({"timm": []} if timm else {})
    with tempfile.TemporaryDirectory() as place:
        folder = made_pictures(Path(place), pictures)
        for _ in range(3):
            rates["ours"].append(our_loop(name, batch, folder, threads))
            if timm:
                rates["timm"].append(timm_loop(name, batch, folder, threads, timm, Path(place)))
    return rates


def our_loop(name: str, batch: int, folder: Path, threads: int) -> float:
    made = learner(name, 0.8, threads)
    settings = TrainSettings(epochs=1, batch_size=batch)
    made.settings = settings
    splits = dataset(f"folder:{folder}")
    facts = Backbone.create(name).preprocessing
    task = Task(splits.train, training(facts), splits.test, evaluation(facts), selects=False)
    trained = train(made, task, States(None, "run"), 0, lambda event: None)
    return len(splits.train) / trained.position.seconds["train"]


def timm_loop(name: str, batch: int, folder: Path, threads: int, script: Path, place: Path) -> float:
    """What timm's own log says of the epoch's rate, its average over all batches."""
    words = [
        sys.executable, str(script), "--data-dir", str(folder), "--train-split", "train", "--val-split", "test",
        "--model", name, "--num-classes", str(CLASSES), "-b", str(batch), "--epochs", "1", "--device", "cpu",
        "--workers", str(threads), "--opt", "sgd", "--lr", "0.001", "--weight-decay", "5e-4", "--sched", "step",
        "--warmup-epochs", "0", "--smoothing", "0", "--color-jitter", "0", "--train-interpolation", "bilinear",
        "--channels-last", "--log-interval", "1", "--output", str(place / "timm"),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    found = re.findall(r"Train: 0 .*?\(\s*[\d.]+s,\s*([\d.]+)/s\)", done.stdout + done.stderr)
    if not found:
        raise SystemExit(f"timm's train.py printed no rate:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return float(found[-1])


def made_pictures(place: Path, count: int) -> Path:
    rng = np.random.default_rng(0)
    for part, number in (("train", count), ("test", 2 * CLASSES)):
        for index in range(number):
            folder = place / "pictures" / part / f"class{index % CLASSES}"
            folder.mkdir(parents=True, exist_ok=True)
            small = Image.fromarray(rng.integers(0, 256, (38, 50, 3), dtype=np.uint8))
            small.resize((500, 375)).save(folder / f"{index}.jpg", quality=92)
    return place / "pictures"


if __name__ == "__main__":
    main()
