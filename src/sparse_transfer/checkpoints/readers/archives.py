"""tar and gzip archives that hold one checkpoint: unpacked into a temporary folder that goes when it has been read.

RigL's and State of Sparsity's are TensorFlow bundles in a tar. Nothing is written outside the folder, whatever names an
archive has, and an archive that would unfold to much more than it is ends with a sentence.
"""

import gzip
import tempfile
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sparse_transfer.checkpoints.readers.opening import ends, reader_of
from sparse_transfer.checkpoints.readers.refusal import ASK_AUTHORS, FETCH_AGAIN, Refusal, refusals_of, shown
from sparse_transfer.checkpoints.readers.several_files import latest
from sparse_transfer.checkpoints.readers.tar import RECORD, Stream, is_tar, members
from sparse_transfer.core.errors import UserError, listed
from sparse_transfer.core.files import BLOCK_BYTES

# Masks, weights and momenta that are 99 % zeros deflate about 70-fold, and zeros alone 1,000-fold.
EXPANSION_MOST = 256
EXPANSION_FLOOR_BYTES = 1 << 20  # what a small archive counts as
UNPACKED_BYTES_MOST = 16 << 30
GZIP = b"\x1f\x8b"

_TORCH_0_1 = {"sys_info", "pickle", "storages", "tensors"}  # torch 0.1.9 and older (torch/serialization.py)
_BESIDE = {"saved_model.pb"}  # a graph; its variables lie beside it


@contextmanager
def unpacked(path: Path) -> Generator[Path]:
    """The one checkpoint in the archive ``path``, in a folder that is gone afterwards; ``path`` itself if it is none.

    A ``UserError`` from inside the block names the archive in the folder's stead. Raises ``UserError`` for an archive
    that is damaged, holds links, devices or paths outwards, unfolds to too much, or holds no checkpoint or several.
    """
    if not is_archive(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="sparse-transfer-") as place:
        folder = Path(place)
        try:
            with refusals_of(path):
                names = _unpack(path, folder)
                chosen = folder / _only(folder, names)
            yield chosen
        except UserError as error:
            where = error.where and error.where.replace(place, str(path), 1)
            raise UserError(error.what, where=where, do=error.do) from None


def is_archive(path: Path) -> bool:
    """Whether its first bytes are those of gzip or tar. Never raises."""
    try:
        head = ends(path)[0] if path.is_file() else b""
    except OSError:
        return False  # whoever opens it next says why
    return head.startswith(GZIP) or is_tar(head)


def _unpack(path: Path, folder: Path) -> list[str]:
    """Write every file of the archive; their names."""
    with path.open("rb") as file:
        is_packed = file.read(len(GZIP)) == GZIP
        file.seek(0)
        stream: Stream = _Inflated(gzip.GzipFile(fileobj=file), path.stat().st_size) if is_packed else file
        head = stream.read(RECORD)
        stream = _Again(head, stream)
        if not is_tar(head):
            name = path.name.removesuffix(".gz")
            _write(folder / name, iter(lambda: stream.read(BLOCK_BYTES), b""))
            return [name]
        names: list[str] = []
        for member in members(stream):
            _write(folder / member.name, member.blocks)
            names.append(member.name)
    if set(names) == _TORCH_0_1:
        raise Refusal(
            "this is a file of torch 0.1.9 or older, of which no published checkpoint is known",
            "load it in torch where you trust it and save its tensors again",
        )
    return names


class _Inflated:
    """What a gzip file holds, up to a limit."""

    def __init__(self, file: gzip.GzipFile, packed_bytes: int) -> None:
        self._file = file
        self._most = min(UNPACKED_BYTES_MOST, EXPANSION_MOST * max(packed_bytes, EXPANSION_FLOOR_BYTES))
        self._left = self._most

    def read(self, count: int, /) -> bytes:
        try:
            data = self._file.read(count)
        except (gzip.BadGzipFile, EOFError, zlib.error):
            raise Refusal("the archive is damaged or cut short (gzip)") from None
        self._left -= len(data)
        if self._left < 0:
            raise Refusal(f"the archive would unfold to more than {self._most:,} bytes", ASK_AUTHORS)
        return data


class _Again:
    """A stream with its first bytes put back."""

    def __init__(self, head: bytes, rest: Stream) -> None:
        self._head = head
        self._rest = rest

    def read(self, count: int, /) -> bytes:
        if self._head:
            part, self._head = self._head[:count], self._head[count:]
            return part
        return self._rest.read(count)


def _write(target: Path, blocks: Iterable[bytes]) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            for block in blocks:
                file.write(block)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise Refusal(
            f"it cannot be unpacked in {tempfile.gettempdir()} ({reason})", "make room there, or set TMPDIR elsewhere"
        ) from error


def _only(folder: Path, names: list[str]) -> str:
    """The checkpoint among the files: the one, or of TensorFlow's the one that the file "checkpoint" calls the latest.

    Where nothing looks like a checkpoint and there is one file, that: opening it says what it is.
    """
    seen = [name for name in sorted(names) if not _is_hidden(name)]
    found = list(_candidates(folder, seen))
    if len(found) > 1:
        last = {latest(place) for place in {(folder / name).parent for name in found}}
        found = [name for name in found if folder / name in last] or found
    if not found and len(seen) == 1:
        return seen[0]
    if not found:
        among = f" among its {len(seen)} files ({listed(seen)})" if seen else ""
        raise Refusal(f"the archive holds no checkpoint{among}", FETCH_AGAIN)
    if len(found) > 1:
        some = ", ".join(map(shown, found[:3]))
        raise Refusal(f"the archive holds {len(found)} checkpoints ({some})", "unpack it and name one of them")
    return found[0]


def _candidates(folder: Path, names: list[str]) -> Iterator[str]:
    for name in names:
        last = name.rpartition("/")[2]
        is_other_json = last.endswith(".json") and last != "model.json"
        if last not in _BESIDE and not is_other_json and reader_of(*ends(folder / name)) is not None:
            yield name


def _is_hidden(name: str) -> bool:
    """macOS puts what it knows of a file into a second one, with a name of its own."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
