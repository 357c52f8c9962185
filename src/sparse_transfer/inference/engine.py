"""The contract of everything that runs a backbone forward."""

from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sparse_transfer.core.errors import UserError
from sparse_transfer.core.registry import Registry
from sparse_transfer.models import Backbone
from sparse_transfer.models.cost import cost

Numerics = Literal["fp32", "bf16"]
"""Which engines may share cached features: those of one class differ by rounding in that precision only."""

TOLERANCE: dict[Numerics, float] = {"fp32": 1e-4, "bf16": 3e-2}
"""Largest |feature - reference| over the largest |reference| of the batch that a class allows, the reference being
torch in fp32, layer by layer. fp32: 53 layers of sums of up to 4,608 products in another order: 3e-7 measured for
ResNet-50. bf16: rounding by 2^-9 at every layer: 6e-3 measured."""


@dataclass(frozen=True)
class Availability:
    """Whether an engine can run here; if not, ``what`` is missing and what to ``do`` about it."""

    what: str | None = None
    do: str | None = None

    def __bool__(self) -> bool:
        return self.what is None

    def require(self, where: str) -> None:
        """Raise ``UserError`` at ``where`` if it cannot run here."""
        if self.what is not None:
            raise UserError(self.what, where=where, do=self.do)


@dataclass(frozen=True)
class PlanNode:
    """One step of a compiled backbone.

    name: the layer (``layer1.0.conv1``).   kernel: what runs it.   density: share of non-zero weights, in [0, 1].
    macs: multiply-adds that the kernel does for one image, so all of them where it cannot skip zeros.
    weight_bytes: what it reads of weights.
    seconds: measured for one batch, None where the engine cannot say.
    """

    name: str
    kernel: str
    density: float = 1.0
    macs: int = 0
    weight_bytes: int = 0
    seconds: float | None = None


@dataclass(frozen=True)
class Plan:
    """What an engine made of a backbone."""

    engine: str
    numerics: Numerics
    batch: int
    threads: int
    input_size: int
    nodes: tuple[PlanNode, ...] = field(default_factory=tuple[PlanNode, ...])


class Compiled(Protocol):
    """A backbone made ready for one batch size and input size."""

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """images [n, 3, H, W], 1 <= n <= batch, any strides -> features [n, D], an array of the caller's own.

        Raises:
            UserError: another shape than compiled for.
            RuntimeError: called after ``close``.
        """
        ...

    def describe(self) -> Plan: ...

    def close(self) -> None:
        """Free what it holds; a second time does nothing."""
        ...


class Engine(Protocol):
    """Something that runs a backbone forward."""

    @property
    def name(self) -> str: ...

    def available(self) -> Availability: ...

    def compile(
        self, backbone: Backbone, *, batch: int, threads: int, input_size: int, numerics: Numerics = "fp32"
    ) -> Compiled:
        """Make ready; the backbone is copied, never changed. BatchNorm runs in eval mode.

        Raises:
            UserError: the engine is not available here, or has no such numerics.
        """
        ...


engines: Registry[Engine] = Registry("engine")


def engine(name: str) -> Engine:
    """The engine of that name, if it can run here.

    Raises:
        UserError: no such engine, or what it lacks and the command that brings it.
    """
    found = engines.get(name)
    found.available().require(f"engine {name}")
    return found


def dense_nodes(backbone: Backbone, input_size: int, kernel: str, bytes_per_weight: int) -> tuple[PlanNode, ...]:
    """The plan of an engine that multiplies by every weight, zero or not. Empty for what ``graph`` cannot trace."""
    try:
        layers = cost(backbone, input_size).layers
    except UserError:
        return ()
    return tuple(
        PlanNode(layer.name, kernel, layer.kept / layer.size, layer.macs_dense, layer.size * bytes_per_weight)
        for layer in layers
    )


def check_images(images: NDArray[np.float32], batch: int, input_size: int) -> None:
    """Refuse what a backbone compiled for (batch, input_size) cannot read."""
    expected = (3, input_size, input_size)
    if images.dtype != np.float32 or images.ndim != 4 or images.shape[1:] != expected:
        raise UserError(
            f"images of {images.dtype} {list(images.shape)}", do=f"float32 [n, {', '.join(map(str, expected))}]"
        )
    if not 1 <= len(images) <= batch:
        raise UserError(f"{len(images)} images at once", do=f"this backbone is compiled for 1 to {batch}")
