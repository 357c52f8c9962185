"""LTH-T: one mask over two networks, the initial weights (``init_weight``) and those trained from them.

The ticket that the paper transfers is the initial weights, of a network pretrained on ImageNet, under the mask; the
trained ones are ``weight_orig`` under the same mask. Chen et al. (2021), section 3; VITA-Group/CV_LTH_Pre-training
bb18ba2, main_imp_imagenet.py. Which of the two is wanted cannot be told from the file.
"""

from collections.abc import Mapping
from dataclasses import replace

from sparse_transfer.checkpoints.formats.contract import Decoded, Encoding, encodings
from sparse_transfer.checkpoints.formats.masked import TORCH_PRUNE, by_table, without_weight
from sparse_transfer.checkpoints.formats.source import Source, shared_prefix
from sparse_transfer.checkpoints.readers.container import LazyTensor
from sparse_transfer.core.errors import UserError

INITIAL, MASK, ENDING = "init_weight", "mask", ".weight_mask"


def recognise(source: Source) -> str | None:
    beside, initial = _beside(source, MASK), _beside(source, INITIAL)
    inside = sum(key.endswith(ENDING) for key in source.tensors)
    if not beside and not (initial and inside):
        return None
    where = "among the weights" if inside else f'under "{MASK}"'
    return f"{inside or len(beside)} masks {where}" + (f', and initial weights ("{INITIAL}")' if initial else "")


def decode(source: Source) -> Decoded:
    """The masks inside the weights count, as in the origin's own loader; "mask" where there are none."""
    trained = by_table(source, TORCH_PRUNE, masked='weights stored as "weight_orig"')
    if not trained.masks:
        trained = _with_masks_beside(source, trained)
    initial = _beside(source, INITIAL)
    ticket = source.told.ticket
    if ticket == "initial" and not initial:
        raise UserError(
            f'--ticket initial was given and the file has no initial weights (no entry "{INITIAL}")',
            do="leave --ticket out to take the trained ones",
        )
    if ticket is None and initial:
        raise UserError(
            f'the file holds two networks under one mask, the initial weights ("{INITIAL}") and the trained ones'
            f' ("{source.place}")',
            do="say which with --ticket initial (the ticket, what LTH-T transfers) or --ticket trained",
        )
    return trained if ticket != "initial" else _rewound(initial, trained)


def _beside(source: Source, entry: str) -> dict[str, LazyTensor]:
    """The tensors of an entry beside the weights, a wrapper's prefix taken off; {} where it has none."""
    value = source.beside.get(entry)
    items = value.items() if isinstance(value, Mapping) else ()
    tensors = {str(key): tensor for key, tensor in items if isinstance(tensor, LazyTensor)}
    prefix = shared_prefix(tensors) if tensors else ""
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}


def _with_masks_beside(source: Source, trained: Decoded) -> Decoded:
    masks = {key.removesuffix("_mask"): mask for key, mask in _beside(source, MASK).items()}
    return replace(
        trained,
        masks={key: mask for key, mask in masks.items() if key in trained.weights},
        mask_keys={key: f"{MASK}.{key}_mask" for key in masks},
        read_beside=(MASK,),
        problems=(*trained.problems, *without_weight(masks, trained.weights)),
    )


def _rewound(initial: Mapping[str, LazyTensor], trained: Decoded) -> Decoded:
    """The initial weights in the place of the trained ones, under the same masks."""
    return replace(
        trained,
        weights=initial,
        keys={key: f"{INITIAL}.{key}" for key in initial},
        masks={key: mask for key, mask in trained.masks.items() if key in initial},
        dropped={
            **trained.dropped,
            **dict.fromkeys(trained.keys.values(), "trained weights; the initial ones are taken"),
        },
        read_beside=(*trained.read_beside, INITIAL),
        problems=(*trained.problems, *without_weight(trained.masks, initial)),
    )


encodings.add(
    "lottery_ticket",
    Encoding(cite="VITA-Group/CV_LTH_Pre-training bb18ba2, main_imp_imagenet.py", recognise=recognise, decode=decode),
)
