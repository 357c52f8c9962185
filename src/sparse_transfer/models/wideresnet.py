"""Wide ResNets for 32 px pictures (Zagoruyko and Komodakis, 2016): BatchNorm and ReLU stand before each convolution.

``wideresnet,depth=16,width=8`` is their WRN-16-8. Names follow torchvision's ResNet: ``layer{1,2,3}.{j}`` with
``bn1``, ``conv1``, ``bn2``, ``conv2``, a bare 1×1 ``downsample`` where the width changes, and a last ``bn1``.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sparse_transfer.core.errors import UserError
from sparse_transfer.models.architecture import Argument, Family, families
from sparse_transfer.models.preprocessing import Preprocessing
from sparse_transfer.models.resnet import initialise

# In units of 1/255, as the authors state them (szagoruyko/wide-residual-networks, pytorch/main.py).
CIFAR_MEAN = (125.3 / 255, 123.0 / 255, 113.9 / 255)
CIFAR_STD = (63.0 / 255, 62.1 / 255, 66.7 / 255)


class WideBlock(nn.Module):
    """BatchNorm, ReLU, 3×3, twice. Where the width changes, the shortcut starts after the first ReLU."""

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None if inputs == planes else nn.Conv2d(inputs, planes, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(x))
        shortcut = x if self.downsample is None else self.downsample(y)
        y = self.conv1(y)
        return self.conv2(self.relu(self.bn2(y))) + shortcut


class WideResNet(nn.Module):
    """Images [N, 3, H, W] -> features [N, 64 · width]; ``depth`` is 6n + 4."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        # The upper ends keep a hostile file from asking for a network that takes for ever to build.
        if not 10 <= depth <= 1000 or depth % 6 != 4:
            raise UserError(f"depth={depth}", where="wideresnet", do="it is 6n + 4: 10, 16, 22, 28, 34, 40")
        if not 1 <= width <= 100:
            raise UserError(f"width={width}", where="wideresnet", do="it lies between 1 and 100")
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.layer1 = stage(16, 16 * width, blocks, 1)
        self.layer2 = stage(16 * width, 32 * width, blocks, 2)
        self.layer3 = stage(32 * width, 64 * width, blocks, 2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.feature_dim = 64 * width
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        x = self.relu(self.bn1(x))
        return torch.flatten(self.avgpool(x), 1)


def stage(inputs: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    first = WideBlock(inputs, planes, stride)
    return nn.Sequential(first, *(WideBlock(planes, planes, 1) for _ in range(blocks - 1)))


def build(depth: int = 28, width: int = 10) -> nn.Module:
    return WideResNet(depth, width)


def preprocessing(_: Mapping[str, Argument]) -> Preprocessing:
    """Whole 32 px pictures with CIFAR's statistics."""
    return Preprocessing(resize=32, crop=32, mean=CIFAR_MEAN, std=CIFAR_STD)


families.add("wideresnet", Family(build, preprocessing=preprocessing))
