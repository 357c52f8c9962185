"""CIFAR-10 and CIFAR-100 as their authors' python batches: pickles, read without making a single foreign object."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparse_transfer.core.errors import UserError
from sparse_transfer.data.readers.folder import read_parts
from sparse_transfer.data.readers.found import Found, first_place, make_split, required
from sparse_transfer.data.split import Split

PICTURE_BYTES = 3072  # 3 × 32 × 32


@dataclass(frozen=True)
class Layout:
    """Names inside one archive: its folder, the batches of each part, the file and key of the class names."""

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    names_key: str


CIFAR10 = Layout(
    "cifar-10-batches-py",
    tuple(f"data_batch_{number}" for number in range(1, 6)),
    ("test_batch",),
    "batches.meta",
    "label_names",
)
CIFAR100 = Layout("cifar-100-python", ("train",), ("test",), "meta", "fine_label_names")


def read_cifar10(root: Path) -> Found:
    """``cifar-10-batches-py/`` (or what is in it), or class folders. Pictures in the batches' own order."""
    return _read(root, CIFAR10)


def read_cifar100(root: Path) -> Found:
    """``cifar-100-python/`` (or what is in it) with the 100 fine labels, or class folders."""
    return _read(root, CIFAR100)


def cifar_batch(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One batch: pictures [N, 32, 32, 3] uint8 RGB, labels [N] int64 (for CIFAR-100 the fine ones).

    The file is a pickle; only numbers, strings, lists, dicts and arrays of uint8 are read from it, and whatever else
    it asks for raises ``UserError``, as does a file cut short.
    """
    content = _load(path)
    data, labels = content.get("data"), content.get("labels", content.get("fine_labels"))
    if not isinstance(data, _Array) or data.pixels is None or not isinstance(labels, list):
        raise UserError('no "data" and "labels" in it', where=path, do="fetch the python version of CIFAR again")
    if data.shape != (len(labels), PICTURE_BYTES) or not all(isinstance(label, int) for label in labels):
        raise UserError(
            f"pictures of shape {data.shape} with {len(labels):,} labels, and {PICTURE_BYTES:,} numbers each expected",
            where=path,
            do="fetch the python version of CIFAR again",
        )
    pictures = data.pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pictures), np.array(labels, dtype=np.int64)


def _read(root: Path, layout: Layout) -> Found:
    base = first_place(root, (layout.folder, ""), *(name for name in layout.train if name != "train"), layout.meta)
    if base is None:
        return read_parts(root, instead_of=f"{layout.folder}/{layout.meta}")
    base = base.absolute()
    names = _load(required(base, layout.meta)).get(layout.names_key)
    if not isinstance(names, list):
        raise UserError(f'no "{layout.names_key}" in it', where=base / layout.meta, do="fetch the archive again")
    classes = tuple(_text(name) for name in names)
    train, missing_train = _part("train", base, layout.train, classes)
    test, missing_test = _part("test", base, layout.test, classes)
    return Found(train, test, absent=missing_train + missing_test)


def _part(name: str, base: Path, batches: tuple[str, ...], classes: tuple[str, ...]) -> tuple[Split, tuple[str, ...]]:
    there = [batch for batch in batches if (base / batch).is_file()]
    if not there:
        raise UserError(f"{batches[0]} is missing", where=base, do="fetch the archive again")
    sizes: dict[str, int] = {}
    labels: list[int] = []
    for batch in there:
        batch_labels = cifar_batch(base / batch)[1].tolist()
        if not set(batch_labels) <= set(range(len(classes))):
            raise UserError(f"labels outside 0 to {len(classes) - 1}", where=base / batch, do="fetch the archive again")
        sizes |= {f"{base.name}/{batch}#{index}": PICTURE_BYTES for index in range(len(batch_labels))}
        labels += batch_labels
    split = make_split(name, base.parent, sizes, labels, classes, storage="cifar")
    return split, tuple(f"{base.name}/{batch}" for batch in batches if batch not in there)


class _Array:
    """Stands for ``numpy.ndarray`` while unpickling; takes the state of an array of bytes and nothing else."""

    def __init__(self, *_: object) -> None:
        self.shape: tuple[object, ...] = ()
        self.pixels: NDArray[np.uint8] | None = None

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), tuple() as shape, _Dtype(name="u1"), False | 0, bytes() as raw):
                self.shape = shape
                self.pixels = np.frombuffer(raw, dtype=np.uint8)
            case _:
                raise pickle.UnpicklingError("an array that is not of uint8 in row-major order")


class _Dtype:
    """Stands for ``numpy.dtype``: the name alone."""

    def __init__(self, name: object = "", *_: object) -> None:
        self.name = _text(name)

    def __setstate__(self, state: object) -> None:
        """Byte order and the like say nothing about uint8."""


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """Stands for ``_codecs.encode``, with which Python 3 writes bytes into the older pickle protocols."""
    if not isinstance(text, str) or _text(encoding) != "latin1":
        raise pickle.UnpicklingError("bytes in an encoding that is not latin1")
    return text.encode("latin1")


# What a batch may name, and what stands for it here: no name is looked up in any module.
_STAND_INS: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Callable[..., object]:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f'it asks for "{module}.{name}", which is not data') from None


def _load(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="bytes").load()
    except OSError as error:
        raise UserError(f"it cannot be read ({error.strerror})", where=path, do="look at its permissions") from error
    except Exception as error:  # a pickle can fail in any way: EOFError, IndexError, UnicodeDecodeError, ...
        raise UserError(f"it is no whole CIFAR batch ({error})", where=path, do="fetch the archive again") from error
    if not isinstance(content, dict):
        raise UserError("it is no CIFAR batch", where=path, do="fetch the archive again")
    return {_text(key): value for key, value in content.items()}


def _text(value: object) -> str:
    """Python 2 wrote its strings as bytes."""
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
