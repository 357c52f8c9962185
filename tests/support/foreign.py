"""Other people's networks and files, written from their descriptions (papers and repositories), not from our importer.

The networks are definitions of their own, down to the names of their tensors; ``ORIGINS`` lists them by the family of
names they belong to. The writers give the trees that their authors' code saves.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from sparse_transfer.checkpoints.readers.container import Container, LazyTensor
from support import sparseml_networks

State = Mapping[str, Tensor]


# --- networks -----------------------------------------------------------------------------------------------------


def conv_bn_relu(inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]


class RiglConv(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class RiglBlock(nn.Module):
    def __init__(self, inputs: int, planes: int, stride: int, is_first: bool) -> None:
        super().__init__()
        if is_first:
            self.shortcut = RiglConv(inputs, 4 * planes, 1, stride)
        self.is_first = is_first
        self.conv1 = RiglConv(inputs, planes, 1, 1)
        self.conv2 = RiglConv(planes, planes, 3, stride)
        self.conv3 = RiglConv(planes, 4 * planes, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv3(self.conv2(self.conv1(x).relu()).relu())
        return (y + (self.shortcut(x) if self.is_first else x)).relu()


class RiglLayer(nn.Module):
    def __init__(self, inputs: int, planes: int, depth: int, stride: int) -> None:
        super().__init__()
        blocks = [
            RiglBlock(inputs if i == 0 else 4 * planes, planes, stride if i == 0 else 1, i == 0) for i in range(depth)
        ]
        self.block = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class RiglResNet50(nn.Module):
    """RigL's ResNet-50 in PyTorch: TensorFlow's SAME max-pool, nothing before and one after."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.initial_conv = RiglConv(3, 64, 7, 2)
        self.pool = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(3, 2))
        self.layer1 = RiglLayer(64, 64, 3, 1)
        self.layer2 = RiglLayer(256, 128, 4, 2)
        self.layer3 = RiglLayer(512, 256, 6, 2)
        self.layer4 = RiglLayer(1024, 512, 3, 2)
        self.fc = nn.Linear(2048, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.initial_conv(x).relu())
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class ConvHead(nn.Module):
    """STR: the classifier is a 1×1 convolution without bias, behind any network that gives a map of features."""

    def __init__(self, body: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.body = body
        self.fc = nn.Conv2d(width, classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x)[:, :, None, None]).flatten(1)

    def state_dict(self, *args: object, **kwargs: object) -> dict[str, Tensor]:
        state = super().state_dict(*args, **kwargs)
        return OrderedDict((key.removeprefix("body."), value) for key, value in state.items())


class CifarBlock(nn.Module):
    def __init__(self, inputs: int, planes: int, stride: int, option: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.missing = planes - inputs
        if stride != 1 and option == "B":
            self.downsample = nn.Sequential(nn.Conv2d(inputs, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if hasattr(self, "downsample"):
            x = self.downsample(x)
        elif self.missing:
            half = self.missing // 2
            x = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))
        return (y + x).relu()


class CifarResNet(nn.Module):
    """ResNet-20 for CIFAR. akamaster: option A, head ``linear``; Distiller: option B, head ``fc``."""

    def __init__(self, option: str, head: str, stem: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.head = head
        inputs = stem
        for stage, planes in enumerate((stem, 2 * stem, 4 * stem), start=1):
            blocks = [
                CifarBlock(inputs if i == 0 else planes, planes, 2 if stage > 1 and i == 0 else 1, option)
                for i in range(3)
            ]
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
            inputs = planes
        self.add_module(head, nn.Linear(inputs, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        for stage in (1, 2, 3):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.get_submodule(self.head)(x.mean((2, 3)))


MOBILENET = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


class MobileNet(nn.Module):
    """Distiller's and STR's MobileNetV1: ``model.0`` is the stem, ``model.1`` ... ``model.13`` the blocks."""

    def __init__(self, divisor: int, classes: int | None) -> None:
        super().__init__()
        inputs = 32 // divisor
        layers = [nn.Sequential(*conv_bn_relu(3, inputs, 3, 2, 1))]
        for outputs, stride in MOBILENET:
            outputs //= divisor
            layers.append(
                nn.Sequential(*conv_bn_relu(inputs, inputs, 3, stride, inputs), *conv_bn_relu(inputs, outputs, 1, 1, 1))
            )
            inputs = outputs
        self.model = nn.Sequential(*layers)
        self.fc = nn.Identity() if classes is None else nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.model(x).mean((2, 3)))


# Widths of AMC's half-the-time network (mit-han-lab/amc-models).
AMC_HALF_TIME = (16, 48, 88, 80, 192, 168, 336, 360, 360, 352, 352, 368, 768, 680)


class AmcMobileNet(nn.Module):
    """AMC's MobileNetV1: ``conv1``, ``features.0`` ... ``features.12``, ``classifier.0`` or, after Dropout, ``.1``."""

    def __init__(self, widths: tuple[int, ...], classes: int, *, dropout: bool) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(*conv_bn_relu(3, widths[0], 3, 2, 1))
        strides = [stride for _, stride in MOBILENET]
        self.features = nn.Sequential(
            *(
                nn.Sequential(*conv_bn_relu(i, i, 3, stride, i), *conv_bn_relu(i, o, 1, 1, 1))
                for i, o, stride in zip(widths, widths[1:], strides, strict=False)
            )
        )
        head = nn.Linear(widths[-1], classes)
        self.classifier = nn.Sequential(nn.Dropout(), head) if dropout else nn.Sequential(head)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(self.conv1(x)).mean((2, 3)))


def torchvision_resnet18(classes: int) -> nn.Module:
    from torchvision.models import resnet18

    return resnet18(num_classes=classes)


def str_resnet18(classes: int) -> nn.Module:
    from torchvision.models import resnet18

    body = resnet18()
    body.fc = nn.Identity()  # type: ignore[assignment]
    return ConvHead(body, 512, classes)


def torchvision_vit_tiny(classes: int) -> nn.Module:
    """torchvision's definition at the width of timm's smallest, with nothing left at zero that could hide a mistake."""
    from torchvision.models import VisionTransformer

    module = VisionTransformer(224, 16, 12, 3, 192, 768, num_classes=classes)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 1 or parameter is module.class_token:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    return module


def timm_model(name: str) -> Callable[[int], nn.Module]:
    def make(classes: int) -> nn.Module:
        import timm

        return timm.create_model(name, pretrained=False, num_classes=classes)

    return make


@dataclass(frozen=True)
class Origin:
    """A network as its authors define it.

    arch: how an IST file names it, None where none does.   architecture: what the import should find.
    given: what has to be said with --arch.   size: of a test picture, in px.
    """

    make: Callable[[int], nn.Module]
    architecture: str
    arch: str | None
    size: int = 33
    given: str | None = None
    needs: tuple[str, ...] = field(default=())


ORIGINS = {
    "resnet": Origin(torchvision_resnet18, "resnet18", "resnet18"),
    "resnet_str": Origin(str_resnet18, "resnet18", None),
    # 40 px: the pool reads an even map, as SAME padding of nothing before and one after needs.
    "resnet_rigl": Origin(RiglResNet50, "resnet50,pool=same", "resnet50_rigl", size=40),
    "resnet_cifar_akamaster": Origin(
        lambda classes: CifarResNet("A", "linear", 4, classes), "resnet20,width=0.25", "resnet20", size=16
    ),
    "resnet_cifar_distiller": Origin(
        lambda classes: CifarResNet("B", "fc", 4, classes), "resnet20,shortcut=B,width=0.25", "resnet20_cifar", size=16
    ),
    "mobilenet": Origin(lambda classes: MobileNet(4, classes), "mobilenet_v1,width=0.25", "mobilenet"),
    "mobilenet_str": Origin(
        lambda classes: ConvHead(MobileNet(4, None), 256, classes), "mobilenet_v1,width=0.25", "mobilenet_str"
    ),
    "mobilenet_amc": Origin(
        lambda classes: AmcMobileNet(AMC_HALF_TIME, classes, dropout=True),
        "mobilenet_v1,profile=amc-0.5time",
        "mobilenet_amc",
    ),
    "resnet_sparseml": Origin(sparseml_networks.ResNet18, "resnet18", None),
    "mobilenet_sparseml": Origin(
        lambda classes: sparseml_networks.MobileNet(4, classes, dropout=True), "mobilenet_v1,width=0.25", None
    ),
    "mobilenet_timm": Origin(timm_model("mobilenetv1_100"), "timm:mobilenetv1_100", None, needs=("timm",)),
    "vit_torchvision": Origin(torchvision_vit_tiny, "timm:vit_tiny_patch16_224", "vit_tiny", size=224, needs=("timm",)),
    "vit_timm": Origin(
        timm_model("deit_tiny_patch16_224"), "timm:deit_tiny_patch16_224", "deit_tiny_patch16_224", 224, needs=("timm",)
    ),
    "xcit_timm": Origin(
        timm_model("xcit_nano_12_p16_224"),
        "timm:xcit_nano_12_p16_224",
        None,
        size=64,
        given="timm:xcit_nano_12_p16_224",
        needs=("timm",),
    ),
    "convnext_timm": Origin(timm_model("convnext_atto"), "timm:convnext_atto", None, size=64, needs=("timm",)),
    "own_names": Origin(
        timm_model("mobilenetv3_small_050"),
        "timm:mobilenetv3_small_050",
        None,
        given="timm:mobilenetv3_small_050",
        needs=("timm",),
    ),
}


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in eval mode, its BatchNorms as if trained: statistics and scales that no default hides."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight.normal_(0, (layer.weight[0].numel()) ** -0.5, generator=generator)
            if isinstance(layer, nn.BatchNorm2d):
                assert layer.running_mean is not None
                assert layer.running_var is not None
                layer.weight.uniform_(0.5, 1.5, generator=generator)
                layer.bias.normal_(0, 0.1, generator=generator)
                layer.running_mean.normal_(0, 0.1, generator=generator)
                layer.running_var.uniform_(0.5, 1.5, generator=generator)
    return module.eval()


# --- sparsity -----------------------------------------------------------------------------------------------------


def prunable(state: State) -> list[str]:
    """Keys of convolution and linear weights, stem and head included (AC/DC's global runs prune them all)."""
    return [key for key, tensor in state.items() if key.endswith(".weight") and tensor.ndim >= 2]


def random_masks(state: State, density: float, seed: int = 0) -> dict[str, Tensor]:
    """One bool mask a prunable weight, that many kept at random, one at least of each kind."""
    generator = torch.Generator().manual_seed(seed)
    masks = {key: torch.rand(state[key].shape, generator=generator) < density for key in prunable(state)}
    for kept in masks.values():
        kept.view(-1)[0], kept.view(-1)[-1] = True, False
    return masks


def pruned(state: State, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with 0 where a mask says so."""
    return OrderedDict(
        (key, torch.where(masks[key], tensor, 0.0) if key in masks else tensor.clone()) for key, tensor in state.items()
    )


# --- files --------------------------------------------------------------------------------------------------------


def prefixed(state: State, prefix: str) -> dict[str, Tensor]:
    return OrderedDict((prefix + key, tensor) for key, tensor in state.items())


def wrapped(
    state: State, masks: Mapping[str, Tensor] | None = None, *, bias_masks: bool = True, layers: list[str] | None = None
) -> dict[str, Tensor]:
    """The state dict after every layer was wrapped. Order of a layer: [_bias_mask,] _weight_mask, weight[, bias]."""
    masks = masks or {}
    out: dict[str, Tensor] = OrderedDict()
    weights = prunable(state) if layers is None else [f"{layer}.weight" for layer in layers]
    biases = {key.removesuffix("weight") + "bias" for key in weights}
    for key, tensor in state.items():
        layer = key.rpartition(".")[0]
        if key in weights:
            bias = state.get(f"{layer}.bias")
            if bias is not None and bias_masks:
                out[f"{layer}._bias_mask"] = torch.ones_like(bias)
            kept = masks.get(key, torch.ones_like(tensor, dtype=torch.bool))
            out[f"{layer}._weight_mask"] = kept.float()
            out[f"{layer}._layer.weight"] = tensor
        elif key in biases:
            out[f"{layer}._layer.bias"] = tensor
        else:
            out[key] = tensor
    return out


def ist(state: State, arch: str | None, dataset: str = "imagenet", **more: object) -> dict[str, object]:
    """What the transfer code's ``save_checkpoint`` saves."""
    config = {"dataset": dataset} if arch is None else {"arch": arch, "dataset": dataset}
    return {"epoch": 99, "model_config": config, "model_state_dict": state, **more}


def container(root: object, kind: str = "torch-zip", name: str = "made.pth") -> Container:
    """The tree as a reader would give it, without a file in between."""
    return Container(kind, Path(name), _lazy(root))  # type: ignore[arg-type]


def _lazy(value: object) -> object:
    if isinstance(value, Tensor):
        return LazyTensor(tuple(value.shape), value.dtype, value.clone)
    if isinstance(value, Mapping):
        return {key: _lazy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_lazy(item) for item in value]
    return value


# --- one file of every encoding -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """A small file of one encoding, and what its authors' own code makes of it.

    path: the file.   network: the origin's definition with the weights that count, in eval mode.
    size: of a test picture, in px.   said: what ``import_checkpoint`` has to be told beside the path.
    pruned: how many weights are pruned, head included.
    """

    path: Path
    network: nn.Module
    pruned: int
    size: int = 16
    said: Mapping[str, object] = field(default_factory=dict[str, object])
