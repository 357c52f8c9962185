import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sparse_transfer.metrics.intervals import mean_per_class_interval, wilson
from sparse_transfer.runs.environment import git_commit, hardware, versions
from sparse_transfer.runs.record import Accuracy, RunRecord, RunResult
from sparse_transfer.runs.tolerant import Damaged, finite
from support.runs import confusion, identity, record, result


def through_json(value):  # type: ignore[no-untyped-def]
    return json.loads(json.dumps(value.to_json(), allow_nan=False))


def test_a_record_and_a_result_come_back_from_json_as_they_were() -> None:
    assert RunRecord.from_json(through_json(record())) == record()
    assert RunResult.from_json(through_json(result())) == result()
    bare = RunResult(identity(), "top1", Accuracy.of(confusion()))
    assert RunResult.from_json(through_json(bare)) == bare


def test_what_is_unknown_is_kept_by_its_path_and_survives_another_round() -> None:
    value = through_json(result())
    value["energy_j"] = 12
    value["cost"]["bytes"] = {"read": 3}
    value["last"]["top1_interval"]["note"] = "x"
    read = RunResult.from_json(value)
    assert read.extra == {"energy_j": 12, "cost.bytes": {"read": 3}, "last.top1_interval.note": "x"}
    assert replace(read, extra={}) == result()
    assert RunResult.from_json(through_json(read)) == read


def test_the_id_in_a_file_is_for_people_and_not_read() -> None:
    value = through_json(result())
    assert value["identity"]["id"] == identity().id
    assert RunResult.from_json(value).extra == {}


@pytest.mark.parametrize(
    ("path", "bad", "said"),
    [
        (("last", "top1"), "0.9", "\"last.top1\" is '0.9', not float"),
        (("last", "top1"), True, '"last.top1" is True, not float'),
        (("last", "correct"), 1.5, '"last.correct" is 1.5, not int'),
        (("last", "correct"), True, '"last.correct" is True, not int'),
        (("metric",), "accuracy", "\"metric\" is 'accuracy', not"),
        (("identity", "seed"), None, '"identity.seed" is None, not int'),
        (("warnings",), "one", "\"warnings\" is 'one', not tuple"),
        (("seconds", "fit"), [], r'"seconds.fit" is \[\], not float'),
        (("last",), 3, '"last" is 3, not an object'),
    ],
)
def test_a_value_of_another_type_is_named(path: tuple[str, ...], bad: object, said: str) -> None:
    value = through_json(result())
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = bad
    with pytest.raises(Damaged, match=said):
        RunResult.from_json(value)


@pytest.mark.parametrize("key", ["identity", "metric", "last"])
def test_a_result_without_what_it_needs_is_damaged(key: str) -> None:
    value = through_json(result())
    del value[key]
    with pytest.raises(Damaged, match=f'"{key}" is missing'):
        RunResult.from_json(value)


@pytest.mark.parametrize("value", [None, [], "result", 3, {}])
def test_what_is_no_record_at_all_is_damaged(value: object) -> None:
    for kind in (RunRecord, RunResult):
        with pytest.raises(Damaged):
            kind.from_json(value)  # type: ignore[arg-type]


def test_a_record_of_before_the_optional_fields_is_read() -> None:
    value = through_json(result())
    small = {key: value[key] for key in ("identity", "metric", "last")}
    assert RunResult.from_json(small).value == result().value


def test_the_headline_is_the_metric_of_the_last_head() -> None:
    whole = result()
    assert whole.value == pytest.approx((0.9 + 1.0) / 2)
    assert whole.interval == mean_per_class_interval(confusion())
    by_top1 = replace(whole, metric="top1")
    assert by_top1.value == 140 / 150
    assert by_top1.interval == wilson(140, 150)
    assert whole.n_test == 150
    assert whole.best is not None
    assert whole.best.selected_on == "test"


def test_not_a_number_becomes_null_and_is_listed() -> None:
    clean, lost = finite({"a": float("nan"), "b": [1.0, float("-inf")], "c": {"d": 2.0}})
    assert clean == {"a": None, "b": [1.0, None], "c": {"d": 2.0}}
    assert lost == {"a": "nan", "b[1]": "-inf"}


def test_a_record_of_now_knows_where_it_is() -> None:
    made = RunRecord.now(identity(), command=["a", "b"])
    assert made.pid == os.getpid()
    assert made.command == ("a", "b")
    assert made.versions["torch"].startswith("2.")
    assert made.started.endswith("+00:00")
    assert RunRecord.from_json(through_json(made)) == made


def test_hardware_and_versions_are_those_of_this_machine() -> None:
    assert hardware().cores == len(os.sched_getaffinity(0))
    first = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert hardware().memory_bytes == int(first.split()[1]) * 1024
    assert hardware().cpu
    assert hardware().instructions == torch.backends.cpu.get_cpu_capability()
    assert "no-such-package" not in versions()


def git(folder: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    command = ["git", "-C", str(folder), *settings, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_that_of_the_checkout_and_says_when_it_is_dirty(tmp_path: Path) -> None:
    code = tmp_path / "code.py"
    code.write_text("1")
    assert git_commit(code) is None
    git(tmp_path, "init")
    assert git_commit(code) is None
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_commit(code) == commit
    code.write_text("2")
    assert git_commit(code) == f"{commit}-dirty"


def test_a_package_installed_into_somebodys_repository_has_no_commit(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text("1")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "one")
    (tmp_path / "ours.py").write_text("1")
    assert git_commit(tmp_path / "ours.py") is None


def test_a_machine_without_git_has_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert git_commit() is None
