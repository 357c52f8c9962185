"""What a backbone makes of a split, computed once and cached."""

from sparse_transfer.features.extract import View, features

__all__ = ["View", "features"]
