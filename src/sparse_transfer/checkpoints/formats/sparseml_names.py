"""ResNets and MobileNetV1 under SparseML's own names: ``input``, ``sections``, ``classifier``.

The networks are torchvision's (stride 2 in the 3×3) and Distiller's. neuralmagic/sparseml 1c04a01,
src/sparseml/pytorch/models/classification/resnet.py and mobilenet.py. Its later files bear torchvision's names.
"""

import re
from itertools import accumulate

from sparse_transfer.checkpoints.formats.contract import (
    Evidence,
    KeyFamily,
    Rule,
    Shapes,
    block_counts,
    in_words,
    key_families,
)
from sparse_transfer.checkpoints.formats.mobilenets import widths_evidence
from sparse_transfer.checkpoints.formats.resnets import BY_NAME, DEPTHS, PICTURES
from sparse_transfer.models import Architecture

SECTIONS = (1, 2, 2, 6, 2)  # separable blocks of MobileNetV1 in each section
FIRST = (0, *accumulate(SECTIONS))


def recognise_resnet(shapes: Shapes) -> Evidence | None:
    if "input.conv.weight" not in shapes or "sections.0.0.conv1.weight" not in shapes:
        return None
    blocks = block_counts(shapes, r"sections\.(\d+)\.(\d+)\.conv1\.weight")
    bottleneck = "sections.0.0.conv3.weight" in shapes
    name = DEPTHS.get((bottleneck, blocks))
    because = f"sections of {in_words(blocks)} blocks of {3 if bottleneck else 2} convolutions"
    return Evidence(because, Architecture(name) if name else None)


def recognise_mobilenet(shapes: Shapes) -> Evidence | None:
    if "input.conv.weight" not in shapes or "sections.0.0.depth.conv.weight" not in shapes:
        return None
    blocks = block_counts(shapes, r"sections\.(\d+)\.(\d+)\.point\.conv\.weight")
    if blocks != SECTIONS:
        return Evidence(f"sections of {in_words(blocks)} separable blocks", None)
    outputs = {
        FIRST[int(match[1])] + int(match[2]): shape[0]
        for key, shape in shapes.items()
        if len(shape) == 4 and (match := re.fullmatch(r"sections\.(\d+)\.(\d+)\.point\.conv\.weight", key))
    }
    stem = shapes["input.conv.weight"]
    return widths_evidence((stem[0] if stem else 0, *(outputs[block] for block in sorted(outputs))))


key_families.add(
    "resnet_sparseml",
    KeyFamily(
        cite="neuralmagic/sparseml 1c04a01, pytorch/models/classification/resnet.py",
        recognise=recognise_resnet,
        rename=(
            Rule(r"input\.conv\.(.+)", r"conv1.\1"),
            Rule(r"input\.bn\.(.+)", r"bn1.\1"),
            *(Rule(rf"sections\.{s}\.(\d+)\.(conv|bn)(\d)\.(.+)", rf"layer{s + 1}.\1.\2\3.\4") for s in range(4)),
            *(
                Rule(rf"sections\.{s}\.(\d+)\.identity\.conv\.(.+)", rf"layer{s + 1}.\1.downsample.0.\2")
                for s in range(4)
            ),
            *(
                Rule(rf"sections\.{s}\.(\d+)\.identity\.bn\.(.+)", rf"layer{s + 1}.\1.downsample.1.\2")
                for s in range(4)
            ),
            Rule(r"classifier\.fc\.(weight|bias)", r"fc.\1"),
        ),
        declared=BY_NAME,
        pictures=PICTURES,
    ),
)
key_families.add(
    "mobilenet_sparseml",
    KeyFamily(
        cite="neuralmagic/sparseml 1c04a01, pytorch/models/classification/mobilenet.py",
        recognise=recognise_mobilenet,
        rename=(
            Rule(r"input\.conv\.(.+)", r"model.0.0.\1"),
            Rule(r"input\.bn\.(.+)", r"model.0.1.\1"),
            *(
                Rule(rf"sections\.{s}\.{b}\.{part}\.(.+)", rf"model.{FIRST[s] + b + 1}.{index}.\1")
                for s, blocks in enumerate(SECTIONS)
                for b in range(blocks)
                for part, index in ((r"depth\.conv", 0), (r"depth\.bn", 1), (r"point\.conv", 3), (r"point\.bn", 4))
            ),
            Rule(r"classifier\.fc(?:\.1)?\.(weight|bias)", r"fc.\1"),  # 1 where a Dropout stands before it
        ),
        declared={"mobilenet": Architecture("mobilenet_v1"), "mobilenet_v1": Architecture("mobilenet_v1")},
    ),
)
