"""A look at one copy of a dataset: what is there, missing, corrupt, or in both training and test."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from sparse_transfer.core.canonical import Json
from sparse_transfer.core.errors import UserError, listed
from sparse_transfer.core.files import sha256
from sparse_transfer.core.progress import progress
from sparse_transfer.core.threads import available_cores
from sparse_transfer.data.readers.found import Found, counted
from sparse_transfer.data.reading import find
from sparse_transfer.data.specs import DatasetSpec
from sparse_transfer.data.split import Split

_BLOCK = 4096  # pictures handed to the threads at once; a million waiting tasks would be a gigabyte


@dataclass(frozen=True)
class SplitCount:
    """Pictures of a split on disk and as published (None: nothing is), and the classes without one here."""

    name: str
    pictures: int
    published: int | None
    empty_classes: tuple[str, ...]


@dataclass(frozen=True)
class BadPicture:
    """A picture that does not decode, and why."""

    path: str
    why: str


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    problem: why nothing could be read at all, or None. absent: files of the dataset's own lists that are not on disk.
    others: files passed over because they are no pictures. shared: (training path, test path) of equal pictures,
    compared by decoded pixels, or by the bytes of the files where ``decoded`` is False. Near duplicates are not sought.
    """

    dataset: str
    title: str
    root: str
    address: str
    licence: str
    dead: str | None
    problem: str | None = None
    classes: int = 0
    published_classes: int | None = None
    splits: tuple[SplitCount, ...] = ()
    absent: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    decoded: bool = False
    corrupt: tuple[BadPicture, ...] = ()
    shared: tuple[tuple[str, str], ...] = ()

    @property
    def whole(self) -> bool:
        """Of the published size, every picture readable. Equal pictures in both parts do not count against it."""
        counts = ((split.pictures, split.published) for split in self.splits)
        return (
            self.problem is None
            and not self.corrupt
            and not self.absent
            and all(
                published in (None, there) for there, published in (*counts, (self.classes, self.published_classes))
            )
        )

    def to_json(self) -> dict[str, Json]:
        """The fields, and ``whole``, as plain values."""
        return {**asdict(self), "whole": self.whole}

    def render(self, *, most: int = 10) -> str:
        """Lines for people; of a long list the first ``most``."""
        lines = [f"{self.dataset} ({self.title}) in {self.root}"]
        if self.problem is not None:
            lines.append(f"  not readable: {self.problem}")
        else:
            lines += [f"  {line}" for line in self._findings(most)]
        if self.address != "none":
            lines += [f"  from {self.address}", f"  licence: {self.licence}"]
        if self.dead is not None:
            lines.append(f"  not to be had there any more: {self.dead}")
        return "\n".join(lines)

    def _findings(self, most: int) -> list[str]:
        lines = [_of("classes", self.classes, self.published_classes)]
        for split in self.splits:
            lines.append(_of(f"{split.name} pictures", split.pictures, split.published))
            if not split.pictures:
                lines.append("  enough to evaluate, not to train")
            elif split.empty_classes:
                count = counted(len(split.empty_classes), "class")
                lines.append(f"  none in {count}: {listed([*split.empty_classes], most=most)}")
        if self.absent:
            lines.append(f"{counted(len(self.absent), 'listed file')} not there: {listed([*self.absent], most=most)}")
        if self.others:
            lines.append(
                f"{counted(len(self.others), 'file')} without a picture extension: {listed([*self.others], most=most)}"
            )
        if self.decoded:
            lines.append(f"do not decode: {counted(len(self.corrupt), 'picture')}")
            lines += [f"  {bad.path}: {bad.why}" for bad in self.corrupt[:most]]
            if len(self.corrupt) > most:
                lines.append(f"  and {len(self.corrupt) - most:,} more")
        lines.append(f"in training and test alike: {counted(len(self.shared), 'picture')}")
        lines += [f"  {train} = {test}" for train, test in self.shared[:most]]
        if len(self.shared) > most:
            lines.append(f"  and {len(self.shared) - most:,} more")
        return lines


def check(spec: DatasetSpec, root: Path, *, decode: bool = True) -> CheckReport:
    """Look at the copy of a dataset under ``root``; what is wrong with it is in the report, nothing is raised.

    ``decode``: decode every picture, on all cores; without it only files are counted, and those of equal size compared.
    """
    place = "scikit-learn" if spec.built_in else str(root)
    report = CheckReport(spec.name, spec.title, place, spec.address, spec.licence, spec.dead)
    try:
        found = find(spec, root)
    except UserError as error:
        return replace(report, problem=str(error))
    splits = [split for split in (found.train, found.val, found.test) if split is not None]
    # Containers have no file per picture to compare, and cost little to take apart.
    decode = decode or found.train.storage != "files"
    pictures = {split.name: _decoded(split) if decode else _files(split, found) for split in splits}
    published = {"train": spec.train_size, "test": spec.test_size}
    return replace(
        report,
        classes=len(found.train.classes),
        published_classes=spec.classes,
        splits=tuple(
            SplitCount(split.name, len(split), published.get(split.name), _empty_classes(split)) for split in splits
        ),
        absent=found.absent,
        others=found.others,
        decoded=decode,
        corrupt=tuple(
            picture for split in splits for picture in pictures[split.name] if isinstance(picture, BadPicture)
        ),
        shared=_shared(found, pictures["train"], pictures["test"]),
    )


# A picture's digest; None where nothing can equal it.
_Picture = str | BadPicture | None


def _decoded(split: Split) -> list[_Picture]:
    """Of each picture the SHA-256 of its shape and RGB pixels, on all cores (Pillow decodes outside Python's lock)."""
    pictures: list[_Picture] = []
    with (
        ThreadPoolExecutor(available_cores()) as pool,
        progress(f"decode {split.name}", len(split), unit="pictures") as advance,
    ):
        for start in range(0, len(split), _BLOCK):
            block = range(start, min(start + _BLOCK, len(split)))
            for picture in pool.map(partial(_pixel_digest, split), block):
                pictures.append(picture)
                advance(1)
    return pictures


def _pixel_digest(split: Split, index: int) -> str | BadPicture:
    from sparse_transfer.data.decode import load_picture

    try:
        pixels = np.asarray(load_picture(split, index))
    except UserError as error:
        return BadPicture(split.paths[index], error.what)
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()


def _files(split: Split, found: Found) -> list[_Picture]:
    """Of each file the SHA-256, where a training and a test picture have its size."""
    sizes = {*found.train.sizes.tolist()} & {*found.test.sizes.tolist()}
    pictures: list[_Picture] = []
    with progress(f"read {split.name}", len(split), unit="files") as advance:
        for path, size in zip(split.paths, split.sizes.tolist(), strict=True):
            try:
                pictures.append(sha256(split.root / path) if size in sizes else None)
            except OSError as error:
                pictures.append(BadPicture(path, f"the file cannot be read ({error.strerror})"))
            advance(1)
    return pictures


def _shared(found: Found, train: list[_Picture], test: list[_Picture]) -> tuple[tuple[str, str], ...]:
    """Each training picture that equals a test picture, with the first such."""
    first = {
        digest: path
        for path, digest in reversed([*zip(found.test.paths, test, strict=True)])
        if isinstance(digest, str)
    }
    return tuple(
        (path, first[digest])
        for path, digest in zip(found.train.paths, train, strict=True)
        if isinstance(digest, str) and digest in first
    )


def _empty_classes(split: Split) -> tuple[str, ...]:
    return tuple(name for name, count in zip(split.classes, split.counts().tolist(), strict=True) if not count)


def _of(what: str, there: int, published: int | None) -> str:
    return f"{what}: {there:,}" if published is None else f"{what}: {there:,} of {published:,}"
