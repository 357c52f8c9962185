"""CIFAR ResNets under Distiller's names (head ``fc``, convolutions as shortcuts) and akamaster's (head ``linear``)."""

from sparse_transfer.checkpoints.formats.contract import (
    Evidence,
    KeyFamily,
    Rule,
    Shapes,
    block_counts,
    in_words,
    key_families,
)
from sparse_transfer.models import Architecture, Preprocessing

DEPTHS = {3: "resnet20", 5: "resnet32", 7: "resnet44", 9: "resnet56"}  # by blocks per stage
STEM = 16


def recognise(shapes: Shapes) -> Evidence | None:
    """Three stages after a 3×3 stem; a wide ResNet has bare 1×1 convolutions as shortcuts."""
    stem = shapes.get("conv1.weight", ())
    if len(stem) != 4 or stem[2:] != (3, 3) or "layer3.0.conv1.weight" not in shapes:
        return None
    if "layer4.0.conv1.weight" in shapes or "layer3.0.conv3.weight" in shapes or "layer3.0.downsample.weight" in shapes:
        return None
    blocks = block_counts(shapes, r"layer([1-3])\.(\d+)\.conv1\.weight")
    option_b = any(f"layer2.0.{name}.0.weight" in shapes for name in ("downsample", "shortcut"))
    because = (
        f"a 3×3 stem and {in_words(blocks)} blocks, shortcuts {'with' if option_b else 'without'} a convolution"
        f" (option {'B' if option_b else 'A'})"
    )
    name = DEPTHS.get(blocks[0]) if len(set(blocks)) == 1 and len(blocks) == 3 else None
    if name is None:
        return Evidence(because, None)
    args = {"shortcut": "B" if option_b else "A", "width": stem[0] / STEM}
    return Evidence(because, Architecture.checked(name, args))


def recognise_distiller(shapes: Shapes) -> Evidence | None:
    is_distillers = "fc.weight" in shapes or "layer2.0.downsample.0.weight" in shapes
    return recognise(shapes) if is_distillers else None


def recognise_akamaster(shapes: Shapes) -> Evidence | None:
    return None if "fc.weight" in shapes or "layer2.0.downsample.0.weight" in shapes else recognise(shapes)


key_families.add(
    "resnet_cifar_akamaster",
    KeyFamily(
        cite="akamaster/pytorch_resnet_cifar10 d5489e8, resnet.py and trainer.py",
        recognise=recognise_akamaster,
        rename=(
            Rule(r"linear\.(weight|bias)", r"fc.\1"),
            Rule(r"(layer\d\.\d+)\.shortcut\.(.+)", r"\1.downsample.\2"),
        ),
        declared={name: Architecture(name) for name in DEPTHS.values()},
        pictures="ImageNet's mean and std, as akamaster's training code has them",
    ),
)
key_families.add(
    "resnet_cifar_distiller",
    KeyFamily(
        cite="IntelLabs/distiller d859fc8, distiller/models/cifar10/resnet_cifar.py and apputils/data_loaders.py",
        recognise=recognise_distiller,
        declared={stated: Architecture(name) for name in DEPTHS.values() for stated in (name, f"{name}_cifar")},
        preprocessing=Preprocessing(resize=32, crop=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        pictures="mean and std 0.5, as Distiller's data loader has them",
    ),
)
