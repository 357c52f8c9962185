"""SR-STE: N:M sparse in each forward pass, dense in the file: every convolution keeps the N largest of every M weights.

Neighbours are those along the inputs (``Sparse_NHWC``, the order of NVIDIA's ASP), or in the older files those that
PyTorch stores side by side (``Sparse``). Nothing in a file tells the two apart, and they differ in about a quarter of
the positions, so the method's name does. Zhou et al. (2021); aojunzz/NM-sparsity a557d6b, devkit/sparse_ops.
"""

from functools import partial

from sparse_transfer.checkpoints.formats.contract import Decoded, Encoding, encodings
from sparse_transfer.checkpoints.formats.rules import Order, indivisible, layers, lazily, n_of_m, ruled
from sparse_transfer.checkpoints.formats.source import Source
from sparse_transfer.core.errors import UserError

METHODS: dict[str, Order] = {"SR-STE": "inputs", "SR-STE-kernel": "stored"}
WORDS: dict[Order, str] = {
    "inputs": "along the inputs, as ASP has them; --method sr-ste-kernel takes the order in which PyTorch stores them,"
    ' which is that of the files under "Results and Model Zoo" on the authors\' page',
    "stored": "in the order in which PyTorch stores them; --method sr-ste takes that of ASP, along the inputs",
}
LAYERS = "every convolution is N:M, the first one too, and the classifier is dense"


def recognise(source: Source) -> str | None:
    asked = any(source.told.is_method(method) for method in METHODS)
    return f'--method "{source.told.method}" asks for its rule' if asked else None


def decode(source: Source) -> Decoded:
    if source.told.nm is None:
        raise UserError(
            "SR-STE keeps N of every M weights in each forward pass, and its files hold all of them and not which N:M",
            where=source.container.path,
            do="give --nm 2:4, or what the file's page says",
        )
    n, m = source.told.nm
    order: Order = next(order for method, order in METHODS.items() if source.told.is_method(method))
    weights = layers(source.tensors, dimensions=(4,))
    return ruled(
        source,
        {key: lazily(weight, partial(n_of_m, n=n, m=m, order=order)) for key, weight in weights.items()},
        rule=f"magnitude, {n} of every {m} weights",
        problems=indivisible(weights, m),
        assumptions=(LAYERS, f"the {m} weights are neighbours {WORDS[order]}"),
    )


encodings.add(
    "sr_ste",
    Encoding(cite="aojunzz/NM-sparsity a557d6b, devkit/sparse_ops/sparse_ops.py", recognise=recognise, decode=decode),
)
