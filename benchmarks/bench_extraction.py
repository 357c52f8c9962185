"""How fast are features made, and what is the limit: decoding or computing?

Three measurements, interleaved, each repeated:

- compute: a plain PyTorch loop (eager, NCHW, no_grad, eval mode, batch 64) against our engine, on the same images;
- decode: pictures from files to uint8 batches, in threads and in a PyTorch DataLoader's processes;
- pipeline: ``features()`` from files to a finished cache entry.

    python benchmarks/bench_extraction.py --pictures FOLDER [--architecture resnet50] [--sparsity 0.8] [--json FILE]
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sparse_transfer.core.threads import available_cores
from sparse_transfer.data.decode import load_picture
from sparse_transfer.data.loading import batches
from sparse_transfer.data.split import Split
from sparse_transfer.data.transforms import Transform, evaluation
from sparse_transfer.features import features
from sparse_transfer.inference import engine
from sparse_transfer.models import Backbone
from sparse_transfer.sparsity import Mask, prunable_weights

PLAIN_BATCH = 64


def main() -> None:
    options = arguments()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    backbone = pruned(Backbone.create(options.architecture), options.sparsity)
    transform = evaluation(backbone.preprocessing)
    with tempfile.TemporaryDirectory() as folder:
        split = pictures(options.pictures or noise(Path(folder) / "pictures", options.images), options.images)
        work = {
            "compute, plain loop": plain_loop(backbone, options.images, options.threads),
            "compute, engine": our_engine(backbone, options.images, options.threads, options.batch),
            "compute, engine bf16": our_engine(backbone, options.images, options.threads, options.batch, bf16=True),
            "decode, threads": decoded_in_threads(split, transform, options.threads),
            "decode, processes": decoded_in_processes(split, transform, options.threads),
            "pipeline": pipeline(backbone, split, transform, options.threads, options.batch, Path(folder)),
        }
        measured = interleaved(work, options.repeats)
    report = summary(measured, options.images) | {
        "settings": {name: str(value) for name, value in vars(options).items() if name != "json"},
        "machine": f"{platform.machine()}, {available_cores()} cores, torch {torch.__version__}",
    }
    print(json.dumps(report, indent=1))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="folder of JPEG files (default: made here, 500 × 375 px)")
    parser.add_argument("--architecture", default="resnet50")
    parser.add_argument("--sparsity", type=float, default=0.8)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def interleaved(work: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds of (wall, CPU) of every repeat. Once each per round, so that a slow minute hits all alike."""
    for run in work.values():
        run()
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, run in work.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            measured[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return measured


def summary(measured: dict[str, list[tuple[float, float]]], images: int) -> dict[str, object]:
    rates = {name: images / statistics.median(wall for wall, _ in times) for name, times in measured.items()}
    plain, ours = measured["compute, plain loop"], measured["compute, engine"]
    ratios = sorted(a / b for (a, _), (b, _) in zip(plain, ours, strict=True))
    cpu_ratios = sorted(a / b for (_, a), (_, b) in zip(plain, ours, strict=True))
    decode, compute = rates["decode, threads"], rates["compute, engine"]
    return {
        "images_per_s": {name: round(rate, 1) for name, rate in rates.items()},
        "speed_up_of_engine_over_plain_loop": {
            "wall": round(statistics.median(ratios), 2),
            "wall_range": [round(ratios[0], 2), round(ratios[-1], 2)],
            "cpu_time": round(statistics.median(cpu_ratios), 2),
        },
        "limit": "computing" if compute < decode else "decoding",
        # Both share the cores, so at best their times add up.
        "pipeline_share_of_what_the_cores_allow": round(rates["pipeline"] * (1 / decode + 1 / compute), 2),
        "raw_wall_s": {name: [round(wall, 3) for wall, _ in times] for name, times in measured.items()},
    }


def plain_loop(backbone: Backbone, images: int, threads: int) -> Callable[[], None]:
    size = backbone.preprocessing.crop
    pixels = torch.randn(images, 3, size, size)

    def run() -> None:
        torch.set_num_threads(threads)
        with torch.no_grad():
            torch.cat([backbone.module(part) for part in pixels.split(PLAIN_BATCH)])

    return run


def our_engine(backbone: Backbone, images: int, threads: int, batch: int, *, bf16: bool = False) -> Callable[[], None]:
    size = backbone.preprocessing.crop
    compiled = engine("torch").compile(
        backbone, batch=batch, threads=threads, input_size=size, numerics="bf16" if bf16 else "fp32"
    )
    # As ``Transform.normalise`` gives them: channels last.
    pixels = np.random.default_rng(0).normal(size=(images, size, size, 3)).astype(np.float32).transpose(0, 3, 1, 2)

    def run() -> None:
        for start in range(0, images, batch):
            compiled(pixels[start : start + batch])

    return run


def decoded_in_threads(split: Split, transform: Transform, workers: int) -> Callable[[], None]:
    def run() -> None:
        with closing(batches(split, transform, batch_size=PLAIN_BATCH, workers=workers)) as loader:
            for _ in loader:
                pass

    return run


class Pictures(Dataset[Tensor]):
    def __init__(self, split: Split, transform: Transform) -> None:
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(self.transform(load_picture(self.split, index)).copy())


def decoded_in_processes(split: Split, transform: Transform, workers: int) -> Callable[[], None]:
    loader = DataLoader(
        Pictures(split, transform), batch_size=PLAIN_BATCH // 4, num_workers=workers, persistent_workers=True
    )

    def run() -> None:
        for _ in loader:
            pass

    return run


def pipeline(
    backbone: Backbone, split: Split, transform: Transform, threads: int, batch: int, place: Path
) -> Callable[[], None]:
    def run() -> None:
        with tempfile.TemporaryDirectory(dir=place) as root:
            features(backbone, split, transform, batch=batch, workers=threads, threads=threads, cache_root=Path(root))

    return run


def pruned(backbone: Backbone, sparsity: float) -> Backbone:
    """Random zeros: the engine is dense, so where they are makes no difference to it."""
    for weight in prunable_weights(backbone.module).values():
        weight.data[torch.rand_like(weight) < sparsity] = 0
    return Backbone(backbone.module, backbone.architecture, backbone.preprocessing, Mask.from_zeros(backbone.module))


def pictures(folder: Path, count: int) -> Split:
    """The first ``count`` JPEG files below the folder; fewer are taken again."""
    paths = sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg")
    )
    taken = tuple(paths[index % len(paths)] for index in range(count))
    sizes = np.array([(folder / path).stat().st_size for path in taken], dtype=np.int64)
    return Split("test", folder, taken, np.zeros(count, dtype=np.int64), sizes, ("any",))


def noise(folder: Path, count: int) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(min(count, 64)):
        small = Image.fromarray(rng.integers(0, 256, (38, 50, 3), dtype=np.uint8))
        small.resize((500, 375)).save(folder / f"{index}.jpg", quality=92)
    return folder


if __name__ == "__main__":
    main()
