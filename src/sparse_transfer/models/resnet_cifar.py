"""ResNet-20/32/44/56 for 32 px pictures (He et al., 2016, section 4.2), with either shortcut.

Parameter names are those of torchvision's ResNet, less ``layer4``; published files that call the head ``linear``
(akamaster/pytorch_resnet_cifar10) are renamed when they are imported.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from sparse_transfer.core.errors import UserError
from sparse_transfer.models.architecture import Argument, Family, families
from sparse_transfer.models.preprocessing import Preprocessing
from sparse_transfer.models.resnet import BasicBlock, conv_bn, initialise

Shortcut = Literal["A", "B"]


class ZeroPadShortcut(nn.Module):
    """Option A: every second pixel, and zero channels for those that are missing, half before and half after."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class CifarResNet(nn.Module):
    """Images [N, 3, H, W] -> features [N, 64 · width]: three stages of ``blocks`` basic blocks."""

    def __init__(self, blocks: int, *, shortcut: Shortcut, width: float) -> None:
        super().__init__()
        if shortcut not in ("A", "B"):
            raise UserError(
                f'shortcut="{shortcut}"',
                where="CIFAR ResNet",
                do='it is "A" (zero channels, no parameters) or "B" (1×1 convolution and BatchNorm)',
            )
        stem, *planes = (round(channels * width) for channels in (16, 16, 32, 64))
        if stem < 1:
            raise UserError(f"width={width} leaves no channel", where="CIFAR ResNet", do="it is above 1/32")
        self.conv1, self.bn1 = conv_bn(3, stem, 3)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = stage(stem, planes[0], blocks, 1, shortcut)
        self.layer2 = stage(planes[0], planes[1], blocks, 2, shortcut)
        self.layer3 = stage(planes[1], planes[2], blocks, 2, shortcut)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.feature_dim = planes[2]
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return torch.flatten(self.avgpool(x), 1)


def stage(inputs: int, planes: int, blocks: int, stride: int, shortcut: Shortcut) -> nn.Sequential:
    """``blocks`` basic blocks, the first of which may stride."""
    first = BasicBlock(inputs, planes, stride, "v1.5")
    if stride != 1 and shortcut == "A":
        first.downsample = ZeroPadShortcut(inputs, planes)
    return nn.Sequential(first, *(BasicBlock(planes, planes, 1, "v1.5") for _ in range(blocks - 1)))


def builder(blocks: int) -> Callable[..., nn.Module]:
    def build(shortcut: Shortcut = "A", width: float = 1.0) -> nn.Module:
        return CifarResNet(blocks, shortcut=shortcut, width=width)

    return build


def preprocessing(_: Mapping[str, Argument]) -> Preprocessing:
    """Whole 32 px pictures with ImageNet statistics (akamaster/pytorch_resnet_cifar10, trainer.py)."""
    return Preprocessing(resize=32, crop=32)


for depth in (20, 32, 44, 56):
    families.add(f"resnet{depth}", Family(builder((depth - 2) // 6), preprocessing=preprocessing))
