"""What one picture costs a network, for a run's record."""

from sparse_transfer.core.errors import UserError
from sparse_transfer.models import Network
from sparse_transfer.models.cost import cost, head_cost, sparsities
from sparse_transfer.runs.record import Cost


def cost_of(network: Network, warnings: list[str]) -> Cost | None:
    """MACs of one picture and the three sparsities; None, and why, for a module that cannot be traced."""
    backbone, head = network.backbone, network.head
    shares = sparsities(network)
    try:
        layers = cost(backbone, backbone.preprocessing.crop)
    except UserError as error:
        warnings.append(f"no MACs: {error}")
        return None
    of_head = 0 if head is None else head_cost(head).macs_dense
    return Cost(
        macs_dense=layers.macs_dense + of_head,
        macs_sparse=layers.macs_sparse + of_head,
        parameters=shares.total.size,
        sparsity_masked=shares.masked.sparsity if shares.masked.size else None,
        sparsity_prunable=shares.prunable.sparsity,
        sparsity_total=shares.total.sparsity,
    )
