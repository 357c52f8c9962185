"""Oxford 102 Flowers: ``jpg/``, ``imagelabels.mat``, ``setid.mat``."""

from pathlib import Path

from sparse_transfer.data.readers.folder import read_parts
from sparse_transfer.data.readers.found import Found, first_place, listed_splits, required
from sparse_transfer.data.readers.matlab import numbers


def read(root: Path) -> Found:
    """The paper's split: training = trnid + valid (2,040), test = tstid (6,149); label = class number - 1."""
    base = first_place(root, ("", "flowers-102"), "setid.mat", "imagelabels.mat")
    if base is None:
        return read_parts(root, instead_of="setid.mat")
    labels = numbers(required(base, "imagelabels.mat"), "labels")
    setid = required(base, "setid.mat")
    train = [*numbers(setid, "trnid"), *numbers(setid, "valid")]
    return listed_splits(
        base,
        {_path(number): labels[number - 1] - 1 for number in train},
        {_path(number): labels[number - 1] - 1 for number in numbers(setid, "tstid")},
        _class_names(),
    )


def _path(number: int) -> str:
    return f"jpg/image_{number:05d}.jpg"


def _class_names() -> tuple[str, ...]:
    """The names in class number order, which no file of the archive holds; torchvision keeps them."""
    from torchvision.datasets import Flowers102

    return tuple(Flowers102.classes)
