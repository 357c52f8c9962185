"""The paper's common format: each convolution and linear layer wrapped, its mask beside it.

IST-DASLab/sparse-imagenet-transfer, utils/masking_utils.py, ``WrappedLayer``; the same in ACDC, WoodFisher and CrAM.
The weight that counts is ``_layer.weight`` where ``_weight_mask`` is 1. What is stored where it is 0 need not be 0.
"""

from sparse_transfer.checkpoints.formats.contract import Decoded, Encoding, KeyTable, encodings, translate
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
    found = translate(TABLE, source.tensors)
    weights = {plain: source.tensors[key] for key, plain in found.weights.items()}
    masks = {plain: source.tensors[key] for key, plain in found.masks.items()}
    problems: list[str] = []
    wrapped = {plain for key, plain in found.weights.items() if key.endswith("_layer.weight")}
    if bare := sorted(wrapped - set(masks)):
        problems.append(f"{len(bare)} wrapped layers have no mask ({listed(bare)})")
    if orphans := sorted(set(masks) - set(weights)):
        problems.append(f"{len(orphans)} masks have no weight ({listed(orphans)})")
    for key in found.ones:
        if not bool((source.tensors[key].read() == 1).all()):
            problems.append(f'"{key}" prunes biases, which no mask of ours covers')
    return Decoded(
        weights=weights,
        keys={plain: key for key, plain in found.weights.items()},
        masks={name: mask for name, mask in masks.items() if name in weights},
        mask_keys={plain: key for key, plain in found.masks.items()},
        dropped=dict.fromkeys(found.ones, "a mask of a bias, all ones"),
        problems=tuple(problems),
    )


encodings.add(
    "ist_wrapped",
    Encoding(
        cite="IST-DASLab/sparse-imagenet-transfer 3e4f5dc, utils/masking_utils.py",
        recognise=recognise,
        decode=decode,
    ),
)
