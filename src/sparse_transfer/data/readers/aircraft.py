"""FGVC-Aircraft 2013b, variants: ``data/images/``, ``data/images_variant_trainval.txt`` and ``_test.txt``."""

from pathlib import Path

from sparse_transfer.core.errors import UserError
from sparse_transfer.data.readers.folder import read_parts
from sparse_transfer.data.readers.found import Found, first_place, listed_splits, path_bytes, read_lines, required

TRAIN, TEST = "images_variant_trainval.txt", "images_variant_test.txt"


def read(root: Path) -> Found:
    """The paper's split: trainval (6,667) and test (3,333); classes are the variant names sorted by their bytes.

    A name may hold spaces and slashes ("F/A-18"). White space at a line's end is no part of it; the original code kept
    the line break, so that a last line without one would have made a class of its own.
    """
    base = first_place(root, ("data", "fgvc-aircraft-2013b/data", ""), TRAIN, TEST)
    if base is None:
        return read_parts(root, instead_of=f"data/{TRAIN}")
    train, test = (_listed(required(base, name)) for name in (TRAIN, TEST))
    classes = sorted({*train.values(), *test.values()}, key=path_bytes)
    labels = {name: label for label, name in enumerate(classes)}
    return listed_splits(
        base,
        {path: labels[name] for path, name in train.items()},
        {path: labels[name] for path, name in test.items()},
        classes,
    )


def _listed(path: Path) -> dict[str, str]:
    """{picture: variant} of lines ``NUMBER VARIANT``."""
    listed: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), 1):
        picture, _, variant = line.partition(" ")
        if not variant.strip():
            raise UserError(f'line {number:,} is not "NUMBER VARIANT"', where=path, do="fetch it again")
        listed[f"images/{picture}.jpg"] = variant.strip()
    return listed
