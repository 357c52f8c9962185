"""Vision transformers under torchvision's names, which become timm's, and under timm's own (ViT, DeiT, XCiT).

The first two compute the same: torchvision's ``in_proj`` is timm's ``qkv``, both LayerNorms have eps 1e-6, both take
the class token. Tensors tell width, depth, patch and resolution. They do not tell how many heads the width is cut into,
nor what pictures a network wants: ViT and DeiT differ in that alone, so one of them has to be named.
"""

import re
from collections.abc import Iterable

from sparse_transfer.checkpoints.formats.contract import (
    Evidence,
    KeyFamily,
    Rule,
    Shapes,
    key_families,
)
from sparse_transfer.models import Architecture, Preprocessing

# (width, blocks, side of a patch, tokens) -> timm's names. 197 tokens: 224 px in patches of 16, and the class token.
VITS: dict[tuple[int, int, int, int], tuple[str, ...]] = {
    (192, 12, 16, 197): ("vit_tiny_patch16_224", "deit_tiny_patch16_224"),
    (384, 12, 16, 197): ("vit_small_patch16_224", "deit_small_patch16_224"),
    (768, 12, 16, 197): ("vit_base_patch16_224", "deit_base_patch16_224"),
    (768, 12, 32, 50): ("vit_base_patch32_224",),
    (1024, 24, 16, 197): ("vit_large_patch16_224",),
}
XCITS = {
    (128, 12): "nano_12",
    (192, 12): "tiny_12",
    (192, 24): "tiny_24",
    (384, 12): "small_12",
    (384, 24): "small_24",
    (512, 24): "medium_24",
    (768, 24): "large_24",
}
HEADS = "heads of 64 channels, as every published ViT of these sizes has: tensors cannot tell"
TORCHVISION = "pictures as for torchvision's ViT-B/16; its weights of other sizes, and later ones, differ"
TIMM = "pictures as for timm's default weights of this name"

NAMES = (
    Rule(r"class_token", "cls_token"),
    Rule(r"conv_proj\.(.+)", r"patch_embed.proj.\1"),
    Rule(r"encoder\.pos_embedding", "pos_embed"),
    Rule(r"encoder\.layers\.encoder_layer_(\d+)\.ln_([12])\.(.+)", r"blocks.\1.norm\2.\3"),
    Rule(r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_(.+)", r"blocks.\1.attn.qkv.\2"),
    Rule(r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.(.+)", r"blocks.\1.attn.proj.\2"),
    # linear_1 and linear_2 in files of torchvision before 0.14
    Rule(r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:0|linear_1)\.(.+)", r"blocks.\1.mlp.fc1.\2"),
    Rule(r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:3|linear_2)\.(.+)", r"blocks.\1.mlp.fc2.\2"),
    Rule(r"encoder\.ln\.(.+)", r"norm.\1"),
    Rule(r"heads\.head\.(.+)", r"head.\1"),
)


def recognise_torchvision(shapes: Shapes) -> Evidence | None:
    if "class_token" not in shapes or "encoder.layers.encoder_layer_0.ln_1.weight" not in shapes:
        return None
    blocks = r"encoder\.layers\.encoder_layer_(\d+)\.ln_1\.weight"
    because, names = _size(shapes, "class_token", "conv_proj.weight", "encoder.pos_embedding", blocks)
    return Evidence(because, Architecture(f"timm:{names[0]}") if names else None)


def recognise_timm(shapes: Shapes) -> Evidence | None:
    if "cls_token" not in shapes or "blocks.0.attn.qkv.weight" not in shapes or "pos_embed" not in shapes:
        return None
    blocks = r"blocks\.(\d+)\.norm1\.weight"
    because, names = _size(shapes, "cls_token", "patch_embed.proj.weight", "pos_embed", blocks)
    return _one_of(because, names)


def recognise_xcit(shapes: Shapes) -> Evidence | None:
    """The number of strided convolutions before the blocks tells the patch; no tensor tells the resolution."""
    if "patch_embed.proj.0.0.weight" not in shapes or "blocks.0.attn.temperature" not in shapes:
        return None
    width, depth = _dim(shapes, "cls_token", -1), _count(shapes, r"blocks\.(\d+)\.norm1\.weight")
    patch = 2 ** _count(shapes, r"patch_embed\.proj\.(\d+)\.0\.weight")
    names = (f"xcit_{XCITS[width, depth]}_p{patch}_{px}" for px in (224, 384)) if (width, depth) in XCITS else ()
    return _one_of(f"cross-covariance attention, {depth} blocks of width {width}, patches of {patch} px", tuple(names))


def _size(shapes: Shapes, token: str, patch: str, position: str, blocks: str) -> tuple[str, tuple[str, ...]]:
    """What the tensors show, and timm's names for networks of that size."""
    width, side = _dim(shapes, token, -1), _dim(shapes, patch, -1)
    depth, tokens = _count(shapes, blocks), _dim(shapes, position, -2)
    because = f"{depth} blocks of width {width}, patches of {side} px, {tokens} tokens"
    return because, VITS.get((width, depth, side, tokens), ())


def _one_of(because: str, names: tuple[str, ...]) -> Evidence:
    choices = tuple(Architecture(f"timm:{name}") for name in names)
    return Evidence(because, choices[0] if len(choices) == 1 else None, choices)


def _dim(shapes: Shapes, key: str, dim: int) -> int:
    shape = shapes.get(key, ())
    return shape[dim] if len(shape) >= -dim else 0


def _count(shapes: Shapes, pattern: str) -> int:
    return len({match[1] for key in shapes if (match := re.fullmatch(pattern, key))})


def named(names: Iterable[str]) -> dict[str, Architecture]:
    """timm's names, as SparseML (``arch_key``) and timm (``arch``) write them into their files."""
    return {name: Architecture(f"timm:{name}") for name in names}


key_families.add(
    "vit_torchvision",
    KeyFamily(
        cite="torchvision 0.26, models/vision_transformer.py; timm aa4b585, models/vision_transformer.py",
        recognise=recognise_torchvision,
        rename=NAMES,
        declared={
            "vit_b_16": Architecture("timm:vit_base_patch16_224"),
            "vit_b_32": Architecture("timm:vit_base_patch32_224"),
            "vit_l_16": Architecture("timm:vit_large_patch16_224"),
        },
        preprocessing=Preprocessing(),
        assumptions=lambda architecture: (HEADS,),
        pictures=TORCHVISION,
    ),
)
key_families.add(
    "vit_timm",
    KeyFamily(
        cite="timm aa4b585, models/vision_transformer.py and models/deit.py",
        recognise=recognise_timm,
        declared=named(name for names in VITS.values() for name in names),
        assumptions=lambda architecture: (HEADS,),
        pictures=TIMM,
    ),
)
key_families.add(
    "xcit_timm",
    KeyFamily(
        cite="timm aa4b585, models/xcit.py",
        recognise=recognise_xcit,
        declared=named(
            f"xcit_{size}_p{patch}_{px}" for size in XCITS.values() for patch in (8, 16) for px in (224, 384)
        ),
        pictures=TIMM,
    ),
)
