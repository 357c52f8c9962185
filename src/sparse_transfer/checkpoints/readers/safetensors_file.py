"""safetensors files, through their library, which checks the header: no holes, no overlaps, at most 100 MB."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparse_transfer.checkpoints.readers.container import Container, LazyTensor, Tree
from sparse_transfer.checkpoints.readers.refusal import ASK_AUTHORS, Refusal, printable, refusals_of, shown

if TYPE_CHECKING:
    from safetensors import safe_open

HEADER_BYTES_MOST = 100_000_000  # the library's own limit

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
}


def read_safetensors(path: Path) -> Container:
    """Open ``path``; reads its header only. Raises ``Refusal``."""
    from safetensors import SafetensorError

    try:
        file = opened(path)
        names: list[str] = sorted(file.keys())
        root: dict[str | int, Tree] = {name: _lazy(path, name, file) for name in names}
    except SafetensorError as error:
        raise Refusal(f"its header is damaged or it is cut short ({printable(str(error))})") from None
    _check_names(path)
    return Container("safetensors", path, root)


def opened(path: Path) -> "safe_open":
    """The file by its library, for tensors on CPU. The library refuses a path that is no UTF-8: it gets a link there.

    Raises ``SafetensorError`` or ``OSError``, as the library does.
    """
    from safetensors import safe_open

    try:
        str(path).encode()
    except UnicodeEncodeError:
        with TemporaryDirectory() as folder:
            link = Path(folder) / "file.safetensors"
            link.symlink_to(path.absolute())
            return safe_open(link, framework="pt", device="cpu")  # maps the file now: the link has served
    return safe_open(path, framework="pt", device="cpu")


def _check_names(path: Path) -> None:
    """Refuses a header that says a name twice: readers of JSON differ in which of the two they keep."""

    def once(pairs: list[tuple[str, object]]) -> None:
        names = [name for name, _ in pairs]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise Refusal(f"its header says {shown(twice)} twice", ASK_AUTHORS)

    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            json.loads(file.read(length), object_pairs_hook=once)
        except (ValueError, RecursionError):
            raise Refusal("its header is not JSON as everyone reads it", ASK_AUTHORS) from None


def _lazy(path: Path, name: str, file: "safe_open") -> LazyTensor:
    part = file.get_slice(name)
    dtype = _DTYPES.get(part.get_dtype())
    if dtype is None:
        raise Refusal(
            f"tensor {shown(name)} has the dtype {part.get_dtype()}, which is not read yet", "save it as float32"
        )

    def read() -> Tensor:
        from safetensors import SafetensorError

        with refusals_of(path):
            try:
                tensor: Tensor = file.get_tensor(name)
            except SafetensorError as error:
                raise Refusal(f"tensor {shown(name)} cannot be read ({printable(str(error))})") from None
            # The library maps the file; a copy stays right when the file changes. A bool is any byte but 0.
            return tensor.view(torch.uint8).ne(0) if dtype == torch.bool else tensor.clone()

    return LazyTensor(tuple(part.get_shape()), dtype, read)
