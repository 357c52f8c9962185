"""Verification: the imported network's own head on labelled pictures, through its own preprocessing."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from sparse_transfer.checkpoints.importing import import_checkpoint
from sparse_transfer.cli import main as program
from sparse_transfer.core.errors import UserError
from sparse_transfer.data.transforms import evaluation
from sparse_transfer.metrics.intervals import wilson
from sparse_transfer.models import Head, Network
from sparse_transfer.transfer.compute import Compute
from sparse_transfer.transfer.verify import labelled_pictures, verify
from support.foreign_implicit import sr_ste
from support.pictures import CLASSES, class_folders
from support.tiny import sparse_backbone

COMPUTE = Compute("cpu", threads=1, workers=1)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("pictures")) / "test"


def network(classes: int = len(CLASSES), names: tuple[str, ...] = ()) -> Network:
    backbone = sparse_backbone()
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(classes, backbone.feature_dim, generator=generator)
    return Network(backbone, Head(weight, torch.zeros(classes), names))


def telling(folder: Path) -> Network:
    """A network that is nearly always right: each row of its head points to the mean feature of a class."""
    backbone = sparse_backbone()
    split = labelled_pictures(folder)
    found = COMPUTE.features(backbone, split, evaluation(backbone.preprocessing))
    means = np.stack([found[split.labels == label].mean(0) for label in range(len(split.classes))])
    return Network(backbone, Head(torch.from_numpy(means), torch.from_numpy(-0.5 * (means**2).sum(1))))


def torchvisions_answer(
    found: Network, folder: Path, first: Callable[[Image.Image], Image.Image] = lambda image: image
) -> tuple[int, int]:
    """(right, all) through torchvision's transforms and ImageFolder."""
    facts = found.backbone.preprocessing
    transform = v2.Compose(
        [
            v2.Lambda(first),
            v2.Resize(facts.resize),
            v2.CenterCrop(facts.crop),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(list(facts.mean), list(facts.std)),
        ]
    )
    data = ImageFolder(str(folder), transform, loader=Image.open)
    images = torch.stack([image for image, _ in data])
    with torch.no_grad():
        guesses = found(images).argmax(1)
    return int((guesses == torch.tensor(data.targets)).sum()), len(data)


def test_top1_is_what_torchvision_finds_with_its_interval(pictures: Path) -> None:
    right, total = torchvisions_answer(network(), pictures)
    assert 0 < right < total
    found = verify(network(), pictures, compute=COMPUTE)
    assert (found.correct, found.total, found.top1) == (right, total, right / total)
    interval = wilson(right, total)
    assert (found.low, found.high) == (interval.low, interval.high)
    assert found.pictures == str(pictures)


def test_imagenets_own_folder_is_read_at_val_and_needs_no_train(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "val").symlink_to(pictures)
    assert verify(network(), tmp_path, compute=COMPUTE) == replace(
        verify(network(), pictures, compute=COMPUTE), pictures=str(tmp_path)
    )


def test_a_head_that_knows_the_classes_by_name_is_asked_by_name(pictures: Path) -> None:
    plain = telling(pictures)
    head = plain.head
    assert head is not None
    found = verify(plain, pictures, compute=COMPUTE)
    assert found.top1 > 0.8, "else turning the head round says nothing"
    turned = Head(head.weight.flip(0), head.bias.flip(0), tuple(reversed(CLASSES)))
    assert verify(Network(plain.backbone, turned), pictures, compute=COMPUTE) == found
    others = Head(head.weight, head.bias, ("Stripes", "Checks", "Dots"))
    assert verify(Network(plain.backbone, others), pictures, compute=COMPUTE) == found


def test_exif_is_ignored_as_the_origins_code_ignores_it(tmp_path: Path) -> None:
    """Stripes across and stripes along, each with a note to turn it by a right angle."""
    root, exif = tmp_path / "striped", Image.Exif()
    exif[274] = 6
    rng = np.random.default_rng(0)
    rows = np.where(np.arange(40) % 8 < 4, 220, 30)[:, None].repeat(40, 1)
    for label, stripes in enumerate((rows, rows.T)):
        (root / str(label)).mkdir(parents=True)
        for index in range(8):
            pixels = (stripes[..., None] + rng.normal(0, 20, (40, 40, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / str(label) / f"{index}.png", exif=exif)
    striped = telling(root)
    right, total = torchvisions_answer(striped, root)
    assert right > torchvisions_answer(striped, root, ImageOps.exif_transpose)[0], "else this test says nothing"
    found = verify(striped, root, compute=COMPUTE)
    assert (found.correct, found.total) == (right, total)


def test_another_number_of_classes_or_no_head_is_refused(pictures: Path) -> None:
    with pytest.raises(UserError, match="a head of 1000 classes, and 3 in the pictures"):
        verify(network(1000), pictures, compute=COMPUTE)
    with pytest.raises(UserError, match="the network has no head, and there is nothing to verify; leave out"):
        verify(Network(sparse_backbone()), pictures, compute=COMPUTE)


def test_folders_without_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no class folders, it is empty"):
        labelled_pictures(tmp_path)
    with pytest.raises(UserError, match="there is no such folder"):
        labelled_pictures(tmp_path / "nowhere")


# --- the command --------------------------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = program.run([str(word) for word in words])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture
def seven(tmp_path: Path) -> Path:
    """Pictures of as many classes as the small foreign networks have."""
    root = tmp_path / "seven"
    for label in range(7):
        (root / f"n{label}").mkdir(parents=True)
        Image.new("RGB", (40, 40), (label * 30, 200 - label * 20, 90)).save(root / f"n{label}" / "0.png")
    return root


def test_import_reports_what_it_measured(capsys: pytest.CaptureFixture[str], tmp_path: Path, seven: Path) -> None:
    path, out = sr_ste(tmp_path).path, tmp_path / "ours.safetensors"
    words = ("import", path, "-o", out, "--method", "SR-STE", "--nm", "2:4", "--verify-on", seven, "--threads", "1")
    status, text, err = run(capsys, *words)
    assert status == 0, err
    right, total = torchvisions_answer(import_checkpoint(out).network, seven)
    assert total == 7
    lines = " ".join(text.split())
    assert f"verified top-1 {right / total:.2%} on 7 pictures of {seven} ({right} right; 95 % interval" in lines
    assert out.exists()

    status, text, _ = run(capsys, *words, "--json")
    verified = json.loads(text)["report"]["verified"]
    assert (status, verified["correct"], verified["total"]) == (0, right, 7)
    assert verified["low"] <= verified["top1"] <= verified["high"]


def test_a_folder_that_is_not_there_is_found_before_the_import(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "ours.safetensors"
    status, text, err = run(capsys, "import", "nothing.pth", "-o", out, "--verify-on", tmp_path / "nowhere")
    assert (status, text) == (2, "")
    assert "nowhere: there is no such folder" in err
    assert not out.exists()


def test_a_method_that_needs_its_pattern_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path, out = sr_ste(tmp_path).path, tmp_path / "ours.safetensors"
    status, text, err = run(capsys, "import", path, "-o", out, "--method", "sr-ste")
    assert (status, text, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {path}: SR-STE keeps N of every M")
    assert not out.exists()


# --- real pictures ------------------------------------------------------------------------------------------------


def test_a_published_mobilenet_is_verified_on_imagenet_pictures(test_data: Path, tmp_path: Path) -> None:
    """Oracle: weights/README.md, 87.4 % on the odd classes' pictures. 40 of them: a standard error is 5 points."""
    source = test_data / "data" / "imagenet_sample"
    folders = sorted(place for place in source.iterdir() if place.is_dir())
    assert len(folders) == 1000
    for index, folder in enumerate(folders):
        (tmp_path / folder.name).mkdir()
        if index % 50 in (1, 27):
            picture = next(folder.iterdir())
            (tmp_path / folder.name / picture.name).symlink_to(picture)
    imported = import_checkpoint(test_data / "data" / "weights" / "mobilenet" / "tfjs_v1_1.0_224" / "model.json")
    found = verify(imported.network, tmp_path, compute=COMPUTE)
    assert found.total == 40
    assert found.correct >= 28
