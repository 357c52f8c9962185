"""TensorFlow.js' models: the manifest decides, its paths stay in the folder, every length is held against the files."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sparse_transfer.checkpoints.readers.opening import open_container
from sparse_transfer.core.errors import UserError
from support.foreign_tf import tfjs
from support.trees import read_all, same

TREE = {
    "conv1/kernel": torch.randn(3, 3, 3, 8, generator=torch.Generator().manual_seed(0)),
    "conv1_bn/gamma": torch.arange(8.0),
    "count": torch.tensor([3, -4], dtype=torch.int32),
    "flag": torch.tensor([True, False, True]),
    "empty": torch.zeros(0, 4),
    "scalar": torch.tensor(2.5),
}


@pytest.mark.parametrize(("groups", "shard_bytes"), [(1, 1 << 22), (3, 1 << 22), (2, 7), (6, 100)])
def test_weights_are_read_wherever_their_shards_are_cut(groups: int, shard_bytes: int, tmp_path: Path) -> None:
    path = tfjs(tmp_path, TREE, groups=groups, shard_bytes=shard_bytes)
    for named in (path, tmp_path):
        container = open_container(named)
        assert container.kind == "tfjs"
        assert container.files[0] == path
        assert same(read_all(container.root), TREE)


def test_a_real_model_is_read_as_the_h5_file_it_was_made_of(test_data: Path) -> None:
    """Its ten tensors lie in the HDF5 file bit for bit, which the page of the weights says; here as runs of bytes."""
    folder = test_data / "data/weights/tf1_bundle"
    root = read_all(open_container(folder / "tfjs_from_keras").root)
    assert isinstance(root, dict)
    assert len(root) == 10
    keras = (folder / "keras/mnist.h5").read_bytes()
    assert all(tensor.numpy().tobytes() in keras for tensor in root.values())
    assert (
        sum(tensor.numel() for tensor in root.values()) * 4
        == (folder / "tfjs_from_keras/group1-shard1of1").stat().st_size
    )


def test_quantised_weights_are_restored(tmp_path: Path) -> None:
    data = bytes([0, 128, 255]) + struct.pack("<2H", 0, 65535) + struct.pack("<2e", 0.5, -2.0)
    weights = [
        {"name": "a", "shape": [3], "dtype": "float32", "quantization": {"dtype": "uint8", "scale": 0.5, "min": -64}},
        {"name": "b", "shape": [2], "dtype": "float32", "quantization": {"dtype": "uint16", "scale": 1, "min": 0.25}},
        {"name": "c", "shape": [2], "dtype": "float32", "quantization": {"dtype": "float16"}},
    ]
    write(tmp_path, weights, data)
    root = read_all(open_container(tmp_path).root)
    assert same(
        root,
        {
            "a": torch.tensor([-64.0, 0.0, 63.5]),
            "b": torch.tensor([0.25, 65535.25]),
            "c": torch.tensor([0.5, -2.0]),
        },
    )


def write(folder: Path, weights: object, data: bytes = bytes(8), *, paths: object = ("w.bin",)) -> Path:
    (folder / "w.bin").write_bytes(data)
    groups = [{"paths": paths, "weights": weights}]
    (folder / "model.json").write_text(json.dumps({"weightsManifest": groups}))
    return folder / "model.json"


TWO = {"name": "w", "shape": [2], "dtype": "float32"}


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        open_container(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    "name",
    ["../w.bin", "/etc/passwd", "a/../../w.bin", "C:w.bin", "..\\w.bin", "https://x.y/w.bin", "./w.bin", "", "w\n.bin"],
)
def test_a_path_that_is_no_file_of_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(8))
    assert "which is no file in its folder" in refusal(write(folder, [TWO], paths=[name]))


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ([{**TWO, "shape": [3]}], '"w" of shape [3] reaches past the end of "w.bin"'),
        ([{**TWO, "shape": [1]}], '"w.bin" have 8 bytes and their weights take 4'),
        ([{**TWO, "shape": [-2]}], '"w" has no shape'),
        ([{**TWO, "shape": [True, 2]}], '"w" has no shape'),
        ([{**TWO, "shape": [10**400]}], '"w" has no shape'),
        ([{**TWO, "shape": [0] * 65}], '"w" has no shape'),
        ([{**TWO, "dtype": "string"}], '"w" has the dtype "string", which is not read'),
        ([{**TWO, "quantization": {"dtype": "uint4"}}], '"w" is quantised in a way that is not read'),
        (
            [{**TWO, "quantization": {"dtype": "uint8", "scale": 10**400, "min": 0}}],
            '"w" is quantised with a scale of no',
        ),
        ([{**TWO, "dtype": "int32", "quantization": {"dtype": "float16"}}], '"w" is quantised and was no float32'),
        ([{**TWO, "shape": [1]}, {**TWO, "shape": [1]}], 'two weights are called "w"'),
        ([{"name": "w"}], "its weightsManifest has a weight without name, shape or dtype"),
        ([3], "its weightsManifest has a weight without name, shape or dtype"),
        (None, '"w.bin" have 8 bytes and their weights take 0'),
    ],
)
def test_a_weight_that_cannot_be_is_one_sentence(weights: object, sentence: str, tmp_path: Path) -> None:
    assert refusal(write(tmp_path, weights)).startswith(sentence)


def test_missing_repeated_and_nameless_shards_are_said(tmp_path: Path) -> None:
    assert refusal(write(tmp_path, [TWO], paths=["gone.bin"])) == '"gone.bin" is missing; put it beside model.json'
    assert refusal(write(tmp_path, [TWO], paths=None)).startswith("its weightsManifest has a group without paths")
    path = write(tmp_path, [TWO])
    group = json.loads(path.read_text())["weightsManifest"][0]
    again = {**group, "weights": [{**TWO, "name": "v"}]}
    path.write_text(json.dumps({"weightsManifest": [group, again]}))
    assert refusal(path).startswith('"w.bin" is named twice')


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"weightsManifest": []}', "its weightsManifest names no weights"),
        ('{"weightsManifest": 3}', "its weightsManifest is not a list of groups"),
        ('{"weightsManifest": [[]]}', "its weightsManifest is not a list of groups"),
        ('{"weightsManifest": [], "weightsManifest": []}', 'it says "weightsManifest" twice in one place'),
        ('{"a": ' + "[" * 100_000, "this is JSON text, not a checkpoint; name the file that holds the tensors"),
        ('{"a": ' + "9" * 5000 + "}", "this is JSON text, not a checkpoint"),
        ('{"weightsManifest"', "this is JSON text, not a checkpoint"),
    ],
)
def test_a_manifest_that_cannot_be_is_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(text)
    assert refusal(tmp_path / "model.json").startswith(sentence)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b""])
def test_a_shard_of_another_length_is_refused_before_it_is_read(
    change: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = tfjs(tmp_path, TREE, groups=1)
    shard = tmp_path / "group1-shard1of1.bin"
    shard.write_bytes(change(shard.read_bytes()))
    assert "group1-shard1of1.bin" in refusal(path)
