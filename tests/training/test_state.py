"""State files: whole or passed over, the newest two, never those of another run."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sparse_transfer.checkpoints.checked import write_checked
from sparse_transfer.training.learner import Learner
from sparse_transfer.training.optimiser import OptimiserSettings
from sparse_transfer.training.settings import TrainSettings
from sparse_transfer.training.state import Damaged, Position, State, States, read_state
from support.learners import CPU, learner, part, steps


def state(updates: int, value: float = 0.0) -> State:
    seconds = {"train": 0.1 + 0.2}
    return State(Position(updates=updates, loss_sum=1 / 3, seconds=seconds), {"model/w": torch.full((5,), value)}, {})


def test_what_was_saved_comes_back_bit_for_bit(tmp_path: Path) -> None:
    states = States(tmp_path, "run")
    states.save(state(3, 0.1))
    found = states.newest()
    assert found is not None
    assert found.position == state(3).position
    assert torch.equal(found.tensors["model/w"], torch.full((5,), 0.1))


def test_the_newest_two_stay(tmp_path: Path) -> None:
    states = States(tmp_path, "run")
    for updates in (1, 2, 10, 3):
        states.save(state(updates))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "state-000000003.safetensors",
        "state-000000010.safetensors",
    ]


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "other text"])
def test_a_damaged_newest_falls_back_to_the_one_before(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    states = States(tmp_path, "run")
    states.save(state(1))
    states.save(state(2))
    path = tmp_path / "state-000000002.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-3] ^= 1
    path.write_bytes({"cut": bytes(content[:-4]), "flipped": bytes(content), "emptied": b""}.get(damage, b"no state"))
    found = states.newest()
    assert found is not None
    assert found.position.updates == 1
    assert "state-000000002.safetensors" in capsys.readouterr().err


def test_damaged_states_take_no_new_ones_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Theirs are the higher numbers: as two of the newest two they would be all that is ever kept."""
    states = States(tmp_path, "run")
    for updates in (8, 9):
        states.save(state(updates))
        (tmp_path / f"state-00000000{updates}.safetensors").write_bytes(b"damaged")
    again = States(tmp_path, "run")
    assert again.newest() is None
    said = capsys.readouterr().err.splitlines()
    assert ["the one before is taken" in said[0], "so the run begins again" in said[1]] == [True, True]
    for updates in (0, 3, 4):
        again.save(state(updates))
    found = States(tmp_path, "run").newest()
    assert found is not None
    assert found.position.updates == 4
    assert len(list(tmp_path.iterdir())) == 2


def test_every_flipped_bit_is_seen(tmp_path: Path) -> None:
    States(tmp_path, "run").save(state(1, 0.5))
    path = tmp_path / "state-000000001.safetensors"
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 16]) + whole[position + 1 :])
        try:
            found = read_state(path, "run")
        except Damaged:
            continue
        # A blank of the header's padding, or one key's spelling, may change and mean the same.
        assert torch.equal(found.tensors["model/w"], torch.full((5,), 0.5))
        assert found.position == state(1).position


def test_a_state_of_another_run_is_not_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    States(tmp_path, "one").save(state(1))
    assert States(tmp_path, "two").newest() is None
    assert "belongs to run one" in capsys.readouterr().err


def test_a_state_that_names_no_position_is_damaged(tmp_path: Path) -> None:
    write_checked(tmp_path / "state-000000001.safetensors", {}, {"run": "run", "scalars": {}})
    with pytest.raises(Damaged, match="does not say where the run was"):
        read_state(tmp_path / "state-000000001.safetensors", "run")


def test_without_a_folder_nothing_is_kept() -> None:
    states = States(None, "run")
    states.save(state(1))
    assert states.newest() is None
    assert not states.due(epoch_ends=True)


def test_it_is_time_to_save_by_the_clock_and_at_ends_that_are_worth_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    states = States(tmp_path, "run", minutes=1)
    assert states.due(epoch_ends=True), "nothing was saved yet: it costs nothing"
    states._cost_s = 0.5
    now = 40.0
    assert not states.due(epoch_ends=True), "half a second of 40 is more than a hundredth"
    now = 51.0
    assert states.due(epoch_ends=True)
    assert not states.due(epoch_ends=False)
    now = 61.0
    assert states.due(epoch_ends=False)


def handed_on(made: Learner, again: Learner, folder: Path) -> None:
    """``again`` takes up, from a file, where ``made`` is."""
    states = States(folder, "run")
    states.save(State(Position(), *made.state()))
    found = states.newest()
    assert found is not None
    again.restore(dict(found.tensors), dict(found.scalars))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_learner_goes_on_exactly_from_its_state(tmp_path: Path, name: str) -> None:
    settings = TrainSettings(optimiser=OptimiserSettings(name, lr=0.1), average=0.9)  # type: ignore[arg-type]
    whole, first, second = (learner(settings) for _ in range(3))
    steps(whole, 5)
    steps(first, 2)
    handed_on(first, second, tmp_path)
    for number in range(2, 5):
        second.update([part(number)], 8, 1.0)
    ours, theirs = second.state()[0], whole.state()[0]
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key


def test_what_the_optimiser_remembers_lies_in_memory_as_before(tmp_path: Path) -> None:
    """Channels last like its weight: on CUDA torch updates tensors of different formats one by one."""
    made, again = (learner(execution=replace(CPU, channels_last=True)) for _ in range(2))
    steps(made, 1)
    handed_on(made, again, tmp_path)
    weight, before = (
        again.model.get_parameter("backbone.conv1.weight"),
        made.model.get_parameter("backbone.conv1.weight"),
    )
    assert before.stride() == (27, 1, 9, 3)
    for found_state, told in zip(
        again.optimiser.state[weight].values(), made.optimiser.state[before].values(), strict=True
    ):
        assert found_state.stride() == told.stride() == before.stride()
        assert torch.equal(found_state, told)


def test_a_state_with_a_live_pruned_weight_is_refused(tmp_path: Path) -> None:
    from sparse_transfer.sparsity import MaskViolation

    made = learner()
    tensors, scalars = made.state()
    tensors = {key: value + 1 if "conv1" in key and value.ndim == 4 else value for key, value in tensors.items()}
    with pytest.raises(MaskViolation, match="conv1"):
        learner().restore(tensors, scalars)
