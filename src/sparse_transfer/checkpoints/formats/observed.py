"""Files of quantisation-aware training: float weights, and the observers of torch.ao.quantization beside them.

SparseML's QAT recipes leave them behind. The weights are taken as they are; the rounding that the observers would do is
left out, so accuracy differs a little from the quantised network's. Source: torch/ao/quantization/fake_quantize.py.
"""

import re

from sparse_transfer.checkpoints.formats.contract import Decoded, Encoding, encodings
from sparse_transfer.checkpoints.formats.source import Source
from sparse_transfer.core.errors import listed

OBSERVER = re.compile(r"(?:.+\.)?(?:activation_post_process|weight_fake_quant|bias_fake_quant)(?:_\d+)?\..+")


def recognise(source: Source) -> str | None:
    found = _observers(source)
    return f"{len(found)} tensors are observers of quantisation ({listed(found, most=1)})" if found else None


def decode(source: Source) -> Decoded:
    observers = dict.fromkeys(_observers(source), "an observer of quantisation")
    weights = {key: tensor for key, tensor in source.tensors.items() if key not in observers}
    return Decoded(
        weights=weights,
        keys={key: key for key in weights},
        dropped=observers,
        warnings=("the network was trained to be quantised: its float weights are taken, without the rounding",),
    )


def _observers(source: Source) -> list[str]:
    return [key for key in source.tensors if OBSERVER.fullmatch(key)]


encodings.add(
    "observed",
    Encoding(cite="torch 2.11, torch/ao/quantization/fake_quantize.py", recognise=recognise, decode=decode),
)
