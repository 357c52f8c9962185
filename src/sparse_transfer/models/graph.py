"""A backbone as a flat list of operations: the one form that cost and the import of ONNX files read.

How a module becomes one is in ``tracing.py`` and ``translation.py``.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal

Op = Literal[
    "conv", "batchnorm", "relu", "relu6", "maxpool", "avgpool", "globalavgpool",
    "pad", "slice", "add", "concat", "flatten", "linear",
]  # fmt: skip

IMAGES = "images"


@dataclass(frozen=True)
class Node:
    """One operation on images [C, H, W] or features [D]; the batch is in no shape here.

    name: unique. The layer's name where the node has parameters (``layer1.0.conv1``), else op and number.
    inputs: names of the nodes it reads, ``images`` for the network's input.
    weight, bias, mean, variance: names in ``backbone.module.state_dict()``, None where there is none.

    Fields that an op does not use keep their defaults. The ops:

    - ``conv``: weight [O, I / groups, kh, kw], bias; kernel, stride, padding (zeros, both sides), dilation, groups.
    - ``batchnorm``: (x - mean) / sqrt(variance + eps) · weight + bias per channel; weight and bias None mean 1 and 0.
    - ``relu``; ``relu6`` (at most 6); ``add`` (two inputs, equal shapes); ``concat`` (two or more, along channels).
    - ``maxpool``: kernel, stride, padding (never the maximum), ``is_ceil``: the last window may reach over the edge.
    - ``avgpool``: the same; ``counts_padding``: padded zeros count in the mean's divisor.
    - ``globalavgpool``: [C, H, W] -> [C, 1, 1].   ``flatten``: [C, H, W] -> [C·H·W].
    - ``pad``: ``before`` and ``after`` elements of ``value`` along (C, H, W).
    - ``slice``: every ``step``-th element from ``start`` along (C, H, W); how many, the output shape says.
    - ``linear``: weight [D', D], bias.
    """

    name: str
    op: Op
    inputs: tuple[str, ...]
    output_shape: tuple[int, ...]
    weight: str | None = None
    bias: str | None = None
    mean: str | None = None
    variance: str | None = None
    eps: float = 0.0
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    is_ceil: bool = False
    counts_padding: bool = True
    before: tuple[int, int, int] = (0, 0, 0)
    after: tuple[int, int, int] = (0, 0, 0)
    value: float = 0.0
    start: tuple[int, int, int] = (0, 0, 0)
    step: tuple[int, int, int] = (1, 1, 1)

    def __repr__(self) -> str:
        """Without the fields that stand at their defaults: a graph is for reading, too."""
        shown = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) != f.default]
        return f"Node({', '.join(shown)})"


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which they can run; ``output`` names the one that gives the features [D]."""

    nodes: tuple[Node, ...]
    input_shape: tuple[int, int, int]
    output: str

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)
