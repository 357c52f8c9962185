"""TensorFlow's ``contrib.model_pruning``: beside the weights of a layer a mask, which multiplies them in the graph.

RigL, SET, SNFS and static masks (google-research/rigl), magnitude and random pruning of State of Sparsity (Gale et
al., 2019). A weight whose mask is 0 keeps its last value in the file; one that has just grown is 0 and active.
"""

from sparse_transfer.checkpoints.formats.contract import Decoded, Encoding, encodings
from sparse_transfer.checkpoints.formats.source import Source
from sparse_transfer.checkpoints.formats.tf_names import ends_with, levelled, names
from sparse_transfer.core.errors import listed


def recognise(source: Source) -> str | None:
    masks = ends_with(source, "mask")
    return f"{len(masks)} layers have a mask variable ({listed(masks, most=1)})" if masks else None


def decode(source: Source) -> Decoded:
    found = names(source, beside=("mask",))
    problems = list(found.problems)
    # The layer makes mask and threshold together, so a threshold without a mask is half a layer.
    scopes = {levelled(name.rpartition("/")[0]) for name in ends_with(source, "threshold")}
    if bare := sorted(scope for scope in scopes if f"{scope}/weight" not in found.beside):
        problems.append(f"{len(bare)} pruned layers have no mask ({listed(bare)})")
    return Decoded(
        weights={plain: source.tensors[name] for plain, name in found.weights.items()},
        keys=found.weights,
        masks={plain: source.tensors[name] for plain, name in found.beside.items() if plain in found.weights},
        mask_keys=found.beside,
        dropped=found.dropped,
        problems=tuple(problems),
    )


encodings.add(
    "tf_mask",
    Encoding(
        cite="TensorFlow 1.15, contrib/model_pruning/python/layers/core_layers.py",
        recognise=recognise,
        decode=decode,
    ),
)
