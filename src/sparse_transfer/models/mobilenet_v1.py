"""MobileNetV1 (Howard et al., 2017) at any width, in the flavours in which sparse ones were published.

Parameter names are those of the sequential PyTorch version (STR, Distiller): ``model.0.0`` and ``model.0.1`` for the
stem, ``model.{i}.{0,1,3,4}`` for depthwise, BatchNorm, pointwise, BatchNorm of block i = 1..13, and ``fc``.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from sparse_transfer.core.errors import UserError
from sparse_transfer.core.registry import suggestion
from sparse_transfer.models.architecture import Argument, Family, families
from sparse_transfer.models.preprocessing import Preprocessing
from sparse_transfer.models.resnet import initialise

Flavour = Literal["torch", "tf"]

# Output channels of the stem and the 13 pointwise convolutions. AMC's networks are narrower by structure
# (mit-han-lab/amc-models: checkpoints of half the FLOPs, half the time, three quarters of the FLOPs).
PROFILES = {
    "full": (32, 64, 128, 128, 256, 256, *(512,) * 6, 1024, 1024),
    "amc-0.5flops": (24, 48, 96, 80, 192, 200, 328, 352, 368, 360, 328, 400, 736, 752),
    "amc-0.5time": (16, 48, 88, 80, 192, 168, 336, 360, 360, 352, 352, 368, 768, 680),
    "amc-0.75flops": (24, 48, 96, 96, 192, 192, *(384,) * 6, 768, 768),
}
STRIDED_BLOCKS = (2, 4, 6, 12)


class MobileNetV1(nn.Module):
    """Images [N, 3, H, W] -> features [N, 1024 · width].

    ``torch``: padding 1 on each side, ReLU, BatchNorm eps 1e-5 (also RigL's network in TensorFlow).
    ``tf``: Keras' and TF-slim's. A strided convolution pads 0 before and 1 after, ReLU6, eps 1e-3.
    """

    def __init__(self, *, width: float, flavour: Flavour, profile: str) -> None:
        super().__init__()
        if flavour not in ("torch", "tf"):
            raise UserError(f'flavour="{flavour}"', where="mobilenet_v1", do='it is "torch" or "tf" (Keras, TF-slim)')
        if profile not in PROFILES:
            raise UserError(f'profile="{profile}"', where="mobilenet_v1", do=suggestion(profile, list(PROFILES)))
        if width <= 0:
            raise UserError(f"width={width}", where="mobilenet_v1", do="it is above 0, usually 0.25, 0.5, 0.75 or 1")
        stem, *outputs = (max(8, int(channels * width)) for channels in PROFILES[profile])
        layers = [nn.Sequential(conv_bn_relu(3, stem, 3, 2, 1, flavour))]
        inputs = stem
        for number, planes in enumerate(outputs, start=1):
            stride = 2 if number in STRIDED_BLOCKS else 1
            depthwise = conv_bn_relu(inputs, inputs, 3, stride, inputs, flavour)
            pointwise = conv_bn_relu(inputs, planes, 1, 1, 1, flavour, first=3)
            layers.append(nn.Sequential(depthwise | pointwise))
            inputs = planes
        self.model = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.feature_dim = inputs
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.avgpool(self.model(x)), 1)


def conv_bn_relu(
    inputs: int, outputs: int, kernel: int, stride: int, groups: int, flavour: Flavour, *, first: int = 0
) -> OrderedDict[str, nn.Module]:
    """Convolution, BatchNorm and activation named ``first``, ``first + 1``, ``first + 2``; a ``pad`` where TF has one.

    The pad has a name instead of a number, so that the numbers are those of the published state dicts.
    """
    pads_after = flavour == "tf" and stride == 2
    conv = nn.Conv2d(
        inputs, outputs, kernel, stride, padding=0 if pads_after else kernel // 2, groups=groups, bias=False
    )
    layers = OrderedDict[str, nn.Module]()
    if pads_after:
        layers["pad"] = nn.ZeroPad2d((0, 1, 0, 1))
    layers[f"{first}"] = conv
    layers[f"{first + 1}"] = nn.BatchNorm2d(outputs, eps=1e-3 if flavour == "tf" else 1e-5)
    layers[f"{first + 2}"] = nn.ReLU6(inplace=True) if flavour == "tf" else nn.ReLU(inplace=True)
    return layers


def build(width: float = 1.0, flavour: Flavour = "torch", profile: str = "full") -> nn.Module:
    return MobileNetV1(width=width, flavour=flavour, profile=profile)


def preprocessing(args: Mapping[str, Argument]) -> Preprocessing:
    """ImageNet statistics; the ``tf`` flavour scales to [-1, 1]."""
    if args.get("flavour") == "tf":
        return Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return Preprocessing()


families.add("mobilenet_v1", Family(build, preprocessing=preprocessing))
