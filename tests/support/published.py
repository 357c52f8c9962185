"""The real weights in data/weights as networks, each with exactly its mask."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import squeezenet1_0

from sparse_transfer.checkpoints.importing import import_checkpoint
from sparse_transfer.models import Backbone, Head, Network
from sparse_transfer.sparsity import Mask
from support.stpk import read_stpk


def assembled(architecture: str, state: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Network:
    """A network of a state dict that names every tensor but ``num_batches_tracked``; the head is called fc."""
    backbone = Backbone.create(architecture)
    own = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    missing, unexpected = backbone.module.load_state_dict(own, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    mask = Mask(masks, backbone.module)
    mask.audit(backbone.module)
    return Network(replace(backbone, mask=mask), Head(state["fc.weight"], state["fc.bias"]))


def resnet50_s80(data: Path) -> Network:
    return assembled("resnet50,stride=v1", *read_stpk(data / "data/weights/sparse/resnet50_v1stride_s80.stpk"))


def resnet18_tiny200(data: Path) -> Network:
    return assembled("resnet18,stem=s1", *read_stpk(data / "data/weights/sparse/resnet18_tiny200_erk90.stpk"))


def mobilenet_v1_tf(data: Path) -> Network:
    return import_checkpoint(data / "data/weights/mobilenet/tfjs_v1_1.0_224").network


def squeezenet_dc(data: Path) -> tuple[nn.Module, Mask]:
    """Deep Compression's SqueezeNet as a plain module: its head is a convolution before the pooling."""
    module = squeezenet1_0()
    final = module.classifier[1]
    assert isinstance(final, nn.Conv2d)
    final.padding = (1, 1)
    state, masks = read_stpk(data / "data/weights/squeezenet_dc/squeezenet1_0_deep_compression.stpk")
    module.load_state_dict(state)
    return module.eval(), Mask(masks, module)


def cifar(data: Path, file: str, architecture: str) -> Network:
    """A CIFAR ResNet from a legacy torch file: ``module.`` prefix, head ``linear`` or ``fc``, masks if any."""
    saved = torch.load(data / "data/weights" / file, weights_only=True, map_location="cpu")
    state = {
        name.removeprefix("module.").replace("linear.", "fc."): tensor for name, tensor in saved["state_dict"].items()
    }
    masks = {
        name.removeprefix("module."): mask != 0
        for name, mask in saved.get("compression_sched", {}).get("masks_dict", {}).items()
        if mask is not None
    }
    return assembled(architecture, state, masks)
