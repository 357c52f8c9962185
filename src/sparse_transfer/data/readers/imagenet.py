"""ImageNet (ILSVRC-2012): class folders, or the validation pictures as their archive holds them, with the devkit."""

import os
import re
from dataclasses import replace
from pathlib import Path

from sparse_transfer.core.errors import UserError
from sparse_transfer.data.readers.folder import read_parts, read_test, with_train
from sparse_transfer.data.readers.found import Found, listed_split, path_bytes, read_lines, required, subfolders
from sparse_transfer.data.readers.matlab import column
from sparse_transfer.data.split import Split

VAL = "val"
UNPACKED = (VAL, "ILSVRC2012_img_val", "")  # where people unpack the archive of the validation pictures
DEVKIT = "ILSVRC2012_devkit_t12"
GROUND_TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
PICTURE = re.compile(r"ILSVRC2012_val_\d{8}\.JPEG")
WNID = re.compile(r"n\d{8}")


def read(root: Path) -> Found:
    """The training pictures if they are there, and the validation pictures as test; classes: WordNet numbers, sorted.

    The validation pictures lie in ``val/WNID``, in ``WNID`` alone, or as unpacked, in no class folders: their labels
    are then the devkit's. A ``test`` folder is passed over: the official test pictures have no labels.
    """
    above = root.absolute().parent
    if root.absolute().name == VAL and not (above / "train").is_dir():
        root = above  # the same copy, by the same paths, and so with the same features in the cache
    if (place := unpacked(root)) is not None:
        test, absent = unpacked_test(root, place)
        return replace(with_train(root, test), absent=absent)
    if (root / VAL).is_dir() and not (root / "train").is_dir():
        return read_test(root, VAL)
    if root.absolute().name not in ("train", VAL) and _is_wnids(root):
        return read_test(root, "")
    return read_parts(root, test_names=(VAL,))


def unpacked(root: Path) -> str | None:
    """The folder in ``root`` (may be "") that has the validation pictures of the archive, in no class folders."""
    return next((place for place in UNPACKED if _has_pictures(root / place)), None)


def unpacked_test(root: Path, place: str) -> tuple[Split, tuple[str, ...]]:
    """Those pictures with the devkit's labels, and the paths of those that are not on disk.

    The devkit lies in ``root``, in ``place``, or beside ``root``.
    """
    homes = (root, root / place, root.absolute().parent)
    devkit = next((home / DEVKIT / "data" for home in homes if (home / DEVKIT).is_dir()), None)
    if devkit is None:
        raise UserError(
            f"the pictures lie in no class folders, and {DEVKIT}, which has their classes, is not there",
            where=root / place,
            do=f"unpack {DEVKIT}.tar.gz in {root}",
        )
    classes, labels = _devkit_labels(devkit)
    prefix = f"{place}/" if place else ""
    pictures = {f"{prefix}ILSVRC2012_val_{number:08d}.JPEG": label for number, label in enumerate(labels, 1)}
    return listed_split("test", root, pictures, classes)


def _devkit_labels(devkit: Path) -> tuple[list[str], list[int]]:
    """The classes, and the label of each validation picture, in the order of the pictures' numbers.

    The devkit's own numbers are in another order than the WordNet numbers; those with children are no classes.
    """
    meta, truth = required(devkit, META), required(devkit, GROUND_TRUTH)
    numbers, wnids, children = (
        column(meta, "synsets", field).tolist() for field in ("ILSVRC2012_ID", "WNID", "num_children")
    )
    names = {int(numbers[at]): str(wnids[at]) for at in range(len(numbers)) if children[at] == 0}
    classes = sorted(names.values(), key=path_bytes)
    labels = {str(number): classes.index(name) for number, name in names.items()}
    lines = read_lines(truth)
    strange = next((at for at, line in enumerate(lines, 1) if line not in labels), None)
    if strange is not None:
        raise UserError(
            f'line {strange:,} is "{lines[strange - 1]}", no class of {META}', where=truth, do="unpack the devkit again"
        )
    return classes, [labels[line] for line in lines]


def _has_pictures(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(PICTURE.fullmatch(entry.name) for entry in entries)


def _is_wnids(folder: Path) -> bool:
    names = [entry.name for entry in subfolders(folder)]
    return bool(names) and all(WNID.fullmatch(name) for name in names)
