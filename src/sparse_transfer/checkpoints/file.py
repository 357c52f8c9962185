"""Our checkpoint file, version 1: safetensors with one metadata entry; docs/reference/checkpoint.md is its layout."""

import copy
import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save as serialise
from torch import Tensor, nn

from sparse_transfer.checkpoints.assembling import assemble, skeleton
from sparse_transfer.checkpoints.packing import gather, pack, scatter, unpack
from sparse_transfer.checkpoints.readers.archives import is_archive
from sparse_transfer.checkpoints.readers.opening import ends, reader_of, unknown
from sparse_transfer.checkpoints.readers.refusal import printable, refusals_of
from sparse_transfer.checkpoints.readers.safetensors_file import opened, read_safetensors
from sparse_transfer.core import canonical
from sparse_transfer.core.canonical import Json
from sparse_transfer.core.errors import UserError, listed
from sparse_transfer.core.files import atomic_write
from sparse_transfer.models import Architecture, Backbone, Head, Network, Preprocessing
from sparse_transfer.models.network import dtype_name
from sparse_transfer.sparsity import audit

VERSION = 1
ENTRY = "sparse_transfer"
Encoding = Literal["dense", "packed"]
FOREIGN = "bring it in first: sparse-transfer import FILE -o OUT.safetensors"


@dataclass(frozen=True)
class Origin:
    """Where the weights came from, as far as it is known. ``sparsity`` is what the origin claims, in [0, 1]."""

    method: str | None = None
    sparsity: float | None = None
    file: str | None = None
    sha256: str | None = None
    format: str | None = None
    licence: str | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "Origin":
        """Entries that this version does not know are left out."""
        known = {field.name: value.get(field.name) for field in fields(cls)}
        sparsity = known.pop("sparsity")
        if not isinstance(sparsity, int | float | None) or isinstance(sparsity, bool) or not 0 <= (sparsity or 0) <= 1:
            raise UserError(f"the claimed sparsity is {sparsity!r}, no share in [0, 1]", do="fetch the file again")
        if strange := [name for name, text in known.items() if not isinstance(text, str | None)]:
            raise UserError(f'the origin\'s "{strange[0]}" is no text', do="fetch the file again")
        return cls(sparsity=sparsity, **cast(dict[str, str | None], known))


@dataclass(frozen=True)
class Checkpoint:
    """A network as it came from a file. ``digest`` is the network's identity, equal for both encodings."""

    network: Network
    origin: Origin
    digest: str
    path: Path

    @classmethod
    def of(cls, network: "Network | Checkpoint | str | Path") -> "Checkpoint":
        """A network in memory as a checkpoint called as its architecture, a file read; one that is one stays.

        Raises ``UserError`` as ``load`` does.
        """
        if isinstance(network, Checkpoint):
            return network
        if isinstance(network, Network):
            return cls(network, Origin(), network.digest(), Path(f"{network.backbone.architecture}.network"))
        return load(network)

    @property
    def backbone(self) -> Backbone:
        return self.network.backbone

    @property
    def head(self) -> Head | None:
        return self.network.head

    @property
    def name(self) -> str:
        """The file's name less its extension: how tables and run folders call it."""
        return self.path.stem


def save(
    network: Network | Backbone, path: str | Path, *, encoding: Encoding = "packed", origin: Origin | None = None
) -> str:
    """Write ``network`` atomically and return its digest.

    ``packed`` stores the kept values of each masked weight and one bit a weight; ``dense`` stores masked weights as
    they are beside the same bits, so that timm and transformers read the file too.

    Raises:
        MaskViolation: a weight outside the mask is not zero; nothing is written.
    """
    network = Network(network) if isinstance(network, Backbone) else network
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.tensors().items()}
    masks = network.masks()
    for name, kept in masks.items():
        audit(name, tensors[name], kept)
    digest = network.digest()
    stored: dict[str, Tensor] = {}
    described: dict[str, Json] = {}
    for name, tensor in tensors.items():
        kind = "dense"
        if name in masks:
            kept = masks[name].cpu()
            stored[f"{name}.mask"] = torch.from_numpy(pack(kept.numpy()))
            if encoding == "packed":
                kind, stored[f"{name}.kept"] = "packed", gather(tensor, kept)
            else:
                stored[name] = tensor.masked_fill(~kept, 0)  # -0.0 becomes +0
        else:
            stored[name] = tensor.clone()  # safetensors refuses tensors that share memory
        described[name] = {"shape": list(tensor.shape), "dtype": dtype_name(tensor.dtype), "encoding": kind}
    metadata: dict[str, Json] = {
        "version": VERSION,
        "architecture": network.backbone.architecture.to_json(),
        "preprocessing": network.backbone.preprocessing.to_json(),
        "origin": asdict(origin or Origin()),
        "tensors": described,
        "digest": digest,
    }
    if network.head is not None and network.head.classes:
        metadata["classes"] = list(network.head.classes)
    with atomic_write(Path(path)) as file:
        _write(file, stored, {ENTRY: canonical.dumps(metadata), "format": "pt"})  # transformers looks for "format"
    return digest


def _write(file: IO[bytes], tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """safetensors with its header's entries in sorted order: the library's order differs from call to call."""
    raw = memoryview(serialise(tensors, metadata))
    length = int.from_bytes(raw[:8], "little")
    header = canonical.dumps(json.loads(bytes(raw[8 : 8 + length]))).encode()
    header += b" " * (-len(header) % 8)
    file.write(len(header).to_bytes(8, "little") + header)
    file.write(raw[8 + length :])


def load(path: str | Path, *, verify: bool = True, module: nn.Module | None = None) -> Checkpoint:
    """Read a checkpoint of ours.

    Names, shapes and masks are always checked; the digest too unless ``verify`` is False. ``module`` is needed for a
    network of your own that no architecture name builds: its weights are replaced in a copy.

    Raises:
        UserError: the file is missing, cut short, changed, of a newer version, or not a checkpoint of ours.

    Example:
        >>> load("missing.safetensors")
        Traceback (most recent call last):
        sparse_transfer.core.errors.UserError: missing.safetensors: there is no such file
    """
    path = Path(path)
    with naming(path):
        return _load(path, verify=verify, module=module)


def _load(path: Path, *, verify: bool, module: nn.Module | None) -> Checkpoint:
    metadata, stored = _read(path)
    architecture, preprocessing, origin, classes = facts_of(metadata)
    tensors, masks = _decode(_mapping(metadata, "tensors"), stored)
    body = copy.deepcopy(module) if module is not None else skeleton(architecture)
    network = assemble(architecture, preprocessing, tensors, masks, classes, module=body)
    claimed = str(metadata.get("digest"))
    if verify and network.digest() != claimed:
        raise UserError(
            f"the weights do not have the digest {claimed[:12]}… that the file states",
            do="it was changed after it was written, fetch it again",
        )
    return Checkpoint(network, origin, claimed, path)


@contextmanager
def naming(path: Path) -> Generator[None]:
    """Put the file's name before a ``UserError`` that comes out of its content."""
    try:
        yield
    except UserError as error:
        if error.where is not None and error.where.startswith(str(path)):
            raise
        what = error.what if error.where is None else f"{error.where}: {error.what}"
        raise UserError(what, where=path, do=error.do) from None


def is_ours(path: Path) -> bool:
    """Whether the file is a safetensors file with our metadata entry. Reads the header only, never raises."""
    try:
        with opened(path) as file:
            return ENTRY in (file.metadata() or {})
    except (OSError, SafetensorError, ValueError):
        return False


def _read(path: Path) -> tuple[dict[str, Json], dict[str, Tensor]]:
    """Metadata and stored tensors. safetensors itself checks offsets, overlaps and lengths."""
    if not path.exists():
        raise UserError("there is no such file", where=path)
    if path.is_dir():
        raise UserError("this is a folder, not a checkpoint", where=path)
    _refuse_foreign(path)
    try:
        with opened(path) as file:
            entry = (file.metadata() or {}).get(ENTRY)
            if entry is None:
                raise UserError("this is a foreign checkpoint", where=path, do=FOREIGN)
            metadata = json.loads(entry, parse_constant=_no_number)
            stored = {name: cast(Tensor, file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise UserError(f"it cannot be read ({error})", where=path) from error
    except SafetensorError as error:
        raise UserError(
            f"it is damaged or cut short ({printable(str(error))})", where=path, do="fetch it again"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f'the entry "{ENTRY}" is no JSON ({error})', where=path, do="fetch it again") from None
    if not isinstance(metadata, dict):
        raise UserError(f'the entry "{ENTRY}" is no JSON object', where=path, do="fetch it again")
    return metadata, stored


def _refuse_foreign(path: Path) -> None:
    """Say what a file is that does not begin as ours do; one of a few bytes may be ours, cut short."""
    with refusals_of(path):
        head, tail = ends(path)
        reader = reader_of(head, tail)
        if len(head) <= 8 or reader is read_safetensors:
            return
        if reader is None and not is_archive(path):
            raise unknown(head)
    raise UserError("this is a foreign checkpoint", where=path, do=FOREIGN)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number in JSON")


def _decode(described: Mapping[str, Json], stored: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Stored tensors -> (weights, masks) by name; every stored tensor must be accounted for."""
    weights: dict[str, Tensor] = {}
    masks: dict[str, Tensor] = {}
    used: set[str] = set()

    def fetch(name: str) -> Tensor:
        if name not in stored:
            raise UserError(f'the tensor "{name}" is missing', do="fetch the file again")
        used.add(name)
        return stored[name]

    def fetch_mask(name: str, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        packed = fetch(f"{name}.mask")
        if packed.dtype != torch.uint8:
            raise UserError(f"the mask of {name} is {dtype_name(packed.dtype)}, not uint8", do="fetch the file again")
        return unpack(packed.numpy(), shape, name)

    for name, description in described.items():
        facts = description if isinstance(description, Mapping) else {}
        shape, encoding = _shape(name, facts.get("shape")), facts.get("encoding")
        if encoding == "packed":
            kept = fetch_mask(name, shape)
            weights[name], masks[name] = scatter(fetch(f"{name}.kept"), kept, name), torch.from_numpy(kept)
        elif encoding == "dense":
            weights[name] = fetch(name)
        else:
            raise UserError(f"the encoding of {name} is {encoding!r}", do='it is "dense" or "packed"')
        if weights[name].shape != shape or dtype_name(weights[name].dtype) != facts.get("dtype"):
            raise UserError(
                f"{name} is {dtype_name(weights[name].dtype)} {list(weights[name].shape)} and described as"
                f" {facts.get('dtype')} {list(shape)}"
            )
        if encoding == "dense" and f"{name}.mask" in stored and f"{name}.mask" not in described:
            masks[name] = torch.from_numpy(fetch_mask(name, shape))
            audit(name, weights[name], masks[name], do="fetch the file again")
    if strangers := sorted(set(stored) - used):
        raise UserError(f"{len(strangers)} tensors are not described: {listed(strangers)}", do="fetch the file again")
    return weights, masks


def _shape(name: str, value: Json) -> tuple[int, ...]:
    lengths = value if isinstance(value, list) else [None]
    if not all(type(length) is int and 0 <= length < 1 << 40 for length in lengths):
        raise UserError(f"the shape of {name} is {value!r}", do="fetch the file again")
    return tuple(cast(list[int], lengths))


def facts_of(stated: Mapping[str, Json]) -> tuple[Architecture, Preprocessing, Origin, tuple[str, ...]]:
    """Architecture, preprocessing, origin and class names, as they stand in the metadata and in a hub's config.json.

    Raises:
        UserError: they are of another version, or one is missing or no such thing.
    """
    if (version := stated.get("version")) != VERSION:
        raise UserError(
            f"layout version {version!r}, and this program reads version {VERSION}", do="update sparse-transfer"
        )
    return (
        Architecture.from_json(_mapping(stated, "architecture")),
        Preprocessing.from_json(_mapping(stated, "preprocessing")),
        Origin.from_json(_mapping(stated, "origin")),
        _classes(stated.get("classes")),
    )


def _classes(names: Json) -> tuple[str, ...]:
    if names is None:
        return ()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError('the entry "classes" is no list of names', do="fetch the file again")
    return tuple(cast(list[str], names))


def _mapping(metadata: Mapping[str, Json], key: str) -> Mapping[str, Json]:
    value = metadata.get(key)
    if not isinstance(value, Mapping):
        raise UserError(f'the entry "{key}" is missing', do="fetch the file again")
    return value
