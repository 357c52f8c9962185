"""TensorFlow's variables without masks: dense, or with exact zeros. Asked after the encodings that do have them."""

from sparse_transfer.checkpoints.formats.contract import Decoded, Encoding, encodings
from sparse_transfer.checkpoints.formats.source import Source
from sparse_transfer.checkpoints.formats.tf_names import KINDS, names


def recognise(source: Source) -> str | None:
    return "no variable of the file is a mask" if source.container.kind in KINDS else None


def decode(source: Source) -> Decoded:
    found = names(source)
    return Decoded(
        weights={plain: source.tensors[name] for plain, name in found.weights.items()},
        keys=found.weights,
        dropped=found.dropped,
        problems=found.problems,
    )


encodings.add(
    "tf_plain",
    Encoding("tensorflow/python/training/saver.py; tensorflowjs_converter", recognise=recognise, decode=decode),
)
