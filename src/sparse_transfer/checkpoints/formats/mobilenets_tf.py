"""MobileNetV1 under three sets of TensorFlow's names: RigL's, Keras' and TF-slim's.

RigL's pads its convolutions on both sides and has plain ReLU, as PyTorch's versions do. Keras' and TF-slim's pad 0
before and 1 after, have ReLU6, and BatchNorms with an epsilon of 1e-3.
"""

import re

from torch import Tensor

from sparse_transfer.checkpoints.formats.contract import Evidence, KeyFamily, Rule, Shapes, key_families
from sparse_transfer.checkpoints.formats.declared import WITH_BACKGROUND
from sparse_transfer.checkpoints.formats.mobilenets import widths_evidence
from sparse_transfer.checkpoints.formats.resnets import BICUBIC, RIGL_PREPROCESSING
from sparse_transfer.checkpoints.formats.resnets_tf import ROOT, numbered
from sparse_transfer.checkpoints.formats.tf_layouts import batchnorm, convolution, dense, depthwise, pointwise_head
from sparse_transfer.models import Architecture
from sparse_transfer.models.mobilenet_v1 import Flavour

BLOCKS = range(1, 14)
LEFT_OUT = f"a head of {WITH_BACKGROUND:,} classes has the background as its first, which was left out"


def recognise_rigl(shapes: Shapes) -> Evidence | None:
    return _recognise(shapes, f"{ROOT}/initial_conv", rf"{ROOT}/contraction_1x1_(\d+)", "torch")


def recognise_keras(shapes: Shapes) -> Evidence | None:
    return _recognise(shapes, "conv1", r"conv_pw_(\d+)", "tf")


def recognise_slim(shapes: Shapes) -> Evidence | None:
    return _recognise(shapes, "MobilenetV1/Conv2d_0", r"MobilenetV1/Conv2d_(\d+)_pointwise", "tf")


def _recognise(shapes: Shapes, stem: str, pointwise: str, flavour: Flavour) -> Evidence | None:
    """By its stem and its pointwise convolutions, whose outputs say how wide it is."""
    first = shapes.get(f"{stem}/weight", ())
    found = {
        int(match[1]): shape[3]
        for key, shape in shapes.items()
        if len(shape) == 4 and (match := re.fullmatch(rf"{pointwise}/weight", key))
    }
    if len(first) != 4 or first[:3] != (3, 3, 3) or not found:
        return None
    evidence = widths_evidence((first[3], *(found[block] for block in sorted(found))))
    if evidence.architecture is None:
        return evidence
    args = {**evidence.architecture.args, "flavour": flavour}
    return Evidence(evidence.because, Architecture.checked("mobilenet_v1", args))


def without_background(tensor: Tensor) -> Tensor:
    """Of a head's [O, I] or [O]: the thousand classes of ImageNet, where the background is the first."""
    return tensor[1:] if tensor.shape[:1] == (WITH_BACKGROUND,) else tensor


def slim_head(kernel: Tensor) -> Tensor:
    return without_background(pointwise_head(kernel))


key_families.add(
    "mobilenet_rigl",
    KeyFamily(
        cite="google-research/rigl d39fc7d, rigl/imagenet_resnet/mobilenetv1_model.py",
        recognise=recognise_rigl,
        rename=(
            Rule(f"{ROOT}/initial_conv/weight", "model.0.0.weight", convolution),
            batchnorm(numbered(0), "model.0.1"),
            *(Rule(f"{ROOT}/depthwise_nxn_{i - 1}/weight", f"model.{i}.0.weight", depthwise) for i in BLOCKS),
            *(batchnorm(numbered(2 * i - 1), f"model.{i}.1") for i in BLOCKS),
            *(Rule(f"{ROOT}/contraction_1x1_{i - 1}/weight", f"model.{i}.3.weight", convolution) for i in BLOCKS),
            *(batchnorm(numbered(2 * i), f"model.{i}.4") for i in BLOCKS),
            Rule(f"{ROOT}/final_dense/weight", "fc.weight", dense),
            Rule(f"{ROOT}/final_dense/bias", "fc.bias"),
        ),
        preprocessing=RIGL_PREPROCESSING,
        pictures=BICUBIC,
    ),
)
key_families.add(
    "mobilenet_keras",
    KeyFamily(
        cite="keras-team/keras-applications, keras_applications/mobilenet.py",
        recognise=recognise_keras,
        rename=(
            Rule("conv1/weight", "model.0.0.weight", convolution),
            batchnorm("conv1_bn", "model.0.1"),
            *(Rule(f"conv_dw_{i}/weight", f"model.{i}.0.weight", depthwise) for i in BLOCKS),
            *(batchnorm(f"conv_dw_{i}_bn", f"model.{i}.1") for i in BLOCKS),
            *(Rule(f"conv_pw_{i}/weight", f"model.{i}.3.weight", convolution) for i in BLOCKS),
            *(batchnorm(f"conv_pw_{i}_bn", f"model.{i}.4") for i in BLOCKS),
            Rule("conv_preds/weight", "fc.weight", pointwise_head),
            Rule("conv_preds/bias", "fc.bias"),
        ),
    ),
)
key_families.add(
    "mobilenet_slim",
    KeyFamily(
        cite="tensorflow/models, research/slim/nets/mobilenet_v1.py",
        recognise=recognise_slim,
        rename=(
            Rule("MobilenetV1/Conv2d_0/weight", "model.0.0.weight", convolution),
            batchnorm("MobilenetV1/Conv2d_0/BatchNorm", "model.0.1"),
            *(Rule(f"MobilenetV1/Conv2d_{i}_depthwise/weight", f"model.{i}.0.weight", depthwise) for i in BLOCKS),
            *(batchnorm(f"MobilenetV1/Conv2d_{i}_depthwise/BatchNorm", f"model.{i}.1") for i in BLOCKS),
            *(Rule(f"MobilenetV1/Conv2d_{i}_pointwise/weight", f"model.{i}.3.weight", convolution) for i in BLOCKS),
            *(batchnorm(f"MobilenetV1/Conv2d_{i}_pointwise/BatchNorm", f"model.{i}.4") for i in BLOCKS),
            Rule("MobilenetV1/Logits/Conv2d_1c_1x1/weight", "fc.weight", slim_head),
            Rule("MobilenetV1/Logits/Conv2d_1c_1x1/bias", "fc.bias", without_background),
        ),
        assumptions=lambda architecture: (LEFT_OUT,),
    ),
)
