"""The optimiser, and which parameters get which learning rate."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from sparse_transfer.core.errors import UserError

TIMES = "times"
"""A parameter group's own factor on the learning rate: ``layer_decay`` to the power of its distance to the head."""


@dataclass(frozen=True)
class OptimiserSettings:
    """SGD with momentum, as published, or AdamW. Weight decay acts on every parameter, BatchNorm's and biases too.

    lr: at the start, before the schedule's factor.   layer_decay: each block's rate as a share of the next one's.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 5e-4
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in ("sgd", "adamw"):
            raise UserError(f'"{self.name}" is no optimiser', where="--opt", do="it is sgd or adamw")
        if not 0 < self.lr < float("inf"):
            raise UserError(f"a learning rate of {self.lr}", where="--lr", do="give a finite number above 0")
        if not 0 <= self.momentum < 1:
            raise UserError(f"a momentum of {self.momentum}", where="--momentum", do="it lies in [0, 1)")
        if not 0 <= self.weight_decay < float("inf"):
            raise UserError(f"a weight decay of {self.weight_decay}", where="--weight-decay", do="it is 0 or more")
        if not 0 < self.layer_decay <= 1:
            raise UserError(f"a layer decay of {self.layer_decay}", where="--layer-decay", do="it lies in (0, 1]")


def make_optimiser(settings: OptimiserSettings, model: nn.Module) -> torch.optim.Optimizer:
    """An optimiser over the parameters that are trained, in one group for each depth of the network."""
    depths = depth_of([name for name, _ in model.named_parameters()])
    deepest = max(depths.values(), default=0)
    groups: dict[int, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(depths[name] if settings.layer_decay != 1 else deepest, []).append(parameter)
    if not groups:
        raise UserError("every parameter is frozen", where="--freeze", do="leave something to train")
    listed = [
        {"params": parameters, TIMES: settings.layer_decay ** (deepest - depth)}
        for depth, parameters in sorted(groups.items())
    ]
    if settings.name == "sgd":
        return torch.optim.SGD(listed, settings.lr, settings.momentum, weight_decay=settings.weight_decay)
    return torch.optim.AdamW(listed, settings.lr, weight_decay=settings.weight_decay)


def depth_of(names: Iterable[str]) -> dict[str, int]:
    """Parameter name -> how deep its block lies, from 0: ``layer1.0``, ``blocks.3`` and a plain ``conv1`` are blocks.

    Blocks are counted in the order in which the network lists them. What has no number is one block with its like: the
    stem before the numbered ones (``conv1``, ``bn1``), the last layers after them (``conv_head``, ``norm``), the head.
    """
    blocks: dict[str, int] = {}
    depths: dict[str, int] = {}
    part = "stem"
    for name in names:
        numbered = re.match(r".*?\.\d+(?=\.)", name)
        if numbered is not None:
            part = "end"
        block = numbered[0] if numbered else "head" if name.startswith("head.") else part
        depths[name] = blocks.setdefault(block, len(blocks))
    return depths
