"""MobileNetV1 under four sets of names. In PyTorch versions ReLU follows; timm's has ReLU6, so it stays timm's."""

import re
from collections.abc import Sequence

from sparse_transfer.checkpoints.formats.contract import (
    Evidence,
    KeyFamily,
    Rule,
    Shapes,
    flatten_kernel,
    key_families,
)
from sparse_transfer.models import Architecture
from sparse_transfer.models.mobilenet_v1 import PROFILES

TIMM_WIDTHS = {32: "mobilenetv1_100", 40: "mobilenetv1_125"}  # stem's outputs; timm/models/efficientnet.py


def recognise_sequential(shapes: Shapes) -> Evidence | None:
    return None if len(shapes.get("fc.weight", ())) == 4 else _sequential(shapes)


def recognise_str(shapes: Shapes) -> Evidence | None:
    evidence = _sequential(shapes) if len(shapes.get("fc.weight", ())) == 4 else None
    return evidence and Evidence(f"{evidence.because}, and a 1×1 convolution classifies", evidence.architecture)


def _sequential(shapes: Shapes) -> Evidence | None:
    if not _is_stem(shapes, "model.0.0.weight") or not _is_depthwise(shapes, "model.1.0.weight"):
        return None
    return _evidence(shapes, "model.0.0.weight", r"model\.(\d+)\.3\.weight")


def recognise_amc(shapes: Shapes) -> Evidence | None:
    if not _is_stem(shapes, "conv1.0.weight") or not _is_depthwise(shapes, "features.0.0.weight"):
        return None
    return _evidence(shapes, "conv1.0.weight", r"features\.(\d+)\.3\.weight")


def recognise_timm(shapes: Shapes) -> Evidence | None:
    if not _is_stem(shapes, "conv_stem.weight") or "blocks.0.0.conv_pw.weight" not in shapes:
        return None
    if any("conv_pwl" in key or ".se." in key or "conv_exp" in key for key in shapes):
        return None  # an EfficientNet or a later MobileNet: --arch timm:NAME
    stem = shapes["conv_stem.weight"][0]
    name = TIMM_WIDTHS.get(stem)
    return Evidence(
        f"conv_stem with {stem} outputs and separable blocks", Architecture(f"timm:{name}") if name else None
    )


def _is_stem(shapes: Shapes, key: str) -> bool:
    return len(shape := shapes.get(key, ())) == 4 and shape[1:] == (3, 3, 3)


def _is_depthwise(shapes: Shapes, key: str) -> bool:
    return len(shape := shapes.get(key, ())) == 4 and shape[1:] == (1, 3, 3)


def _evidence(shapes: Shapes, stem: str, pointwise: str) -> Evidence:
    found = {
        int(match[1]): shape[0]
        for key, shape in shapes.items()
        if len(shape) == 4 and (match := re.fullmatch(pointwise, key))
    }
    return widths_evidence((shapes[stem][0], *(found[block] for block in sorted(found))))


def widths_evidence(outputs: tuple[int, ...]) -> Evidence:
    """Which profile and width has a stem and pointwise convolutions of these many outputs, in network order."""
    because = f"a 3×3 stem of {outputs[0]} outputs and {len(outputs) - 1} separable blocks, the last of {outputs[-1]}"
    for profile, channels in PROFILES.items():
        width = outputs[-1] / channels[-1]
        if outputs == _scaled(channels, width):
            return Evidence(because, Architecture.checked("mobilenet_v1", {"profile": profile, "width": width}))
    return Evidence(because, None)


def _scaled(channels: Sequence[int], width: float) -> tuple[int, ...]:
    return tuple(max(8, int(number * width)) for number in channels)


FULL = Architecture("mobilenet_v1")
WIDTHS = {f"mobilenet_{text}": Architecture("mobilenet_v1", {"width": width}) for text, width in
          (("025", 0.25), ("050", 0.5), ("075", 0.75))}  # fmt: skip

key_families.add(
    "mobilenet_str",
    KeyFamily(
        cite="RAIVNLab/STR cc74d38, models/mobilenetv1.py (dense conversion)",
        recognise=recognise_str,
        rename=(Rule(r"fc\.weight", "fc.weight", flatten_kernel),),
        declared={"mobilenet_str": FULL, "MobileNetV1": FULL},
        head_bias=False,
    ),
)
key_families.add(
    "mobilenet",
    KeyFamily(
        cite="IST-DASLab/sparse-imagenet-transfer 3e4f5dc, models/mobilenet.py (Distiller's)",
        recognise=recognise_sequential,
        declared={"mobilenet": FULL, **WIDTHS},
    ),
)
key_families.add(
    "mobilenet_amc",
    KeyFamily(
        cite="mit-han-lab/amc, models/mobilenet.py; amc-models for the narrower profiles",
        recognise=recognise_amc,
        rename=(
            Rule(r"conv1\.(\d)\.(.+)", r"model.0.\1.\2"),
            *(Rule(rf"features\.{i}\.(.+)", rf"model.{i + 1}.\1") for i in range(13)),
            Rule(r"classifier\.[01]\.(weight|bias)", r"fc.\1"),  # 1 where a Dropout stands before it
        ),
        declared={"mobilenet_amc": FULL},
    ),
)
key_families.add(
    "mobilenet_timm",
    KeyFamily(cite="huggingface/pytorch-image-models, timm/models/efficientnet.py", recognise=recognise_timm),
)
