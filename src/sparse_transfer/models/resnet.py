"""ResNet-18/34/50/101/152 for ImageNet (He et al., 2016), with the variants in which sparse ones were published.

Parameter names are torchvision's. Tensors cannot tell the variants apart, so the format or ``--arch`` must.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from sparse_transfer.core.errors import UserError
from sparse_transfer.models.architecture import Family, families

Stride = Literal["v1.5", "v1"]
Pool = Literal["torch", "same"]
WIDEST = 16


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(outputs)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions (ResNet-18 and -34)."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int, stride_in: Stride, width: int = 1) -> None:
        super().__init__()
        del stride_in, width  # the first convolution is the 3×3 one: both versions agree, and there is no bottleneck
        self.conv1, self.bn1 = conv_bn(inputs, planes, 3, stride)
        self.conv2, self.bn2 = conv_bn(planes, planes, 3)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + self.downsample(x))


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 (ResNet-50 and deeper).

    ``v1`` strides in the first 1×1 (He et al., 2016; Caffe, Keras), ``v1.5`` in the 3×3 (torchvision, and every
    published sparse checkpoint of the paper). ``width`` multiplies the channels of the 3×3 alone, as torchvision's
    ``width_per_group`` / 64 does: 2 is its ``wide_resnet50_2`` (Zagoruyko and Komodakis, 2016).
    """

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int, stride_in: Stride, width: int = 1) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_in == "v1" else (1, stride)
        inner = planes * width
        self.conv1, self.bn1 = conv_bn(inputs, inner, 1, first)
        self.conv2, self.bn2 = conv_bn(inner, inner, 3, second)
        self.conv3, self.bn3 = conv_bn(inner, planes * 4, 1)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(inputs, planes * 4, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + self.downsample(x))


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Identity where shapes agree, else a strided 1×1 convolution with BatchNorm (option B)."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(*conv_bn(inputs, outputs, 1, stride))


def max_pool(pool: Pool) -> nn.Module:
    """3×3 stride 2. ``same`` is TensorFlow's padding for even sizes: nothing before, one after (RigL).

    Padding with 0 instead of -inf is exact here: the input comes out of a ReLU.
    """
    if pool == "same":
        return nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(3, 2))
    return nn.MaxPool2d(3, 2, padding=1)


class ResNet(nn.Module):
    """Images [N, 3, H, W] -> features [N, 512 · expansion]: the network of torchvision less its ``fc``."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, ...],
        *,
        stride: Stride,
        pool: Pool,
        stem: str,
        width: int,
    ) -> None:
        super().__init__()
        if stride not in ("v1.5", "v1"):
            raise UserError(
                f'stride="{stride}"',
                where="resnet",
                do='it is "v1.5" (stride in the 3×3) or "v1" (in the 1×1)',
            )
        if pool not in ("torch", "same"):
            raise UserError(f'pool="{pool}"', where="resnet", do='it is "torch" or "same" (TensorFlow, RigL)')
        if stem not in ("s2", "s1"):
            raise UserError(f'stem="{stem}"', where="resnet", do='it is "s2" or "s1" (stride of the first convolution)')
        # The upper end keeps a hostile file from asking for a network that takes for ever to build.
        if not 1 <= width <= WIDEST:
            raise UserError(f"width={width}", where="resnet", do=f"it lies between 1 and {WIDEST}, 2 is a wide ResNet")
        self.conv1, self.bn1 = conv_bn(3, 64, 7, 2 if stem == "s2" else 1)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = max_pool(pool)
        inputs, stages = 64, []
        for stage, depth in enumerate(depths):
            planes = 64 * 2**stage
            blocks: list[nn.Module] = []
            for index in range(depth):
                blocks.append(block(inputs, planes, 2 if stage and not index else 1, stride, width))
                inputs = planes * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.feature_dim = inputs
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return torch.flatten(self.avgpool(x), 1)


def initialise(module: nn.Module) -> None:
    """Kaiming normal (fan out) for convolutions; BatchNorm starts at 1 and 0 (He et al., 2015)."""
    for layer in module.modules():
        # A module on the meta device is a skeleton to be filled: drawing would cost seconds of imports for nothing.
        if isinstance(layer, nn.Conv2d) and not layer.weight.is_meta:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def basic(depths: tuple[int, ...]) -> Callable[..., nn.Module]:
    def build(stride: Stride = "v1.5", pool: Pool = "torch", stem: str = "s2") -> nn.Module:
        return ResNet(BasicBlock, depths, stride=stride, pool=pool, stem=stem, width=1)

    return build


def bottleneck(depths: tuple[int, ...]) -> Callable[..., nn.Module]:
    def build(stride: Stride = "v1.5", pool: Pool = "torch", stem: str = "s2", width: int = 1) -> nn.Module:
        return ResNet(Bottleneck, depths, stride=stride, pool=pool, stem=stem, width=width)

    return build


for name, build in (
    ("resnet18", basic((2, 2, 2, 2))),
    ("resnet34", basic((3, 4, 6, 3))),
    ("resnet50", bottleneck((3, 4, 6, 3))),
    ("resnet101", bottleneck((3, 4, 23, 3))),
    ("resnet152", bottleneck((3, 8, 36, 3))),
):
    families.add(name, Family(build))
