"""What a reader finds in a folder, and the few things that every reader does: look, list, measure."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparse_transfer.core.errors import UserError
from sparse_transfer.data.split import Split

# torchvision.datasets.folder.IMG_EXTENSIONS; compared in lower case, as there.
PICTURE_EXTENSIONS = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"))


@dataclass(frozen=True)
class Found:
    """The splits that are there, and what is worth saying of them.

    train: without one picture, but with the classes, where a copy has the test pictures alone.

    absent: files that the dataset's own lists name and the disk has not, relative to the root; left out.
    others: visible files among the pictures that are not pictures by their extension, or broken links; left out.
    """

    train: Split
    test: Split
    val: Split | None = None
    absent: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def path_bytes(path: str) -> bytes:
    """Sort key of paths and class names: their bytes, equal on every machine and in every locale."""
    return os.fsencode(path)


def counted(number: int, noun: str) -> str:
    """``1 file``, ``2,040 files``."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun}es" if noun.endswith("s") else f"{number:,} {noun}s"


def is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in PICTURE_EXTENSIONS


def subfolders(folder: Path) -> list[Path]:
    """The visible folders in ``folder``, links to folders too, by the bytes of their names."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    return [folder / name for name in sorted(names, key=path_bytes)]


def visible_files(folder: Path, inside: frozenset[tuple[int, int]] = frozenset()) -> Iterator[tuple[str, int | None]]:
    """Each visible file at any depth as (path relative to ``folder`` with "/", bytes); bytes None for a broken link.

    In no fixed order. Links are followed; a link back to a folder that it stands in (``inside``) is not.
    """
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in inside:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                for path, size in visible_files(folder / entry.name, inside | {here}):
                    yield f"{entry.name}/{path}", size
            else:
                yield entry.name, entry.stat().st_size if entry.is_file() else None


def first_place(root: Path, places: Sequence[str], *markers: str) -> Path | None:
    """The first of ``root/place`` in which one of ``markers`` exists: an archive's own folder, or the one above it."""
    for place in places:
        if any((root / place / marker).exists() for marker in markers):
            return root / place
    return None


def nearby(root: Path, fits: Callable[[Path], bool]) -> list[Path]:
    """The folder above, or those below, that ``fits``, for the one who is a folder too low or too high."""
    above = root.absolute().parent
    return [above] if fits(above) else [place for place in subfolders(root) if fits(place)]


def required(base: Path, name: str) -> Path:
    """``base/name``, which has to be there."""
    if not (base / name).is_file():
        raise UserError(f"{name} is missing", where=base, do="unpack the dataset's archive again")
    return base / name


def read_lines(path: Path) -> list[str]:
    """The lines of a list that are not blank, without white space at their ends."""
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    return [line.strip() for line in text.splitlines() if line.strip()]


def listed_splits(base: Path, train: Mapping[str, int], test: Mapping[str, int], classes: Sequence[str]) -> Found:
    """The splits that an official list gives: {path relative to ``base``: label}; pictures not on disk are left out."""
    train_split, no_train = listed_split("train", base, train, classes)
    test_split, no_test = listed_split("test", base, test, classes)
    return Found(train_split, test_split, absent=(*no_train, *no_test))


def listed_split(
    name: str, base: Path, labels: Mapping[str, int], classes: Sequence[str]
) -> tuple[Split, tuple[str, ...]]:
    """One such split, and the listed pictures that are not on disk."""
    sizes = {path: _size(base / path) for path in sorted(labels, key=path_bytes)}
    there = {path: size for path, size in sizes.items() if size is not None}
    missing = tuple(path for path, size in sizes.items() if size is None)
    if not there:
        first = f' (first: "{missing[0]}")' if missing else ""
        raise UserError(
            f"none of the {len(labels):,} {name} pictures that its lists name is there{first}",
            where=base,
            do="unpack the pictures beside the lists",
        )
    return make_split(name, base, there, [labels[path] for path in there], classes), missing


def make_split(
    name: str,
    root: Path,
    sizes: Mapping[str, int],
    labels: Sequence[int],
    classes: Sequence[str],
    storage: str = "files",
) -> Split:
    """A split of {path: bytes} in the order given."""
    return Split(
        name=name,
        root=root,
        paths=tuple(sizes),
        labels=np.asarray(labels, dtype=np.int64),
        sizes=np.fromiter(sizes.values(), dtype=np.int64, count=len(sizes)),
        classes=tuple(classes),
        storage=storage,
    )


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
