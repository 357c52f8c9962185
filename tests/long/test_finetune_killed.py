"""Finetuning killed again and again, at random moments, in real processes: it ends like a run that never was.

KILLS says how many kills there are; every one of them is taken up by the next attempt at the same run.
"""

import os
import random
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from sparse_transfer.checkpoints.file import load
from sparse_transfer.runs.finished import records
from support.pictures import class_folders
from support.processes import ended, start, wait_for

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

KILLS = int(os.environ.get("SPARSE_TRANSFER_KILLS", "200"))
WAYS = {
    "cvpr2022": ("--protocol", "cvpr2022"),
    "clean": ("--protocol", "clean", "--patience", "30"),
    "everything": (
        *("--opt", "adamw", "--sched", "cosine", "--warmup-epochs", "1", "--mixup", "0.2", "--amp", "bf16"),
        *("--model-ema-decay", "0.9", "--clip-grad", "1", "--grad-accum-steps", "2", "--cache-images", "10M"),
    ),
}


def words(network: Path, pictures: Path, place: Path, way: Sequence[str]) -> list[str]:
    return [
        "finetune", str(network), f"folder:{pictures}", "--epochs", "8", "--batch-size", "4", "--lr", "0.01",
        "--seeds", "21,", "--threads", "1", "--workers", "1", "--save-minutes", "0", "--runs", str(place), *way,
    ]  # fmt: skip


def outcome(place: Path) -> tuple[str, str, float | None]:
    (found,) = records([place])
    return load(found.folder / "network.safetensors").digest, str(found.result.last), found.result.cross_entropy


def states(place: Path) -> set[str]:
    """The states that are there now, and the result as the last of them."""
    return {path.name for pattern in ("state-*.safetensors", "result.json") for path in place.rglob(pattern)}


@pytest.mark.parametrize("name", WAYS)
def test_killed_at_random_moments(network: Path, tmp_path: Path, name: str) -> None:
    pictures = class_folders(tmp_path / "pictures")
    whole = ended(start(*words(network, pictures, tmp_path / "whole", WAYS[name])))
    assert whole.status == 0, whole.err
    rng = random.Random(len(name))
    budget, kills, runs, taken_up = KILLS // len(WAYS), 0, 0, 0
    took_s = records([tmp_path / "whole"])[0].events()[-1]["t_s"]
    assert isinstance(took_s, float)
    while kills < budget:
        place = tmp_path / f"killed{runs}"
        while not records([place] if place.exists() else []):
            process = start(*words(network, pictures, place, WAYS[name]))
            try:
                if kills >= budget:
                    process.wait()
                elif rng.random() < 0.9:  # somewhere in the work, else while it starts
                    before = states(place)
                    wait_for(lambda: states(place) - before, process)  # noqa: B023 - used at once
                process.wait(rng.uniform(0, took_s / 5))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL if rng.random() < 0.8 else signal.SIGTERM)
                kills += 1
            ended(process)
        assert outcome(place) == outcome(tmp_path / "whole"), f"run {runs}, after {kills} kills in all"
        assert not list(place.rglob("state-*"))
        taken_up += sum(event["event"] == "resume" for event in records([place])[0].events())
        runs += 1
    assert taken_up > kills / 2, "most attempts found a state to go on from"
    print(f"{name}: {kills} kills in {runs} runs, {taken_up} times taken up")


def test_two_processes_stop_together_and_go_on(network: Path, tmp_path: Path) -> None:
    """SIGTERM to torchrun: both processes save and leave, and what follows is the run that never stopped."""
    import sys

    from support.processes import SOURCE

    pictures = class_folders(tmp_path / "pictures")

    def launched(place: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                "-m", "sparse_transfer", *words(network, pictures, place, ()), "--freeze-bn",
            ],
            env=os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    assert ended(launched(tmp_path / "whole"), timeout_s=600).status == 0
    process = launched(tmp_path / "stopped")
    wait_for(lambda: list((tmp_path / "stopped").rglob("state-00000001*.safetensors")) or None, process)
    process.send_signal(signal.SIGTERM)
    assert ended(process, timeout_s=600).status != 0
    assert not records([tmp_path / "stopped"])
    assert list((tmp_path / "stopped").rglob("state-*.safetensors"))
    assert ended(launched(tmp_path / "stopped"), timeout_s=600).status == 0
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")
