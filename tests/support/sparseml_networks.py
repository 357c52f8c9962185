"""SparseML's ResNet-18 and MobileNetV1, written from its names: ``input``, ``sections.S.B``, ``classifier``.

SparseML's networks give (logits, softmax); these give the logits.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn


class ConvBn(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.identity = ConvBn(inputs, outputs, 1, stride) if inputs != outputs or stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.identity is None else self.identity(x)))


class Separable(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.depth = ConvBn(inputs, inputs, 3, stride, groups=inputs)
        self.point = ConvBn(inputs, outputs, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.point(torch.relu(self.depth(x))))


class Classifier(nn.Module):
    def __init__(self, inputs: int, classes: int, *, dropout: bool) -> None:
        super().__init__()
        head = nn.Linear(inputs, classes)
        self.fc = nn.Sequential(nn.Dropout(0.2), head) if dropout else head

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))


class ResNet18(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.input = ConvBn(3, 64, 7, 2)
        widths = (64, 64, 128, 256, 512)
        self.sections = nn.Sequential(
            *(nn.Sequential(Block(i, o, 2 if o > 64 else 1), Block(o, o, 1)) for i, o in pairwise(widths))
        )
        self.classifier = Classifier(512, classes, dropout=False)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.input(x)), 3, 2, 1)
        return self.classifier(self.sections(x))


class MobileNet(nn.Module):
    """``dropout``: the variant called han_mobilenet."""

    def __init__(self, divisor: int, classes: int, *, dropout: bool) -> None:
        super().__init__()
        inputs = 32 // divisor
        self.input = ConvBn(3, inputs, 3, 2)
        sections: list[nn.Module] = []
        for blocks, outputs, stride in ((1, 64, 1), (2, 128, 2), (2, 256, 2), (6, 512, 2), (2, 1024, 2)):
            outputs //= divisor
            section = [
                Separable(inputs if i == 0 else outputs, outputs, stride if i == 0 else 1) for i in range(blocks)
            ]
            sections.append(nn.Sequential(*section))
            inputs = outputs
        self.sections = nn.Sequential(*sections)
        self.classifier = Classifier(inputs, classes, dropout=dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.sections(torch.relu(self.input(x))))
