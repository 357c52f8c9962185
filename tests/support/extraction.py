"""A small extraction: noise pictures, a backbone of two layers, an engine that counts, stops or dies on request.

Run as a program it extracts in a process of its own: ``python extraction.py PICTURES CACHE CALL WHAT`` does WHAT
(``kill``, ``wait``) at the engine's call number CALL and prints the number of calls.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from sparse_transfer.data.split import Split
from sparse_transfer.data.transforms import Transform, evaluation
from sparse_transfer.features import features, writer
from sparse_transfer.inference import Availability, Compiled, Numerics, Plan, engines
from sparse_transfer.models import Architecture, Backbone, Preprocessing

FACTS = Preprocessing(resize=10, crop=8)
CHUNK = 4
BATCH = 2


class Small(nn.Module):
    feature_dim = 6

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x)).mean((2, 3))


def small_backbone(seed: int = 0) -> Backbone:
    torch.manual_seed(seed)
    return Backbone(Small().eval(), Architecture("module", {"name": "small"}), FACTS)


def pictures(root: Path, count: int) -> Split:
    """``count`` PNG files of noise with labels 0, 1, 0, 1, ..."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    paths = [f"{index:03d}.png" for index in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (10, 11, 3), dtype=np.uint8)).save(root / path)
    return split_of(root)


def split_of(root: Path) -> Split:
    paths = tuple(sorted(path.name for path in root.iterdir()))
    sizes = np.array([(root / path).stat().st_size for path in paths], dtype=np.int64)
    return Split("train", root, paths, np.arange(len(paths)) % 2, sizes, ("even", "odd"))


@dataclass
class Watched:
    """The torch engine; ``before_call(n)`` runs before its n-th call, ``calls`` lists the batch sizes."""

    before_call: Callable[[int], None] = lambda _: None
    calls: list[int] = field(default_factory=list)
    name: str = "torch"

    def available(self) -> Availability:
        return Availability()

    def compile(
        self, backbone: Backbone, *, batch: int, threads: int, input_size: int, numerics: Numerics = "fp32"
    ) -> "WatchedCompiled":
        inner = engines.get("torch")
        return WatchedCompiled(
            self, inner.compile(backbone, batch=batch, threads=threads, input_size=input_size, numerics=numerics)
        )

    @property
    def rows(self) -> int:
        return sum(self.calls)


@dataclass
class WatchedCompiled:
    engine: Watched
    inner: Compiled

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        self.engine.before_call(len(self.engine.calls))
        self.engine.calls.append(len(images))
        return self.inner(images)

    def describe(self) -> Plan:
        return self.inner.describe()

    def close(self) -> None:
        self.inner.close()


def extracted(
    split: Split,
    root: Path,
    engine: Watched | None = None,
    *,
    backbone: Backbone | None = None,
    transform: Transform | None = None,
    batch: int = BATCH,
) -> NDArray[np.float32]:
    return features(
        backbone or small_backbone(),
        split,
        transform or evaluation(FACTS),
        engine or Watched(),
        batch=batch,
        workers=1,
        threads=1,
        cache_root=root,
    )


def main(place: str, root: str, call: str, what: str) -> None:
    torch.set_num_threads(1)
    writer.CHUNK_ROWS = CHUNK

    def before(number: int) -> None:
        if number == int(call):
            if what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            (Path(root) / "at work").touch()
            time.sleep(1)

    engine = Watched(before)
    extracted(split_of(Path(place)), Path(root), engine)
    print(len(engine.calls))


if __name__ == "__main__":
    main(*sys.argv[1:])
