"""DNW (discovering neural wirings): each layer's smallest weights are left out of each forward pass, not of the file.

In each convolution, the classifier too (a 1×1 one), the int(sparsity · n) smallest |w| are pruned; a second set of
files leaves the first convolution dense. Wortsman et al. (2019); allenai/dnw aa9c4f8,
imagenet_sparsity_experiments/image_classification/{resnet,sparse_util}.py, ``SparseConv`` and ``ignore_first_conv``.
"""

from functools import partial

from sparse_transfer.checkpoints.formats.contract import Decoded, Encoding, encodings
from sparse_transfer.checkpoints.formats.rules import largest, layers, lazily, ruled
from sparse_transfer.checkpoints.formats.source import Source
from sparse_transfer.core.errors import UserError

ALL = "DNW"
FIRST_DENSE = "DNW-first-dense"
PICTURE = 3  # channels: the first convolution reads a picture
WORDS = {
    ALL: "every convolution is pruned, the first and the classifier too (the authors' allsparseK); --method"
    " dnw-first-dense leaves the first one dense (ignorefirstK)",
    FIRST_DENSE: "every convolution but the first is pruned, the classifier too (the authors' ignorefirstK)",
}
LICENCE = "the authors publish these networks under a licence for non-commercial use (allenai/dnw)"


def recognise(source: Source) -> str | None:
    asked = any(source.told.is_method(method) for method in WORDS)
    return f'--method "{source.told.method}" asks for its rule' if asked else None


def decode(source: Source) -> Decoded:
    share = source.told.sparsity
    if share is None:
        raise UserError(
            "DNW leaves a share of each layer's weights out of each forward pass, and its files hold all of them and"
            " not which share",
            where=source.container.path,
            do="give --sparsity; a file called allsparse10 keeps 10 %, so its sparsity is 0.9",
        )
    method = next(method for method in WORDS if source.told.is_method(method))
    weights = layers(source.tensors, dimensions=(4,))
    if method == FIRST_DENSE:
        weights = {key: weight for key, weight in weights.items() if weight.shape[1] != PICTURE}
    return ruled(
        source,
        {key: lazily(weight, partial(largest, pruned=share)) for key, weight in weights.items()},
        rule=f"magnitude, {share:.4g} of each layer",
        warnings=(LICENCE,),
        assumptions=(WORDS[method],),
    )


encodings.add(
    "dnw",
    Encoding(
        cite="allenai/dnw aa9c4f8, imagenet_sparsity_experiments/image_classification/sparse_util.py",
        recognise=recognise,
        decode=decode,
    ),
)
