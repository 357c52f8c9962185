"""ConvNeXt under timm's names."""

from sparse_transfer.checkpoints.formats.contract import (
    Evidence,
    KeyFamily,
    Shapes,
    block_counts,
    in_words,
    key_families,
)
from sparse_transfer.checkpoints.formats.vits import TIMM, named

# (width of the stem, blocks per stage) -> name. timm/models/convnext.py.
SIZES: dict[tuple[int, tuple[int, ...]], str] = {
    (40, (2, 2, 6, 2)): "convnext_atto",
    (48, (2, 2, 6, 2)): "convnext_femto",
    (64, (2, 2, 6, 2)): "convnext_pico",
    (80, (2, 2, 8, 2)): "convnext_nano",
    (96, (3, 3, 9, 3)): "convnext_tiny",
    (96, (3, 3, 27, 3)): "convnext_small",
    (128, (3, 3, 27, 3)): "convnext_base",
    (192, (3, 3, 27, 3)): "convnext_large",
}


def recognise(shapes: Shapes) -> Evidence | None:
    """ConvNeXt V2, which has no ``gamma``, is another network: --arch timm:NAME."""
    stem = shapes.get("stem.0.weight", ())
    if len(stem) != 4 or stem[1:] != (3, 4, 4) or "stages.0.blocks.0.gamma" not in shapes:
        return None
    blocks = block_counts(shapes, r"stages\.(\d)\.blocks\.(\d+)\.conv_dw\.weight")
    name = SIZES.get((stem[0], blocks))
    because = f"a 4×4 stem of {stem[0]} outputs and {in_words(blocks)} blocks"
    return Evidence(because, named([name])[name] if name else None)


key_families.add(
    "convnext_timm",
    KeyFamily(
        cite="timm aa4b585, models/convnext.py",
        recognise=recognise,
        declared=named(SIZES.values()),
        pictures=TIMM,
    ),
)
