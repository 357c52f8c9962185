"""A folder for the hub: timm reads the same network from it, with its pictures, and we read our mask back."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from sparse_transfer.checkpoints.file import Origin
from sparse_transfer.checkpoints.hub import crop_share, from_pretrained, save_pretrained
from sparse_transfer.checkpoints.importing import Said, import_container
from sparse_transfer.core.errors import UserError
from sparse_transfer.models import Architecture, Backbone, Network, Preprocessing
from sparse_transfer.sparsity import Mask, MaskViolation
from support.foreign import container, pruned, random_masks, randomised
from support.tiny import sparse_backbone

PICTURES = Preprocessing(resize=73, crop=64, interpolation="bicubic", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
CLASSES = ("cat", "dog", "größer")
ORIGIN = Origin(method="AC/DC", sparsity=0.6, file="a|b.pth", sha256="0" * 64, licence="Apache-2.0")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def never(*_: object, **__: object) -> object:
        raise AssertionError("this goes over the network")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(socket, "create_connection", never)


def imported(module: nn.Module, architecture: str | None = None, pictures: Preprocessing = PICTURES) -> Network:
    """The network as ours, three fifths of each layer pruned, and these zeros in ``module`` too."""
    state = dict(randomised(module).state_dict())
    stored = pruned(state, random_masks(state, 0.4))
    module.load_state_dict(stored)
    said = Said(
        architecture=None if architecture is None else Architecture.parse(architecture),
        preprocessing=pictures,
        classes=CLASSES,
    )
    return import_container(container(stored), "0" * 64, said).network


def resnet18() -> tuple[nn.Module, Network]:
    from torchvision.models import resnet18 as build

    module = build(num_classes=3)
    return module, imported(module)


def read_by_timm(folder: Path, **options: object) -> Any:
    timm = pytest.importorskip("timm")
    return timm.create_model(f"local-dir:{folder}", pretrained=True, **options).eval()


# --- timm ---------------------------------------------------------------------------------------------------------


def test_timm_reads_the_same_network(tmp_path: Path) -> None:
    """Oracle: torchvision's module, and timm's own loading, which is strict."""
    module, network = resnet18()
    save_pretrained(network, tmp_path / "hub", origin=ORIGIN)
    theirs = read_by_timm(tmp_path / "hub")
    expected = module.state_dict()
    assert set(theirs.state_dict()) == set(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in theirs.state_dict().items())
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(theirs(images), module.eval()(images), rtol=1e-4, atol=1e-4)
    assert theirs.num_classes == 3
    assert tuple(theirs.pretrained_cfg["label_names"]) == CLASSES


def test_timm_prepares_pictures_as_we_do(tmp_path: Path) -> None:
    from timm.data import create_transform, resolve_data_config

    _, network = resnet18()
    save_pretrained(network, tmp_path)
    resize, crop, _, normalise = create_transform(**resolve_data_config({}, model=read_by_timm(tmp_path))).transforms
    assert (resize.size, resize.interpolation.value) == (73, "bicubic")
    assert tuple(crop.size) == (64, 64)
    torch.testing.assert_close(normalise.mean, torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(normalise.std, torch.tensor([0.4, 0.5, 0.6]))


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "vit_tiny_patch16_224"])
def test_a_network_of_timms_goes_back_to_timm(tmp_path: Path, name: str) -> None:
    timm = pytest.importorskip("timm")
    module = timm.create_model(name, pretrained=False, num_classes=3)
    network = imported(module, f"timm:{name}", replace(PICTURES, resize=256, crop=224))  # the ViT takes no other size
    save_pretrained(network, tmp_path)
    theirs = read_by_timm(tmp_path)
    expected = module.state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in theirs.state_dict().items())


def test_timm_reads_a_backbone_without_a_head(tmp_path: Path) -> None:
    _, network = resnet18()
    save_pretrained(network.backbone, tmp_path)
    theirs = read_by_timm(tmp_path)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(theirs(images), network.backbone(images), rtol=1e-4, atol=1e-4)
    assert from_pretrained(tmp_path).head is None


def test_timm_can_take_another_number_of_classes(tmp_path: Path) -> None:
    _, network = resnet18()
    save_pretrained(network, tmp_path)
    theirs = read_by_timm(tmp_path, num_classes=5)
    assert theirs.fc.weight.shape == (5, 512)
    assert torch.equal(theirs.conv1.weight, network.tensors()["conv1.weight"])


@pytest.mark.parametrize(
    ("architecture", "pictures", "why"),
    [
        ("resnet18,pool=same", PICTURES, "timm has no network that is resnet18,pool=same"),
        ("resnet18", replace(PICTURES, channel_order="bgr"), "timm cannot read channels in the order bgr"),
        (
            "resnet18",
            replace(PICTURES, interpolation="tf1_bicubic", antialias=False),
            "timm cannot resize as tf1_bicubic",
        ),
        ("mobilenet_v1,width=0.25", PICTURES, "timm has no network that is mobilenet_v1,width=0.25"),
    ],
)
def test_what_timm_would_run_in_another_way_is_refused_by_timm_and_read_by_us(
    tmp_path: Path, architecture: str, pictures: Preprocessing, why: str
) -> None:
    """A name that timm knows would give wrong logits without a word."""
    backbone = replace(Backbone.create(architecture), preprocessing=pictures)
    save_pretrained(backbone, tmp_path)
    with pytest.raises(RuntimeError, match=f"Unknown model .sparse-transfer/{architecture}"):
        read_by_timm(tmp_path)
    assert f"timm cannot run it: {why}." in (tmp_path / "README.md").read_text()
    again = from_pretrained(tmp_path).backbone
    assert (str(again.architecture), again.preprocessing) == (architecture, pictures)


@given(
    crop=st.integers(1, 1024),
    more=st.integers(0, 3000),
)
def test_timms_arithmetic_comes_back_to_the_same_resize(crop: int, more: int) -> None:
    """timm/data/transforms_factory.py: scale_size = math.floor(img_size / crop_pct)."""
    import math

    preprocessing = Preprocessing(resize=min(4096, crop + more), crop=crop)
    share = crop_share(preprocessing)
    assert math.floor(crop / share) == preprocessing.resize
    assert math.floor(crop / json.loads(json.dumps(share))) == preprocessing.resize
    assert abs(share - crop / preprocessing.resize) < 1e-12


# --- ours ---------------------------------------------------------------------------------------------------------


def test_mask_preprocessing_classes_and_origin_survive(tmp_path: Path) -> None:
    _, network = resnet18()
    digest = save_pretrained(network, tmp_path / "a b" / "hub", origin=ORIGIN)
    again = from_pretrained(tmp_path / "a b" / "hub")
    assert again.digest == digest == network.digest() == again.network.digest()
    assert again.origin == ORIGIN
    assert again.backbone.preprocessing == PICTURES
    assert again.head is not None
    assert again.head.classes == CLASSES
    masks = again.network.masks()
    assert set(masks) == set(network.masks())
    assert all(torch.equal(kept, masks[name]) for name, kept in network.masks().items())


def test_a_zero_that_is_kept_stays_kept_and_a_negative_one_that_is_pruned_becomes_positive(tmp_path: Path) -> None:
    backbone = sparse_backbone()
    name = next(iter(backbone.mask))
    with torch.no_grad():
        weight = backbone.module.get_parameter(name)
        weight[backbone.mask[name]] = 0.0
        weight[~backbone.mask[name]] = -0.0
    save_pretrained(backbone, tmp_path)
    assert torch.equal(from_pretrained(tmp_path).backbone.mask[name], backbone.mask[name])
    assert not load_file(tmp_path / "model.safetensors")[name].signbit().any()


def test_the_files_are_those_that_the_hub_expects_and_the_masks(tmp_path: Path) -> None:
    backbone = sparse_backbone()
    save_pretrained(backbone, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.md",
        "config.json",
        "mask.safetensors",
        "model.safetensors",
    ]
    assert set(load_file(tmp_path / "model.safetensors")) == set(backbone.module.state_dict())
    bits = sum(-(-kept.numel() // 8) for kept in backbone.mask.values())
    assert sum(packed.numel() for packed in load_file(tmp_path / "mask.safetensors").values()) == bits


def test_the_card_states_the_facts_whatever_their_words(tmp_path: Path) -> None:
    _, network = resnet18()
    save_pretrained(network, tmp_path, origin=ORIGIN, name="mine\n# <script>")
    text = (tmp_path / "README.md").read_text()
    _, header, body = text.split("---\n", 2)
    stated = {line.partition(": ")[0]: json.loads(line.partition(": ")[2]) for line in header.splitlines()}
    assert stated == {
        "license": "apache-2.0",
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": ["sparse", "pruning", "sparse-transfer"],
    }
    assert body.startswith("# mine \\# \\<script\\>\n\n| | |\n|---|---|\n| architecture | resnet18 |\n")
    zeros = sum(int((~kept).sum()) for kept in network.masks().values())
    size = sum(kept.numel() for kept in network.masks().values())
    assert f"| sparsity, masked weights | {100 * zeros / size:.2f} % |" in body
    assert "| sparsity, as its origin claims | 60 % |" in body
    assert f"| imported from | a\\|b.pth (SHA-256 {'0' * 64}) |" in body
    assert "shorter side to 73 px (bicubic), centre square of 64 px, mean \\[0.1, 0.2, 0.3\\]" in body


@pytest.mark.parametrize(("licence", "words"), [(None, "not stated"), ("non-commercial", "non-commercial")])
def test_a_licence_that_the_hub_does_not_list_is_other(tmp_path: Path, licence: str | None, words: str) -> None:
    save_pretrained(sparse_backbone(), tmp_path, origin=Origin(licence=licence))
    text = (tmp_path / "README.md").read_text()
    assert f'license: "other"\nlicense_name: "{words}"\nlibrary_name: "sparse-transfer"\n' in text


def test_nothing_is_written_of_a_network_that_leaks(tmp_path: Path) -> None:
    backbone = sparse_backbone()
    name = next(iter(backbone.mask))
    with torch.no_grad():
        backbone.module.get_parameter(name).view(-1)[0] = 1.0
        backbone.module.get_parameter(name).view(-1)[1] = 1.0
    kept = dict(backbone.mask)
    kept[name] = torch.zeros_like(kept[name])
    with pytest.raises(MaskViolation):
        save_pretrained(replace(backbone, mask=Mask(kept, backbone.module)), tmp_path / "hub")
    assert not any((tmp_path / "hub").glob("*"))


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        from_pretrained(folder)
    return str(caught.value)


def test_a_folder_that_is_not_whole_says_what_is_missing(tmp_path: Path) -> None:
    assert refusal(tmp_path / "x") == f"{tmp_path}/x: there is no such folder; fetch it from the hub first, whole"
    for name in ("config.json", "model.safetensors", "mask.safetensors"):
        folder = tmp_path / name.partition(".")[0]
        save_pretrained(sparse_backbone(), folder)
        (folder / name).unlink()
        assert refusal(folder) == f"{folder}: {name} is missing; fetch the folder again, whole"


def test_a_folder_of_timms_own_is_to_be_imported(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architecture": "resnet18"}')
    assert refusal(tmp_path) == (
        f"{tmp_path}: it was not written by save_pretrained; import its weights: "
        f"sparse-transfer import {tmp_path}/model.safetensors -o OUT --arch timm:NAME"
    )


def test_files_of_two_networks_are_found_out(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    save_pretrained(sparse_backbone(seed=1), first)
    save_pretrained(sparse_backbone(seed=2), second)
    (second / "mask.safetensors").replace(first / "mask.safetensors")
    assert "pruned weights are non-zero" in refusal(first)
    save_pretrained(sparse_backbone(seed=2), second)
    (second / "config.json").replace(first / "config.json")
    save_pretrained(sparse_backbone(seed=1), second)
    (second / "mask.safetensors").replace(first / "mask.safetensors")
    assert "do not have the digest" in refusal(first)
    assert from_pretrained(first, verify=False).name == "1"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "layout version 2, and this program reads version 1; update sparse-transfer"),
        ({"architecture": None}, 'config.json: the entry "architecture" is missing; fetch the file again'),
        ({"classes": [1, 2]}, 'config.json: the entry "classes" is no list of names; fetch the file again'),
        ({"digest": "0" * 64}, "its weights and masks do not have the digest 000000000000… that is stated"),
        ({"architecture": {"name": "resnet32", "args": {}}}, "tensors of resnet32 are missing"),
        ({"preprocessing": {"mean": [0, 0, float("inf")]}}, "mean and std need three finite numbers each, std above 0"),
        ({"preprocessing": {"crop": 999}}, "a crop of 999 px from 256 px"),
    ],
)
def test_facts_that_were_changed_are_found_out(tmp_path: Path, change: dict[str, object], said: str) -> None:
    save_pretrained(sparse_backbone(), tmp_path)
    path = tmp_path / "config.json"
    stated = json.loads(path.read_text())
    stated["sparse_transfer"] |= change
    path.write_text(json.dumps(stated))
    assert said in refusal(tmp_path)


def test_damaged_files_are_said(tmp_path: Path) -> None:
    save_pretrained(sparse_backbone(), tmp_path)
    for name in ("mask.safetensors", "model.safetensors"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-1])
        assert refusal(tmp_path).startswith(f"{tmp_path}: {name} cannot be read (")
        save_pretrained(sparse_backbone(), tmp_path)
    save_file({"fc.mask": torch.zeros(1, dtype=torch.uint8)}, tmp_path / "mask.safetensors")
    assert '"fc.mask" in mask.safetensors is no mask of a weight' in refusal(tmp_path)
    (tmp_path / "config.json").write_text("[")
    assert refusal(tmp_path).startswith(f"{tmp_path}: config.json cannot be read (")


def test_a_file_in_the_place_of_the_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(UserError, match="this is a file; name a folder"):
        save_pretrained(sparse_backbone(), tmp_path / "a")
