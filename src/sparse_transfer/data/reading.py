"""From one word, ``NAME[:ROOT]``, to the splits that are there."""

import difflib
from pathlib import Path

from sparse_transfer.core.errors import UserError, listed
from sparse_transfer.core.places import data_root
from sparse_transfer.core.progress import note, warn
from sparse_transfer.data.readers.found import Found, counted
from sparse_transfer.data.specs import DatasetSpec, find_spec, folder_spec
from sparse_transfer.data.split import Splits

NOWHERE = Path()


def parse(word: str) -> tuple[DatasetSpec, Path]:
    """The spec and the root that a dataset's word names; without ``:ROOT`` the root is ``SPARSE_TRANSFER_DATA/NAME``.

    ``folder:PATH`` is anybody's own pictures, ``digits`` has no root. Nothing on disk is looked at yet.
    """
    name, colon, place = word.partition(":")
    if colon and not place:
        raise UserError("the folder after the colon is missing", where=f'"{word}"', do=f"write {name}:PATH")
    root = Path(place).expanduser() if colon else None
    if name.lower() == "folder":
        if root is None:
            raise UserError("it needs a folder", where='"folder"', do="write folder:PATH")
        return folder_spec(root), root
    spec = _named(name, word)
    if spec.built_in:
        if root is not None:
            raise UserError(
                f"{spec.name} comes with a package and has no folder", where=f'"{word}"', do=f"write {spec.name}"
            )
        return spec, NOWHERE
    if root is None:
        above = data_root()
        if above is None:
            raise UserError(
                "no folder is named", where=spec.name, do=f"write {spec.name}:PATH, or set SPARSE_TRANSFER_DATA"
            )
        root = above / spec.name
    return spec, root


def read(spec: DatasetSpec, root: Path, *, to_train: bool = False) -> Splits:
    """The splits found under ``root``; no picture is decoded.

    What was left out, and a copy that differs from the published sizes, is said on stderr; the latter also stands in
    ``Splits.partial``.

    to_train: training pictures are needed; without it ``Splits.train`` may be empty, as ImageNet's is in a copy of its
    validation pictures alone.

    Raises:
        UserError: ``root`` is not a copy of this dataset, in words that say what it is instead, or has no training
            pictures where they are needed.
    """
    found = find(spec, root)
    if to_train and not len(found.train):
        raise UserError(
            "only the validation pictures are there, and the training pictures are missing",
            where=root,
            do="add train/CLASS/* beside the folder val, or use `sparse-transfer evaluate`, which needs none",
        )
    if found.others:
        count = counted(len(found.others), "file")
        note(f"{root}: left out {count} without a picture extension ({listed(list(found.others))})")
    partial = difference(spec, found)
    if partial is not None:
        warn(partial)
    return Splits(spec.name, found.train, found.test, found.val, partial)


def dataset(word: str) -> Splits:
    """The splits of ``NAME[:ROOT]``: ``dataset("pets:data/pets")``."""
    return read(*parse(word))


def find(spec: DatasetSpec, root: Path) -> Found:
    """What the dataset's reader finds, with nothing said on stderr."""
    if not spec.built_in:
        require_folder(root)
    try:
        found = spec.reader(root)
    except UserError as error:
        if _is_copy(spec, root / spec.name):  # among several data sets side by side, the one that was named
            raise UserError(
                "this is no dataset, one folder below is", where=root, do=f"give {root / spec.name}"
            ) from error
        raise
    classes = len(found.train.classes)
    if spec.classes is not None and classes > spec.classes:
        raise UserError(
            f"{classes:,} classes, and {spec.name} has {spec.classes:,}",
            where=root,
            do=f"give the folder of {spec.title}, or read your own as folder:{root}",
        )
    return found


def difference(spec: DatasetSpec, found: Found) -> str | None:
    """One sentence with the exact counts where this copy is not of the published size, else None.

    A copy without any training pictures gives the published results all the same, of what can be done with it.
    """
    parts = [
        f"{there:,} of {published:,} {what}"
        for there, published, what in (
            (len(found.train.classes), spec.classes, "classes"),
            (len(found.train) or spec.train_size, spec.train_size, "training pictures"),
            (len(found.test), spec.test_size, "test pictures"),
        )
        if published is not None and there != published
    ]
    if found.absent:
        parts.append(f"and not {counted(len(found.absent), 'file')} of its lists ({listed(list(found.absent))})")
    if not parts:
        return None
    return f"{spec.name}: this copy has {', '.join(parts)}; results do not compare with published ones"


def require_folder(root: Path) -> None:
    """Raise what helps where ``root`` is no folder."""
    if root.is_dir():
        return
    if root.exists():
        raise UserError("this is a file, not a folder", where=root, do="unpack it, and give the folder")
    above = root.absolute().parent
    names = [entry.name for entry in above.iterdir() if entry.is_dir()] if above.is_dir() else []
    near = difflib.get_close_matches(root.name, names, n=1)
    if near:
        raise UserError("there is no such folder", where=root, do=f'did you mean "{root.parent / near[0]}"?')
    where = "the folder above is not there either" if not above.is_dir() else "look at the path"
    raise UserError("there is no such folder", where=root, do=where)


def _is_copy(spec: DatasetSpec, root: Path) -> bool:
    try:
        return root.is_dir() and bool(spec.reader(root))
    except UserError:
        return False


def _named(name: str, word: str) -> DatasetSpec:
    try:
        return find_spec(name)
    except UserError as error:
        if Path(word).expanduser().is_dir():
            raise UserError(
                f'no dataset is called "{name}"', do=f"for the pictures in that folder write folder:{word}"
            ) from error
        raise
