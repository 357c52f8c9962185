"""Masks: which weights may be non-zero, how many there are, and in which pattern."""

from sparse_transfer.sparsity.mask import Mask, MaskViolation, prunable_weights

__all__ = ["Mask", "MaskViolation", "prunable_weights"]
