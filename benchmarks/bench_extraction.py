"""How fast are features made, and what is the limit: decoding or computing?

Three measurements, interleaved, each repeated:

- compute: a plain PyTorch loop (eager, NCHW, no_grad, eval mode, batch 64) against our engine, on the same images;
- decode: pictures from files to uint8 batches, in threads and in a PyTorch DataLoader's processes;
- pipeline: ``features()`` from files to a finished cache entry.

    python benchmarks/bench_extraction.py --pictures FOLDER [--architecture resnet50] [--sparsity 0.8]
        [--threads 2] [--bf16] [--save]

``--bf16`` adds the engine in bf16, which a CPU without instructions for it runs several times slower than fp32.
"""

import statistics
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import measure
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sparse_transfer.data.decode import load_picture
from sparse_transfer.data.loading import batches
from sparse_transfer.data.split import Split
from sparse_transfer.data.transforms import Transform, evaluation
from sparse_transfer.features import features
from sparse_transfer.inference import Numerics, engine
from sparse_transfer.models import Backbone
from sparse_transfer.sparsity import Mask, prunable_weights

PLAIN_BATCH = 64
PLAIN, ENGINE, BF16 = "compute, plain loop", "compute, engine", "compute, engine bf16"
DECODE, PIPELINE = "decode, threads", "pipeline"


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--pictures", type=Path, help="folder of JPEG files (default: made here, 500 × 375 px)")
    parser.add_argument("--architecture", default="resnet50")
    parser.add_argument("--sparsity", type=float, default=0.8)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--bf16", action="store_true", help="the engine in bf16 too")
    options = parser.parse_args()

    torch.manual_seed(0)
    measure.use_threads(options.threads)
    backbone = pruned(Backbone.create(options.architecture), options.sparsity)
    transform = evaluation(backbone.preprocessing)
    count, threads, batch = options.images, options.threads, options.batch
    with tempfile.TemporaryDirectory() as folder:
        split = pictures(options.pictures or noise(Path(folder) / "pictures", count), count)
        seconds = measure.interleaved(
            {
                PLAIN: plain_loop(backbone, count, threads),
                ENGINE: our_engine(backbone, count, threads, batch),
                **({BF16: our_engine(backbone, count, threads, batch, numerics="bf16")} if options.bf16 else {}),
                DECODE: decoded_in_threads(split, transform, threads),
                "decode, processes": decoded_in_processes(split, transform, threads),
                PIPELINE: pipeline(backbone, split, transform, threads, batch, Path(folder)),
            },
            repeats=options.repeats,
        )
    rates = {name: count / statistics.median(times) for name, times in seconds.items()}
    result = {
        "settings": f"{options.architecture}, {options.sparsity:.0%} sparse, {count} images, batch {batch}",
        "images per s": {name: round(rate, 1) for name, rate in rates.items()},
        "speed-up of the engine over a plain loop": measure.ratio(seconds[PLAIN], seconds[ENGINE]),
        "limit": "computing" if rates[ENGINE] < rates[DECODE] else "decoding",
        # Both use the same cores, so at best their times add up to 1.
        "share of what the cores allow": round(rates[PIPELINE] * (1 / rates[DECODE] + 1 / rates[ENGINE]), 2),
    }
    measure.report("extraction", threads, result, save=options.save)


def plain_loop(backbone: Backbone, images: int, threads: int) -> Callable[[], None]:
    size = backbone.preprocessing.crop
    pixels = torch.randn(images, 3, size, size)

    def run() -> None:
        torch.set_num_threads(threads)
        with torch.no_grad():
            torch.cat([backbone.module(part) for part in pixels.split(PLAIN_BATCH)])

    return run


def our_engine(
    backbone: Backbone, images: int, threads: int, batch: int, numerics: Numerics = "fp32"
) -> Callable[[], None]:
    size = backbone.preprocessing.crop
    compiled = engine("torch").compile(backbone, batch=batch, threads=threads, input_size=size, numerics=numerics)
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
            how = {"batch": batch, "workers": threads, "threads": threads}
            features(backbone, split, transform, engine("torch"), **how, cache_root=Path(root))

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
