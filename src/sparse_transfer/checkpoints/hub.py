"""A checkpoint as a folder in Hugging Face layout; timm reads it too (``local-dir:FOLDER``) where it has the network.

``model.safetensors`` has the weights with their zeros and nothing else: timm loads strictly, and some of its networks
look at every name. ``mask.safetensors`` has the masks, as ``NAME.mask`` in the bits of our checkpoint file; timm's
``config.json`` has a part of ours, and ``README.md`` is the model card.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from sparse_transfer.checkpoints.assembling import assemble, skeleton
from sparse_transfer.checkpoints.file import ENTRY, VERSION, Checkpoint, Origin, facts_of, naming
from sparse_transfer.checkpoints.model_card import card
from sparse_transfer.checkpoints.packing import pack, unpack
from sparse_transfer.core.canonical import Json
from sparse_transfer.core.errors import UserError
from sparse_transfer.core.files import atomic_write, write_json, write_text
from sparse_transfer.models import Architecture, Backbone, Network, Preprocessing
from sparse_transfer.models.network import head_name
from sparse_transfer.sparsity import audit

WEIGHTS, MASKS, CONFIG, CARD = "model.safetensors", "mask.safetensors", "config.json", "README.md"
SAME_IN_TIMM = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")  # as long as they have no arguments
IN_TIMM = ("bilinear", "bicubic")
AGAIN = "fetch the folder again, whole"


def save_pretrained(
    network: Network | Backbone, folder: str | Path, *, origin: Origin | None = None, name: str | None = None
) -> str:
    """Write ``network`` into ``folder`` in Hugging Face layout; its digest. Each file is written atomically.

    name: heading of the model card, the folder's otherwise.

    Raises:
        UserError: ``folder`` is a file.
        MaskViolation: a weight outside the mask is not zero; nothing is written.

    Example:
        >>> save_pretrained(imported.network, "acdc80", origin=imported.origin)      # doctest: +SKIP
        >>> timm.create_model("local-dir:acdc80", pretrained=True)                   # doctest: +SKIP
    """
    network = Network(network) if isinstance(network, Backbone) else network
    folder, origin = Path(folder), origin or Origin()
    if folder.exists() and not folder.is_dir():
        raise UserError("this is a file", where=folder, do="name a folder")
    tensors = {name: tensor.detach().cpu() for name, tensor in network.tensors().items()}
    masks = {name: kept.cpu() for name, kept in network.masks().items()}
    for masked, kept in masks.items():
        audit(masked, tensors[masked], kept)
    digest = network.digest()
    _write(folder / WEIGHTS, {key: _positive(tensor, masks.get(key)) for key, tensor in tensors.items()})
    _write(folder / MASKS, {f"{key}.mask": torch.from_numpy(pack(kept.numpy())) for key, kept in masks.items()})
    stated = config(network, digest, origin)
    write_json(folder / CONFIG, stated)
    title = name or folder.resolve().name
    write_text(folder / CARD, card(network, origin, digest, title=title, not_in_timm=not_in_timm(network)))
    return digest


def from_pretrained(folder: str | Path, *, verify: bool = True) -> Checkpoint:
    """Read what ``save_pretrained`` wrote, mask, preprocessing, classes and origin included; called as its folder is.

    verify: compare the network's digest with the one stated.

    Raises:
        UserError: the folder is missing, not whole, not ours, or its files are not of one network.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError("there is no such folder", where=folder, do="fetch it from the hub first, whole")
    with naming(folder):
        stated = _stated(folder)
        with naming(folder / CONFIG):
            architecture, preprocessing, origin, classes = facts_of(stated)
        tensors = _read(folder / WEIGHTS)
        masks = _masks(_read(folder / MASKS), tensors)
        network = assemble(architecture, preprocessing, tensors, masks, classes, module=skeleton(architecture))
        digest = str(stated.get("digest"))
        if verify and network.digest() != digest:
            raise UserError(f"its weights and masks do not have the digest {digest[:12]}… that is stated", do=AGAIN)
    return Checkpoint(network, origin, digest, folder.resolve().with_name(f"{folder.resolve().name}.hub"))


def config(network: Network, digest: str, origin: Origin) -> dict[str, Json]:
    """timm's ``config.json``. A network that timm would build or feed in another way has a name that timm refuses."""
    architecture, preprocessing = network.backbone.architecture, network.backbone.preprocessing
    count = 0 if network.head is None else len(network.head.weight)
    pretrained: dict[str, Json] = {
        "input_size": [3, preprocessing.crop, preprocessing.crop],
        "interpolation": preprocessing.interpolation,
        "crop_pct": crop_share(preprocessing),
        "crop_mode": "center",
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "num_classes": count,
        "classifier": head_name(architecture),
    }
    classes = None if network.head is None or not network.head.classes else list(network.head.classes)
    ours: dict[str, Json] = {
        "version": VERSION,
        "architecture": architecture.to_json(),
        "preprocessing": preprocessing.to_json(),
        "origin": asdict(origin),
        "classes": classes,
        "digest": digest,
    }
    return {
        "architecture": timm_name(network) or f"sparse-transfer/{architecture}",
        "num_classes": count,
        "num_features": network.backbone.feature_dim,
        **({} if classes is None else {"label_names": classes}),
        "pretrained_cfg": pretrained | _facts(architecture),
        ENTRY: ours,
    }


def timm_name(network: Network) -> str | None:
    """What timm calls the same network, or None where ``not_in_timm`` says why not."""
    return None if not_in_timm(network) else network.backbone.architecture.name.removeprefix("timm:").partition(".")[0]


def not_in_timm(network: Network) -> str | None:
    """Why timm cannot run the network as it is, or None where it can."""
    architecture, preprocessing = network.backbone.architecture, network.backbone.preprocessing
    if not architecture.name.startswith("timm:") and (architecture.name not in SAME_IN_TIMM or architecture.args):
        return f"timm has no network that is {architecture}"
    if preprocessing.interpolation not in IN_TIMM:
        return f"timm cannot resize as {preprocessing.interpolation}"
    if preprocessing.channel_order != "rgb":
        return f"timm cannot read channels in the order {preprocessing.channel_order}"
    return None


def crop_share(preprocessing: Preprocessing) -> float:
    """crop / resize, such that timm, which takes floor(crop / share), comes back to ``resize`` in floating point."""
    share = preprocessing.crop / preprocessing.resize
    while math.floor(preprocessing.crop / share) < preprocessing.resize:
        share = math.nextafter(share, 0)
    return share


def _facts(architecture: Architecture) -> dict[str, Json]:
    """What timm wants to know of the network itself, to change its input later."""
    if not architecture.name.startswith("timm:"):
        return {"first_conv": "conv1"}
    from sparse_transfer.models.timm import facts, installed

    known = facts(installed(), architecture.name.removeprefix("timm:"))
    first, is_fixed = known.get("first_conv"), known.get("fixed_input_size")
    return {
        "first_conv": first if isinstance(first, str) else None,
        "fixed_input_size": is_fixed if isinstance(is_fixed, bool) else False,
    }


def _positive(tensor: Tensor, kept: Tensor | None) -> Tensor:
    """A copy of its own, contiguous; -0.0 becomes +0 where it is pruned."""
    return tensor.clone().contiguous() if kept is None else tensor.masked_fill(~kept, 0).contiguous()


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save

    with atomic_write(path) as file:
        file.write(save(dict(tensors), {"format": "pt"}))  # transformers looks for "format"


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.exists():
        raise UserError(f"{path.name} is missing", do=AGAIN)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path.name} cannot be read ({error})", do=AGAIN) from None


def _masks(stored: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    masks: dict[str, Tensor] = {}
    for key, packed in stored.items():
        name = key.removesuffix(".mask")
        if name == key or name not in tensors or packed.dtype != torch.uint8:
            raise UserError(f'"{key}" in {MASKS} is no mask of a weight', do=AGAIN)
        masks[name] = torch.from_numpy(unpack(packed.numpy(), tuple(tensors[name].shape), name))
        audit(name, tensors[name], masks[name], do=AGAIN)
    return masks


def _stated(folder: Path) -> Mapping[str, Json]:
    """Our part of ``config.json``."""
    path = folder / CONFIG
    if not path.exists():
        raise UserError(f"{CONFIG} is missing", do=AGAIN)
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{CONFIG} cannot be read ({error})", do=AGAIN) from None
    ours = stated.get(ENTRY) if isinstance(stated, dict) else None
    if not isinstance(ours, dict):
        raise UserError(
            "it was not written by save_pretrained",
            do=f"import its weights: sparse-transfer import {folder / WEIGHTS} -o OUT --arch timm:NAME",
        )
    return cast(Mapping[str, Json], ours)
