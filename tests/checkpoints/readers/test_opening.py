"""What a file is, told by its first bytes; safetensors; and what is said of everything else."""

import json
import os
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sparse_transfer.checkpoints.file import load
from sparse_transfer.checkpoints.readers.opening import open_container
from sparse_transfer.core.errors import UserError
from support.trees import read_all, same

CONVERT = "convert it to safetensors, or save its state dict with torch.save"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "the file is empty; download it again"),
        (
            b"\n <!DOCTYPE html><html><body>404</body></html>",
            "this is an HTML page, not a checkpoint; download it again, from the address of the file itself",
        ),
        (b"<?xml version='1.0'?><Error/>", "this is an XML or HTML text, not a checkpoint; download it again"),
        (b'{"weights": []}', "this is JSON text, not a checkpoint; name the file that holds the tensors"),
        ("Zugriff verweigert: äöü\n".encode(), "this is a text, not a checkpoint; download it again"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
            'this is a pointer of Git LFS, not the file; fetch the file with "git lfs pull"',
        ),
        (b"BZh91AY&SY", f"bzip2 archives are not read yet; {CONVERT}"),
        (b"\xfd7zXZ\x00\x00", f"xz archives are not read yet; {CONVERT}"),
        (b"\x28\xb5\x2f\xfd\x24", f"zstd archives are not read yet; {CONVERT}"),
        (
            b"\x89HDF\r\n\x1a\n" + bytes(100),
            "HDF5 files (Keras) are not read: a safe reader of them is a library of its own; convert it with"
            " tensorflowjs_converter --input_format keras FILE FOLDER and name the folder",
        ),
        (b"\x93NUMPY\x01\x00", f"NumPy files (.npy) are not read yet; {CONVERT}"),
        (b"\x08\x07\x12\x07pytorch", "it holds 0 graphs and not one; download it again"),  # ONNX
        (b"\xfe\xff\x00\x01", "no format that is known begins with the bytes fe ff 00 01; download it again"),
        (
            b"\x80\x04]\x94.",
            "this is a pickle and not a checkpoint of torch; "
            "load it where you trust it and save the tensors with torch.save",
        ),
    ],
)
def test_other_files_are_named(data: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(UserError) as error:
        open_container(tmp_path / "x.pth")
    assert str(error.value) == f"{tmp_path}/x.pth: {sentence}"


def test_a_folder_a_missing_and_an_unreadable_file_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this is a folder; name one file in it"):
        open_container(tmp_path)
    with pytest.raises(UserError, match=r"it cannot be read \(no such file or directory\); check the path"):
        open_container(tmp_path / "nowhere.pth")
    closed = tmp_path / "closed.pth"
    closed.write_bytes(b"a")
    closed.chmod(0)
    if os.access(closed, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(UserError, match=r"it cannot be read \(permission denied\)"):
        open_container(closed)


def test_real_files_of_other_formats_are_named(test_data: Path) -> None:
    weights = test_data / "data/weights"
    for name, what in {
        "tf1_bundle/keras/mnist.h5": "HDF5",
    }.items():
        with pytest.raises(UserError, match=what):
            open_container(weights / name)


def test_a_safetensors_header_whose_length_begins_as_a_pickle_does_is_no_pickle(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(3.0)}
    for length in (0x280, 0x380, 0x480, 0x580):
        save_file(tensors, tmp_path / "x", {"note": ""})
        short = length - int.from_bytes((tmp_path / "x").read_bytes()[:8], "little")
        save_file(tensors, tmp_path / "x", {"note": "-" * short})
        assert (tmp_path / "x").read_bytes()[:2] == length.to_bytes(2, "little")
        assert same(read_all(open_container(tmp_path / "x").root), tensors)


def test_safetensors_are_read_in_every_kind_of_number(tmp_path: Path) -> None:
    tensors = {
        f"a.{dtype}": torch.arange(6).to(dtype).reshape(2, 3)
        for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.float64)
    }
    tensors |= {"empty": torch.zeros(0, 3), "scalar": torch.tensor(2.5), "f8": torch.ones(3).to(torch.float8_e4m3fn)}
    save_file(tensors, tmp_path / "x", {"format": "pt", "who": "é"})
    container = open_container(tmp_path / "x")
    assert container.kind == "safetensors"
    assert same(read_all(container.root), dict(sorted(tensors.items())))


def test_a_tensor_that_was_read_does_not_change_with_its_file(tmp_path: Path) -> None:
    save_file({"w": torch.ones(1000)}, tmp_path / "x")
    tensor = open_container(tmp_path / "x").root["w"]  # type: ignore[index]
    first, second = tensor.read(), tensor.read()
    first.zero_()
    with (tmp_path / "x").open("r+b") as file:
        file.seek(-4000, os.SEEK_END)
        file.write(bytes(4000))
    assert second.sum() == 1000


def safetensors_bytes(header: object, data: bytes = b"", *, text: str | None = None) -> bytes:
    raw = (json.dumps(header) if text is None else text).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def test_a_name_that_the_header_says_twice_is_refused(tmp_path: Path) -> None:
    entry = '"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    (tmp_path / "x").write_bytes(safetensors_bytes(None, bytes(4), text=f"{{{entry}, {entry}}}"))
    with pytest.raises(UserError, match='its header says "w" twice; get the file from its authors'):
        open_container(tmp_path / "x")


@pytest.mark.parametrize(
    "data",
    [
        safetensors_bytes({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 7),
        safetensors_bytes({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 9),
        safetensors_bytes({"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, b"\0" * 8),
        safetensors_bytes({"w": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}),
        safetensors_bytes({"w": {"dtype": "X9", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 8),
        safetensors_bytes(
            {k: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for k in ("a", "b")}, b"\0" * 8
        ),
        safetensors_bytes({"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"\0" * 8),
        safetensors_bytes(None, text='{"w": {'),
        struct.pack("<Q", 99_999_999) + b"{}",
    ],
    ids=["short", "long", "shape", "overflow", "dtype", "overlap", "hole", "json", "header past the end"],
)  # fmt: skip
def test_a_damaged_safetensors_header_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(
        UserError, match=r"x\.safetensors: its header is damaged or it is cut short \(.*\); download it again"
    ):
        open_container(tmp_path / "x.safetensors")


def test_what_the_library_says_of_a_header_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    """It repeats what stands in the file. Found by tests/long/test_fuzz.py."""
    header = '{"w": {"dtype": "\\u001b[2J\\n", "shape": [], "data_offsets": [0, 4]}}'
    (tmp_path / "x.safetensors").write_bytes(safetensors_bytes(None, bytes(4), text=header))
    for read in (open_container, load):
        with pytest.raises(UserError) as error:
            read(tmp_path / "x.safetensors")
        assert str(error.value).isprintable()
        assert r"\x1b[2J\n" in str(error.value)
