"""Masks: which weights may be non-zero, how many there are, and in which pattern."""

from sparse_transfer.sparsity.counts import LayerCount, Share, Sparsities, sparsities
from sparse_transfer.sparsity.mask import Mask, MaskViolation, audit, prunable_weights
from sparse_transfer.sparsity.pattern import pattern

__all__ = [
    "LayerCount",
    "Mask",
    "MaskViolation",
    "Share",
    "Sparsities",
    "audit",
    "pattern",
    "prunable_weights",
    "sparsities",
]
