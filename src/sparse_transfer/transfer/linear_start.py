"""The linear head as the one that a full transfer begins with.

From a random head the first updates tear at features that were good already; from a fitted one they need not (Kumar et
al., Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution, ICLR 2022: LP-FT).
"""

from sparse_transfer.data.split import Splits
from sparse_transfer.data.transforms import Transform
from sparse_transfer.models import Backbone, Head
from sparse_transfer.transfer.compute import Compute
from sparse_transfer.transfer.fitting import best_by_validation, fit_heads
from sparse_transfer.transfer.plan import Plan


def linear_start(
    backbone: Backbone, splits: Splits, transform: Transform, protocol: str, seed: int, compute: Compute
) -> Head:
    """The head of a linear transfer by ``protocol``, on features of the training pictures seen through ``transform``.

    Where validation pictures choose the strength, the head is not refitted on them: the epoch is chosen by them later.
    """
    plan = Plan.of(protocol)
    features = compute.features(backbone, splits.train, transform)
    if plan.protocol.selection == "none":
        return fit_heads([features], splits.train.labels, len(splits.train.classes), plan.settings, [seed])[0].head
    val = None if splits.val is None else compute.features(backbone, splits.val, transform)
    best, _ = best_by_validation([features], features, val, splits, plan, seed)
    return best.head
