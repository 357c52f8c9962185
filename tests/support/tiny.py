"""A tiny sparse network with a checkpoint file, made from a seed."""

from dataclasses import replace
from pathlib import Path

import torch

from sparse_transfer.checkpoints.file import Origin, save
from sparse_transfer.models import Backbone, Preprocessing
from sparse_transfer.sparsity import Mask, prunable_weights


def sparse_backbone(seed: int = 0, sparsity: float = 0.8) -> Backbone:
    """A random CIFAR ResNet-20 for 32 px with the smallest weights of each layer pruned."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = Backbone.create("resnet20")
    kept = {
        name: weight.abs() > weight.abs().flatten().kthvalue(max(1, round(sparsity * weight.numel()))).values
        for name, weight in prunable_weights(backbone.module).items()
    }
    mask = Mask(kept, backbone.module)
    mask.apply_(backbone.module)
    return replace(backbone, mask=mask, preprocessing=Preprocessing(resize=32, crop=32))


def checkpoint_file(path: Path, seed: int = 0) -> Path:
    """``sparse_backbone`` as a file."""
    save(sparse_backbone(seed), path, origin=Origin(method="magnitude", sparsity=0.8))
    return path
