"""hidden-networks: weights stay as they were drawn, and a score beside each says which of them make up the network.

In each layer the int((1 - k) · n) smallest |scores| are pruned, k the share that is kept (``prune_rate``, 0.3 in the
published files). BatchNorms have no weight and bias of their own, and the classifier is a 1×1 convolution.
Ramanujan et al. (2020); allenai/hidden-networks dddf2d0, utils/conv_type.py, ``SubnetConv``, and utils/bn_type.py.
"""

import re

from torch import Tensor

from sparse_transfer.checkpoints.formats.contract import Decoded, Encoding, encodings
from sparse_transfer.checkpoints.formats.masked import without_weight
from sparse_transfer.checkpoints.formats.rules import largest, lazily
from sparse_transfer.checkpoints.formats.source import Source
from sparse_transfer.core.errors import UserError, listed

SCORES = ".scores"
IN_NAME = r"prune[-_]rate[-_=]?(0?\.\d+)"  # as its run folders are called


def recognise(source: Source) -> str | None:
    """SuperBlock, which has scores too, has a scale beside them."""
    scores = [key for key in source.tensors if key.endswith(SCORES)]
    if not scores or any(f"{key.removesuffix(SCORES)}.scale" in source.tensors for key in scores):
        return None
    return f"{len(scores)} layers have a score for each weight ({listed(scores, most=1)})"


def decode(source: Source) -> Decoded:
    share, stated = pruned_share(source)
    weights = {key: tensor for key, tensor in source.tensors.items() if not key.endswith(SCORES)}
    masks = {
        f"{key.removesuffix(SCORES)}.weight": lazily(scores, lambda values: largest(_finite(values), share))
        for key, scores in source.tensors.items()
        if key.endswith(SCORES)
    }
    return Decoded(
        weights=weights,
        keys={key: key for key in weights},
        masks={name: mask for name, mask in masks.items() if name in weights},
        mask_keys={name: name.removesuffix(".weight") + SCORES for name in masks},
        problems=tuple(without_weight(masks, weights)),
        notes=(f"{share:.4g} of the scores of each layer prune, the smallest: {stated}",),
        masks_are="masks by the scores of the file",
    )


def pruned_share(source: Source) -> tuple[float, str]:
    """Which share of each layer is pruned, and who says so. Raises ``UserError`` where nobody does."""
    kept = source.setting("prune_rate")
    if kept is not None and 0 < kept <= 1:
        return 1 - kept, f"the file's settings keep {kept:.4g} (prune_rate)"
    if match := re.search(IN_NAME, source.container.path.name):
        return 1 - float(match[1]), f"the file's name keeps {match[1]}"
    if source.told.sparsity is None:
        raise UserError(
            "its scores say in which order weights are pruned, and not how many of them",
            where=source.container.path,
            do="give --sparsity; the authors' published files keep 30 % of each layer, which is --sparsity 0.7",
        )
    return source.told.sparsity, "as --sparsity says"


def _finite(scores: Tensor) -> Tensor:
    if not bool(scores.isfinite().all()):
        raise UserError("some of its scores are NaN or infinite", do="fetch the file again")
    return scores


encodings.add(
    "hidden_networks",
    Encoding(cite="allenai/hidden-networks dddf2d0, utils/conv_type.py", recognise=recognise, decode=decode),
)
