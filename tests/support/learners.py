"""A small network to be trained, with a mask, in a few milliseconds a step."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from sparse_transfer.sparsity import Mask, prunable_weights
from sparse_transfer.training.distributed import Group
from sparse_transfer.training.learner import Learner, Part
from sparse_transfer.training.model import Trainable
from sparse_transfer.training.settings import Execution, TrainSettings

CPU = Execution(threads=1, workers=0, channels_last=False)
ALONE = Group()


class Small(nn.Module):
    """images [B, 3, 8, 8] -> features [B, 6]."""

    feature_dim = 6

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2), nn.BatchNorm2d(6))

    def forward(self, images: Tensor) -> Tensor:
        return self.layer1(self.bn1(self.conv1(images)).relu()).relu().mean((2, 3))


def model(seed: int = 0, classes: int = 3, **how: object) -> Trainable:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Trainable(Small(), nn.Linear(6, classes), **how)  # type: ignore[arg-type]


def random_mask(module: nn.Module, density: float = 0.4, seed: int = 1) -> Mask:
    """Of the backbone's weights, under its own names."""
    generator = torch.Generator().manual_seed(seed)
    kept = {
        name: torch.rand(weight.shape, generator=generator) < density
        for name, weight in prunable_weights(module).items()
    }
    return Mask(kept, module)


def learner(
    settings: TrainSettings | None = None,
    *,
    density: float | None = 0.4,
    seed: int = 0,
    execution: Execution = CPU,
    **how: object,
) -> Learner:
    """A learner on ``Small``; ``density=None`` is dense, without any mask."""
    made = model(seed, **how)
    mask = Mask.none() if density is None else random_mask(made.backbone, density)
    mask.apply_(made.backbone)
    return Learner(made, mask, settings or TrainSettings(), execution, ALONE)


def part(seed: int = 0, count: int = 8, size: int = 8) -> Part:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, size, size, generator=generator)
    return Part(images, torch.randint(3, (count,), generator=generator))


def steps(made: Learner, count: int, factor: float = 1.0) -> list[float]:
    """``count`` updates on pictures of noise; their losses."""
    return [made.update([part(number)], 8, factor).loss / 8 for number in range(count)]


def with_optimiser(settings: TrainSettings, **changes: object) -> TrainSettings:
    return replace(settings, optimiser=replace(settings.optimiser, **changes))
