"""What TensorFlow's variables are called: scopes of the graph, and in each the names its layers give.

A layer that is not pruned has its scope twice in RigL's and State of Sparsity's files
(``initial_conv/initial_conv/weights``); which kernels are called ``weights`` and which ``kernel`` depends on the
layer's class. Both are levelled here, so that a family of names only has to know the scopes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sparse_transfer.checkpoints.formats.source import Source
from sparse_transfer.checkpoints.readers.container import LazyTensor
from sparse_transfer.core.errors import UserError, listed

KINDS = ("tf-bundle", "tfjs")
PARAMETERS = {
    "weights": "weight",
    "kernel": "weight",
    "depthwise_weights": "weight",
    "depthwise_kernel": "weight",
    "biases": "bias",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
AVERAGED = "ExponentialMovingAverage"
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


@dataclass(frozen=True)
class Names:
    """Every variable of a file exactly once.

    weights: plain key (``SCOPE/weight``) -> variable.   beside: plain key of a weight -> what was asked for with it.
    dropped: variable -> why it is not part of the network.   problems: two variables of one plain key.
    """

    weights: Mapping[str, str]
    beside: Mapping[str, str]
    dropped: Mapping[str, str]
    problems: tuple[str, ...]


def names(source: Source, *, beside: tuple[str, ...] = ()) -> Names:
    """Sort a file's variables by what they are. ``beside``: last parts of names that go with a weight (``mask``).

    Raises:
        UserError: the file numbers its tensors instead of naming them (TensorFlow 2's ``tf.train.Checkpoint``).
    """
    if OBJECT_GRAPH in source.dropped:
        raise UserError(
            "its tensors are named by their place in a program (TensorFlow 2), not by layers",
            where=source.container.path,
            do="save the model with tf.compat.v1.train.Saver, or as tfjs with tensorflowjs_converter",
        )
    weights: dict[str, str] = {}
    companions: dict[str, str] = {}
    dropped: dict[str, str] = {}
    problems: list[str] = []
    for name, tensor in source.tensors.items():
        scope, _, last = name.rpartition("/")
        if last in beside:
            found, plain = companions, f"{levelled(scope)}/weight"
        elif why := _bookkeeping(name, tensor, source.tensors):
            dropped[name] = why
            continue
        else:
            known = scope and last in PARAMETERS
            found, plain = weights, f"{levelled(scope)}/{PARAMETERS[last]}" if known else name
        if plain in found:
            problems.append(f'"{found[plain]}" and "{name}" are the same tensor of one layer')
        found[plain] = name
    if orphans := [companions[plain] for plain in companions if plain not in weights]:
        problems.append(f"{len(orphans)} variables go with a weight that is not there ({listed(orphans)})")
    return Names(weights, companions, dropped, tuple(problems))


def levelled(scope: str) -> str:
    """``a/b/b`` is ``a/b``."""
    parts = scope.split("/")
    while len(parts) > 1 and parts[-1] == parts[-2]:
        parts.pop()
    return "/".join(parts)


def ends_with(source: Source, *lasts: str) -> list[str]:
    """The variables whose last part is one of these."""
    return [name for name in source.tensors if name.rpartition("/")[2] in lasts and "/" in name]


def _bookkeeping(name: str, tensor: LazyTensor, tensors: Mapping[str, LazyTensor]) -> str | None:
    """Why a variable is none of the network's: a slot lies under its variable, and everything counted is a scalar."""
    above, _, last = name.rpartition("/")
    if last == AVERAGED:
        return "averaged weights, another network than the one trained"
    if above in tensors:
        return "an optimiser's state"
    if not tensor.shape:
        return "a number of the training (step, threshold)"
    return "a statistic of the training" if last.startswith("renorm_") else None
