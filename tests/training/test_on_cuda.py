"""What a CPU cannot show: pictures on their way, masks, memory and processes on a real GPU, with the CPU as oracle."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import sparse_transfer
from sparse_transfer.core.canonical import Json
from sparse_transfer.core.errors import Interrupted
from sparse_transfer.data.loading import batches
from sparse_transfer.data.reading import dataset
from sparse_transfer.data.split import Splits
from sparse_transfer.data.transforms import evaluation, training
from sparse_transfer.models import Preprocessing
from sparse_transfer.runs.finished import FinishedRun, records
from sparse_transfer.sparsity import prunable_weights
from sparse_transfer.training.learner import Learner, Part, Step
from sparse_transfer.training.loop import Task, Trained, train
from sparse_transfer.training.objective import ObjectiveSettings
from sparse_transfer.training.optimiser import OptimiserSettings
from sparse_transfer.training.schedule import Schedule
from sparse_transfer.training.sending import on_device
from sparse_transfer.training.settings import Amp, Execution, TrainSettings
from sparse_transfer.training.state import States
from support.learners import learner
from support.pictures import class_folders

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device")

FACTS = Preprocessing(resize=16, crop=16)
CUDA = Execution(DEVICE, threads=1, workers=2)
SETTINGS = TrainSettings(
    epochs=2,
    batch_size=4,
    accumulate=2,
    optimiser=OptimiserSettings(lr=0.05),
    schedule=Schedule("cosine"),
    objective=ObjectiveSettings(mixup=0.2, label_smoothing=0.1),
    average=0.9,
    clip=1.0,
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def splits(pictures: Path) -> Splits:
    return dataset(f"folder:{pictures}")


def trained(
    made: Learner, splits: Splits, folder: Path | None = None, *, there: bool = False
) -> tuple[Trained, list[Mapping[str, Json]]]:
    """there: crops and flips are cut on the device."""
    events: list[Mapping[str, Json]] = []
    task = Task(splits.train, training(FACTS, on_device=there), splits.test, evaluation(FACTS), selects=False)
    return train(made, task, States(folder, "run"), 21, events.append), events


def test_what_arrives_is_what_was_decoded(splits: Splits) -> None:
    """While batches are worked on, and their memory is given to later ones."""
    expected = list(batches(splits.train, evaluation(FACTS), batch_size=3))
    sent = batches(splits.train, evaluation(FACTS), batch_size=3, pinned=True)
    found: list[tuple[Tensor, Tensor]] = []
    for batch in on_device(sent, torch.device(DEVICE)):
        work = torch.randn(500, 500, device=DEVICE)
        for _ in range(50):  # what the device is still at when the next batch is sent
            work = work @ work / work.norm()
        found.append((batch.images.clone(), batch.labels.clone()))
    assert len(found) == 12
    for batch, (images, labels) in zip(expected, found, strict=True):
        assert torch.equal(images.cpu(), batch.images)
        assert torch.equal(labels.cpu(), batch.labels)


def test_batches_that_are_pinned_are_pinned(splits: Splits) -> None:
    batch = next(batches(splits.train, training(FACTS), batch_size=3, seed=0, pinned=True))
    assert batch.images.is_pinned()
    assert batch.labels.is_pinned()


@pytest.mark.parametrize("there", [False, True])
def test_a_training_is_that_of_a_cpu_up_to_the_order_of_additions(splits: Splits, there: bool) -> None:
    _, gpu = trained(learner(SETTINGS, execution=CUDA), splits, there=there)
    _, cpu = trained(learner(SETTINGS, execution=replace(CUDA, device="cpu")), splits, there=there)
    for ours, theirs in zip(gpu, cpu, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-2), "TF32 has 10 bits"


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_masks_hold_whatever_the_precision(splits: Splits, amp: Amp, compiled: bool) -> None:
    """Weights, momentum and the average; the loop audits all three as well, at the end of each epoch."""
    made = learner(SETTINGS, execution=replace(CUDA, amp=amp, compile=compiled))
    before = {name: weight.detach() == 0 for name, weight in prunable_weights(made.model.backbone).items()}
    ended, events = trained(made, splits)
    for name, pruned in before.items():
        weight = made.model.backbone.get_parameter(name)
        momentum = made.optimiser.state[weight]["momentum_buffer"]
        for values in (weight, momentum, ended.tensors[f"backbone.{name}"]):
            assert not values[pruned].any()
            assert values[~pruned].any()
    assert all(0 < float(str(event["busy"])) <= 1 for event in events if event["event"] == "epoch")


def test_a_training_that_was_stopped_goes_on(splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = trained(learner(SETTINGS, execution=CUDA), splits)
    update, calls = Learner.update, iter(range(100))

    def stopped(self: Learner, parts: list[Part], seen: int, factor: float) -> Step:
        if next(calls) == 6:
            raise Interrupted
        return update(self, parts, seen, factor)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "update", stopped)
        with pytest.raises(Interrupted):
            trained(learner(SETTINGS, execution=CUDA), splits, tmp_path)
    again, events = trained(learner(SETTINGS, seed=5, execution=CUDA), splits, tmp_path)
    assert events[0]["event"] == "resume"
    for name, value in whole.tensors.items():
        torch.testing.assert_close(again.tensors[name], value, rtol=1e-2, atol=1e-3, msg=name)


def test_where_memory_ends_a_size_is_named_that_fits() -> None:
    """A network of few weights on large pictures, in a device that is held to 300 MB more than is used."""
    made = learner(TrainSettings(batch_size=64), execution=CUDA)
    images = torch.randn(64, 3, 512, 512)
    part = Part(images.to(DEVICE), torch.zeros(64, dtype=torch.int64, device=DEVICE))
    torch.cuda.empty_cache()
    limit = torch.cuda.memory_reserved() + 300 * 2**20
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(0).total_memory)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            made.update([part], 64, 1.0)
        error = made.out_of_memory(part)
        assert error.do is not None
        size = int(error.do.split()[1])
        assert 1 <= size < 64
        made.update([Part(part.images[:size], part.labels[:size])], size, 1.0)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def finetuned(place: Path, pictures: Path, *how: str, launcher: tuple[str, ...] = ()) -> FinishedRun:
    """One run of the command, with a tiny sparse network."""
    network = Path(sparse_transfer.__file__).parent / "zoo" / "resnet20-gmp80.safetensors"
    words = [sys.executable, *launcher, "-m", "sparse_transfer", "finetune", network, f"folder:{pictures}", *how]
    more = ["--epochs", 1, "--batch-size", 8, "--device", DEVICE, "--runs", place]
    done = subprocess.run(list(map(str, words + more)), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    (run,) = records([place])
    return run


@pytest.mark.parametrize(("amp", "numerics"), [("off", "tf32"), ("bf16", "bf16"), ("fp16", "fp16")])
def test_the_command_trains_there(tmp_path: Path, pictures: Path, amp: str, numerics: str) -> None:
    assert finetuned(tmp_path, pictures, "--amp", amp).result.identity.numerics == numerics


def test_two_gpus_train_as_one(tmp_path: Path, pictures: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("PyTorch finds one CUDA device")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    run = finetuned(tmp_path, pictures, "--sync-bn", launcher=launcher)
    assert run.result.identity.settings["batch_norm"] == "synchronised"
