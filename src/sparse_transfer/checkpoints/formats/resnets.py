"""ImageNet ResNets under torchvision's names, and STR's, whose classifier is a 1×1 convolution without bias."""

from sparse_transfer.checkpoints.formats.contract import (
    Evidence,
    KeyFamily,
    Rule,
    Shapes,
    block_counts,
    flatten_kernel,
    in_words,
    key_families,
)
from sparse_transfer.models import Architecture, Preprocessing
from sparse_transfer.models.resnet import WIDEST

# (three convolutions a block, blocks per stage) -> name. He et al. (2016), table 1.
DEPTHS: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
RIGL = Architecture("resnet50", {"pool": "same"})
# state_of_sparsity/sparse_rn50/resnet_preprocessing.py, which RigL shares. Protocol cvpr2022 resizes with Pillow.
RIGL_PREPROCESSING = Preprocessing(interpolation="tf1_bicubic", antialias=False)

STRIDE = (
    "stride v1.5 (in the 3×3), as torchvision and the published sparse networks have it: tensors cannot tell;"
    " give --arch {0},stride=v1 if it is the original of 2015 (Caffe, Keras)"
)
POOL = (
    "max-pool padded as in PyTorch: a RigL network under torchvision's names looks the same;"
    " give --arch {0},pool=same if it is one"
)
PICTURES = "pictures as for torchvision's first weights; its later ones, and timm's of the same names, differ"
BICUBIC = (
    "pictures cut and then resized as TensorFlow 1 did when RigL was evaluated, but for its JPEG decoder and rounding;"
    " protocol cvpr2022 resizes and then cuts them with Pillow, as the transfer code does"
)


def recognise_torchvision(shapes: Shapes) -> Evidence | None:
    return None if len(shapes.get("fc.weight", ())) == 4 else _recognise(shapes)


def recognise_str(shapes: Shapes) -> Evidence | None:
    evidence = _recognise(shapes) if len(shapes.get("fc.weight", ())) == 4 else None
    return evidence and Evidence(f"{evidence.because}, and a 1×1 convolution classifies", evidence.architecture)


def _recognise(shapes: Shapes) -> Evidence | None:
    stem = shapes.get("conv1.weight", ())
    if len(stem) != 4 or stem[2:] != (7, 7) or "layer1.0.conv1.weight" not in shapes:
        return None
    blocks = block_counts(shapes, r"layer([1-4])\.(\d+)\.conv1\.weight")
    bottleneck = "layer1.0.conv3.weight" in shapes
    name = DEPTHS.get((bottleneck, blocks))
    because = f"a 7×7 stem and {in_words(blocks)} blocks of {3 if bottleneck else 2} convolutions"
    width = width_of(shapes.get("layer1.0.conv2.weight", ())) if bottleneck else 1
    if width > 1:
        because += f", {width} times as wide"
    return Evidence(because, Architecture(name, {"width": width} if width > 1 else {}) if name else None)


def width_of(middle: tuple[int, ...]) -> int:
    """Channels of the first 3×3 in He et al.'s 64; 1 where it is no multiple, or in groups: its shape then misfits."""
    if len(middle) != 4 or middle[0] != middle[1] or middle[0] not in range(64, 64 * WIDEST + 1, 64):
        return 1
    return middle[0] // 64


def recognise_rigl(shapes: Shapes) -> Evidence | None:
    if "initial_conv.conv.weight" not in shapes or "layer1.block.0.conv1.conv.weight" not in shapes:
        return None
    blocks = block_counts(shapes, r"layer([1-4])\.block\.(\d+)\.conv1\.conv\.weight")
    architecture = RIGL if blocks == (3, 4, 6, 3) else None
    return Evidence(f"initial_conv and {in_words(blocks)} blocks under layerN.block", architecture)


def _assumed(architecture: Architecture) -> tuple[str, ...]:
    is_basic = architecture.name in ("resnet18", "resnet34")  # whose first convolution is the 3×3
    return tuple(text.format(architecture.name) for text in ((POOL,) if is_basic else (STRIDE, POOL)))


BY_NAME = {name: Architecture(name) for name in DEPTHS.values()}

key_families.add(
    "resnet_rigl",
    KeyFamily(
        cite="IST-DASLab/sparse-imagenet-transfer 3e4f5dc, models/external/rigl/resnet.py",
        recognise=recognise_rigl,
        rename=(
            Rule(r"initial_conv\.conv\.(.+)", r"conv1.\1"),
            Rule(r"initial_conv\.bn\.(.+)", r"bn1.\1"),
            Rule(r"(layer\d)\.block\.(\d+)\.conv(\d)\.conv\.(.+)", r"\1.\2.conv\3.\4"),
            Rule(r"(layer\d)\.block\.(\d+)\.conv(\d)\.bn\.(.+)", r"\1.\2.bn\3.\4"),
            Rule(r"(layer\d)\.block\.(\d+)\.shortcut\.conv\.(.+)", r"\1.\2.downsample.0.\3"),
            Rule(r"(layer\d)\.block\.(\d+)\.shortcut\.bn\.(.+)", r"\1.\2.downsample.1.\3"),
        ),
        declared={"resnet50_rigl": RIGL},
        preprocessing=RIGL_PREPROCESSING,
        pictures=BICUBIC,
    ),
)
key_families.add(
    "resnet_str",
    KeyFamily(
        cite="RAIVNLab/STR cc74d38, models/resnet.py (dense conversion)",
        recognise=recognise_str,
        rename=(Rule(r"fc\.weight", "fc.weight", flatten_kernel),),
        declared={"resnet50_str": BY_NAME["resnet50"], "ResNet50": BY_NAME["resnet50"]},
        head_bias=False,
    ),
)
key_families.add(
    "resnet",
    KeyFamily(
        cite="torchvision 0.26, models/resnet.py",
        recognise=recognise_torchvision,
        declared=BY_NAME
        | {
            "resnet50_torch": BY_NAME["resnet50"],
            # The transfer code gives this network a linear classifier when DeepSparse runs it.
            "resnet50_str": BY_NAME["resnet50"],
            "resnet50_rigl": RIGL,
        },
        assumptions=_assumed,
        pictures=PICTURES,
    ),
)
