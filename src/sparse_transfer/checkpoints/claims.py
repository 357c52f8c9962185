"""A claimed sparsity held against what was found. Papers count in several ways, so each way is tried."""

from collections.abc import Mapping

from torch import Tensor

from sparse_transfer.checkpoints.formats.rules import ORDERS, is_n_of_m
from sparse_transfer.core.errors import UserError, listed
from sparse_transfer.sparsity import Share, Sparsities

TOLERANCE = 0.005  # half a point; STR's "80 %" is 81.27 % and has to be claimed as that


def check_claim(claimed: float | None, counts: Sparsities, evidence: str) -> None:
    """Raise ``UserError`` where a claim agrees with no way of counting, or nothing at all is pruned.

    ``evidence``: ``masks``, ``zeros`` or ``dense``, where the pruned weights were looked for.
    """
    if claimed is None:
        return
    if claimed > 0 and counts.masked.zeros == 0:
        raise UserError(
            f"a sparsity of {claimed:.4g} is claimed, and no mask prunes anything and"
            f" {counts.trained_zeros:,} weights are 0: as it is, the network is dense",
            do="if its authors' code prunes it by a rule, ask for it with --method cram, sr-ste or dnw; leave the claim"
            " out to import it dense",
        )
    found = ways(counts)
    if min(abs(claimed - share.sparsity) for share in found.values()) > TOLERANCE:
        nearest = min(found, key=lambda of: abs(claimed - found[of].sparsity))
        said = ", ".join(f"{share.sparsity:.2%} of {of}" for of, share in found.items())
        raise UserError(
            f"{claimed:.2%} is claimed and {said} are pruned ({evidence})",
            do=f"claim what is there, --sparsity {found[nearest].sparsity:.4f}, or leave the claim out",
        )


def check_nm(claimed: tuple[int, int] | None, masks: Mapping[str, Tensor]) -> None:
    """Raise ``UserError`` where a layer with a mask keeps more than N of M neighbours, along its inputs and as stored.

    masks: name -> bool tensor, ``True`` = kept.
    """
    if claimed is None:
        return
    n, m = claimed
    if not masks:
        raise UserError(
            f"{n}:{m} is claimed and nothing is pruned: as it is, the network is dense",
            do="if its authors' code prunes it by a rule, ask for that rule with --method sr-ste or cram",
        )
    broken = [[name for name, kept in masks.items() if not is_n_of_m(kept, n, m, order)] for order in ORDERS]
    if all(broken):
        fewest = min(broken, key=len)
        raise UserError(
            f"{n}:{m} is claimed and {len(fewest)} of {len(masks)} layers keep more than that ({listed(fewest)})",
            do="leave out --nm",
        )


def ways(counts: Sparsities) -> dict[str, Share]:
    """The ways in which a network's sparsity is quoted."""
    everything = sum((layer.pruned for layer in counts.layers), Share(0, 0))
    return {
        "the weights with a mask": counts.masked,
        "the backbone's prunable weights": counts.prunable,
        "all prunable weights": everything,
        "all parameters": counts.total,
    }
