"""Finetuning a published sparse network on real pictures: its mask, what it learns, and a SIGKILL in the middle."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from sparse_transfer.checkpoints.file import Origin, load, save
from sparse_transfer.models import Network, Preprocessing
from sparse_transfer.runs.finished import FinishedRun, records
from support.processes import ended, start, wait_for
from support.published import resnet18_tiny200

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

HALF = (0.5, 0.5, 0.5)
# Epochs, updates of 32 pictures in each (a fifth is held back), and the least share of test pictures that is right.
# Chance is 0.1 and 0.01, of 200 and 202 pictures: one standard error of a network that guesses is 0.021 and 0.007, so
# these are five of them and more above it.
SETS = {"cifar10_folder": (3, 13, 0.30), "caltech101": (5, 10, 0.05)}


@pytest.fixture(scope="module")
def sparse(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 90 % sparse ResNet-18, trained on 200 classes of 64 px (data/weights)."""
    network = resnet18_tiny200(test_data)
    facts = Preprocessing(resize=64, crop=64, mean=HALF, std=HALF)
    path = tmp_path_factory.mktemp("sparse") / "resnet18-erk90.safetensors"
    named = Network(replace(network.backbone, preprocessing=facts), network.head)
    save(named, path, origin=Origin(method="ERK", sparsity=0.9))
    return path


def words(sparse: Path, pictures: Path, place: Path, epochs: int) -> list[object]:
    return [
        "finetune", sparse, f"folder:{pictures}", "--epochs", epochs, "--batch-size", "32", "--lr", "0.01", "--seeds",
        "21,", "--threads", "1", "--workers", "1", "--cache-images", "100M", "--save-minutes", "0.1", "--runs", place,
    ]  # fmt: skip


def finished(place: Path) -> FinishedRun:
    (found,) = records([place])
    return found


@pytest.mark.parametrize("name", SETS)
def test_a_real_sparse_network_keeps_its_mask_learns_and_survives_a_kill(
    name: str, sparse: Path, test_data: Path, tmp_path: Path
) -> None:
    pictures, (epochs, updates, floor) = test_data / "data" / name, SETS[name]
    done = ended(start(*words(sparse, pictures, tmp_path / "whole", epochs)), timeout_s=900)
    assert done.status == 0, done.err
    whole = finished(tmp_path / "whole")
    before, after = load(sparse), load(whole.folder / "network.safetensors")
    assert after.backbone.mask == before.backbone.mask
    assert after.digest != before.digest
    for key, kept in after.backbone.mask.items():
        assert not after.backbone.module.get_parameter(key)[~kept].any()
    assert whole.result.last.top1 >= floor

    killed = start(*words(sparse, pictures, tmp_path / "killed", epochs))
    wait_for(lambda: _in_an_epoch(tmp_path / "killed", updates), killed, timeout_s=600)
    os.kill(killed.pid, signal.SIGKILL)
    assert ended(killed).status == -signal.SIGKILL
    again = ended(start(*words(sparse, pictures, tmp_path / "killed", epochs)), timeout_s=900)
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
