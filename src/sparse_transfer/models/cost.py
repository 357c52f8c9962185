"""What a backbone costs to run: multiply-adds (MACs), dense and under its mask. 1 MAC = 2 FLOPs."""

from dataclasses import dataclass
from math import prod
from typing import Literal

from sparse_transfer.models.network import Backbone, Head, Network, head_name
from sparse_transfer.sparsity import prunable_weights
from sparse_transfer.sparsity.counts import Sparsities
from sparse_transfer.sparsity.counts import sparsities as count


@dataclass(frozen=True)
class LayerCost:
    """One convolution or linear layer at work. ``kept`` of ``size`` weights may be non-zero."""

    name: str
    op: Literal["conv", "linear"]
    size: int
    kept: int
    macs_dense: int
    macs_sparse: int


@dataclass(frozen=True)
class Cost:
    """MACs of one picture of ``input_size`` px, backbone only, exact; one row a layer, in the order they run.

    Every weight counts once for each output pixel, padding included, as torchvision and ``torch.utils.flop_counter``
    count. BatchNorm (folded when deployed), activations, pooling and additions are not counted.
    """

    input_size: int
    layers: tuple[LayerCost, ...]

    @property
    def macs_dense(self) -> int:
        return sum(layer.macs_dense for layer in self.layers)

    @property
    def macs_sparse(self) -> int:
        """Multiply-adds with kept weights only: what is left if every pruned weight is skipped."""
        return sum(layer.macs_sparse for layer in self.layers)


def cost(backbone: Backbone, input_size: int) -> Cost:
    """MACs of every layer of ``backbone`` for pictures of ``input_size`` px. Raises ``UserError`` as ``graph`` does."""
    kept = {name: number for name, (number, _) in backbone.mask.counts().items()}
    rows: list[LayerCost] = []
    for node in backbone.graph(input_size):
        if node.weight is None or node.op not in ("conv", "linear"):
            continue
        size = backbone.module.get_parameter(node.weight).numel()
        pixels = prod(node.output_shape[1:])  # 1 for a linear layer, whose output is [D]
        alive = kept.get(node.weight, size)
        rows.append(LayerCost(node.name, node.op, size, alive, size * pixels, alive * pixels))
    return Cost(input_size, tuple(rows))


def head_cost(head: Head, name: str = "head") -> LayerCost:
    """MACs of the linear classifier for one picture."""
    size = head.weight.numel()
    kept = size if head.kept is None else int(head.kept.sum())
    return LayerCost(name, "linear", size, kept, size, kept)


def sparsities(network: Network) -> Sparsities:
    """The three sparsities of a network and one row for each of its prunable weights, the head's last."""
    backbone, head = network.backbone, network.head
    weights = {name: weight.detach() for name, weight in prunable_weights(backbone.module).items()}
    parameters = sum(parameter.numel() for parameter in backbone.module.parameters())
    if head is None:
        return count(network.masks(), weights, parameters)
    name = f"{head_name(backbone.architecture)}.weight"
    weights[name] = head.weight.detach()
    return count(network.masks(), weights, parameters + head.weight.numel() + head.bias.numel(), head=(name,))
