"""Oxford-IIIT Pets: ``images/``, ``annotations/trainval.txt``, ``annotations/test.txt``."""

from pathlib import Path

from sparse_transfer.core.errors import UserError
from sparse_transfer.data.readers.folder import read_parts
from sparse_transfer.data.readers.found import Found, first_place, listed_splits, read_lines, required


def read(root: Path) -> Found:
    """The paper's split: ``trainval`` (3,680) and ``test`` (3,669); classes in the order of their official numbers."""
    base = first_place(root, ("", "oxford-iiit-pet"), "annotations/trainval.txt", "annotations/test.txt")
    if base is None:
        return read_parts(root, instead_of="annotations/trainval.txt")
    train, test = (_listed(required(base, f"annotations/{name}.txt")) for name in ("trainval", "test"))
    # The class number is 1..37; an excerpt keeps the numbers, so that what is there is counted anew without gaps.
    class_numbers = sorted({*train.values(), *test.values()})
    names = {number: _breed(path) for path, number in {**test, **train}.items()}
    labels = {number: label for label, number in enumerate(class_numbers)}
    return listed_splits(
        base,
        {f"images/{name}.jpg": labels[number] for name, number in train.items()},
        {f"images/{name}.jpg": labels[number] for name, number in test.items()},
        [names[number] for number in class_numbers],
    )


def _listed(path: Path) -> dict[str, int]:
    """{picture name: class number} of lines ``NAME CLASS SPECIES BREED``; lines that begin with # are remarks."""
    listed: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), 1):
        if line.startswith("#"):
            continue
        match line.split():
            case [name, class_number, *_] if class_number.isdecimal():
                listed[name] = int(class_number)
            case _:
                raise UserError(f'line {number:,} is not "NAME CLASS SPECIES BREED"', where=path, do="fetch it again")
    return listed


def _breed(name: str) -> str:
    return name.rsplit("_", 1)[0]
