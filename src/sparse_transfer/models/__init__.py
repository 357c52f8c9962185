"""Architectures and the networks made of them."""

from sparse_transfer.models.architecture import Architecture, Family, build, families
from sparse_transfer.models.network import Backbone, Head, Network
from sparse_transfer.models.preprocessing import Preprocessing

# Importing a module registers its families.
from sparse_transfer.models import resnet  # noqa: F401  isort: skip

__all__ = ["Architecture", "Backbone", "Family", "Head", "Network", "Preprocessing", "build", "families"]
