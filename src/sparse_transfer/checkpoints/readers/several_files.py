"""Checkpoints of several files: which one to open for what a person names."""

import re
from pathlib import Path

from sparse_transfer.checkpoints.readers.refusal import Refusal, shown

LIST_BYTES_MOST = 1 << 20
SAVED_MODEL = "variables/variables.index"  # in a SavedModel's folder, beside its graph
_DATA = re.compile(r"(.+)\.data-\d{5}-of-\d{5}")
_LATEST = re.compile(rb'^model_checkpoint_path:[ \t]*"([^"\r\n]*)"', re.MULTILINE)


def main_file(path: Path) -> Path:
    """The file that says where the others are; ``path`` itself where it is one file.

    A TensorFlow checkpoint is named by its index, a data file, their common prefix, or the folder whose file
    ``checkpoint`` names the latest one (also a SavedModel's); TensorFlow.js' by its model.json or its folder.
    Nothing outside the folder is ever meant. Raises ``Refusal``.
    """
    if path.is_dir():
        return _in_folder(path)
    if data := _DATA.fullmatch(path.name):
        index = path.with_name(f"{data[1]}.index")
        if not index.exists():
            raise Refusal(f"its index {shown(index.name)} is missing", "put it beside the data file")
        return index
    if path.name == "saved_model.pb" and (variables := path.parent / SAVED_MODEL).is_file():
        return variables
    index = path.with_name(f"{path.name}.index") if path.name else path
    return index if index.is_file() and not path.exists() else path


def latest(folder: Path) -> Path | None:
    """The index that the folder's file "checkpoint" calls the latest, there or not; None without such a file."""
    if not (folder / "checkpoint").is_file():
        return None
    with (folder / "checkpoint").open("rb") as file:
        named = _LATEST.search(file.read(LIST_BYTES_MOST))
    if named is None:
        return None
    # It may be the path on the machine that trained: only the name can mean something here.
    name = re.split(r"[/\\]", named[1].decode(errors="replace"))[-1]
    return folder / f"{name}.index"


def _in_folder(folder: Path) -> Path:
    index = latest(folder)
    if index is not None:
        if "\0" in index.name or not index.is_file():
            name = shown(index.name.removesuffix(".index"))
            raise Refusal(f'its file "checkpoint" names {name}, which is not here', "name an .index file")
        return index
    if (folder / "model.json").is_file():
        return folder / "model.json"
    found = sorted(folder.glob("*.index")) or [index for index in (folder / SAVED_MODEL,) if index.is_file()]
    if len(found) > 1:
        some = ", ".join(shown(file.name) for file in found[:3])
        raise Refusal(f"this folder holds {len(found)} checkpoints ({some})", "name one of them")
    if not found:
        raise Refusal("this is a folder", "name one file in it")
    return found[0]
