"""Finetuning a published sparse network on real pictures: its mask, what it learns, and a SIGKILL in the middle."""

import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sparse_transfer.checkpoints.file import Origin, load, save
from sparse_transfer.models import Preprocessing
from sparse_transfer.runs.finished import FinishedRun, records
from support.processes import ended, start, wait_for
from support.published import resnet18_tiny200, resnet50_s80

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Case:
    """A network on a set of pictures. updates: of an epoch.   floor: the least share of test pictures that is right.

    Chance is 0.1 and 0.01, of 200 and 202 pictures: one standard error of a network that guesses is 0.021 and 0.007, so
    the floors are five of them and more above it.
    """

    network: str
    pictures: str
    updates: int
    floor: float
    options: tuple[object, ...]


SMALL = ("--batch-size", 32, "--lr", 0.01)
CASES = [
    Case("resnet18", "cifar10_folder", 13, 0.30, (*SMALL, "--epochs", 3)),
    Case("resnet18", "caltech101", 10, 0.05, (*SMALL, "--epochs", 5)),
    # By the recipe "gentle" of benchmarks/small_finetune.py, on fewer pictures: 12 of each class.
    Case(
        "resnet50", "cifar10_folder", 8, 0.40,
        ("--protocol", "cvpr2022", "--shots", 12, "--batch-size", 16, "--epochs", 2, "--head", "linear", "--freeze-bn",
         "--opt", "adamw", "--lr", 5e-5, "--weight-decay", 0.01, "--sched", "cosine"),
    ),
]  # fmt: skip


def network(name: str, data: Path, place: Path) -> Path:
    """The 90 % sparse ResNet-18, trained on 200 classes of 64 px, or the 80 % sparse ResNet-50 (data/weights)."""
    path = place / f"{name}.safetensors"
    if name == "resnet50":
        save(resnet50_s80(data), path, origin=Origin(method="one-shot", sparsity=0.8))
        return path
    small = resnet18_tiny200(data)
    facts = Preprocessing(resize=64, crop=64, mean=HALF, std=HALF)
    save(replace(small, backbone=replace(small.backbone, preprocessing=facts)), path, origin=Origin("ERK", 0.9))
    return path


def words(sparse: Path, pictures: Path, place: Path, case: Case) -> list[object]:
    return [
        "finetune", sparse, f"folder:{pictures}", *case.options, "--seeds", "21,", "--threads", "1", "--workers", "1",
        "--cache-images", "100M", "--save-minutes", "0.1", "--runs", place,
    ]  # fmt: skip


def finished(place: Path) -> FinishedRun:
    (found,) = records([place])
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.network}-{case.pictures}")
def test_a_real_sparse_network_keeps_its_mask_learns_and_survives_a_kill(
    case: Case, test_data: Path, tmp_path: Path
) -> None:
    pictures, sparse = test_data / "data" / case.pictures, network(case.network, test_data, tmp_path)
    done = ended(start(*words(sparse, pictures, tmp_path / "whole", case)), timeout_s=1800)
    assert done.status == 0, done.err
    whole = finished(tmp_path / "whole")
    before, after = load(sparse), load(whole.folder / "network.safetensors")
    assert after.backbone.mask == before.backbone.mask
    assert after.digest != before.digest
    for key, kept in after.backbone.mask.items():
        assert not after.backbone.module.get_parameter(key)[~kept].any()
    assert whole.result.last.top1 >= case.floor

    killed = start(*words(sparse, pictures, tmp_path / "killed", case))
    wait_for(lambda: _in_an_epoch(tmp_path / "killed", case.updates), killed, timeout_s=900)
    os.kill(killed.pid, signal.SIGKILL)
    assert ended(killed).status == -signal.SIGKILL
    again = ended(start(*words(sparse, pictures, tmp_path / "killed", case)), timeout_s=1800)
    assert again.status == 0, again.err
    other = finished(tmp_path / "killed")
    resumed = [event for event in other.events() if event["event"] == "resume"]
    assert [event for event in resumed if event["update"] != 0], "it was killed in the middle of an epoch"
    assert load(other.folder / "network.safetensors").digest == after.digest
    assert (other.result.last, other.result.cross_entropy) == (whole.result.last, whole.result.cross_entropy)


def _in_an_epoch(place: Path, updates: int) -> bool:
    """Whether the newest state is one of the middle of an epoch of that many updates."""
    numbers = [int(path.stem.removeprefix("state-")) for path in place.rglob("state-*.safetensors")]
    return max(numbers, default=0) % updates != 0
