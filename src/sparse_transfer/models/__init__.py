"""Architectures and the networks made of them."""

# The first four register their families.
from sparse_transfer.models import mobilenet_v1 as _mobilenet_v1
from sparse_transfer.models import resnet as _resnet
from sparse_transfer.models import resnet_cifar as _resnet_cifar
from sparse_transfer.models import wideresnet as _wideresnet
from sparse_transfer.models.architecture import Architecture, Family, build, families
from sparse_transfer.models.cost import Cost, LayerCost, cost, head_cost, sparsities
from sparse_transfer.models.graph import Graph, Node
from sparse_transfer.models.network import Backbone, Head, Network
from sparse_transfer.models.preprocessing import Preprocessing

__all__ = [
    "Architecture",
    "Backbone",
    "Cost",
    "Family",
    "Graph",
    "Head",
    "LayerCost",
    "Network",
    "Node",
    "Preprocessing",
    "build",
    "cost",
    "families",
    "head_cost",
    "sparsities",
]

del _mobilenet_v1, _resnet, _resnet_cifar, _wideresnet
