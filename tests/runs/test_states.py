"""States of runs in work: whole or not there, the newest alone, of that run and epoch alone."""

import signal
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sparse_transfer.runs.states import EpochStates
from sparse_transfer.runs.store import Run, RunStore
from support.faults import at_call, in_child, killed
from support.runs import identity, record, result
from support.trees import bits


def state(number: float) -> dict[str, Tensor]:
    return {"weights": torch.tensor([[number, -0.0]]), "steps": torch.tensor(int(number)), "none": torch.empty(0, 3)}


@contextmanager
def working(root: Path, *seeds: int) -> Generator[list[Run]]:
    with RunStore(root).open_many([record(identity(seed)) for seed in seeds]) as runs:
        yield runs


def names(run: Run) -> list[str]:
    return sorted(path.name for path in run.folder.glob("state-*"))


def numbers(found: object) -> tuple[int, list[int]]:
    """(epoch, what each state was made of) of what ``newest`` gave."""
    assert isinstance(found, tuple)
    epoch, states = found
    return epoch, [int(one["steps"]) for one in states]


def test_the_newest_state_of_each_run_comes_back_bit_for_bit(tmp_path: Path) -> None:
    with working(tmp_path, 21, 51) as runs:
        states = EpochStates(runs)
        assert states.newest() is None
        for epoch in (1, 2, 10):
            states.keep(epoch, [state(epoch), state(100 + epoch)])
        assert [names(run) for run in runs] == [["state-10.safetensors"]] * 2
        assert load_file(runs[0].folder / "state-10.safetensors")["weights"].tolist() == [[10, 0]]
    with working(tmp_path, 21, 51) as runs:
        found = EpochStates(runs).newest()
        assert numbers(found) == (10, [10, 110])
        assert found is not None
        for name, tensor in state(110).items():
            assert bits(found[1][1][name]) == bits(tensor), "-0.0 stays -0.0"


def test_a_finished_run_has_no_state_and_the_others_keep_theirs(tmp_path: Path) -> None:
    with working(tmp_path, 21, 51) as runs:
        EpochStates(runs).keep(3, [state(1), state(2)])
        runs[0].finish(result(identity(21)))
        assert [names(run) for run in runs] == [[], ["state-3.safetensors"]]
    with working(tmp_path, 51) as runs:
        assert numbers(EpochStates(runs).newest()) == (3, [2])


def test_without_runs_nothing_is_kept_and_nothing_found() -> None:
    EpochStates([]).keep(1, [])
    assert EpochStates([]).newest() is None


def test_seeds_stopped_at_different_epochs_begin_again_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, epoch in ((21, 5), (51, 3)):
        with working(tmp_path, seed) as runs:
            EpochStates(runs).keep(epoch, [state(epoch)])
    with working(tmp_path, 21, 51) as runs:
        assert EpochStates(runs).newest() is None
        assert capsys.readouterr().err == "the seeds were not stopped at one epoch: they begin again together\n"
        EpochStates(runs).keep(1, [state(1), state(1)])
        assert [names(run) for run in runs] == [["state-1.safetensors"]] * 2


def test_a_kill_at_any_system_call_leaves_one_epoch_that_all_have(tmp_path: Path) -> None:
    def keep(root: Path, epoch: int) -> list[str]:
        with working(root, 21, 51) as runs, at_call(-1, lambda: None) as made:
            EpochStates(runs).keep(epoch, [state(epoch), state(epoch)])
        return made

    keep(tmp_path / "count", 1)
    calls = len(keep(tmp_path / "count", 2))
    assert calls > 8
    for number in range(calls):
        root = tmp_path / str(number)
        keep(root, 1)

        def work(number: int = number, root: Path = root) -> None:
            with working(root, 21, 51) as runs, at_call(number, killed):
                EpochStates(runs).keep(2, [state(2), state(2)])

        assert in_child(work) == -signal.SIGKILL
        with working(root, 21, 51) as runs:
            epoch, made_of = numbers(EpochStates(runs).newest())
            assert made_of == [epoch, epoch]


def test_no_changed_byte_and_no_cut_goes_unseen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with working(tmp_path, 21) as runs:
        states = EpochStates(runs)
        states.keep(7, [state(7)])
        path = runs[0].folder / "state-7.safetensors"
        whole = path.read_bytes()
        damaged = [whole[:at] for at in range(0, len(whole), 7)]
        damaged += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(len(whole))]
        unseen = 0
        for content in damaged:
            path.write_bytes(content)
            found = states.newest()
            said = capsys.readouterr().err
            if found is None:
                assert said == f"warning: {path}: the state is damaged; the fit begins again\n"
            else:
                unseen += 1
                assert bits(found[1][0]["weights"]) == bits(state(7)["weights"])
        assert unseen < 8, "white space that fills the header up"


def test_the_state_of_another_run_or_epoch_is_not_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ExitStack() as stack:
        (one,) = stack.enter_context(working(tmp_path, 21))
        (other,) = stack.enter_context(working(tmp_path, 51))
        EpochStates([one]).keep(4, [state(4)])
        content = (one.folder / "state-4.safetensors").read_bytes()
        for copy in (other.folder / "state-4.safetensors", one.folder / "state-5.safetensors"):
            copy.write_bytes(content)
        for run in (one, other):
            assert EpochStates([run]).newest() is None
            assert "the state is damaged; the fit begins again" in capsys.readouterr().err


def test_files_that_only_look_like_states_are_left_alone(tmp_path: Path) -> None:
    with working(tmp_path, 21) as runs:
        for name in ("state-x.safetensors", "state-.safetensors", "state-²3.safetensors", "state-3.pt"):
            (runs[0].folder / name).write_bytes(b"")
        EpochStates(runs).keep(1, [state(1)])
        assert numbers(EpochStates(runs).newest()) == (1, [1])
        assert len(names(runs[0])) == 5
