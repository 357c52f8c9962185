"""Backbone, head, network: images -> features -> logits."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sparse_transfer.core import canonical
from sparse_transfer.core.errors import UserError
from sparse_transfer.models.architecture import Architecture, build
from sparse_transfer.models.preprocessing import Preprocessing
from sparse_transfer.sparsity import Mask

if TYPE_CHECKING:
    from sparse_transfer.models.graph import Graph


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
                f"a head of weight {list(self.weight.shape)} and bias {list(self.bias.shape)}",
                do="it is [C, D] and [C]",
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
        if isinstance(architecture, str):
            architecture = Architecture.parse(architecture)
        return cls(build(architecture), architecture, architecture.preprocessing)

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        *,
        head: str,
        preprocessing: Preprocessing | None = None,
        name: str = "module",
        input_size: int | None = None,
    ) -> "Network":
        """A classifier of your own as backbone and head; ``head`` names its last linear layer (``"fc"``).

        Works on a copy in eval mode. Zeros in its convolution and linear weights become the mask: what is 0 now
        stays 0. Parameter names stay yours. A checkpoint of it keeps ``name`` and needs your module to load.

        preprocessing: what it expects of a picture; ImageNet's usual otherwise.   input_size: px, to try it on;
        the preprocessing's crop otherwise.
        """
        from sparse_transfer.models.own import split

        preprocessing = preprocessing or Preprocessing()
        own, weight, bias = split(module, head, input_size or preprocessing.crop)
        backbone = cls(own, Architecture("module", {"name": name, "head": head}), preprocessing, Mask.from_zeros(own))
        kept = weight != 0
        return Network(backbone, Head(weight, bias, kept=None if bool(kept.all()) else kept))

    @property
    def feature_dim(self) -> int:
        """D, the width of the features."""
        width = self.module.feature_dim
        assert isinstance(width, int)
        return width

    def __call__(self, images: Tensor) -> Tensor:
        """images [N, 3, H, W] -> features [N, D]; the module's own mode (train or eval) decides about BatchNorm."""
        return self.module(images)

    def graph(self, input_size: int) -> "Graph":
        """The backbone as a list of operations, for pictures of ``input_size`` px: see ``models/graph.py``."""
        from sparse_transfer.models.translation import graph_of

        return graph_of(self.module, input_size, where=str(self.architecture))

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
    if architecture.name == "module":
        return str(architecture.args.get("head", "head"))
    return architecture.family.head


def digest(architecture: Architecture, tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> str:
    """SHA-256 over canonical architecture and, sorted by name, each tensor's name, dtype, shape and bytes, and mask.

    A v1 and a v1.5 ResNet-50 have the same tensors, so the architecture is part of it. How a file stores the
    tensors is not: both encodings give one digest.
    """
    sha = hashlib.sha256(canonical.dumps(architecture.to_json()).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        if name in masks:  # a pruned weight is +0 whatever the module holds: -0.0 is no other network
            tensor = tensor.detach().cpu().masked_fill(~masks[name], 0)
        sha.update(f"\0{name}\0{dtype_name(tensor.dtype)}\0{list(tensor.shape)}\0".encode())
        sha.update(raw_bytes(tensor))
        if name in masks:
            sha.update(b"\0mask\0")
            sha.update(raw_bytes(masks[name]))
    return sha.hexdigest()


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def raw_bytes(tensor: Tensor) -> memoryview:
    """The tensor's bytes in row-major order, not copied where it is contiguous on CPU already."""
    flat: NDArray[np.uint8] = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return flat.data
