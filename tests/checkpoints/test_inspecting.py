"""Looking into a checkpoint, and at two of them side by side: every number by hand."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sparse_transfer.checkpoints.difference import diff
from sparse_transfer.checkpoints.file import Origin, load, save
from sparse_transfer.checkpoints.importing import import_checkpoint
from sparse_transfer.checkpoints.inspecting import inspect
from sparse_transfer.cli import main as program
from sparse_transfer.core.errors import UserError
from sparse_transfer.models import Backbone, Head, Network, Preprocessing
from sparse_transfer.sparsity import Mask
from support import foreign
from support.golden import golden_network
from support.samples import SAMPLES

GOLDEN = Path(__file__).parent / "golden"


def test_an_inspection_counts_what_the_mask_keeps() -> None:
    made = golden_network()
    found = inspect(GOLDEN / "v1-packed.safetensors")
    assert found.digest == made.digest()
    assert found.format == "sparse_transfer"
    assert found.origin == Origin(method="by hand", sparsity=0.75, licence="Apache-2.0")
    assert (found.class_count, found.classes) == (3, ("cat", "dog", "größer als"))
    layers = {layer.name: layer for layer in found.layers}
    assert layers["conv1.weight"].pattern is None
    assert (layers["conv1.weight"].kept, layers["conv1.weight"].size) == (2 * 3 * 3 * 3, 54)
    for name, kept in made.masks().items():
        assert layers[name].kept == int(kept.sum())
        assert layers[name].sparsity == pytest.approx(1 - int(kept.sum()) / kept.numel())
    assert layers["layer3.1.conv1.weight"].pattern == "unstructured"
    assert found.sparsities.total.size == sum(
        tensor.numel() for name, tensor in made.tensors().items() if "running" not in name and "num_batches" not in name
    )


def test_macs_are_weights_times_output_pixels() -> None:
    """conv1 of a 32 px picture: 54 weights on 32 · 32 pixels. layer3 works on 8 · 8, the head once."""
    found = inspect(GOLDEN / "v1-packed.safetensors")
    layers = {layer.name: layer for layer in found.layers}
    assert layers["conv1.weight"].macs_dense == layers["conv1.weight"].macs_sparse == 54 * 1024
    third = layers["layer3.1.conv1.weight"]
    assert (third.macs_dense, third.macs_sparse) == (third.size * 64, third.kept * 64)
    assert (layers["fc.weight"].macs_dense, layers["fc.weight"].macs_sparse) == (24, layers["fc.weight"].kept)
    assert found.macs == (
        sum(layer.macs_dense or 0 for layer in found.layers),
        sum(layer.macs_sparse or 0 for layer in found.layers),
    )


def test_trained_zeros_and_channels_are_told_apart_from_pruned_weights(tmp_path: Path) -> None:
    backbone = Backbone.create("resnet20,width=0.5")
    name = "layer3.0.conv2.weight"
    kept = torch.ones(32, 32, 3, 3, dtype=torch.bool)
    kept[8:24] = False
    mask = Mask({name: kept}, backbone.module)
    mask.apply_(backbone.module)
    with torch.no_grad():
        backbone.module.get_parameter(name)[0, 0] = 0
    path = tmp_path / "channels.safetensors"
    save(replace(backbone, mask=mask), path)
    layer = next(layer for layer in inspect(path).layers if layer.name == name)
    assert (layer.pattern, layer.trained_zeros, layer.kept) == ("channel", 9, 16 * 32 * 9)


def test_a_foreign_file_is_inspected_as_an_import_would_bring_it_in(tmp_path: Path) -> None:
    module = foreign.randomised(foreign.ORIGINS["resnet_cifar_akamaster"].make(10))
    state = dict(module.state_dict())
    masks = foreign.random_masks(state, 0.5)
    path = tmp_path / "net.th"
    torch.save({"state_dict": foreign.prefixed(foreign.wrapped(state, masks), "module.")}, path)
    found = inspect(path)
    assert found.format == "ist_wrapped/resnet_cifar_akamaster"
    assert str(found.architecture) == "resnet20,width=0.25"
    assert found.sparsities.masked.zeros == sum(int((~kept).sum()) for kept in masks.values())
    assert any("ImageNet's mean and std" in note for note in found.notes)
    assert [file.name for file in tmp_path.iterdir()] == ["net.th"]


@pytest.mark.parametrize("encoding", ["packed", "dense"])
def test_an_inspection_fits_a_terminal_and_is_json(encoding: str) -> None:
    found = inspect(GOLDEN / f"v1-{encoding}.safetensors")
    text = found.render()
    assert max(map(len, text.splitlines())) <= 100
    assert "\x1b" not in text
    for words in (found.digest, "resnet20", "3 classes: cat, dog", "unstructured", "method by hand", "layer3.2.conv2"):
        assert words in text
    assert json.loads(json.dumps(found.to_json()))["layers"][0]["shape"] == [2, 3, 3, 3]


def test_a_resnet50_fits_a_terminal() -> None:
    backbone = Backbone.create("resnet50")
    from sparse_transfer.checkpoints.inspecting import _inspection  # pyright: ignore[reportPrivateUsage]

    text = _inspection(Path("r50.safetensors"), "x", "0" * 64, Network(backbone), Origin(), ()).render()
    assert max(map(len, text.splitlines())) <= 100
    assert sum(line.startswith(("layer", "conv1")) for line in text.splitlines()) == 54  # 53 layers and the title
    assert "4,087,136,256 for one picture" in text  # torchvision's 4,089,184,256 less the head's 2,048,000


def test_what_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(b"<html>404</html>")
    for look in (inspect, lambda path: diff(path, GOLDEN / "v1-packed.safetensors")):
        with pytest.raises(UserError, match=r"x\.pth: this is an HTML page"):
            look(tmp_path / "x.pth")


# --- two of them --------------------------------------------------------------------------------------------------


def pair(tmp_path: Path) -> tuple[Path, Path, Network]:
    """Two networks whose layer ``layer1.0.conv1`` [2, 2, 3, 3] keeps 0..17 in the first and 12..35 in the second."""
    backbone = Backbone.create("resnet20,width=0.125")
    paths = (tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    for path, start, end in zip(paths, (0, 12), (18, 36), strict=True):
        copy = Backbone.create("resnet20,width=0.125")
        copy.module.load_state_dict(backbone.module.state_dict())
        kept = torch.zeros(36, dtype=torch.bool)
        kept[start:end] = True
        mask = Mask({"layer1.0.conv1.weight": kept.reshape(2, 2, 3, 3)}, copy.module)
        mask.apply_(copy.module)
        save(replace(copy, mask=mask), path)
    return *paths, Network(backbone)


def test_masks_are_compared_weight_by_weight(tmp_path: Path) -> None:
    a, b, original = pair(tmp_path)
    found = diff(a, b)
    row = next(tensor for tensor in found.tensors if tensor.name == "layer1.0.conv1.weight")
    assert (row.kept_in_both, row.only_a, row.only_b) == (6, 12, 18)
    assert row.iou == found.iou == 6 / 36
    weight = original.backbone.module.get_parameter("layer1.0.conv1.weight").detach().reshape(-1)
    apart = torch.cat([weight[:12], weight[18:]]).abs().max()  # kept in one of the two only: w against 0
    assert row.largest == pytest.approx(float(apart))
    assert [tensor.name for tensor in found.tensors if tensor.largest > 0] == ["layer1.0.conv1.weight"]
    assert not found.is_same
    assert "1 of 114 differ" in found.render()  # 19 convolutions, and five tensors for each of 19 BatchNorms
    back = diff(b, a)
    assert (back.tensors[7].only_a, back.tensors[7].only_b) == (found.tensors[7].only_b, found.tensors[7].only_a)


def test_both_encodings_of_one_network_are_the_same() -> None:
    found = diff(GOLDEN / "v1-packed.safetensors", GOLDEN / "v1-dense.safetensors")
    assert found.is_same
    assert found.iou == 1.0
    assert found.render().endswith("they are the same")


def test_facts_that_the_digest_does_not_cover_are_compared_too(tmp_path: Path) -> None:
    network = load(GOLDEN / "v1-packed.safetensors").network
    assert network.head is not None
    other = Network(
        replace(network.backbone, preprocessing=Preprocessing(resize=40, crop=32)),
        replace(network.head, classes=("cat", "dog", "cow")),
    )
    path = tmp_path / "other.safetensors"
    save(other, path)
    found = diff(GOLDEN / "v1-packed.safetensors", path)
    assert found.digests[0] == found.digests[1]
    assert not found.is_same
    assert dict(found.facts) == {
        "resize": ("32", "40"),
        "classes": ("cat, dog, größer als", "cat, dog, cow"),
    }


def test_networks_of_two_kinds_say_what_only_one_has(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(Network(Backbone.create("resnet20,width=0.125"), Head(torch.zeros(5, 8), torch.zeros(5))), path)
    found = diff(path, GOLDEN / "v1-packed.safetensors")
    assert found.facts["network"] == ("resnet20,width=0.125", "resnet20,shortcut=B,width=0.125")
    assert found.facts["head"] == ("5 classes", "3 classes")
    assert set(found.only_a) == {"fc.weight", "fc.bias"}  # of another shape
    assert "layer2.0.downsample.0.weight" in found.only_b
    assert max(map(len, found.render().splitlines())) <= 100
    assert json.loads(json.dumps(found.to_json()))["is_same"] is False


# --- foreign files that leave something to be said ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["cram", "sr_ste", "dnw", "hidden_networks", "lottery_ticket"])
def test_a_foreign_file_is_inspected_and_compared_with_what_an_import_has_to_be_told(name: str, tmp_path: Path) -> None:
    sample = SAMPLES[name](tmp_path)
    assert sample.said
    hints: dict[str, object] = dict(sample.said)
    imported = import_checkpoint(sample.path, **hints)  # type: ignore[arg-type]
    ours = tmp_path / "ours.safetensors"
    save(imported.network, ours, origin=imported.origin)
    found = inspect(sample.path, **hints)  # type: ignore[arg-type]
    assert sum(layer.size - layer.kept for layer in found.layers) == sample.pruned
    assert (found.file, found.digest, found.format) == (sample.path.name, load(ours).digest, imported.origin.format)
    assert diff(sample.path, ours, **hints).is_same  # type: ignore[arg-type]
    assert diff(ours, sample.path, **hints).is_same  # type: ignore[arg-type]


def test_what_is_said_of_a_file_of_ours_is_checked_when_it_is_inspected() -> None:
    assert inspect(GOLDEN / "v1-packed.safetensors", sparsity=None).format == "sparse_transfer"
    with pytest.raises(UserError, match="sparsity"):
        inspect(GOLDEN / "v1-packed.safetensors", sparsity=0.01)


def test_the_commands_take_the_options_of_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = SAMPLES["sr_ste"](tmp_path)
    said = [word for key, value in sample.said.items() for word in (f"--{key}", OPTIONS.get(key, str)(value))]
    ours = tmp_path / "ours.safetensors"
    assert program.run(["import", str(sample.path), "-o", str(ours), *said, "--quiet"]) == 0
    capsys.readouterr()
    assert program.run(["inspect", str(sample.path), "--json", *said]) == 0
    assert json.loads(capsys.readouterr().out)["digest"] == load(ours).digest
    assert program.run(["diff", str(sample.path), str(ours), "--json", *said]) == 0
    assert json.loads(capsys.readouterr().out)["is_same"] is True
    assert program.run(["diff", str(sample.path), str(ours), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["is_same"] is False
    assert program.run(["inspect", str(sample.path), "--nm", "5:4"]) == 2
    assert '"5:4" is no N:M pattern' in capsys.readouterr().err


OPTIONS: dict[str, Callable[[object], str]] = {"nm": lambda value: ":".join(map(str, value))}  # type: ignore[call-overload]
