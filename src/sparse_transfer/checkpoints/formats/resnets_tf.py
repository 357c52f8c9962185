"""The ResNet-50 of RigL and of State of Sparsity in TensorFlow: one network under one set of names.

Its BatchNorms have no names of their own but numbers in the order in which the graph made them: the stem's, then in
each block the projection's (where there is one) before those of the three convolutions.
"""

import re
from collections.abc import Iterator

from sparse_transfer.checkpoints.formats.contract import Evidence, KeyFamily, Rule, Shapes, in_words, key_families
from sparse_transfer.checkpoints.formats.resnets import BICUBIC, RIGL, RIGL_PREPROCESSING
from sparse_transfer.checkpoints.formats.tf_layouts import batchnorm, convolution, dense

ROOT = "resnet_model"
DEPTHS = (3, 4, 6, 3)


def recognise(shapes: Shapes) -> Evidence | None:
    if not any(key.startswith((f"{ROOT}/bottleneck_", f"{ROOT}/residual_")) for key in shapes):
        return None
    found = [
        int(match[1])
        for key in shapes
        if (
            match := re.fullmatch(
                rf"{ROOT}/bottleneck_1_(?:block_group_projection_)?block_group(\d)(?:_\d+_1)?/weight", key
            )
        )
    ]
    blocks = tuple(found.count(group) for group in sorted(set(found)))
    return Evidence(
        f"{in_words(blocks)} blocks under {ROOT}/bottleneck_1_block_group", RIGL if blocks == DEPTHS else None
    )


def rules() -> Iterator[Rule]:
    """In the order in which the graph makes its layers, so that counting gives the BatchNorms' numbers."""
    yield Rule(f"{ROOT}/initial_conv/weight", "conv1.weight", convolution)
    yield batchnorm(numbered(0), "bn1")
    number = 1
    for group, depth in enumerate(DEPTHS, start=1):
        for block in range(depth):
            name = f"layer{group}.{block}"
            suffix = f"block_group{group}_{block}_1" if block else f"block_group_projection_block_group{group}"
            if not block:
                scope = f"{ROOT}/bottleneck_projection_{suffix}"
                yield Rule(f"{scope}/weight", f"{name}.downsample.0.weight", convolution)
                yield batchnorm(numbered(number), f"{name}.downsample.1")
                number += 1
            for conv in (1, 2, 3):
                yield Rule(f"{ROOT}/bottleneck_{conv}_{suffix}/weight", f"{name}.conv{conv}.weight", convolution)
                yield batchnorm(numbered(number), f"{name}.bn{conv}")
                number += 1
    yield Rule(f"{ROOT}/final_dense/weight", "fc.weight", dense)
    yield Rule(f"{ROOT}/final_dense/bias", "fc.bias")


def numbered(number: int) -> str:
    return f"{ROOT}/batch_normalization" + (f"_{number}" if number else "")


key_families.add(
    "resnet_tf",
    KeyFamily(
        cite="google-research/rigl d39fc7d, rigl/imagenet_resnet/resnet_model.py; state_of_sparsity/sparse_rn50",
        recognise=recognise,
        rename=tuple(rules()),
        preprocessing=RIGL_PREPROCESSING,
        pictures=BICUBIC,
    ),
)
