"""The paper's common format: each convolution and linear layer wrapped, its mask beside it.

IST-DASLab/sparse-imagenet-transfer, utils/masking_utils.py, ``WrappedLayer``; the same in ACDC, WoodFisher and CrAM.
The weight that counts is ``_layer.weight`` where ``_weight_mask`` is 1. What is stored where it is 0 need not be 0.
"""

from sparse_transfer.checkpoints.formats.contract import Decoded, Encoding, KeyTable, encodings
from sparse_transfer.checkpoints.formats.masked import by_table
from sparse_transfer.checkpoints.formats.source import Source
from sparse_transfer.core.errors import listed

TABLE = KeyTable(
    rename=((r"\._layer\.(weight|bias)$", r".\1"),),
    mask=r"(.+)\._weight_mask",
    ones=r".+\._bias_mask",
)


def recognise(source: Source) -> str | None:
    wrapped = [key for key in source.tensors if key.endswith("._weight_mask")]
    if not wrapped:
        return None
    return f"{len(wrapped)} layers have a mask of their own ({listed(wrapped, most=1)})"


def decode(source: Source) -> Decoded:
    return by_table(source, TABLE, masked="wrapped layers")


encodings.add(
    "ist_wrapped",
    Encoding(
        cite="IST-DASLab/sparse-imagenet-transfer 3e4f5dc, utils/masking_utils.py",
        recognise=recognise,
        decode=decode,
    ),
)
