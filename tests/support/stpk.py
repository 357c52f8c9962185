"""Reader of the .stpk files among the real weights (their layout: data/weights/README.md)."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def read_stpk(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(weights float32, masks bool) by state-dict name; masks only for the tensors that are stored with one."""
    raw = path.read_bytes()
    assert raw[:8] == b"STPK0001", f"{path} is no STPK file"
    length = int.from_bytes(raw[8:16], "little")
    header = json.loads(raw[16 : 16 + length])
    payload = 16 + length + (-length) % 16
    weights, masks = {}, {}
    for entry in header["tensors"]:
        name, shape = entry["name"], entry["shape"]
        offset, count = entry["values"]
        values = np.frombuffer(raw, entry["dtype"], count, payload + offset)
        if "mask" in entry:
            offset, count = entry["mask"]
            bits = np.frombuffer(raw, np.uint8, count, payload + offset)
            kept = np.unpackbits(bits, count=int(np.prod(shape)), bitorder="little").astype(bool)
            full = np.zeros(kept.size, np.float32)
            full[kept] = values
            values = full
            masks[name] = torch.from_numpy(kept.reshape(shape))
        dtype = np.int64 if entry["dtype"] == "<i8" else np.float32
        weights[name] = torch.from_numpy(values.astype(dtype).reshape(shape))
    return weights, masks
