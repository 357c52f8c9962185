"""Open a foreign file, whatever it is: told by its first bytes, never by its name."""

from collections.abc import Callable
from pathlib import Path

from sparse_transfer.checkpoints.readers.container import Container, StandIn
from sparse_transfer.checkpoints.readers.onnx_file import read_onnx
from sparse_transfer.checkpoints.readers.refusal import FETCH_AGAIN, Refusal, refusals_of, shown
from sparse_transfer.checkpoints.readers.safetensors_file import HEADER_BYTES_MOST, read_safetensors
from sparse_transfer.checkpoints.readers.several_files import main_file
from sparse_transfer.checkpoints.readers.sstable import TABLE_MAGIC
from sparse_transfer.checkpoints.readers.tar import is_tar
from sparse_transfer.checkpoints.readers.tf_bundle import read_tf_bundle
from sparse_transfer.checkpoints.readers.tfjs import read_tfjs
from sparse_transfer.checkpoints.readers.torch_legacy import MAGIC, read_torch_legacy
from sparse_transfer.checkpoints.readers.torch_zip import read_torch_zip

_HEAD_BYTES = 512
_CONVERT = "convert it to safetensors, or save its state dict with torch.save"

_NOT_READ_YET = {
    b"\x93NUMPY": "NumPy files (.npy)",
    b"BZh": "bzip2 archives",
    b"\xfd7zXZ\x00": "xz archives",
    b"\x28\xb5\x2f\xfd": "zstd archives",
    b"GGUF": "GGUF files",
    b"Rar!": "rar archives",
    b"7z\xbc\xaf\x27\x1c": "7z archives",
}
_HDF5 = b"\x89HDF\r\n\x1a\n"


def open_container(path: Path) -> Container:
    """The file at ``path`` as a tree of plain values and tensors that are still on disk.

    Reads headers and pickles only; nothing from the file is executed or imported. Reads torch's zip and older files,
    safetensors, TensorFlow's bundles, TensorFlow.js' models and ONNX; archives are unpacked by ``archives.unpacked``
    before. Raises ``UserError`` for anything else, and for a file
    that is damaged or asks for more than data.
    """
    with refusals_of(path):
        container = _read(main_file(path))
        if isinstance(container.root, StandIn):
            raise Refusal(
                f"it holds a whole object of class {shown(container.root.name)} and not its tensors",
                "ask its authors for the state dict",
            )
        return container


def ends(path: Path) -> tuple[bytes, bytes]:
    """The first 512 bytes of a file and its last 8."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        file.seek(max(0, size - 8))
        return head, file.read(8)


def reader_of(head: bytes, tail: bytes) -> Callable[[Path], Container] | None:
    """What reads a file that begins and ends so; None where nothing does."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return read_torch_zip
    # before pickles: a header of 640 bytes, say, begins as a pickle of protocol 2 does
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= HEADER_BYTES_MOST:
        return read_safetensors
    if _is_pickle(head):
        return read_torch_legacy
    if tail == TABLE_MAGIC:
        return read_tf_bundle
    # a version, then a producer or a graph
    if head[:1] == b"\x08" and head[1:2] < b"\x20" and head[2:3] in (b"\x12", b"\x3a"):
        return read_onnx
    if head.lstrip().startswith(b"{"):
        return read_tfjs
    return None


def _read(path: Path) -> Container:
    head, tail = ends(path)
    if not head:
        raise Refusal("the file is empty")
    reader = reader_of(head, tail)
    if reader is None:
        raise unknown(head)
    return reader(path)


def _is_pickle(head: bytes) -> bool:
    """Protocols 2 to 5 begin with their number; older ones with torch's magic number as text."""
    return (head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")) or head.startswith(
        b"L%dL\n." % MAGIC
    )


def unknown(head: bytes) -> Refusal:
    """What the file is instead, as far as its bytes tell."""
    if head.startswith(_HDF5):
        return Refusal(
            "HDF5 files (Keras) are not read: a safe reader of them is a library of its own",
            "convert it with tensorflowjs_converter --input_format keras FILE FOLDER and name the folder",
        )
    for magic, what in _NOT_READ_YET.items():
        if head.startswith(magic):
            return Refusal(f"{what} are not read yet", _CONVERT)
    if head.startswith(b"\x1f\x8b") or is_tar(head):  # import_checkpoint has unpacked the first
        return Refusal("an archive in an archive is not read", "unpack it and name the file inside")
    if head.startswith(b"version https://git-lfs"):
        return Refusal("this is a pointer of Git LFS, not the file", 'fetch the file with "git lfs pull"')
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<!--")):
        return Refusal(
            "this is an HTML page, not a checkpoint", "download it again, from the address of the file itself"
        )
    if text.startswith(b"<"):
        return Refusal("this is an XML or HTML text, not a checkpoint", FETCH_AGAIN)
    if text.startswith((b"{", b"[")) and _is_text(head):
        return Refusal("this is JSON text, not a checkpoint", "name the file that holds the tensors")
    if _is_text(head):
        return Refusal("this is a text, not a checkpoint", FETCH_AGAIN)
    return Refusal(f"no format that is known begins with the bytes {head[:8].hex(' ')}", FETCH_AGAIN)


def _is_text(head: bytes) -> bool:
    text = head.decode(errors="ignore")
    return len(text.encode()) > len(head) - 4 and all(letter.isprintable() or letter in "\t\r\n\f" for letter in text)
