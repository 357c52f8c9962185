"""torch's zip files (torch 1.6 and later): ``ROOT/data.pkl`` and one entry of raw bytes for each storage.

Source: torch/serialization.py, ``_save`` and ``_load``.
"""

from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from sparse_transfer.checkpoints.readers.container import Container
from sparse_transfer.checkpoints.readers.pickled import read_pickle
from sparse_transfer.checkpoints.readers.pickled_values import Reference
from sparse_transfer.checkpoints.readers.refusal import ASK_AUTHORS, Refusal, refusals_of, shown
from sparse_transfer.checkpoints.readers.storage import STORAGE_DTYPES, Room, Storage, bytes_of, read_bytes
from sparse_transfer.checkpoints.readers.zip_directory import STORED, Entry, check_crc, read_directory, unpacked


def read_torch_zip(path: Path) -> Container:
    """Open ``path``; reads its directory and its pickle only. Raises ``Refusal``."""
    size = path.stat().st_size
    with path.open("rb") as file:
        entries = read_directory(file, size)
    folder = _folder(entries)
    pickled = _bytes_of(path, entries[f"{folder}/data.pkl"])
    order = entries.get(f"{folder}/byteorder")
    byte_order = b"little" if order is None else _bytes_of(path, order)
    if byte_order not in (b"little", b"big"):
        raise Refusal("its byte order is neither little nor big", ASK_AUTHORS)
    room = Room(size)

    def storage(identity: object) -> object:
        match identity:
            case ("storage", Reference(name=kind), str() as key, str(), int() as numel) if kind in STORAGE_DTYPES:
                entry = entries.get(f"{folder}/data/{key}")
                dtype = STORAGE_DTYPES[kind]
                if entry is None:
                    raise Refusal(f"the bytes of storage {shown(key)} are not in the archive")
                if numel * dtype.itemsize != entry.size_bytes:
                    raise Refusal(
                        f"storage {shown(key)} should have {numel:,} × {dtype.itemsize} bytes "
                        f"and its entry has {entry.size_bytes:,}",
                        ASK_AUTHORS,
                    )
                return Storage(dtype, entry.size_bytes, _reader(path, entry), room, is_swapped=byte_order == b"big")
            case _:
                raise Refusal("the pickle refers to something that is not a storage", ASK_AUTHORS)

    root, stand_ins = read_pickle(BytesIO(pickled), storage, size=len(pickled))
    return Container("torch-zip", path, root, tuple(stand_ins))


def _folder(entries: Mapping[str, Entry]) -> str:
    """The one folder all entries are in, after making sure that this is a torch state file."""
    names = list(entries)
    if any(name.endswith(".npy") for name in names):
        raise Refusal("NumPy archives (.npz) are not read yet", "save the tensors with torch.save or as safetensors")
    if "model.weights.h5" in names:
        raise Refusal("Keras archives are not read yet", "save the weights as safetensors")
    pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise Refusal(
            "this zip archive holds no checkpoint of torch (no data.pkl)", "unpack it and name the file inside"
        )
    folder = pickles[0].partition("/")[0]
    inside = {name.removeprefix(f"{folder}/") for name in names if name.startswith(f"{folder}/")}
    if len(inside) != len(names):
        raise Refusal("the archive has entries outside its one folder", ASK_AUTHORS)
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        raise Refusal(
            "TorchScript archives are not read yet",
            "open it with torch.jit.load and save its state_dict() with torch.save",
        )
    return folder


def _bytes_of(path: Path, entry: Entry) -> bytes:
    return unpacked(bytes(bytes_of(read_bytes(path, entry.start, entry.packed_bytes))), entry)


def _reader(path: Path, entry: Entry) -> Callable[[int, int], Tensor]:
    def read(first: int, count: int) -> Tensor:
        with refusals_of(path):
            if entry.method != STORED:
                data = bytearray(_bytes_of(path, entry)[first : first + count])
                return torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
            raw = read_bytes(path, entry.start + first, count)
            if count == entry.size_bytes:
                check_crc(bytes_of(raw), entry)
            return raw

    return read
