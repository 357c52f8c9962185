"""BatchNorm statistics estimated anew: those of the pictures, and nothing else is touched."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sparse_transfer.checkpoints.file import load
from sparse_transfer.checkpoints.importing import import_checkpoint
from sparse_transfer.cli import main as program
from sparse_transfer.core.errors import UserError
from sparse_transfer.data.transforms import evaluation
from sparse_transfer.models import Network
from sparse_transfer.transfer import recalibrate
from sparse_transfer.transfer.compute import Compute
from sparse_transfer.transfer.recalibrate import recalibrated
from support.foreign_implicit import cram
from support.pictures import class_folders
from support.tiny import sparse_backbone

COMPUTE = Compute("cpu", threads=1, workers=1)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("pictures")) / "train"


def first_batchnorm(module: nn.Module) -> nn.BatchNorm2d:
    return next(layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d))


def test_the_statistics_are_those_of_what_the_layer_reads(pictures: Path) -> None:
    """Of the first one by hand: mean and unbiased variance, over pictures and places, of the first convolution."""
    before = sparse_backbone()
    after, count = recalibrated(Network(before), pictures, compute=COMPUTE)
    transform = evaluation(before.preprocessing)
    files = sorted(pictures.glob("*/*"))
    assert count == len(files) <= recalibrate.BATCH
    stacked = torch.stack([torch.from_numpy(np.array(transform(Image.open(file)))) for file in files])
    read = before.module.get_submodule("conv1")(transform.normalise(stacked)).detach()
    found = first_batchnorm(after.backbone.module)
    assert found.running_mean is not None
    assert found.running_var is not None
    torch.testing.assert_close(found.running_mean, read.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.running_var, read.var((0, 2, 3), unbiased=True), rtol=1e-4, atol=1e-6)


def test_weights_and_mask_stay_and_the_network_given_is_left_alone(pictures: Path) -> None:
    before = sparse_backbone()
    kept = {name: tensor.clone() for name, tensor in before.module.state_dict().items()}
    after, _ = recalibrated(Network(before), pictures, compute=COMPUTE)
    assert after.backbone.mask == before.mask
    after.backbone.mask.audit(after.backbone.module)
    assert not after.backbone.module.training
    for name, tensor in after.backbone.module.state_dict().items():
        assert torch.equal(before.module.state_dict()[name], kept[name])
        assert torch.equal(tensor, kept[name]) == ("running" not in name and "num_batches" not in name), name


def test_no_more_pictures_than_needed_are_taken_evenly_over_the_classes(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = len(list(pictures.glob("*/*")))
    monkeypatch.setattr(recalibrate, "PICTURES", 6)
    monkeypatch.setattr(recalibrate, "BATCH", 4)
    seen: list[list[int]] = []
    whole = recalibrate.batches

    def noted(*given, parts, **more):  # type: ignore[no-untyped-def]
        seen.extend(part.tolist() for part in parts)
        return whole(*given, parts=parts, **more)

    monkeypatch.setattr(recalibrate, "batches", noted)
    _, count = recalibrated(Network(sparse_backbone()), pictures, compute=COMPUTE)
    assert count == 6
    assert [len(part) for part in seen] == [3, 3]
    assert (seen[0][0], seen[1][-1]) == (0, everything - 1)


def test_what_cannot_be_estimated_is_one_sentence(pictures: Path, tmp_path: Path) -> None:
    plain = replace(sparse_backbone(), module=nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    with pytest.raises(UserError, match="no BatchNorm whose statistics could be estimated"):
        recalibrated(Network(plain), pictures, compute=COMPUTE)
    (tmp_path / "one").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "one" / "a.png")
    with pytest.raises(UserError, match="one picture has no statistics"):
        recalibrated(Network(sparse_backbone()), tmp_path, compute=COMPUTE)


def test_crams_network_comes_in_with_statistics_of_its_own(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = cram(tmp_path)
    words = ["import", sample.path, "-o", tmp_path / "out.safetensors", "--method", "CrAM", "--sparsity", 0.7]
    status = program.run([str(word) for word in [*words, "--recalibrate", pictures, "--threads", 1, "--json"]])
    said = capsys.readouterr()
    assert status == 0, said.err
    report = json.loads(said.out)["report"]
    assert "the BatchNorm statistics were estimated anew, on " in report["notes"][-1]
    assert not any("dense network's" in warning for warning in report["warnings"])
    plain = import_checkpoint(sample.path, method="CrAM", sparsity=0.7)
    assert any("--recalibrate FOLDER" in warning for warning in plain.report.warnings)
    written = load(tmp_path / "out.safetensors")
    assert written.backbone.mask == plain.network.backbone.mask
    assert written.digest != plain.network.digest()
    assert program.run([str(word) for word in [*words, "--recalibrate", tmp_path / "nowhere"]]) == 2
    assert "there is no such folder" in capsys.readouterr().err
