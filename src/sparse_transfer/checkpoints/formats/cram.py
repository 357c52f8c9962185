"""CrAM: a network trained so that it can be pruned in one shot. The file is dense; its reader prunes it.

Global: every weight of a convolution or linear layer whose |w| is above the k-th largest of all of them, k = ceil((1 -
sparsity) · n). N:M: the N largest of every M neighbours along the inputs. First convolution and classifier as well.
Peste et al. (2023); IST-DASLab/CrAM b89d9ff, utils/pruning_utils.py, ``one_shot_prune`` and ``one_shot_NM_prune``.
"""

from collections.abc import Iterable, Mapping
from functools import cache, partial
from math import ceil

import torch

from sparse_transfer.checkpoints.formats.contract import Decoded, Encoding, encodings
from sparse_transfer.checkpoints.formats.rules import indivisible, layers, lazily, n_of_m, ruled
from sparse_transfer.checkpoints.formats.source import Source
from sparse_transfer.checkpoints.readers.container import LazyTensor

DENSE = "CrAM's networks are published dense, to be pruned when they are used: --sparsity or --nm prunes this one"
STATISTICS = (
    "the BatchNorm statistics are the dense network's; CrAM's authors state accuracies after estimating them anew on"
    " 1,000 training pictures, so this network is less accurate than theirs: --recalibrate FOLDER does the same"
)
EVERY_LAYER = "every convolution and the classifier are pruned, {}, as CrAM's authors do by default"


def recognise(source: Source) -> str | None:
    return f'--method "{source.told.method}" asks for its rule' if source.told.is_method("CrAM") else None


def decode(source: Source) -> Decoded:
    weights = layers(source.tensors)
    if source.told.nm is not None:
        n, m = source.told.nm
        rule = partial(n_of_m, n=n, m=m, order="inputs")
        return ruled(
            source,
            {key: lazily(weight, rule) for key, weight in weights.items()},
            rule=f"magnitude, {n} of every {m} weights along the inputs",
            problems=indivisible(weights, m),
            warnings=(STATISTICS,),
            assumptions=(EVERY_LAYER.format("in one order of neighbours"),),
        )
    if source.told.sparsity is not None:
        return ruled(
            source,
            above_one_threshold(weights, source.told.sparsity),
            rule=f"magnitude, {source.told.sparsity:.4g} of all weights together",
            warnings=(STATISTICS,),
            assumptions=(EVERY_LAYER.format("by one threshold (not uniformly)"),),
        )
    return Decoded(weights=source.tensors, keys={key: key for key in source.tensors}, notes=(DENSE,))


def above_one_threshold(weights: Mapping[str, LazyTensor], sparsity: float) -> dict[str, LazyTensor]:
    """The masks of |w| > t, t found when the first of them is read."""
    threshold = cache(lambda: kth_largest(weights.values(), 1 - sparsity) if sparsity else -1.0)
    return {key: lazily(weight, lambda values: values.float().abs() > threshold()) for key, weight in weights.items()}


def kth_largest(weights: Iterable[LazyTensor], share: float) -> float:
    """The smallest of the ``share`` largest |w|."""
    magnitudes = torch.cat([weight.read().float().abs().flatten() for weight in weights])
    return float(magnitudes.kthvalue(len(magnitudes) - ceil(len(magnitudes) * share) + 1).values)


encodings.add(
    "cram", Encoding(cite="IST-DASLab/CrAM b89d9ff, utils/pruning_utils.py", recognise=recognise, decode=decode)
)
