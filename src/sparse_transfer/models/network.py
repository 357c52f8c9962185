"""Backbone, head, network: images -> features -> logits."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sparse_transfer.core import canonical
from sparse_transfer.core.errors import UserError
from sparse_transfer.models.architecture import Architecture
from sparse_transfer.models.preprocessing import Preprocessing
from sparse_transfer.sparsity import Mask


@dataclass(frozen=True)
class Head:
    """A linear classifier: logits = features @ weight.T + bias.

    weight: [C, D] float32.   bias: [C] float32.   classes: C names, in label order.
    kept: [C, D] bool where the head itself is pruned, else None.
    """

    weight: Tensor
    bias: Tensor
    classes: tuple[str, ...] = ()
    kept: Tensor | None = None

    def __post_init__(self) -> None:
        if self.weight.ndim != 2 or self.bias.shape != self.weight.shape[:1]:
            raise UserError(
                f"a head of weight {list(self.weight.shape)} and bias {list(self.bias.shape)}", do="it is [C, D] and [C]"
            )
        if self.classes and len(self.classes) != len(self.weight):
            raise UserError(f"{len(self.classes)} class names for a head of {len(self.weight)} classes")
        if self.kept is not None and (self.kept.dtype != torch.bool or self.kept.shape != self.weight.shape):
            raise UserError("the head's mask is not a bool tensor of its weight's shape")

    def __call__(self, features: Tensor) -> Tensor:
        """features [N, D] -> logits [N, C]."""
        return nn.functional.linear(features, self.weight, self.bias)


@dataclass(frozen=True)
class Backbone:
    """A feature extractor, pooling included: images [N, 3, H, W] float32 -> features [N, D] float32.

    Example:
        >>> backbone = Backbone.create("resnet18")
        >>> backbone.feature_dim
        512
    """

    module: nn.Module
    architecture: Architecture
    preprocessing: Preprocessing
    mask: Mask = field(default_factory=Mask.none)

    @classmethod
    def create(cls, architecture: str | Architecture) -> "Backbone":
        """A freshly initialised, dense backbone of that architecture."""
        from sparse_transfer.models.architecture import build

        if isinstance(architecture, str):
            architecture = Architecture.parse(architecture)
        return cls(build(architecture), architecture, architecture.preprocessing)

    @property
    def feature_dim(self) -> int:
        """D, the width of the features."""
        width = self.module.feature_dim
        assert isinstance(width, int)
        return width

    def __call__(self, images: Tensor) -> Tensor:
        """images [N, 3, H, W] -> features [N, D]; the module's own mode (train or eval) decides about BatchNorm."""
        return self.module(images)

    def digest(self) -> str:
        """SHA-256 of architecture, weights and mask: the backbone's identity in every cache key."""
        return digest(self.architecture, self.module.state_dict(), self.mask)


@dataclass(frozen=True)
class Network:
    """Backbone and head: images [N, 3, H, W] -> logits [N, C]. Without a head it is a backbone alone."""

    backbone: Backbone
    head: Head | None = None

    def __call__(self, images: Tensor) -> Tensor:
        if self.head is None:
            raise UserError("this network has no head", do="fit one with `sparse-transfer linear ... -o OUT`")
        return self.head(self.backbone(images))

    def tensors(self) -> dict[str, Tensor]:
        """State dict of the whole network under canonical names, the head under its family's (``fc.weight``)."""
        tensors = dict(self.backbone.module.state_dict())
        if self.head is not None:
            name = head_name(self.backbone.architecture)
            tensors |= {f"{name}.weight": self.head.weight, f"{name}.bias": self.head.bias}
        return tensors

    def masks(self) -> dict[str, Tensor]:
        """Bool tensors by the same names: the backbone's mask and, where it is pruned, the head's."""
        masks = dict(self.backbone.mask)
        if self.head is not None and self.head.kept is not None:
            masks[f"{head_name(self.backbone.architecture)}.weight"] = self.head.kept
        return masks

    def digest(self) -> str:
        """SHA-256 of architecture, all tensors and masks: the network's identity."""
        return digest(self.backbone.architecture, self.tensors(), self.masks())


def head_name(architecture: Architecture) -> str:
    """The head's layer in a state dict of the whole network."""
    return "head" if architecture.name == "module" else architecture.family.head


def digest(architecture: Architecture, tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> str:
    """SHA-256 over canonical architecture and, sorted by name, each tensor's name, dtype, shape and bytes, and mask.

    A v1 and a v1.5 ResNet-50 have the same tensors, so the architecture is part of it. How a file stores the
    tensors is not: both encodings give one digest.
    """
    sha = hashlib.sha256(canonical.dumps(architecture.to_json()).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"\0{name}\0{str(tensor.dtype).removeprefix('torch.')}\0{list(tensor.shape)}\0".encode())
        sha.update(memoryview(tensor.reshape(-1).view(torch.uint8).numpy()))
        if name in masks:
            sha.update(b"\0mask\0")
            sha.update(memoryview(masks[name].contiguous().reshape(-1).view(torch.uint8).numpy()))
    return sha.hexdigest()
