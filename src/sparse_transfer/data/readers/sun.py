"""SUN397, official partition 01: ``a/abbey/sun_*.jpg``, ``ClassName.txt``, ``Training_01.txt``, ``Testing_01.txt``."""

from pathlib import Path

from sparse_transfer.core.errors import UserError, listed
from sparse_transfer.data.readers.folder import read_parts
from sparse_transfer.data.readers.found import Found, counted, first_place, listed_splits, read_lines

TRAIN, TEST, CLASSES = "Training_01.txt", "Testing_01.txt", "ClassName.txt"


def read(root: Path) -> Found:
    """The paper's split: 50 training and 50 test pictures of each class (19,850 and 19,850).

    The lists come in an archive of their own (Partitions); they may lie beside the pictures, in ``Partitions/`` there,
    or in the folder above. Classes in the order of ``ClassName.txt``, each without its leading letter: "abbey",
    "apartment_building/outdoor".
    """
    base = first_place(root, ("", "SUN397"), CLASSES, "a/abbey")
    if base is None:
        return read_parts(root, instead_of=CLASSES)
    classes = read_lines(_list(root, base, CLASSES))
    labels = {name: label for label, name in enumerate(classes)}
    train, test = (_listed(_list(root, base, name), labels) for name in (TRAIN, TEST))
    return listed_splits(base, train, test, [name[3:] for name in classes])


def _list(root: Path, base: Path, name: str) -> Path:
    for folder in (base, base / "Partitions", root, root / "Partitions"):
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{name} is missing", where=base, do="put the lists of the official Partitions archive there")


def _listed(path: Path, labels: dict[str, int]) -> dict[str, int]:
    """{path below the dataset's folder: label} of lines such as ``/a/abbey/sun_aqswjsnjlrfzzhiz.jpg``."""
    lines = read_lines(path)
    strange = sorted({line.rpartition("/")[0] for line in lines} - labels.keys())
    if strange:
        raise UserError(
            f"{counted(len(strange), 'class')} not in {CLASSES} ({listed(strange)})", where=path, do="fetch it again"
        )
    return {line.lstrip("/"): labels[line.rpartition("/")[0]] for line in lines}
