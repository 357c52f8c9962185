"""Files whose tensors bear the architecture's own names: any network of ours, or of timm's, named with ``--arch``."""

from sparse_transfer.checkpoints.formats.contract import Evidence, KeyFamily, Shapes, key_families


def recognise(shapes: Shapes) -> Evidence | None:
    """Never by itself: names alone say little about an unknown network, so ``--arch`` must."""
    del shapes


key_families.add(
    "own_names",
    KeyFamily(cite="docs/reference/checkpoint.md; for timm:NAME, timm's state dict", recognise=recognise),
)
