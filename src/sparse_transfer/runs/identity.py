"""Which run this is: a digest over everything that changes its result."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sparse_transfer.core import canonical
from sparse_transfer.core.canonical import Json

RECORD_VERSION = 1  # part of every identity: raise it when the same settings mean another result

Transfer = Literal["linear", "full"]


@dataclass(frozen=True)
class RunIdentity:
    """Everything that changes a run's result, and nothing else. Equal identities, equal ``id``.

    dataset: its name.   checkpoint: its name, for people: the digest identifies it, so the name is not in the id.
    splits: name of each split -> fingerprint.   protocol: its name.   settings: every resolved rule and setting
    (solver, views, transform, ...) as plain JSON, NaN excepted.   numerics: the engine's class, e.g. ``fp32``.
    """

    transfer: Transfer
    dataset: str
    checkpoint: str
    checkpoint_digest: str
    splits: Mapping[str, str]
    protocol: str
    settings: Mapping[str, Json]
    seed: int
    numerics: str = "fp32"
    version: int = RECORD_VERSION

    @property
    def id(self) -> str:
        """First 12 hex digits of SHA-256 over the canonical JSON."""
        return canonical.digest(self._parts())[:12]

    @property
    def group(self) -> str:
        """The same without the seed: equal for the runs that differ in nothing else."""
        return canonical.digest({key: value for key, value in self._parts().items() if key != "seed"})[:12]

    @property
    def folder(self) -> Path:
        """Where the run's files go, relative to the root of all runs."""
        return Path(self.transfer, file_name(self.dataset), file_name(self.checkpoint), f"seed{self.seed}-{self.id}")

    def to_json(self) -> dict[str, Json]:
        """All fields, and the id for those who read the file."""
        return {"id": self.id, "checkpoint": self.checkpoint, **self._parts()}

    def _parts(self) -> dict[str, Json]:
        return {
            "transfer": self.transfer,
            "dataset": self.dataset,
            "checkpoint_digest": self.checkpoint_digest,
            "splits": dict(self.splits),
            "protocol": self.protocol,
            "settings": dict(self.settings),
            "seed": self.seed,
            "numerics": self.numerics,
            "version": self.version,
        }


def file_name(name: str) -> str:
    """``name`` as one file name: letters, digits, ``_.-`` stay, all else becomes ``_``; no leading dot, <= 100 bytes.

    Two names may become one: the run's id keeps them apart.
    """
    safe = re.sub(r"[^\w.-]", "_", name).lstrip(".")
    return safe.encode()[:100].decode(errors="ignore") or "_"
