"""Stanford Cars: ``cars_train/``, ``cars_test/``, ``devkit/*.mat``, ``cars_test_annos_withlabels.mat``."""

from pathlib import Path

import numpy as np

from sparse_transfer.core.errors import UserError
from sparse_transfer.data.readers.folder import read_parts
from sparse_transfer.data.readers.found import Found, first_place, listed_splits, required
from sparse_transfer.data.readers.matlab import column, variable

TRAIN_ANNOTATIONS, TEST_ANNOTATIONS = "cars_train_annos.mat", "cars_test_annos_withlabels.mat"
UNLABELLED = "cars_test_annos.mat"


def read(root: Path) -> Found:
    """The official split: 8,144 training and 8,041 test pictures; label = class number - 1.

    The devkit names the test pictures without their classes; those are in a file of their own, which lay beside it.
    """
    base = first_place(root, ("", "stanford_cars"), f"devkit/{TRAIN_ANNOTATIONS}", "devkit/cars_meta.mat")
    if base is None:
        return read_parts(root, instead_of=f"devkit/{TRAIN_ANNOTATIONS}")
    classes = [str(name) for name in variable(required(base, "devkit/cars_meta.mat"), "class_names")]
    train = _listed(required(base, f"devkit/{TRAIN_ANNOTATIONS}"), "cars_train", len(classes))
    test_file = next(
        (base / place for place in (TEST_ANNOTATIONS, f"devkit/{TEST_ANNOTATIONS}") if (base / place).is_file()), None
    )
    if test_file is None:
        raise UserError(
            f"{TEST_ANNOTATIONS} is missing, {_unlabelled(base)}",
            where=base,
            do='put it there; "sparse-transfer data list" says where the dataset came from',
        )
    return listed_splits(base, train, _listed(test_file, "cars_test", len(classes)), classes)


def _listed(path: Path, folder: str, classes: int) -> dict[str, int]:
    names = column(path, "annotations", "fname").tolist()
    numbers = column(path, "annotations", "class").astype(np.int64).tolist()
    labels = {f"{folder}/{name}": number - 1 for name, number in zip(names, numbers, strict=True)}
    if not all(0 <= label < classes for label in labels.values()):
        raise UserError(f"class numbers outside 1 to {classes}", where=path, do="fetch it again")
    return labels


def _unlabelled(base: Path) -> str:
    if not (base / "devkit" / UNLABELLED).is_file():
        return "the labels of the test pictures are in no other file"
    count = len(variable(base / "devkit" / UNLABELLED, "annotations"))
    return f"and devkit/{UNLABELLED} names the {count:,} test pictures without their classes"
