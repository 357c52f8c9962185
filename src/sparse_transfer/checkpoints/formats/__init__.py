"""Other people's formats. Each import registers what its file defines, in the order in which they are asked."""

# isort: off
from sparse_transfer.checkpoints.formats import ist_wrapped as _ist_wrapped
from sparse_transfer.checkpoints.formats import plain as _plain  # the last encoding: it takes any file
from sparse_transfer.checkpoints.formats import resnets as _resnets
from sparse_transfer.checkpoints.formats import resnets_cifar as _resnets_cifar
from sparse_transfer.checkpoints.formats import mobilenets as _mobilenets
from sparse_transfer.checkpoints.formats import own_names as _own_names
from sparse_transfer.checkpoints.formats.contract import Decoded, Encoding, Evidence, KeyFamily, encodings, key_families
from sparse_transfer.checkpoints.formats.source import Source, find_source

__all__ = [
    "Decoded",
    "Encoding",
    "Evidence",
    "KeyFamily",
    "Source",
    "encodings",
    "find_source",
    "key_families",
]

del _ist_wrapped, _mobilenets, _own_names, _plain, _resnets, _resnets_cifar
