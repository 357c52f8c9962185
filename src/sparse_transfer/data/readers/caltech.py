"""Caltech-101 and Caltech-256: pictures numbered within a class; the first 30 (60) train, the others test."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from sparse_transfer.core.errors import UserError
from sparse_transfer.data.readers.folder import read_parts
from sparse_transfer.data.readers.found import Found, first_place, listed_splits, subfolders


@dataclass(frozen=True)
class Layout:
    """The archive's folder, the folder torchvision puts around it, training pictures a class, what is no class."""

    folder: str
    around: str
    train_per_class: int
    left_out: tuple[str, ...]


CALTECH101 = Layout("101_ObjectCategories", "caltech101", 30, ("BACKGROUND_Google",))
CALTECH256 = Layout("256_ObjectCategories", "caltech256", 60, ())


def read_caltech101(root: Path) -> Found:
    """``101_ObjectCategories/CLASS/image_0001.jpg``: 3,030 and 5,647 pictures of 101 classes."""
    return _read(root, CALTECH101)


def read_caltech256(root: Path) -> Found:
    """``256_ObjectCategories/001.ak47/001_0001.jpg``, clutter too: 15,420 and 15,187 pictures of 257 classes."""
    return _read(root, CALTECH256)


def _read(root: Path, layout: Layout) -> Found:
    """The paper's split (``utils/transfer/caltech.py``): by the number in the file name, nothing is drawn.

    The original counts a class's files and trusts that they are numbered 1..n; here a hole in the numbers is an error.
    """
    base = first_place(root, ("", layout.around), layout.folder)
    if root.absolute().name == layout.folder and root.is_dir():
        base = root.absolute().parent
    if base is None:
        return read_parts(root, instead_of=layout.folder)
    folders = [folder for folder in subfolders(base / layout.folder) if folder.name not in layout.left_out]
    if not folders:
        raise UserError("no class folders", where=base / layout.folder, do="unpack the archive again")
    train: dict[str, int] = {}
    test: dict[str, int] = {}
    others: list[str] = []
    for label, folder in enumerate(folders):
        numbered, rest = _numbered(folder, layout)
        others += rest
        for number, name in enumerate(numbered, 1):
            (train if number <= layout.train_per_class else test)[f"{layout.folder}/{folder.name}/{name}"] = label
    found = listed_splits(base, train, test, [folder.name for folder in folders])
    return replace(found, others=tuple(others))


def _numbered(folder: Path, layout: Layout) -> tuple[list[str], list[str]]:
    """The names of pictures 1..n in order, and the other files."""
    # Caltech-256 names carry the class number, which is also the folder's: "001.ak47/001_0001.jpg".
    prefix = "image" if layout is CALTECH101 else re.escape(folder.name[:3])
    pattern = re.compile(rf"{prefix}_(\d{{4}})\.jpg")
    pictures: dict[int, str] = {}
    others: list[str] = []
    for file in sorted(folder.iterdir()):
        name = pattern.fullmatch(file.name)
        if name:
            pictures[int(name[1])] = file.name
        elif not file.name.startswith("."):
            others.append(file.relative_to(folder.parents[1]).as_posix())
    count = len(pictures)
    hole = next((number for number in range(1, count + 1) if number not in pictures), None)
    if hole is not None:
        raise UserError(
            f"{count:,} pictures numbered up to {max(pictures):,}, and number {hole:,} is not there",
            where=folder,
            do="unpack the archive again: the split goes by the numbers",
        )
    if count < layout.train_per_class:
        raise UserError(
            f"{count:,} pictures, and the split takes the first {layout.train_per_class} for training",
            where=folder,
            do="unpack the archive again, or give folder:PATH for a split of your own",
        )
    return [pictures[number] for number in range(1, count + 1)], others
