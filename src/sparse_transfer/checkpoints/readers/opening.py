"""Open a foreign file, whatever it is: told by its first bytes, never by its name."""

from pathlib import Path

from sparse_transfer.checkpoints.readers.container import Container, StandIn
from sparse_transfer.checkpoints.readers.refusal import FETCH_AGAIN, Refusal, refusals_of, shown
from sparse_transfer.checkpoints.readers.safetensors_file import HEADER_BYTES_MOST, read_safetensors
from sparse_transfer.checkpoints.readers.torch_legacy import MAGIC, read_torch_legacy
from sparse_transfer.checkpoints.readers.torch_zip import read_torch_zip

_HEAD_BYTES = 512
_CONVERT = "convert it to safetensors, or save its state dict with torch.save"

_NOT_READ_YET = {
    b"\x1f\x8b": "gzip archives",
    b"\x89HDF\r\n\x1a\n": "HDF5 files (Keras)",
    b"\x93NUMPY": "NumPy files (.npy)",
    b"BZh": "bzip2 archives",
    b"\xfd7zXZ\x00": "xz archives",
    b"\x28\xb5\x2f\xfd": "zstd archives",
    b"GGUF": "GGUF files",
    b"Rar!": "rar archives",
    b"7z\xbc\xaf\x27\x1c": "7z archives",
}
_TABLE_MAGIC = bytes.fromhex("57fb808b247547db")  # the end of a LevelDB-style table: TensorFlow's .index and V1 files


def open_container(path: Path) -> Container:
    """The file at ``path`` as a tree of plain values and tensors that are still on disk.

    Reads headers and pickles only; nothing from the file is executed or imported. Reads torch's zip and older files
    and safetensors. Raises ``UserError`` for anything else, and for a file that is damaged or asks for more than data.
    """
    with refusals_of(path):
        container = _read(path)
        if isinstance(container.root, StandIn):
            raise Refusal(
                f"it holds a whole object of class {shown(container.root.name)} and not its tensors",
                "ask its authors for the state dict",
            )
        return container


def _read(path: Path) -> Container:
    if path.is_dir():
        raise Refusal("this is a folder", "name one file in it")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        file.seek(max(0, size - 8))
        tail = file.read(8)
    if not head:
        raise Refusal("the file is empty")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return read_torch_zip(path)
    if _is_pickle(head):
        return read_torch_legacy(path)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= HEADER_BYTES_MOST:
        return read_safetensors(path)
    raise _unread(head, tail)


def _is_pickle(head: bytes) -> bool:
    """Protocols 2 to 5 begin with their number; older ones with torch's magic number as text."""
    return (head[0] == 0x80 and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")) or head.startswith(
        b"L%dL\n." % MAGIC
    )


def _unread(head: bytes, tail: bytes) -> Refusal:
    """What the file is instead, as far as its bytes tell."""
    for magic, what in _NOT_READ_YET.items():
        if head.startswith(magic):
            return Refusal(f"{what} are not read yet", _CONVERT)
    if head[257:262] == b"ustar":
        return Refusal("tar archives are not read yet", "unpack it and name the file inside")
    if tail == _TABLE_MAGIC:
        return Refusal("TensorFlow checkpoints are not read yet", _CONVERT)
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
    if head[0] == 0x08 and head[2:3] == b"\x12" and head[1] < 32:
        return Refusal("ONNX files are not read yet", _CONVERT)
    return Refusal(f"no format that is known begins with the bytes {head[:8].hex(' ')}", FETCH_AGAIN)


def _is_text(head: bytes) -> bool:
    text = head.decode(errors="ignore")
    return len(text.encode()) > len(head) - 4 and all(letter.isprintable() or letter in "\t\r\n\f" for letter in text)
