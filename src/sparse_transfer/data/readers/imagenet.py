"""ImageNet (ILSVRC-2012): ``train/WNID/*`` and ``val/WNID/*``."""

from pathlib import Path

from sparse_transfer.data.readers.folder import read_parts
from sparse_transfer.data.readers.found import Found


def read(root: Path) -> Found:
    """The official training and validation pictures, the latter as test; classes are the WordNet numbers, sorted.

    A ``test`` folder is passed over: the official test pictures have no labels.
    """
    return read_parts(root, test_names=("val",))
