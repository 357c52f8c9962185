"""Food-101: ``images/CLASS/NUMBER.jpg``, ``meta/train.json`` or ``meta/train.txt``."""

from pathlib import Path

from sparse_transfer.core.errors import UserError
from sparse_transfer.data.readers.folder import read_parts
from sparse_transfer.data.readers.found import Found, first_place, listed_splits, path_bytes, read_lines

MARKERS = ("meta/train.txt", "meta/train.json", "meta/test.txt", "meta/test.json")


def read(root: Path) -> Found:
    """The official split: 750 training and 250 test pictures of each class; classes sorted by name.

    Prepared class folders may call the test part ``valid``, as the paper's code did, or ``test``.
    """
    base = first_place(root, ("", "food-101"), *MARKERS)
    if base is None:
        return read_parts(root, test_names=("test", "valid", "val"), instead_of=MARKERS[0])
    train, test = listed_names(base, "train"), listed_names(base, "test")
    classes = sorted({_food(name) for name in (*train, *test)}, key=path_bytes)
    labels = {name: label for label, name in enumerate(classes)}
    return listed_splits(
        base,
        {f"images/{name}.jpg": labels[_food(name)] for name in train},
        {f"images/{name}.jpg": labels[_food(name)] for name in test},
        classes,
    )


def listed_names(base: Path, part: str) -> list[str]:
    """The names ``CLASS/NUMBER`` of a part, from its text list, else from its JSON; the two hold the same names."""
    lines, by_class = base / "meta" / f"{part}.txt", base / "meta" / f"{part}.json"
    if lines.is_file():
        return read_lines(lines)
    if not by_class.is_file():
        raise UserError(f"meta/{part}.txt is missing", where=base, do="unpack the archive again")
    from pydantic import TypeAdapter, ValidationError

    try:
        names = TypeAdapter(dict[str, list[str]]).validate_json(by_class.read_bytes())
    except ValidationError as error:
        raise UserError("it is not lists of names by class", where=by_class, do="unpack the archive again") from error
    return [name for group in names.values() for name in group]


def _food(name: str) -> str:
    return name.split("/", 1)[0]
