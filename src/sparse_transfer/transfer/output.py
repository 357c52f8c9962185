"""Where a network goes at the end, looked at before the work that leads there."""

import tempfile
from pathlib import Path

from sparse_transfer.core.errors import UserError


def require_writable(path: Path, *, source: Path | None = None) -> None:
    """Refuse now what no checkpoint could be written to later; folders that are missing are made.

    source: the file that is read, which must not be the one written.

    Raises:
        UserError: another extension, a folder, ``source`` itself, or a place that cannot be written.
    """
    if path.suffix != ".safetensors":
        raise UserError(f'"{path.suffix}" is no checkpoint of ours', where=path, do="end its name with .safetensors")
    try:
        if path.is_dir():
            raise UserError(
                "this is a folder", where=path, do=f"name a file in it, as in {path / 'network.safetensors'}"
            )
        if source is not None and path.resolve() == source.resolve():
            raise UserError("this is the file that is read, and it would be lost", where=path, do="name another one")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UserError(
            f"no file can be written there ({error.strerror})", where=path, do="name another place with -o"
        ) from None
