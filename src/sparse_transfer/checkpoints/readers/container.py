"""What every reader of a foreign file gives: a tree of plain values whose tensors are still on disk."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sparse_transfer.core.files import BLOCK_BYTES


@dataclass(frozen=True)
class LazyTensor:
    """A tensor of the file: shape and dtype are known, the values are read when asked for."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]
    """The values, contiguous, on CPU; each call reads them anew. Raises UserError where the file is too short."""


@dataclass(frozen=True)
class StandIn:
    """An object of a class that is not ours: its name and what the file gave it, never the class itself."""

    name: str
    """``module.Class`` as the pickle spells it."""
    state: "Tree" = None


Tree = (
    None
    | bool
    | int
    | float
    | complex
    | str
    | bytes
    | LazyTensor
    | StandIn
    | Sequence["Tree"]
    | Mapping[str | int, "Tree"]
)


@dataclass(frozen=True)
class Container:
    """A foreign file, opened: ``root`` is what its author saved.

    kind: ``torch-zip``, ``torch-legacy``, ``safetensors``, ``tf-bundle``, ``tfjs``, ``onnx``.
    stand_ins: names of the classes in the file that were not looked up, sorted.
    files: where the tensors lie in several files, all of them in order, ``path`` first.
    """

    kind: str
    path: Path
    root: Tree
    stand_ins: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    def sha256(self) -> str:
        """Of the file's bytes, 64 hex digits; of several files, of their bytes one after another."""
        digest = hashlib.sha256()
        for path in self.files or (self.path,):
            with path.open("rb") as file:
                while block := file.read(BLOCK_BYTES):
                    digest.update(block)
        return digest.hexdigest()
