import json
import os
import platform
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sparse_transfer.core.errors import Interrupted, UserError
from sparse_transfer.models import Head
from sparse_transfer.runs.events import Event, EventLog
from sparse_transfer.runs.finished import FinishedRun, records
from sparse_transfer.runs.record import RunRecord
from sparse_transfer.runs.store import Run, RunStore
from support.faults import in_child
from support.runs import confusion, identity, record, result


def do(store: RunStore, seed: int = 21, *, right: int = 90, force: bool = False) -> FinishedRun:
    """One small run, from beginning to end."""
    with store.open(record(identity(seed)), force=force) as run:
        if run.finished is not None:
            return run.finished
        run.log({"event": "epoch", "epoch": 1, "test_top1": 0.5})
        run.save_confusion(confusion(right, 100 - right))
        return run.finish(result(identity(seed), right=right))


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


def test_a_run_leaves_its_record_events_counts_and_result(store: RunStore) -> None:
    finished = do(store)
    assert finished.folder == store.root / "linear" / "pets" / "acdc80" / f"seed21-{identity().id}"
    assert sorted(path.name for path in finished.folder.iterdir()) == [
        "confusion.npz",
        "metrics.jsonl",
        "result.json",
        "run.json",
    ]
    assert finished.record() == record()
    assert [event["event"] for event in finished.events()] == ["start", "epoch", "finish"]
    np.testing.assert_array_equal(finished.confusion().counts, confusion().counts)
    assert finished.confusion().classes == ("cat", "dog")
    assert finished.predictions() is None
    assert finished.result.finished.endswith("+00:00")
    again = store.find(identity())
    assert again == finished
    assert records([store.root]) == [finished]


def test_a_finished_run_is_shown_and_not_done_again(store: RunStore) -> None:
    first = do(store)
    before = (first.folder / "metrics.jsonl").read_bytes()
    with store.open(record()) as run:
        assert run.finished == first
        assert run.folder == first.folder
        with pytest.raises(RuntimeError, match="is finished"):
            run.log({})
    assert (first.folder / "metrics.jsonl").read_bytes() == before


def test_force_does_it_again_beside_the_old_and_the_newest_is_found(store: RunStore) -> None:
    first = do(store)
    old = (first.folder / "result.json").read_bytes()
    second, third = do(store, right=80, force=True), do(store, right=70, force=True)
    assert [run.folder.name for run in (second, third)] == [f"{first.folder.name}.2", f"{first.folder.name}.3"]
    assert (first.folder / "result.json").read_bytes() == old
    assert store.find(identity()) == third
    assert do(store) == third
    assert records([store.root]) == [first, second, third]


def test_a_forced_run_that_was_stopped_hides_nothing_and_is_taken_up_by_the_next(store: RunStore) -> None:
    first = do(store)
    with store.open(record(), force=True) as run:
        stopped = run.folder
    assert store.find(identity()) == first
    assert do(store, force=True).folder == stopped


def test_an_unfinished_run_is_taken_up_with_its_events(store: RunStore) -> None:
    def work() -> None:
        with store.open(record()) as run:
            run.log({"event": "epoch", "epoch": 1})
            raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        work()
    assert store.find(identity()) is None
    with store.open(record()) as run:
        run.finish(result())
    assert run.finished is not None
    said = [(event["event"], event.get("reason")) for event in run.finished.events()]
    assert said == [("start", None), ("epoch", None), ("failed", "KeyError: 'lost'"), ("start", None), ("finish", None)]


def test_an_interruption_passes_through_and_is_written_down(store: RunStore) -> None:
    with pytest.raises(Interrupted), store.open(record()) as run:
        raise Interrupted("SIGTERM")
    assert '"reason":"Interrupted: SIGTERM"' in (run.folder / "metrics.jsonl").read_text()


def test_a_log_that_cannot_be_written_any_more_does_not_hide_what_ended_the_run(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> None:
        with store.open(record()):
            monkeypatch.setattr(EventLog, "append", refuse)
            raise KeyError("first")

    def refuse(log: EventLog, event: Event) -> None:
        raise OSError("second")

    with pytest.raises(KeyError, match="first"):
        work()


def test_an_error_after_the_result_leaves_the_run_finished(store: RunStore) -> None:
    def work() -> None:
        with store.open(record()) as run:
            run.finish(result())
            raise KeyError("late")

    with pytest.raises(KeyError, match="late"):
        work()
    assert store.find(identity()) is not None
    assert [event["event"] for event in do(store).events()] == ["start", "finish"]


def test_leaving_without_a_result_is_no_result(store: RunStore) -> None:
    with store.open(record()):
        pass
    assert store.find(identity()) is None
    assert records([store.root]) == []


def test_the_result_of_another_run_is_refused(store: RunStore) -> None:
    with pytest.raises(ValueError, match="another run"), store.open(record()) as run:
        run.finish(result(identity(51)))


def test_nan_in_a_result_is_null_and_listed(store: RunStore) -> None:
    with store.open(record()) as run:
        finished = run.finish(replace(result(), cross_entropy=float("inf")))
    assert finished.result.cross_entropy is None
    assert finished.result.not_finite == {"cross_entropy": "inf"}
    assert store.find(identity()) == finished


def test_a_result_that_could_not_be_read_again_is_not_written(store: RunStore) -> None:
    broken = replace(result(), last=replace(result().last, top1=float("nan")))
    with pytest.raises(ValueError, match=r'"last\.top1" is None, not float'), store.open(record()) as run:
        run.finish(broken)
    assert store.find(identity()) is None


def test_predictions_and_the_best_epochs_counts_are_kept_when_given(store: RunStore) -> None:
    labels, predictions = np.array([0, 1, 1], dtype=np.int32), np.array([0, 0, 1], dtype=np.int64)
    with store.open(record()) as run:
        run.save_confusion(confusion(), best=confusion(95, 5), labels=labels, predictions=predictions)
        finished = run.finish(result())
    assert finished.confusion("best").correct == 145
    kept = finished.predictions()
    assert kept is not None
    np.testing.assert_array_equal(kept, [labels, predictions])


def test_the_network_file_is_in_the_digests(store: RunStore) -> None:
    with store.open(record()) as run:
        run.network_path.write_bytes(b"weights")
        finished = run.finish(result())
    # sha256sum of the seven bytes
    assert finished.result.digests == {
        "network.safetensors": "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"
    }


def test_counts_that_were_changed_afterwards_are_refused(store: RunStore) -> None:
    finished = do(store)
    path = finished.folder / "confusion.npz"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError) as error:
        finished.confusion()
    assert str(error.value) == f"{path}: the file was changed after the run; run it again with --force"


def test_the_head_is_kept_bit_for_bit_with_its_class_names(store: RunStore) -> None:
    generator = torch.Generator().manual_seed(0)
    head = Head(torch.randn(2, 5, generator=generator), torch.tensor([-0.0, float("nan")]), ("œuf", "caf\udce9"))
    with store.open(record()) as run:
        run.save_head(replace(head, weight=head.weight.T.contiguous().T))
        finished = run.finish(result())
    kept = finished.head()
    assert kept is not None
    assert kept.classes == head.classes
    assert torch.equal(kept.weight.view(torch.int32), head.weight.view(torch.int32))
    assert torch.equal(kept.bias.view(torch.int32), head.bias.view(torch.int32))
    assert list(load_file(finished.folder / "head.safetensors")) == ["bias", "weight"]
    assert do(store, 51).head() is None


def test_a_head_that_was_changed_afterwards_is_refused(store: RunStore) -> None:
    with store.open(record()) as run:
        run.save_head(Head(torch.zeros(2, 3), torch.zeros(2), ("cat", "dog")))
        finished = run.finish(result())
    path = finished.folder / "head.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError) as error:
        finished.head()
    assert str(error.value) == f"{path}: the file was changed after the run; run it again with --force"


def test_counts_that_are_not_there_are_refused(store: RunStore) -> None:
    with pytest.raises(UserError, match='no confusion matrix of the "best" head'):
        do(store).confusion("best")
    with store.open(record(identity(51))) as run:
        finished = run.finish(result(identity(51)))
    with pytest.raises(UserError, match=r"there is no confusion matrix$"):
        finished.confusion()


@pytest.mark.parametrize("damage", [b"", b"{", b"null", b"\x80", b'{"metric": "top1"}', b"[" * 100_000])
def test_a_damaged_result_is_named_and_counts_as_not_finished(
    store: RunStore, damage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, broken = do(store, 21), do(store, 51)
    path = broken.folder / "result.json"
    path.write_bytes(damage)
    assert records([store.root]) == [whole]
    assert store.find(identity(51)) is None
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert all(line.startswith(f"warning: {path}: it cannot be read (") for line in said)
    assert do(store, 51).folder == broken.folder
    assert len(records([store.root])) == 2


def test_a_result_copied_into_another_runs_folder_is_not_that_runs(
    store: RunStore, capsys: pytest.CaptureFixture[str]
) -> None:
    first, other = do(store, 21), do(store, 51)
    (other.folder / "result.json").write_bytes((first.folder / "result.json").read_bytes())
    assert store.find(identity(51)) is None
    assert f"it is the result of run {identity(21).id}" in capsys.readouterr().err


def test_a_damaged_record_is_named_and_the_result_stands(store: RunStore, capsys: pytest.CaptureFixture[str]) -> None:
    finished = do(store)
    (finished.folder / "run.json").write_text("{")
    assert finished.record() is None
    assert "run.json: it cannot be read" in capsys.readouterr().err
    assert store.find(identity()) == finished


def test_a_result_of_a_newer_version_is_read_with_what_it_has_more(store: RunStore) -> None:
    finished = do(store)
    path = finished.folder / "result.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "version": 9, "carbon_g": 3}))
    (read,) = records([store.root])
    assert read.result.version == 9
    assert read.result.extra == {"carbon_g": 3}


def test_records_of_several_folders_are_read_once_each_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one, two = RunStore(tmp_path / "b"), RunStore(tmp_path / "a")
    do(one, 51), do(one, 21), do(two, 21)
    found = records([one.root, Path("a"), tmp_path, one.root / "linear", Path("b")])
    assert [run.folder.parents[3].name for run in found] == ["a", "b", "b"]
    assert found == records([tmp_path])


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "no", tmp_path / "file"):
        with pytest.raises(UserError) as error:
            records([place])
        assert str(error.value) == f"{place}: there is no such folder of runs; name the folder that --runs had"


def test_a_root_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as error, RunStore(tmp_path / "file").open(record()):
        pass
    assert str(error.value) == (
        f"{tmp_path / 'file'}: no run can be kept here (Not a directory); name another folder with --runs"
    )


def test_files_of_a_process_killed_while_writing_are_removed(store: RunStore) -> None:
    folder = store.root / identity().folder
    folder.mkdir(parents=True)
    (folder / ".result.json.123.tmp").write_text("{")
    (folder / "state-3.pt").write_text("state")
    finished = do(store)
    assert not list(finished.folder.glob(".*"))
    assert (finished.folder / "state-3.pt").exists()


# -- two processes -------------------------------------------------------------------------------------------------


def holding(store: RunStore, until: int, *, finish: bool, seed: int = 21) -> int:
    """A child that works on the run until a byte arrives; its process id. Returns once it holds the lock."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with store.open(replace(record(identity(seed)), pid=os.getpid(), host=platform.node())) as run:
                os.write(tell, b"x")
                os.read(until, 1)
                if finish:
                    run.finish(result())
        finally:
            os._exit(0)
    os.read(ready, 1)
    os.close(ready), os.close(tell)
    return child


def test_a_run_in_work_elsewhere_is_refused_by_name_when_not_waited_for(store: RunStore) -> None:
    until, go = os.pipe()
    child = holding(store, until, finish=False)
    with pytest.raises(UserError) as error, store.open(record(), wait=False):
        pass
    os.write(go, b"x")
    os.waitpid(child, 0)
    assert str(error.value) == (
        f"{store.root / identity().folder}: process {child} on {platform.node()} works on this run;"
        " wait for it or stop it"
    )
    with store.open(record(), wait=False) as run:
        assert run.finished is None


def test_who_waits_is_told_and_then_shown_the_result(store: RunStore, capfd: pytest.CaptureFixture[str]) -> None:
    until, go = os.pipe()
    child = holding(store, until, finish=True)
    helper = os.fork()
    if helper == 0:  # lets the child finish while we wait
        time.sleep(0.3)
        os.write(go, b"x")
        os._exit(0)
    with store.open(record()) as run:
        assert run.finished is not None
        assert run.finished.result.value == result().value
    os.waitpid(child, 0), os.waitpid(helper, 0)
    assert f"process {child} on {platform.node()} works on this run; waiting for it" in capfd.readouterr().err


def test_a_killed_process_leaves_no_lock(store: RunStore) -> None:
    until, _go = os.pipe()
    child = holding(store, until, finish=False)
    os.kill(child, 9)
    os.waitpid(child, 0)
    with store.open(record(), wait=False) as run:
        assert run.finished is None


# -- the seeds of one fit ------------------------------------------------------------------------------------------


def seeds(*numbers: int) -> list[RunRecord]:
    return [record(identity(number)) for number in numbers]


def finish_all(runs: list[Run]) -> None:
    for run in runs:
        if run.finished is None:
            run.finish(result(run.record.identity))


def test_many_runs_open_at_once_in_the_order_asked_for(store: RunStore) -> None:
    do(store, 51)
    with store.open_many(seeds(81, 51, 21)) as runs:
        assert [run.record.identity.seed for run in runs] == [81, 51, 21]
        assert [run.finished is not None for run in runs] == [False, True, False]
        finish_all(runs)
    assert len(records([store.root])) == 3


def test_an_error_among_many_leaves_all_open_ones_unfinished_and_unlocked(store: RunStore) -> None:
    def work() -> None:
        with store.open_many(seeds(21, 51)) as runs:
            runs[0].finish(result(identity(21)))
            raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        work()
    assert [run.result.identity.seed for run in records([store.root])] == [21]
    with store.open_many(seeds(21, 51), wait=False) as runs:
        finish_all(runs)
    assert len(records([store.root])) == 2


def test_a_seed_twice_is_refused(store: RunStore) -> None:
    with pytest.raises(UserError, match="asked for twice; name each seed once"), store.open_many(seeds(21, 51, 21)):
        pass


def test_locks_are_taken_in_the_order_of_the_folders_whatever_order_was_asked_for(store: RunStore) -> None:
    numbers = sorted((51, 81), key=lambda number: identity(number).folder)
    until, go = os.pipe()
    child = holding(store, until, finish=False, seed=numbers[0])
    for order in (numbers, numbers[::-1]):
        with pytest.raises(UserError, match="works on this run"), store.open_many(seeds(*order), wait=False):
            pass
    os.write(go, b"x")
    os.waitpid(child, 0)
    assert not (store.root / identity(numbers[1]).folder).exists()  # nobody came as far as the second


def test_two_processes_with_the_same_seeds_in_opposite_orders_never_wait_for_each_other(store: RunStore) -> None:
    def work(order: tuple[int, ...]) -> None:
        for _ in range(3):
            with store.open_many(seeds(*order), force=True) as runs:
                time.sleep(0.005)
                finish_all(runs)

    first = os.fork()
    if first == 0:
        try:
            work((51, 21))
        finally:
            os._exit(0)
    assert in_child(lambda: work((21, 51))) == 0
    os.waitpid(first, 0)
    assert len(records([store.root])) == 12
