"""``torch.nn.utils.prune``: each pruned weight as it was (``weight_orig``) and its mask (``weight_mask``).

torch computes ``weight`` from the two before every forward pass; what lies under the mask is not 0. A mask beside a
plain ``weight`` is read in the same way. Source: torch/nn/utils/prune.py, ``BasePruningMethod.apply``.
"""

from sparse_transfer.checkpoints.formats.contract import Decoded, Encoding, encodings
from sparse_transfer.checkpoints.formats.masked import TORCH_PRUNE, by_table
from sparse_transfer.checkpoints.formats.source import Source
from sparse_transfer.core.errors import UserError, listed


def recognise(source: Source) -> str | None:
    masks = [key for key in source.tensors if key.endswith(".weight_mask")]
    originals = [key for key in source.tensors if key.endswith(".weight_orig")]
    if not masks and not originals:
        return None
    return f"{len(masks)} layers have a mask of torch.nn.utils.prune ({listed(masks or originals, most=1)})"


def decode(source: Source) -> Decoded:
    decoded = by_table(source, TORCH_PRUNE, masked='weights stored as "weight_orig"')
    if not decoded.masks and len(decoded.mask_keys) + len(decoded.dropped) == len(source.tensors):
        raise UserError(
            f"the file holds {len(decoded.mask_keys)} masks alone, without the weights",
            do="get the file with the weights that they prune (LTH's state_dict or init_weight)",
        )
    return decoded


encodings.add("torch_prune", Encoding(cite="torch 2.11, torch/nn/utils/prune.py", recognise=recognise, decode=decode))
