"""The loop on small made pictures: taken up where it stopped, brought back from divergence, ended by patience."""

import itertools
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sparse_transfer.core.canonical import Json
from sparse_transfer.core.errors import Interrupted, UserError
from sparse_transfer.data.reading import dataset
from sparse_transfer.data.split import Splits
from sparse_transfer.data.transforms import evaluation, training
from sparse_transfer.models import Preprocessing
from sparse_transfer.training import learner as learner_module
from sparse_transfer.training.learner import Learner, NotFinite, Part, Step
from sparse_transfer.training.looking import logits_of
from sparse_transfer.training.loop import Task, Trained, train
from sparse_transfer.training.objective import ObjectiveSettings
from sparse_transfer.training.optimiser import OptimiserSettings
from sparse_transfer.training.schedule import Schedule
from sparse_transfer.training.settings import TrainSettings
from sparse_transfer.training.state import States
from sparse_transfer.training.stopping import StopRequest
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


Events = list[Mapping[str, Json]]


def ignore(event: Mapping[str, Json]) -> None:
    del event


def begun(
    made: Learner,
    splits: Splits,
    folder: Path | None,
    *,
    selects: bool = False,
    minutes: float = 10,
    events: Events | None = None,
) -> Trained:
    log = ignore if events is None else events.append
    return train(made, task(splits, selects=selects), States(folder, "run", minutes=minutes), 21, log)


def epochs(events: Events) -> list[dict[str, Json]]:
    """One line of each epoch, what depends on the clock left out."""
    found = {event["epoch"]: event for event in events if event["event"] == "epoch"}
    clock = ("busy", "pictures_per_s")
    return [{key: value for key, value in event.items() if key not in clock} for event in found.values()]


def same(one: Trained, other: Trained) -> bool:
    return all(
        torch.equal(value, other.tensors[name]) for name, value in one.tensors.items()
    ) and one.position.best_value == other.position.best_value and np.array_equal(one.logits, other.logits)  # fmt: skip


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
    expected, events = Events(), Events()
    whole = begun(learner(SETTINGS), splits, None, selects=selects, events=expected)
    assert whole.position.updates == 15
    interrupting[0] = 15 + stop
    with pytest.raises(Interrupted):
        begun(learner(SETTINGS), splits, tmp_path, selects=selects, events=events)
    again = begun(learner(SETTINGS, seed=5), splits, tmp_path, selects=selects, events=events)
    assert same(whole, again)
    assert epochs(events) == epochs(expected)


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_stop_while_the_average_is_looked_at_saves_the_network_itself(
    splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    """The look puts the average in the network's place: left there, it would be what the run goes on from."""
    whole = begun(learner(SETTINGS), splits, None)
    looks = itertools.count(1)

    def stopped(*given: object, stop: StopRequest, **more: object) -> NDArray[np.float32]:
        stop.asked = stop.asked or next(looks) == epoch
        return logits_of(*given, stop=stop, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("sparse_transfer.training.loop.logits_of", stopped)
        with pytest.raises(Interrupted):
            begun(learner(SETTINGS), splits, tmp_path)
    assert same(whole, begun(learner(SETTINGS, seed=5), splits, tmp_path))


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


def test_an_epoch_says_how_busy_and_how_fast_it_was(splits: Splits) -> None:
    events = Events()
    began = time.perf_counter()
    begun(learner(SETTINGS), splits, None, events=events)
    took = time.perf_counter() - began
    told = [event for event in events if event["event"] == "epoch"]
    assert len(told) == 3
    for event in told:
        busy, rate = event["busy"], event["pictures_per_s"]
        assert isinstance(busy, float)
        assert isinstance(rate, float)
        assert 0 < busy < 1
        assert rate > 36 / took


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


def test_a_restart_in_fp16_goes_on_with_the_scaler(splits: Splits, tmp_path: Path, diverging: list[int]) -> None:
    """The update that is given up has its gradients unscaled already, which the scaler allows once an update."""
    diverging.append(7)
    made = learner(replace(SETTINGS, on_divergence="restart"), execution=replace(CPU, amp="fp16"))
    trained = begun(made, splits, tmp_path, minutes=0)
    assert trained.position.restarts == 1
    assert trained.position.updates == 15


def test_weights_that_an_update_broke_are_not_saved_over_those_to_go_back_to(splits: Splits, tmp_path: Path) -> None:
    """The loss is finite and its gradient is not: only the weights show it, and a state is due after every update."""
    made = learner(replace(SETTINGS, schedule=Schedule("constant"), on_divergence="restart"))
    hits = itertools.count()
    made.model.head.bias.register_hook(lambda gradient: gradient * float("nan") if next(hits) == 7 else gradient)
    events = Events()
    trained = begun(made, splits, tmp_path, minutes=0, events=events)
    assert trained.position.restarts == 1
    assert all(bool(value.isfinite().all()) for value in trained.tensors.values())
    rates = [event["lr"] for event in epochs(events)]
    assert rates == pytest.approx([0.05, 0.005, 0.005])


def test_broken_weights_are_named_where_no_restart_is_asked_for(splits: Splits, tmp_path: Path) -> None:
    made = learner(SETTINGS)
    made.model.head.bias.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(
        UserError, match=r"epoch 1, after update 1: head\.bias is not finite \(learning rate 0\.0\d+\); lower"
    ):
        begun(made, splits, tmp_path, minutes=0)
    newest = States(tmp_path, "run").newest()
    assert newest is not None
    assert newest.position.updates == 0


def test_fp16_that_overflows_at_any_scale_ends_instead_of_learning_nothing(splits: Splits) -> None:
    """The scale starts at 2^16 and is halved by each update that is skipped: 2^-14 after 30, in 6 epochs."""
    made = learner(replace(SETTINGS, epochs=10), execution=replace(CPU, amp="fp16"))
    made.model.head.bias.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(
        UserError, match="epoch 6, after update 5: the gradient in float16, whatever its scale, is not finite"
    ):
        begun(made, splits, None)


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
    events = Events()
    trained = begun(learner(SETTINGS), splits, None, events=events)
    assert trained.epoch == 3
    top1 = [event["test_top1"] for event in epochs(events)]
    assert trained.best.top1 == max(top1)  # type: ignore[type-var]
    assert trained.best_epoch == 1 + top1.index(max(top1))  # type: ignore[type-var]


def test_a_batch_that_does_not_fit_is_halved_until_it_does(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is here: the network raises what CUDA would for more than three pictures."""
    made = learner(SETTINGS)
    out_of_memory_above(3, made, monkeypatch)
    with pytest.raises(UserError, match=r"8 pictures does not fit .* 2 do; --batch-size 2 --grad-accum-steps 4"):
        begun(made, splits, None)


def test_the_size_that_is_named_gives_updates_of_as_many_pictures(
    splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of 9 is no size of which some make 9 again."""
    made = learner(replace(SETTINGS, batch_size=9, accumulate=2))
    out_of_memory_above(4, made, monkeypatch)
    with pytest.raises(UserError, match=r"9 pictures does not fit .* 3 do; --batch-size 3 --grad-accum-steps 6"):
        begun(made, splits, None)


def test_what_the_failed_pass_held_is_free_when_smaller_ones_are_tried(
    splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that is being handled holds the frames of the pass, and they its activations."""
    made = learner(SETTINGS)
    held: list[weakref.ref[Tensor]] = []
    alive: list[int] = []
    usual = made.model.forward

    def forward(images: Tensor) -> Tensor:
        alive.append(sum(one() is not None for one in held))
        activations = images * 2
        held.append(weakref.ref(activations))
        if len(images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return usual(images)

    monkeypatch.setattr(made.model, "forward", forward)
    with pytest.raises(UserError, match="2 do"):
        begun(made, splits, None)
    assert alive == [0, 0, 0], "of passes with 8, 4 and 2 pictures"


def test_a_last_batch_of_which_batchnorm_cannot_learn_is_refused_in_a_sentence(splits: Splits) -> None:
    """36 pictures are five times 7 and one; torch refuses one value a channel, as deep networks have."""
    made = learner(replace(SETTINGS, batch_size=7, average=None))
    made.model.backbone = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, made.model.head.in_features)
    )
    with pytest.raises(UserError) as error:
        begun(made, splits, None)
    assert str(error.value) == (
        "epoch 1, update 6: the last batch leaves a process one picture, and BatchNorm learns nothing from one pixel;"
        " use another --batch-size, or --freeze-bn"
    )


def out_of_memory_above(count: int, made: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = made.model.forward

    def forward(images: Tensor) -> Tensor:
        if len(images) > count:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return usual(images)

    monkeypatch.setattr(made.model, "forward", forward)


def test_a_damaged_weight_stops_a_run_that_saves_nothing_at_the_end_of_its_epoch(splits: Splits) -> None:
    from sparse_transfer.sparsity import MaskViolation

    made, events = learner(SETTINGS), list[Mapping[str, Json]]()
    leak_at(made, 2)
    with pytest.raises(MaskViolation, match=r"backbone\.conv1\.weight"):
        train(made, task(splits), States(None, "run"), 21, events.append)
    assert events == [], "not even the first epoch was looked at"


def leak_at(made: Learner, number: int) -> None:
    """A masked weight is moved after that update."""
    hits, update = itertools.count(), made.update

    def leaking(parts: list[Part], pictures: int, factor: float) -> Step:
        done = update(parts, pictures, factor)
        if next(hits) == number:
            with torch.no_grad():
                made.model.get_parameter("backbone.conv1.weight").add_(1.0)
        return done

    made.update = leaking  # type: ignore[method-assign]


def test_a_damaged_weight_stops_the_run_before_it_is_saved(splits: Splits, tmp_path: Path) -> None:
    from sparse_transfer.sparsity import MaskViolation

    made = learner(SETTINGS)
    leak_at(made, 6)
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
