"""How a backbone is run: device, precision, batch, threads. One value that every verb takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sparse_transfer.core.errors import UserError
from sparse_transfer.core.threads import available_cores
from sparse_transfer.data.split import Split
from sparse_transfer.data.transforms import Transform
from sparse_transfer.features import View, features
from sparse_transfer.inference import Compiled, Engine, Numerics, engine
from sparse_transfer.models import Backbone

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Compute:
    """How a backbone is run. Only ``numerics`` can change a result, within its stated tolerance.

    device: ``cpu``, ``cuda``, or ``auto`` (CUDA where torch finds a device).   numerics: ``fp32`` or ``bf16``.
    batch: pictures a forward pass; 16 was the fastest on the CPUs measured (docs/log.md), and 128 serves on CUDA.
    threads: of a forward pass; workers: decoding; both one a core by default.   cache: root of the feature cache.
    """

    device: str = "auto"
    numerics: Numerics = "fp32"
    batch: int | None = None
    threads: int | None = None
    workers: int | None = None
    cache: Path | None = None

    def __post_init__(self) -> None:
        if self.device not in DEVICES:  # also where every run is finished, and nothing asks for a device
            raise _no_device(self.device)

    def features(
        self, backbone: Backbone, split: Split, transform: Transform, view: View | None = None
    ) -> NDArray[np.float32]:
        """[N, D]: the backbone's features of a split, from the cache where it holds them."""
        return features(
            backbone,
            split,
            transform,
            self._engine(),
            batch=self.batch_size,
            workers=self.workers,
            threads=self.threads,
            cache_root=self.cache,
            view=view,
            numerics=self.numerics,
        )

    def compile(self, backbone: Backbone) -> Compiled:
        """The backbone made ready for pictures as its preprocessing gives them."""
        return self._engine().compile(
            backbone,
            batch=self.batch_size,
            threads=self.threads or available_cores(),
            input_size=backbone.preprocessing.crop,
            numerics=self.numerics,
        )

    @property
    def batch_size(self) -> int:
        """Pictures a forward pass."""
        return self.batch or (16 if self._is_cpu() else 128)

    def _engine(self) -> Engine:
        return engine("torch" if self._is_cpu() else "torch-cuda")

    def _is_cpu(self) -> bool:
        return chosen_device(self.device) == "cpu"


def chosen_device(name: str) -> Literal["cpu", "cuda"]:
    """``auto`` is CUDA where torch finds a device. Raises ``UserError`` for another name."""
    if name == "auto":
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu" or name == "cuda":
        return name
    raise _no_device(name)


def _no_device(name: str) -> UserError:
    return UserError(f'"{name}" is no device', where="--device", do="it is cpu, cuda or auto")


DEFAULT = Compute()
