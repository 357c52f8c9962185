"""The demo, on a few of the digits: what it prints, where it writes, and what it says where it cannot."""

from pathlib import Path

import pytest
from sklearn import datasets

from sparse_transfer import zoo
from sparse_transfer.cli import main as program


@pytest.fixture(autouse=True)
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, labels = datasets.load_digits(return_X_y=True)
    monkeypatch.setattr(datasets, "load_digits", lambda *, return_X_y: (pixels, labels[:150]))  # pixels are cached
    monkeypatch.setattr(zoo, "NAMES", ("resnet20-dense", "resnet20-gmp90"))


def test_it_prints_a_table_the_answer_and_where_the_runs_lie(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = ["demo", "--runs", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache"), "--quiet"]
    assert program.run(words) == 0
    first = capsys.readouterr().out
    assert "resnet20-dense" in first
    assert "resnet20-gmp90" in first
    answer = " ".join(first.splitlines())
    assert "With 90% of its weights gone, the backbone needs 5.8 times fewer multiply-adds" in answer
    assert f"The runs lie in {tmp_path / 'runs'}" in answer
    sentence = first[first.index("With 90%") : first.index("The runs lie")]
    assert max(map(len, sentence.splitlines())) <= 80
    assert sorted(path.name for path in (tmp_path / "runs/linear/digits").iterdir()) == list(zoo.NAMES)
    assert any((tmp_path / "cache").iterdir())

    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    assert program.run(words) == 0
    assert capsys.readouterr().out == first
    assert {path: path.stat().st_mtime_ns for path in done} == done


def test_where_the_cache_cannot_be_written_the_option_that_it_names_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    assert program.run(["demo", "--runs", str(tmp_path / "runs"), "--cache", str(file)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    error = said.err.splitlines()[-1]  # before it stands a warning: the digits are not all here
    assert error == f"error: {file}: the cache cannot be written (Not a directory); name another place with --cache"
