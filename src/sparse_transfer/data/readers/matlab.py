"""The index files that datasets keep in Matlab's format."""

from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from sparse_transfer.core.errors import UserError


def variable(path: Path, name: str) -> NDArray[np.generic]:
    """A variable of a .mat file (version 7 or older) without its axes of length 1; structs as record arrays."""
    from scipy.io import loadmat

    try:
        content = cast(dict[str, NDArray[np.generic]], loadmat(path, squeeze_me=True))
    except (
        Exception
    ) as error:  # scipy raises ValueError, TypeError, NotImplementedError, zlib.error ... on a broken file
        raise UserError(f"it is no whole Matlab file ({error})", where=path, do="fetch it again") from error
    if name not in content:
        raise UserError(f'no variable "{name}" in it', where=path, do="fetch it again")
    return np.atleast_1d(content[name])


def column(path: Path, name: str, field: str) -> NDArray[np.generic]:
    """One field of every struct in an array of structs: strings or numbers, as objects."""
    structs = cast(NDArray[np.void], variable(path, name))
    if field not in (structs.dtype.names or ()):
        raise UserError(f'the records of "{name}" have no "{field}"', where=path, do="fetch it again")
    return structs[field]


def numbers(path: Path, name: str) -> list[int]:
    """A row or column of integers."""
    return [int(number) for number in variable(path, name)]
