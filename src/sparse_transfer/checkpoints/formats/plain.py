"""No masks in the file: pruned weights are exact zeros, or the network is dense.

Which of the two it is, is decided when the network is known (``formats/masks.py``): the report then says ``zeros`` or
``dense``. Asked last, so that a file that does have masks never comes here.
"""

from sparse_transfer.checkpoints.formats.contract import Decoded, Encoding, encodings
from sparse_transfer.checkpoints.formats.source import Source
from sparse_transfer.core.errors import UserError


def recognise(source: Source) -> str | None:
    del source
    return "no tensor of the file is a mask"


def decode(source: Source) -> Decoded:
    if source.beside.get("mask") is not None:  # read as zeros, the file would come in dense, and wrong
        raise UserError(
            'its "mask" is neither one flat tensor (M-FAC) nor tensors by name (LTH)',
            where=source.container.path,
            do="make the zeros explicit with its authors' code first",
        )
    return Decoded(weights=source.tensors, keys={key: key for key in source.tensors})


encodings.add("plain", Encoding(cite="exact zeros are the mask", recognise=recognise, decode=decode))
