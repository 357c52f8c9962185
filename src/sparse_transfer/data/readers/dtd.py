"""Describable Textures: ``images/``, ``labels/train1.txt``, ``val1.txt``, ``test1.txt``."""

from pathlib import Path

from sparse_transfer.core.errors import UserError, listed
from sparse_transfer.data.readers.folder import read_parts
from sparse_transfer.data.readers.found import (
    Found,
    counted,
    first_place,
    listed_splits,
    path_bytes,
    read_lines,
    required,
)


def read(root: Path) -> Found:
    """The paper's split, partition 1 of 10: training = train1 + val1 (3,760), test = test1 (1,880).

    Classes in the order of ``labels/classes.txt``, which the authors' copy had and the official archive has not;
    without it sorted by name.
    """
    base = first_place(root, ("", "dtd", "dtd/dtd"), "labels/train1.txt", "labels/test1.txt")
    if base is None:
        return read_parts(root, instead_of="labels/train1.txt")
    train = [*read_lines(required(base, "labels/train1.txt")), *read_lines(required(base, "labels/val1.txt"))]
    test = read_lines(required(base, "labels/test1.txt"))
    seen = {_texture(line) for line in (*train, *test)}
    order = base / "labels" / "classes.txt"
    classes = read_lines(order) if order.is_file() else sorted(seen, key=path_bytes)
    unnamed = sorted(seen - set(classes))
    if unnamed:
        raise UserError(
            f"{counted(len(unnamed), 'class')} of the lists not in it ({listed(unnamed)})", where=order, do="remove it"
        )
    labels = {name: label for label, name in enumerate(classes)}
    return listed_splits(
        base,
        {f"images/{line}": labels[_texture(line)] for line in train},
        {f"images/{line}": labels[_texture(line)] for line in test},
        classes,
    )


def _texture(line: str) -> str:
    return line.split("/", 1)[0]
