"""Tensors and a few plain values in a file of our own that is believed whole or not at all: the state of a run in work.

safetensors with one metadata entry of canonical JSON; nothing in it can be executed.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from sparse_transfer.checkpoints.readers.safetensors_file import opened
from sparse_transfer.core import canonical
from sparse_transfer.core.canonical import Json
from sparse_transfer.core.files import atomic_write
from sparse_transfer.models.network import raw_bytes

ENTRY = "sparse_transfer_state"
VERSION = 1


class Damaged(Exception):
    """A file that cannot be believed; the text says why."""


def write_checked(path: Path, tensors: Mapping[str, Tensor], told: Mapping[str, Json]) -> None:
    """Write both atomically, with a SHA-256 over everything."""
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    told = {"version": VERSION, **told}
    with atomic_write(path) as file:
        file.write(save(stored, {ENTRY: canonical.dumps({**told, "digest": _digest(stored, told)})}))


def read_checked(path: Path) -> tuple[dict[str, Tensor], dict[str, Json]]:
    """What ``write_checked`` was given. Raises ``Damaged`` for a file that is cut short, changed or another's."""
    try:
        with opened(path) as file:
            told = json.loads((file.metadata() or {}).get(ENTRY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (
        OSError,
        SafetensorError,
        ValueError,
        KeyError,
        RuntimeError,
    ) as error:  # whatever a damaged header leads to
        raise Damaged(f"the state cannot be read ({error})") from None
    if not isinstance(told, dict) or told.get("version") != VERSION:
        raise Damaged("this is no state of this version")
    digest = told.pop("digest", None)
    if digest != _digest(tensors, told):
        raise Damaged("the state was damaged after it was written")
    del told["version"]
    return tensors, told


def _digest(tensors: Mapping[str, Tensor], told: Mapping[str, Json]) -> str:
    sha = hashlib.sha256(canonical.dumps(dict(told)).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"\0{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        sha.update(raw_bytes(tensor))
    return sha.hexdigest()
