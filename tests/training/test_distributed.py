"""Two gloo processes against one: the same pictures, the same update up to the order of additions, one evaluation."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

import sparse_transfer
from sparse_transfer.core.errors import UserError
from sparse_transfer.training import distributed
from sparse_transfer.training.distributed import Group, rounds
from support.pictures import class_folders

SCRIPT = """
import json, os, sys
from dataclasses import replace
from pathlib import Path

import torch

from sparse_transfer.data.reading import dataset
from sparse_transfer.data.transforms import evaluation, training
from sparse_transfer.models import Preprocessing
from sparse_transfer.training.distributed import Group
from sparse_transfer.training.learner import Learner
from sparse_transfer.training.loop import Task, train
from sparse_transfer.training.optimiser import OptimiserSettings
from sparse_transfer.training.settings import TrainSettings
from sparse_transfer.training.state import States
from support.learners import CPU, model, random_mask

pictures, out, frozen, fault = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "frozen", sys.argv[4]
torch.set_num_threads(1)
with Group.joined("cpu") as group:
    facts = Preprocessing(resize=16, crop=16)
    splits = dataset(f"folder:{pictures}")
    settings = TrainSettings(
        epochs=2, batch_size=7, accumulate=2, optimiser=OptimiserSettings(lr=0.05), freeze_bn=frozen, average=0.9,
        clip=1.0,
    )
    made = model(seed=group.rank, freeze_bn=frozen)
    mask = random_mask(made.backbone, density=1.1 if fault == "masks" and group.rank == 1 else 0.4)
    mask.apply_(made.backbone)
    if fault == "memory" and group.rank == 1:
        forward = made.forward

        def small_only(images):
            if len(images) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(images)

        made.forward = small_only
    if fault == "gone" and group.rank == 1:
        made.forward = lambda images: os._exit(3)
    learner = Learner(made, mask, settings, CPU, group)
    task = Task(splits.train, training(facts), splits.test, evaluation(facts), selects=False)
    events = []
    trained = train(learner, task, States(out, "run", minutes=0), 21, events.append)
    if group.is_first:
        torch.save({**trained.tensors, "logits": torch.from_numpy(trained.logits)}, out / "trained.pt")
        (out / "epochs.json").write_text(json.dumps([event for event in events if event["event"] == "epoch"]))
"""


def launched(
    place: Path, pictures: Path, processes: int, how: str = "frozen", fault: str = "none"
) -> subprocess.CompletedProcess[str]:
    place.mkdir()
    script = place / "train.py"
    script.write_text(SCRIPT)
    source, tests = Path(sparse_transfer.__file__).parents[1], Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": f"{source}{os.pathsep}{tests}", "OMP_NUM_THREADS": "1"}
    words = [str(script), str(pictures), str(place), how, fault]
    launcher = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    )
    return subprocess.run(
        [sys.executable, *launcher, *words], env=environment, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """29 pictures: batches of 14, 14 and 1, so that the last one has nothing for the second process."""
    root = class_folders(tmp_path_factory.mktemp("pictures"), train=10)
    (root / "train" / "red dots" / "00.png").unlink()
    return root


def test_two_processes_equal_one_where_batchnorm_is_still(tmp_path: Path, pictures: Path) -> None:
    one, two = launched(tmp_path / "one", pictures, 1), launched(tmp_path / "two", pictures, 2)
    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    ours = torch.load(tmp_path / "two" / "trained.pt", weights_only=True)
    theirs = torch.load(tmp_path / "one" / "trained.pt", weights_only=True)
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-4, atol=1e-5, msg=key)
    epochs = [json.loads((tmp_path / name / "epochs.json").read_text()) for name in ("one", "two")]
    for single, both in zip(*epochs, strict=True):
        assert single["train_top1"] == both["train_top1"], "each picture is counted once"
        assert single["train_loss"] == pytest.approx(both["train_loss"], rel=1e-5)
        assert single["test_top1"] == both["test_top1"]


def test_processes_with_different_masks_do_not_begin(tmp_path: Path, pictures: Path) -> None:
    broken = launched(tmp_path / "two", pictures, 2, fault="masks")
    assert broken.returncode != 0
    # The second one's keeps all, and DistributedDataParallel gives it the first one's weights: no weight shows it.
    assert "MaskViolation: the mask of process 1 differs from that of process 0" in broken.stderr
    assert not list((tmp_path / "two").glob("state-*"))


def test_one_process_that_is_out_of_memory_finds_a_size_alone_and_ends_both(tmp_path: Path, pictures: Path) -> None:
    """The other one waits for gradients that do not come: nothing that is tried may be exchanged with it."""
    broken = launched(tmp_path / "two", pictures, 2, fault="memory")
    assert broken.returncode != 0
    assert (
        "7 pictures does not fit into the device's memory, 1 do; --batch-size 1 --grad-accum-steps 14" in broken.stderr
    )


def test_a_process_whose_other_is_gone_says_so_in_a_sentence(tmp_path: Path, pictures: Path) -> None:
    broken = launched(tmp_path / "two", pictures, 2, fault="gone")
    assert broken.returncode != 0
    assert "UserError: process 0 cannot go on: another one ended; see what that one said" in broken.stderr


def test_with_moving_statistics_two_processes_train_and_agree(tmp_path: Path, pictures: Path) -> None:
    done = launched(tmp_path / "two", pictures, 2, how="moving")
    assert done.returncode == 0, done.stderr


def test_alone_a_group_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with Group.joined("cpu") as group:
        assert group == Group()
        assert group.agreed("x") == "x"
        group.require_equal("digest", "the mask")
        assert torch.equal(group.sum_(torch.ones(2)), torch.ones(2))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What torchrun tells the sixth of eight processes, the second on its machine."""
    environment = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "::1", "MASTER_PORT": "29500"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return environment


def test_half_an_environment_is_refused(told: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("MASTER_ADDR")
    with pytest.raises(UserError) as error, Group.joined("cpu"):
        pass
    assert str(error.value) == (
        "WORLD_SIZE is 8, and RANK, MASTER_ADDR not set; start it with torchrun, or unset WORLD_SIZE"
    )


def test_a_world_of_one_is_alone_whatever_else_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    with Group.joined("cpu") as group:
        assert group == Group()


def test_others_that_never_come_are_not_waited_for_without_end(
    told: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASTER_PORT", "1")
    monkeypatch.setattr(distributed, "JOINING", timedelta(seconds=1))
    with pytest.raises(UserError, match=r"^::1:1: the other processes cannot be reached"), Group.joined("cpu"):
        pass


def test_on_cuda_each_process_takes_its_own_device_and_talks_on_the_cpu_too(
    told: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No GPU is here: what torch is asked for is noted, in order."""
    asked: list[object] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", asked.append)
    monkeypatch.setattr(torch.distributed, "rendezvous", lambda url, timeout: iter([("store", 5, 8)]))
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend, **how: asked.append(backend))
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: asked.append("left"))
    with Group.joined("cuda") as group:
        assert group == Group(5, 8, 1)
    assert asked == [1, "cpu:gloo,cuda:nccl", "left"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError) as error, Group.joined("cuda"):
        pass
    assert str(error.value) == (
        "process 1 of this machine has no GPU to itself: there are 1; start torchrun with --nproc-per-node 1"
    )


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_shares_of_a_batch_are_the_batch(size: int) -> None:
    parts = [np.arange(7), np.arange(7, 10), np.arange(10, 12)]
    groups = [Group(rank, size, rank) for rank in range(size)]
    for number, part in enumerate(parts):
        shares = [group.share(part) for group in groups]
        assert sorted(np.concatenate(shares).tolist()) == part.tolist()
        for share, group in zip(shares, groups, strict=True):
            found = rounds(parts, group)[number]
            assert found.tolist() == (share.tolist() or part[:1].tolist())
