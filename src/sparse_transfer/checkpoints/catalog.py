"""Published sparse checkpoints by name: facts and addresses, in ``catalog.toml``. Looking them up fetches nothing."""

import re
import tomllib
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from pathlib import PurePosixPath
from urllib.parse import urlparse

from sparse_transfer.core.canonical import Json
from sparse_transfer.core.errors import UserError
from sparse_transfer.core.registry import Registry, suggestion

# Address -> why no program can fetch it. Each gives pages for people; what lies behind them has no address of its own.
BY_HAND = (
    (r"https://drive\.google\.com/drive/folders/", "it is a folder of several files on Google Drive"),
    (r"https://drive\.google\.com/", "Google Drive wants large files confirmed in a browser"),
    (r"https://seafile\.ist\.ac\.at/d/", "it is a folder of several files"),
    (r"https://www\.dropbox\.com/sh/", "it is a folder of several files"),
    (r"zoo:", "SparseZoo, which resolved its address, ended on 2 June 2025"),
)
EXTENSIONS = (".tar.gz", ".tar", ".pth", ".pt", ".safetensors", ".onnx")


@dataclass(frozen=True)
class Published:
    """What its owner says of a checkpoint.

    network: first part of the name.   architecture: as ``--arch`` spells it, "several" for a mixed folder.
    sparsity: claimed, in [0, 1], counted over the ``counted`` weights.   nm: the pattern that import is to be told.
    top1: ImageNet validation accuracy in %.   page: where people find it.
    sha256: of the file, or its first digits where only those are known.
    """

    name: str
    method: str
    format: str
    architecture: str
    sparsity: float | None = None
    counted: str | None = None
    nm: str | None = None
    top1: float | None = None
    address: str | None = None
    page: str | None = None
    licence: str | None = None
    sha256: str | None = None
    note: str | None = None

    @property
    def network(self) -> str:
        return self.name.partition(".")[0]

    @property
    def by_hand(self) -> str | None:
        """Why no program can fetch it, or None where one can."""
        if self.address is None:
            return "it has no public address"
        return next((why for pattern, why in BY_HAND if re.match(pattern, self.address)), None)

    @property
    def file_name(self) -> str:
        """What to call the file: its name here, with the extension that its address shows."""
        path = PurePosixPath(urlparse(self.address or "").path)
        return self.name + next((ending for ending in EXTENSIONS if path.name.endswith(ending)), ".pth")

    def facts(self) -> dict[str, Json]:
        """Everything known, for people and for JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"by_hand": self.by_hand}

    def import_options(self) -> list[str]:
        """The options of ``sparse-transfer import`` that say what is known here."""
        options = ["--method", self.method]
        options += ["--sparsity", f"{self.sparsity:g}"] if self.sparsity else []
        options += ["--nm", self.nm] if self.nm is not None else []
        return options + (["--licence", self.licence] if self.licence is not None else [])


@cache
def published() -> Registry[Published]:
    """Every checkpoint of the catalogue, in its order."""
    text = (resources.files("sparse_transfer.checkpoints") / "catalog.toml").read_text(encoding="utf-8")
    found: Registry[Published] = Registry("published checkpoint")
    for group in tomllib.loads(text)["group"]:
        shared = {key: value for key, value in group.items() if key not in ("at", "checkpoints")}
        for own in group["checkpoints"]:
            entry = shared | own
            if "file" in entry:
                entry["address"] = group["at"] + entry.pop("file")
            entry.setdefault("architecture", entry["name"].partition(".")[0])
            found.add(entry["name"], Published(**entry))
    return found


def search(*, method: str | None = None, network: str | None = None) -> list[Published]:
    """The checkpoints whose method contains ``method`` and whose network or architecture is ``network``.

    Of a method only letters and digits count, in any case: acdc is AC/DC.

    Raises:
        UserError: there is none; the nearest method or network is named.
    """
    everything = [published().get(name) for name in published()]
    found = [item for item in everything if method is None or letters(method) in letters(item.method)]
    if not found:
        raise UserError(
            f'no published checkpoint is of the method "{method}"',
            do=suggestion(str(method), list(dict.fromkeys(item.method for item in everything))),
        )
    of_network = [item for item in found if network is None or network in (item.network, item.architecture)]
    if not of_network:
        raise UserError(
            f'none of {len(found)} published checkpoints is a "{network}"',
            do=suggestion(str(network), list(dict.fromkeys(item.network for item in found))),
        )
    return of_network


def fetchable(name: str) -> Published:
    """The checkpoint of that name, when a program can fetch it.

    Raises:
        UserError: there is none of that name, or people must fetch it: why, and the address to open.
    """
    item = published().get(name)
    if item.by_hand is not None:
        there = item.address if item.address is not None and item.address.startswith("https://") else item.page
        raise UserError(
            f"it cannot be fetched from here: {item.by_hand}",
            where=item.name,
            do=f"open {there} in a browser" + ("" if item.address else " and ask its authors"),
        )
    return item


def letters(method: str) -> str:
    """What counts of a method's name when it is compared: letters and digits, in any case."""
    return "".join(letter for letter in method.lower() if letter.isalnum())
