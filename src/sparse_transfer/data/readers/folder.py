"""Class folders: ``train/CLASS/*`` and ``test/CLASS/*``, or one level of ``CLASS/*`` that is split here, once."""

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparse_transfer.core.errors import UserError, listed
from sparse_transfer.core.files import atomic_write
from sparse_transfer.core.places import cache_root
from sparse_transfer.data.readers.found import (
    Found,
    counted,
    is_picture,
    make_split,
    nearby,
    path_bytes,
    subfolders,
    visible_files,
)
from sparse_transfer.data.split import Split, stratified_part

VAL_NAMES = ("val", "valid", "validation")
TEST_NAMES = ("test", *VAL_NAMES)
SPLIT_FILE = "sparse-transfer-split.csv"
TEST_SHARE = 0.2
SPLIT_SEED = 0


def read_parts(root: Path, *, test_names: Sequence[str] = TEST_NAMES, instead_of: str | None = None) -> Found:
    """``train/CLASS/*`` with the first of ``test_names`` that is there as test; then ``val`` is the validation split.

    Classes are the folder names sorted by their bytes (the paper's label order), pictures the files at any depth below
    them with an extension of torchvision's ImageFolder list in any case. Hidden files are passed over, other files
    counted in ``Found.others``. ``instead_of``: the lists that another layout of this dataset would have had here.
    """
    if not has_parts(root, test_names):
        raise _no_parts(root, test_names, instead_of)
    test_name = next(name for name in test_names if (root / name).is_dir())
    train, test = _class_tree(root, "train"), _class_tree(root, test_name)
    _same_classes(root, train.split, test.split)
    val = None
    if test_name == "test":
        val = next((_class_tree(root, name) for name in VAL_NAMES if (root / name).is_dir()), None)
    if val is not None:
        _same_classes(root, train.split, val.split)
        val = replace(val, split=replace(val.split, name="val"))
    return Found(
        train.split,
        replace(test.split, name="test"),
        val.split if val else None,
        others=train.others + (val.others if val else ()) + test.others,
    )


def read_test(root: Path, part: str) -> Found:
    """``root/part/CLASS/*`` alone, as the test split."""
    test = _class_tree(root, part, "test")
    return Found(test.split.take([], "train"), test.split, others=test.others)


def with_train(root: Path, test: Split) -> Found:
    """A test split that came in another way, and ``root/train/CLASS/*`` if that is there."""
    if not (root / "train").is_dir():
        return Found(test.take([], "train"), test)
    train = _class_tree(root, "train")
    _same_classes(root, train.split, test)
    return Found(train.split, test, others=train.others)


def read_folder(root: Path) -> Found:
    """Anybody's pictures: parts as in ``read_parts``, or one level of class folders, of which a fifth becomes the test.

    That cut is stratified (seed 0) and written to ``sparse-transfer-split.csv`` (columns path, split) in ``root``, or
    in the cache where ``root`` cannot be written. It is read again ever after: pictures that come later join the
    training pictures, pictures that went are dropped, and a class that is new as a whole is cut like the others.
    """
    parent = root.absolute().parent
    if root.absolute().name in ("train", *TEST_NAMES) and has_parts(parent):
        raise UserError(f'this is the "{root.absolute().name}" part of a dataset', where=root, do=f"give {parent}")
    if any((root / name).is_dir() for name in ("train", *TEST_NAMES)):
        return read_parts(root)
    inner = [place for place in subfolders(root) if has_parts(place)]
    if inner:
        raise UserError("this is no dataset, one folder below is", where=root, do=_give(inner))
    whole = _class_tree(root, "")
    if len(whole.split.classes) == 1:
        alone = root / whole.split.classes[0]
        if len(subfolders(alone)) > 1:
            raise UserError("this is no dataset, one folder below is", where=root, do=f"give {alone}")
        raise UserError(f'"{alone.name}" is the only class folder', where=root, do="add a second class")
    is_test = _stable_cut(root, whole.split)
    if not is_test.any():
        raise UserError(
            "no class has the two pictures that a training and a test part take",
            where=root,
            do="add pictures, or make train and test folders",
        )
    if is_test.all():
        raise UserError("every picture is a test picture", where=root, do=f"delete {SPLIT_FILE} to cut anew")
    return Found(
        whole.split.take(np.flatnonzero(~is_test), "train"),
        whole.split.take(np.flatnonzero(is_test), "test"),
        others=whole.others,
    )


def has_parts(root: Path, test_names: Iterable[str] = TEST_NAMES) -> bool:
    return (root / "train").is_dir() and any((root / name).is_dir() for name in test_names)


@dataclass(frozen=True)
class _ClassTree:
    split: Split
    others: tuple[str, ...]


def _class_tree(root: Path, part: str, name: str | None = None) -> _ClassTree:
    """Every picture of ``root/part/CLASS``, sorted by the bytes of its path relative to ``root``.

    name: of the split; default ``part``, or ``train`` where that is empty.
    """
    folders = subfolders(root / part)
    if not folders:
        raise _no_classes(root / part)
    sizes: dict[str, int] = {}
    labels: dict[str, int] = {}
    others: list[str] = []
    for label, folder in enumerate(folders):
        prefix = folder.relative_to(root).as_posix()
        for file, size in visible_files(folder):
            if size is not None and is_picture(file):
                sizes[f"{prefix}/{file}"] = size
                labels[f"{prefix}/{file}"] = label
            else:
                others.append(f"{prefix}/{file}")
    order = sorted(sizes, key=path_bytes)
    classes = [folder.name for folder in folders]
    split = make_split(
        name or part or "train", root, {path: sizes[path] for path in order}, [labels[path] for path in order], classes
    )
    empty = [class_name for class_name, count in zip(classes, split.counts().tolist(), strict=True) if not count]
    if not sizes:
        raise UserError(
            f"{counted(len(classes), 'class folder')} without one picture", where=root / part, do=_picture_names(others)
        )
    # Metrics name a class without test pictures and leave it out; one without training pictures cannot be learnt.
    if empty and split.name == "train":
        raise UserError(
            f"no pictures in {len(empty):,} of {counted(len(classes), 'class folder')} ({listed(empty)})",
            where=root / part,
            do="fill them or take them away, from the other parts too",
        )
    return _ClassTree(split, tuple(sorted(others, key=path_bytes)))


def _same_classes(root: Path, train: Split, other: Split) -> None:
    known, seen = set(train.classes), set(other.classes)
    name = other.name
    if known == seen:
        return
    differences = [
        f"{len(names):,} in {where} only ({listed(names)})"
        for names, where in (
            (sorted(known - seen, key=path_bytes), "train"),
            (sorted(seen - known, key=path_bytes), name),
        )
        if names
    ]
    raise UserError(
        f"train and {name} have different class folders: {', '.join(differences)}",
        where=root,
        do="make the class folders equal",
    )


def _no_parts(root: Path, test_names: Sequence[str], instead_of: str | None) -> UserError:
    absolute = root.absolute()
    if absolute.name in ("train", *test_names) and has_parts(absolute.parent, test_names):
        return UserError(f'this is the "{absolute.name}" part of a dataset', where=root, do=f"give {absolute.parent}")
    if (root / "train").is_dir():
        return UserError(f"train is there, {' or '.join(test_names)} is not", where=root, do="add the test pictures")
    if (test_part := next((name for name in test_names if (root / name).is_dir()), None)) is not None:
        return UserError(f"{test_part} is there, train is not", where=root, do="add the training pictures")
    places = nearby(
        root, lambda place: has_parts(place, test_names) or (bool(instead_of) and (place / instead_of).exists())
    )
    if places:
        side = "above" if places[0] == absolute.parent else "below"
        return UserError(f"this is no dataset, one folder {side} is", where=root, do=_give(places))
    folders = f"train and {test_names[0]} folders"
    return UserError(
        f"no {folders}, {_contents(root)}"
        if instead_of is None
        else f"neither {instead_of} nor {folders}, {_contents(root)}",
        where=root,
        do="for a split of your own give folder:PATH" if subfolders(root) else "give the folder that holds them",
    )


def _give(places: Sequence[Path]) -> str:
    return f"give {places[0]}" if len(places) == 1 else f"give one of {listed([str(place) for place in places])}"


def _no_classes(folder: Path) -> UserError:
    with os.scandir(folder) as entries:
        pictures = [entry.name for entry in entries if not entry.name.startswith(".") and is_picture(entry.name)]
    if pictures:
        return UserError(
            f"{counted(len(pictures), 'picture')} directly in it, without class folders",
            where=folder,
            do=f"give the folder above, {folder.absolute().parent}, or sort them into one folder a class",
        )
    return UserError(f"no class folders, {_contents(folder)}", where=folder, do="give the folder that holds them")


def _contents(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    visible = [name for name in names if not name.startswith(".")]
    if visible:
        return f"only {listed(visible)}"
    return f"only {counted(len(names), 'hidden file')}" if names else "it is empty"


def _picture_names(others: list[str]) -> str:
    extensions = " ".join(sorted({os.path.splitext(name)[1].lower() or "(none)" for name in others}))
    return f"it has only files ending in {extensions}, convert them" if others else "put pictures into them"


def _stable_cut(root: Path, whole: Split) -> NDArray[np.bool_]:
    """[N] bool, True for a test picture: from the list beside the pictures, which is made or brought up to date."""
    cached = cache_root() / "splits" / f"{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]}.csv"
    known = {**_read_cut(cached), **_read_cut(root / SPLIT_FILE)}
    _, fresh = stratified_part(whole, TEST_SHARE, SPLIT_SEED)
    drawn = set(fresh.paths)
    old_labels = {label for path, label in zip(whole.paths, whole.labels.tolist(), strict=True) if path in known}
    names = [
        known.get(path, "test" if path in drawn and label not in old_labels else "train")
        for path, label in zip(whole.paths, whole.labels.tolist(), strict=True)
    ]
    if any(path not in known for path in whole.paths):
        _write_cut({**known, **dict(zip(whole.paths, names, strict=True))}, (root / SPLIT_FILE, cached))
    return np.array([name == "test" for name in names], dtype=np.bool_)


def _read_cut(file: Path) -> dict[str, str]:
    """{path: "train" or "test"}; nothing where there is no file."""
    if not file.is_file():
        return {}
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as lines:
        rows = list(csv.reader(lines))
    for number, row in enumerate(rows, 1):
        if number == 1 and row != ["path", "split"]:
            raise UserError('the first line is not "path,split"', where=file, do="delete the file to cut anew")
        if number > 1 and (len(row) != 2 or row[1] not in ("train", "test")):
            raise UserError(f"line {number:,} is not a path and train or test", where=file, do="put that line right")
    return dict(rows[1:])


def _write_cut(cut: dict[str, str], places: Sequence[Path]) -> None:
    """Write the list to the first place that can be written."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "split"))
    writer.writerows((path, cut[path]) for path in sorted(cut, key=path_bytes))
    for place in places:
        try:
            with atomic_write(place) as file:
                file.write(text.getvalue().encode("utf-8", "surrogateescape"))
        except OSError:
            continue
        return
    raise UserError(
        "the split cannot be written there, nor in the cache", where=places[0], do="set SPARSE_TRANSFER_CACHE"
    )
