"""No masks in the file: pruned weights are exact zeros, or the network is dense.

Which of the two it is, is decided when the network is known (``formats/masks.py``): the report then says ``zeros`` or
``dense``. Asked last, so that a file that does have masks never comes here.
"""

from sparse_transfer.checkpoints.formats.contract import Decoded, Encoding, encodings
from sparse_transfer.checkpoints.formats.source import Source
from sparse_transfer.core.errors import UserError, listed

# Keys, and entries beside the weights, in which other methods keep what is pruned. Read as zeros, such a file would
# come in dense, and wrong, so it is refused until its format is here.
LATER_KEYS = {
    ".sparseThreshold": "STR's thresholds",
    ".weight_orig": "masks of torch.nn.utils.prune",
    ".weight_mask": "masks of torch.nn.utils.prune",
    ".parametrizations.weight.original": "a parametrisation of torch.ao.pruning",
    ".scores": "scores of hidden-networks or SuperBlock",
    ".index_list": "LBC's choices",
}
LATER_ENTRIES = {"mask": "a mask beside the weights (M-FAC, LTH)"}


def recognise(source: Source) -> str | None:
    del source
    return "no tensor of the file is a mask"


def decode(source: Source) -> Decoded:
    for ending, what in LATER_KEYS.items():
        if keys := [key for key in source.tensors if key.endswith(ending)]:
            raise UserError(
                f"{len(keys)} tensors are {what} ({listed(keys, most=1)}), which are not read yet",
                where=source.container.path,
                do="make the zeros explicit with its authors' code first",
            )
    for entry, what in LATER_ENTRIES.items():
        if source.beside.get(entry) is not None:
            raise UserError(
                f'"{entry}" is {what}, which is not read yet',
                where=source.container.path,
                do="make the zeros explicit with its authors' code first",
            )
    return Decoded(weights=source.tensors, keys={key: key for key in source.tensors})


encodings.add("plain", Encoding(cite="exact zeros are the mask", recognise=recognise, decode=decode))
