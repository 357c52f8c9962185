"""Which weights of an imported network are pruned (research: detection, 6.1, and pitfalls, 9.2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from sparse_transfer.core.errors import UserError

# Zeros are a mask where there are this many of them (E14): a trained dense layer has next to none.
ZEROS_IN_ALL = 0.05
ZEROS_IN_ONE = 0.20
SIZE_OF_ONE = 1000
DENSE_PHASE = (
    "all {} masks of the file keep everything and its weights hold no zeros: a dense network, as AC/DC saves one in its"
    " dense phases (best_dense)"
)


@dataclass(frozen=True)
class Masking:
    """What is pruned, and by which right.

    kept: name -> bool tensor, only for weights that have a pruned element.
    evidence: ``masks`` of the file, its ``zeros``, or neither: ``dense``.   done: the sentence for the report.
    """

    kept: dict[str, Tensor]
    evidence: str
    done: str
    warnings: tuple[str, ...] = ()


def settle(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor], masks_are: str = "masks of the file") -> Masking:
    """Decide between masks and zeros. ``weights``: every prunable weight.   ``masks``: the file's of these, bool.

    A mask of the file counts, and a zero that it keeps stays a kept weight (RigL grows connections at 0). Only where
    all masks keep everything, as the original's loader leaves them, do zeros count instead.

    Raises:
        UserError: masks that are 1 where a weight is pruned, as far as the weights show it.
    """
    pruning = {name: kept for name, kept in masks.items() if not bool(kept.all())}
    if pruning:
        leaked = {name: int(((weights[name] != 0) & ~kept).sum()) for name, kept in pruning.items()}
        if (total := sum(leaked.values())) and not any(
            bool(weights[name][kept].any()) for name, kept in pruning.items()
        ):
            raise UserError(
                f"its {len(pruning)} masks keep nothing but zeros and prune {total:,} weights that are not 0: they are"
                " inverted, 1 stands for pruned",
                do="save 1 - mask in the place of each",
            )
        return Masking(pruning, "masks", _in_words(pruning, len(masks), leaked, masks_are))
    zeros = {name: weight == 0 for name, weight in weights.items()}
    counts = {name: int(zero.sum()) for name, zero in zeros.items()}
    total = sum(weight.numel() for weight in weights.values())
    if is_sparse([(counts[name], weight.numel()) for name, weight in weights.items()]):
        kept = {name: ~zeros[name] for name in weights if counts[name]}
        done = f"exact zeros are the mask: {sum(counts.values()):,} in {len(kept)} of {len(weights)} layers"
        warning = (f"all {len(masks)} masks of the file keep everything though its weights hold zeros: zeros count",)
        return Masking(kept, "zeros", done, warning if masks else ())
    found = sum(counts.values())
    done = "nothing is pruned" + (f" ({found:,} of {total:,} weights are 0, too few to be a mask)" if found else "")
    return Masking({}, "dense", done, (DENSE_PHASE.format(len(masks)),) if masks else ())


def is_sparse(counts: Sequence[tuple[int, int]]) -> bool:
    """Whether zeros (count, size) by tensor are so many that they were made on purpose."""
    zeros, total = (sum(column) for column in zip(*counts, strict=True)) if counts else (0, 0)
    return zeros >= ZEROS_IN_ALL * total > 0 or any(
        size >= SIZE_OF_ONE and count >= ZEROS_IN_ONE * size for count, size in counts
    )


def select_(weight: Tensor, kept: Tensor) -> None:
    """Put +0, in place, where the weight is pruned, whatever was stored there. Selects, never multiplies."""
    weight.masked_fill_(~kept, 0)


def _in_words(pruning: Mapping[str, Tensor], masks: int, leaked: Mapping[str, int], masks_are: str) -> str:
    done = f"{masks_are}, {len(pruning)} of {masks} prune"
    if masks > len(pruning):
        done += f" and {masks - len(pruning)} are all ones (dense layers)"
    if total := sum(leaked.values()):
        layers = sum(bool(count) for count in leaked.values())
        done += f"; {total:,} stored weights in {layers} layers were not 0 where they are pruned, and were set to 0"
    return done
