"""TensorFlow.js: ``model.json``, whose manifest says which weights lie where in the files ("shards") beside it.

Source: tensorflow/tfjs, tfjs-core/src/io/{types,io_utils}.ts.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from sparse_transfer.checkpoints.readers.container import Container, LazyTensor, Tree
from sparse_transfer.checkpoints.readers.refusal import ASK_AUTHORS, Refusal, refusals_of, shown
from sparse_transfer.checkpoints.readers.storage import DIMENSIONS_MOST, read_bytes, values

JSON_BYTES_MOST = 16 << 20  # the layers are described in it; MobileNetV1 takes 60 KB
DTYPES = {"float32": torch.float32, "int32": torch.int32, "bool": torch.bool, "complex64": torch.complex64}
QUANTISED = {"uint8": torch.uint8, "uint16": torch.uint16, "float16": torch.float16}


@dataclass(frozen=True)
class Shards:
    """Files that follow each other as if they were one."""

    paths: tuple[Path, ...]
    sizes: tuple[int, ...]

    def read(self, start: int, count: int) -> Tensor:
        """``count`` bytes from ``start``, uint8."""
        parts: list[Tensor] = []
        for path, size in zip(self.paths, self.sizes, strict=True):
            first, last = max(start, 0), min(start + count, size)
            if first < last:
                with refusals_of(path):
                    parts.append(read_bytes(path, first, last - first))
            start -= size
        return parts[0] if len(parts) == 1 else torch.cat([torch.empty(0, dtype=torch.uint8), *parts])


@dataclass(frozen=True)
class Quantisation:
    """How numbers were made small: value = stored · scale + lowest; float16 has neither."""

    dtype: torch.dtype
    scale: float
    lowest: float

    def restored(self, stored: Tensor) -> Tensor:
        return stored.float() if self.dtype == torch.float16 else stored.float() * self.scale + self.lowest


def read_tfjs(path: Path) -> Container:
    """Open ``path``, the JSON text: reads it alone, and looks at the lengths of the shards. Raises ``Refusal``.

    Quantised weights are restored to float32.
    """
    groups = _manifest(path)
    root: dict[str | int, Tree] = {}
    files: list[Path] = []
    for group in groups:
        shards = _shards(path.parent, group.get("paths"))
        if repeated := [shard for shard in shards.paths if shard in files]:
            raise Refusal(f"{shown(repeated[0].name)} is named twice", ASK_AUTHORS)
        files += shards.paths
        weights, place = group.get("weights"), 0
        for weight in weights if isinstance(weights, list) else []:
            name, tensor, size = _weight(cast("object", weight), shards, place)
            if name in root:
                raise Refusal(f"two weights are called {shown(name)}", ASK_AUTHORS)
            root[name] = tensor
            place += size
        if place != sum(shards.sizes):
            names = " and ".join(shown(shard.name) for shard in shards.paths[:2])
            raise Refusal(f"{names} have {sum(shards.sizes):,} bytes and their weights take {place:,}")
    if not root:
        raise Refusal("its weightsManifest names no weights", ASK_AUTHORS)
    return Container("tfjs", path, root, files=(path, *files))


def _manifest(path: Path) -> list[dict[str, object]]:
    size = path.stat().st_size
    text = b"" if size > JSON_BYTES_MOST else path.read_bytes()
    try:
        root: object = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        root = None
    manifest: object = cast("dict[str, object]", root).get("weightsManifest") if isinstance(root, dict) else None
    if manifest is None:
        raise Refusal("this is JSON text, not a checkpoint", "name the file that holds the tensors")
    groups = cast("list[object]", manifest) if isinstance(manifest, list) else [None]
    if not all(isinstance(group, dict) for group in groups):
        raise Refusal("its weightsManifest is not a list of groups", ASK_AUTHORS)
    return cast("list[dict[str, object]]", groups)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuses an object that says a name twice: readers differ in which of the two they keep."""
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Refusal(f"it says {shown(twice)} twice in one place", ASK_AUTHORS)
    return made


def _shards(folder: Path, names: object) -> Shards:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in cast("list[object]", names)):
        raise Refusal("its weightsManifest has a group without paths", ASK_AUTHORS)
    paths: list[Path] = []
    sizes: list[int] = []
    for name in cast("list[str]", names):
        parts = name.split("/")
        if "" in parts or ".." in parts or "." in parts or not name.isprintable() or "\\" in name or ":" in name:
            raise Refusal(f"its weightsManifest names {shown(name)}, which is no file in its folder", ASK_AUTHORS)
        place = folder.joinpath(*parts)
        try:
            sizes.append(place.stat().st_size)
        except FileNotFoundError:
            raise Refusal(f"{shown(name)} is missing", "put it beside model.json") from None
        paths.append(place)
    return Shards(tuple(paths), tuple(sizes))


def _weight(entry: object, shards: Shards, start: int) -> tuple[str, LazyTensor, int]:
    """Name, tensor and bytes of one entry of the manifest."""
    match entry:
        case {"name": str() as name, "shape": list() as sizes, "dtype": str() as kind}:
            pass
        case _:
            raise Refusal("its weightsManifest has a weight without name, shape or dtype", ASK_AUTHORS)
    shape = tuple(size for size in cast("list[object]", sizes) if type(size) is int and 0 <= size < 1 << 48)
    if len(shape) != len(cast("list[object]", sizes)) or len(shape) > DIMENSIONS_MOST:
        raise Refusal(f"{shown(name)} has no shape", ASK_AUTHORS)
    if kind not in DTYPES:
        raise Refusal(f"{shown(name)} has the dtype {shown(kind)}, which is not read", "convert it again as float32")
    quantised = _quantisation(name, kind, cast("dict[str, object]", entry).get("quantization"))
    stored = DTYPES[kind] if quantised is None else quantised.dtype
    size = math.prod(shape) * stored.itemsize
    if start + size > sum(shards.sizes):
        last = shown(shards.paths[-1].name) if shards.paths else "no file"
        raise Refusal(f"{shown(name)} of shape {list(shape)} reaches past the end of {last}")

    def read() -> Tensor:
        tensor = values(shards.read(start, size), stored).reshape(shape)
        return tensor if quantised is None else quantised.restored(tensor)

    return name, LazyTensor(shape, DTYPES[kind], read), size


def _quantisation(name: str, kind: str, entry: object) -> Quantisation | None:
    if entry is None:
        return None
    match entry:
        case {"dtype": "float16"}:
            found = Quantisation(torch.float16, 1.0, 0.0)
        case {"dtype": "uint8" | "uint16" as stored, "scale": int() | float() as scale, "min": int() | float() as low}:
            if max(abs(scale), abs(low)) > 1e30:  # an int may be too large for a float
                raise Refusal(f"{shown(name)} is quantised with a scale of no weight", ASK_AUTHORS)
            found = Quantisation(QUANTISED[stored], float(scale), float(low))
        case _:
            raise Refusal(f"{shown(name)} is quantised in a way that is not read", "convert it again as float32")
    if kind != "float32":
        raise Refusal(f"{shown(name)} is quantised and was no float32", "convert it again without quantisation")
    return found
