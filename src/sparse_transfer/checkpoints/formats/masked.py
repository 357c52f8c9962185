"""What files that keep a mask beside each weight have in common, however they spell it."""

from collections.abc import Mapping

from sparse_transfer.checkpoints.formats.contract import Decoded, KeyTable, translate
from sparse_transfer.checkpoints.formats.source import Source
from sparse_transfer.checkpoints.readers.container import LazyTensor
from sparse_transfer.core.errors import listed

TORCH_PRUNE = KeyTable(
    rename=((r"\.(weight|bias)_orig$", r".\1"),),
    mask=r"(.+)\.weight_mask",
    ones=r".+\.bias_mask",
)
"""How ``torch.nn.utils.prune`` spells them."""
IDLE = "a mask of a bias or a BatchNorm, all ones"


def by_table(source: Source, table: KeyTable, *, masked: str) -> Decoded:
    """Weights and masks as ``table`` spells them. ``masked``: what a weight that it renames is, for a message."""
    found = translate(table, source.tensors)
    keys = {plain: key for key, plain in found.weights.items()}
    masks = {plain: source.tensors[key] for key, plain in found.masks.items()}
    problems: list[str] = []
    if twice := sorted(plain for key, plain in found.weights.items() if keys[plain] != key):
        problems.append(f"{len(twice)} tensors are there twice, plain and wrapped ({listed(twice)})")
    renamed = {plain for plain, key in keys.items() if plain != key and plain.endswith(".weight")}
    if bare := sorted(renamed - set(masks)):
        problems.append(f"{len(bare)} {masked} have no mask ({listed(bare)})")
    for key in found.ones:
        if not bool((source.tensors[key].read() == 1).all()):
            problems.append(f'"{key}" prunes biases, which no mask of ours covers')
    weights = {plain: source.tensors[key] for plain, key in keys.items()}
    return Decoded(
        weights=weights,
        keys=keys,
        masks={name: mask for name, mask in masks.items() if name in weights},
        mask_keys={plain: key for key, plain in found.masks.items()},
        dropped=dict.fromkeys(found.ones, IDLE),
        problems=(*problems, *without_weight(masks, weights)),
    )


def without_weight(masks: Mapping[str, LazyTensor], weights: Mapping[str, LazyTensor]) -> list[str]:
    """The problem of masks whose weight is not in the file, if there are any."""
    orphans = sorted(set(masks) - set(weights))
    return [f"{len(orphans)} masks have no weight ({listed(orphans)})"] if orphans else []
