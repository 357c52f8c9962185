"""The loop on small made pictures: taken up where it stopped, brought back from divergence, ended by patience."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sparse_transfer.core.canonical import Json
from sparse_transfer.core.errors import Interrupted, UserError
from sparse_transfer.data.reading import dataset
from sparse_transfer.data.split import Splits
from sparse_transfer.data.transforms import evaluation, training
from sparse_transfer.models import Preprocessing
from sparse_transfer.training import learner as learner_module
from sparse_transfer.training.learner import Learner, NotFinite, Part, Step
from sparse_transfer.training.loop import Task, Trained, train
from sparse_transfer.training.objective import ObjectiveSettings
from sparse_transfer.training.optimiser import OptimiserSettings
from sparse_transfer.training.schedule import Schedule
from sparse_transfer.training.settings import TrainSettings
from sparse_transfer.training.state import States
from support.learners import CPU, learner
from support.pictures import class_folders

FACTS = Preprocessing(resize=16, crop=16)
SETTINGS = TrainSettings(
    epochs=3,
    batch_size=8,
    optimiser=OptimiserSettings(lr=0.05),
    schedule=Schedule("cosine"),
    objective=ObjectiveSettings(mixup=0.2, label_smoothing=0.1),
    average=0.9,
)


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    return dataset(f"folder:{class_folders(tmp_path_factory.mktemp('pictures'))}")


def task(splits: Splits, *, selects: bool = False) -> Task:
    return Task(splits.train, training(FACTS), splits.test, evaluation(FACTS), selects)


def ignore(event: Mapping[str, Json]) -> None:
    del event


def begun(made: Learner, splits: Splits, folder: Path | None, *, selects: bool = False, minutes: float = 10) -> Trained:
    return train(made, task(splits, selects=selects), States(folder, "run", minutes=minutes), 21, ignore)


def same(one: Trained, other: Trained) -> bool:
    return all(
        torch.equal(value, other.tensors[name]) for name, value in one.tensors.items()
    ) and one.position.history == other.position.history and np.array_equal(one.logits, other.logits)  # fmt: skip


@pytest.fixture
def interrupting(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Put a number into the list, and the process gets its signal during that update."""
    import os
    import signal

    calls, at = itertools.count(), [-1]
    update = Learner.update

    def watched(self: Learner, parts: list[Part], pictures: int, factor: float) -> Step:
        if next(calls) == at[0]:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(self, parts, pictures, factor)

    monkeypatch.setattr(Learner, "update", watched)
    yield at
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "the handler of before is back"


@pytest.mark.parametrize("stop", [0, 3, 4, 9, 14])
@pytest.mark.parametrize("selects", [False, True])
def test_a_training_that_was_stopped_ends_like_one_that_was_not(
    splits: Splits, tmp_path: Path, interrupting: list[int], stop: int, selects: bool
) -> None:
    """36 pictures in batches of 8: five updates an epoch, mixup, smoothing, an average, and a state at each stop."""
    whole = begun(learner(SETTINGS), splits, None, selects=selects)
    assert whole.position.updates == 15
    interrupting[0] = 15 + stop
    with pytest.raises(Interrupted):
        begun(learner(SETTINGS), splits, tmp_path, selects=selects)
    again = begun(learner(SETTINGS, seed=5), splits, tmp_path, selects=selects)
    assert same(whole, again)


def test_views_cut_on_the_device_are_the_same_after_a_stop(
    splits: Splits, tmp_path: Path, interrupting: list[int]
) -> None:
    """Other workers, and a cache that one of the two trainings does without, change nothing either."""
    cut_there = Task(splits.train, training(FACTS, on_device=True), splits.test, evaluation(FACTS), selects=False)

    def go(folder: Path | None, **how: int) -> Trained:
        made = learner(SETTINGS, execution=replace(CPU, **how))  # type: ignore[arg-type]
        return train(made, cut_there, States(folder, "run"), 21, ignore)

    whole = go(None)
    interrupting[0] = 15 + 7
    with pytest.raises(Interrupted):
        go(tmp_path, workers=2)
    assert same(whole, go(tmp_path, workers=1, cache_bytes=10**7))
    assert not same(whole, begun(learner(SETTINGS), splits, None)), "the pixels are not the host's to the last bit"


def test_an_epoch_says_how_busy_it_was_and_its_history_does_not(splits: Splits) -> None:
    events: list[Mapping[str, Json]] = []
    trained = train(learner(SETTINGS), task(splits), States(None, "run"), 21, events.append)
    shares = [event["busy"] for event in events if event["event"] == "epoch"]
    assert len(shares) == 3
    assert all(isinstance(share, float) and 0 < share < 1 for share in shares)
    assert not [epoch for epoch in trained.position.history if "busy" in epoch], "a time is another in every training"


def test_states_by_the_clock_change_nothing(splits: Splits, tmp_path: Path) -> None:
    assert same(begun(learner(SETTINGS), splits, None), begun(learner(SETTINGS), splits, tmp_path, minutes=0))
    assert len(list(tmp_path.glob("state-*.safetensors"))) == 2


def test_a_finished_training_taken_up_again_gives_the_same(splits: Splits, tmp_path: Path) -> None:
    assert same(begun(learner(SETTINGS), splits, tmp_path), begun(learner(SETTINGS, seed=5), splits, tmp_path))


def test_dropout_draws_the_same_after_a_stop(splits: Splits, tmp_path: Path, interrupting: list[int]) -> None:
    def dropping() -> Learner:
        made = learner(SETTINGS)
        made.model.backbone.register_forward_hook(
            lambda module, _, features: nn.functional.dropout(features, 0.5, module.training)
        )
        return made

    whole = begun(dropping(), splits, None)
    interrupting[0] = 15 + 7
    with pytest.raises(Interrupted):
        begun(dropping(), splits, tmp_path)
    torch.manual_seed(99)
    assert same(whole, begun(dropping(), splits, tmp_path))


def test_each_picture_is_learnt_once_an_epoch_whatever_was_saved(
    splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    update = Learner.update

    def watched(self: Learner, parts: list[Part], pictures: int, factor: float) -> Step:
        seen.append(sum(len(part.labels) for part in parts))
        return update(self, parts, pictures, factor)

    monkeypatch.setattr(Learner, "update", watched)
    begun(learner(replace(SETTINGS, accumulate=2)), splits, tmp_path)
    assert seen == [16, 16, 4] * 3, "two passes of 8 an update; the last, smaller one is kept"


@pytest.fixture
def diverging(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The losses of these updates, counted over the whole test, are NaN."""
    at: list[int] = []
    calls = itertools.count()
    losses = learner_module.losses

    def poisoned(*given: Tensor, **more: Tensor) -> Tensor:
        found = losses(*given, **more)  # type: ignore[arg-type]
        return found * float("nan") if next(calls) in at else found

    monkeypatch.setattr(learner_module, "losses", poisoned)
    return at


def test_a_loss_that_is_not_finite_stops_the_run_and_names_its_pictures(splits: Splits, diverging: list[int]) -> None:
    diverging.append(7)
    made = learner(replace(SETTINGS, schedule=Schedule("constant")))
    with pytest.raises(UserError) as error:
        begun(made, splits, None)
    sentence = str(error.value)
    assert sentence.startswith("epoch 2, update 3: the loss is not finite (learning rate 0.05, pictures ")
    named = sum(path in sentence for path in splits.train.paths)
    assert named == 8
    assert "--on-divergence restart" in sentence


def test_a_restart_goes_back_and_on_at_a_tenth(splits: Splits, tmp_path: Path, diverging: list[int]) -> None:
    diverging.append(7)
    events: list[Mapping[str, Json]] = []
    settings = replace(SETTINGS, schedule=Schedule("constant"), on_divergence="restart")
    trained = train(learner(settings), task(splits), States(tmp_path, "run", minutes=0), 21, events.append)
    assert trained.position.restarts == 1
    rates = [event["lr"] for event in events if event["event"] == "epoch"]
    assert rates == pytest.approx([0.05, 0.005, 0.005])
    assert [event["event"] for event in events if event["event"] != "epoch"] == ["restart"]


def test_restarts_end(splits: Splits, tmp_path: Path, diverging: list[int]) -> None:
    diverging.extend(range(3, 1000))
    settings = replace(SETTINGS, on_divergence="restart", restarts=2)
    with pytest.raises(UserError, match="not finite after 2 restarts"):
        begun(learner(settings), splits, tmp_path)


def test_a_stop_after_a_restart_keeps_its_rate(
    splits: Splits, tmp_path: Path, diverging: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, on_divergence="restart")
    diverging.append(7)
    whole = begun(learner(settings), splits, tmp_path / "whole", minutes=0)
    diverging.append(15 + 1 + 7)  # the same update of the second training
    (tmp_path / "stopped").mkdir()
    save, left = States.save, [10]

    def dying(self: States, state: object) -> None:
        save(self, state)  # type: ignore[arg-type]
        left[0] -= 1
        if not left[0]:
            raise Interrupted

    monkeypatch.setattr(States, "save", dying)
    with pytest.raises(Interrupted):
        begun(learner(settings), splits, tmp_path / "stopped", minutes=0)
    monkeypatch.setattr(States, "save", save)
    assert same(whole, begun(learner(settings), splits, tmp_path / "stopped", minutes=0))


def test_patience_ends_a_run_and_the_best_epoch_is_kept(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(SETTINGS, epochs=10, patience=2, average=None, objective=ObjectiveSettings())
    values = iter([1.0, 0.5, 0.7, 0.6])
    monkeypatch.setattr("sparse_transfer.training.loop.cross_entropy", lambda logits, labels: next(values))
    made = learner(settings)
    snapshots: list[dict[str, Tensor]] = []
    trained = train(
        made,
        task(splits, selects=True),
        States(None, "run"),
        21,
        lambda event: snapshots.append({key: value.clone() for key, value in made.model.state_dict().items()}),
    )
    assert trained.epoch == trained.best_epoch == 2
    assert trained.position.ended == "no better validation loss in 2 epochs: ended after 4"
    assert all(torch.equal(value, snapshots[1][name]) for name, value in trained.tensors.items())


def test_what_only_looks_keeps_the_last_epoch_and_notes_the_best(splits: Splits) -> None:
    trained = begun(learner(SETTINGS), splits, None)
    assert trained.epoch == 3
    top1 = [event["test_top1"] for event in trained.position.history]
    assert trained.best.top1 == max(top1)  # type: ignore[type-var]
    assert trained.best_epoch == 1 + top1.index(max(top1))  # type: ignore[type-var]


def test_a_batch_that_does_not_fit_is_halved_until_it_does(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is here: the network raises what CUDA would for more than three pictures."""
    made = learner(SETTINGS)
    forward = made.forward

    def small_only(images: Tensor) -> Tensor:
        if len(images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(images)

    monkeypatch.setattr(made, "forward", small_only)
    with pytest.raises(UserError, match=r"8 pictures does not fit .* 2 do; --batch-size 2 --grad-accum-steps 4"):
        begun(made, splits, None)


def test_a_damaged_weight_stops_the_run_before_it_is_saved(splits: Splits, tmp_path: Path) -> None:
    from sparse_transfer.sparsity import MaskViolation

    made = learner(SETTINGS)
    hits = itertools.count()
    update = made.update

    def leaking(parts: list[Part], pictures: int, factor: float) -> Step:
        done = update(parts, pictures, factor)
        if next(hits) == 6:
            with torch.no_grad():
                made.model.get_parameter("backbone.conv1.weight").add_(1.0)
        return done

    made.update = leaking  # type: ignore[method-assign]
    with pytest.raises(MaskViolation, match=r"backbone\.conv1\.weight"):
        begun(made, splits, tmp_path, minutes=0)
    newest = States(tmp_path, "run").newest()
    assert newest is not None
    assert newest.position.updates == 6
    learner(SETTINGS).restore(dict(newest.tensors), dict(newest.scalars))


def test_not_finite_is_seen_before_any_weight_moves() -> None:
    made = learner()
    before = {key: value.clone() for key, value in made.model.named_parameters()}
    images = torch.full((2, 3, 8, 8), float("nan"))
    with pytest.raises(NotFinite):
        made.update([Part(images, torch.tensor([0, 1]))], 2, 1.0)
    assert all(torch.equal(value, before[key]) for key, value in made.model.named_parameters())
