from pathlib import Path

import pytest

from sparse_transfer.runs.events import EventLog, read_events


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def append(path: Path, *events: dict) -> None:  # type: ignore[type-arg]
    log = EventLog(path)
    for event in events:
        log.append(event)
    log.close()


def test_events_are_lines_in_the_order_they_came(path: Path) -> None:
    append(path, {"b": 1, "a": "ü\n"}, {"c": None})
    append(path, {"d": [1.5]})
    assert path.read_bytes() == '{"a":"ü\\n","b":1}\n{"c":null}\n{"d":[1.5]}\n'.encode()
    assert read_events(path) == [{"a": "ü\n", "b": 1}, {"c": None}, {"d": [1.5]}]


def test_a_line_torn_anywhere_is_dropped_and_the_next_one_is_whole(path: Path) -> None:
    append(path, {"a": 1}, {"b": "ü"})
    content = path.read_bytes()
    whole = content.index(b"\n") + 1
    for cut in range(whole, len(content)):
        path.write_bytes(content[:cut])
        assert read_events(path) == [{"a": 1}]
        append(path, {"c": 3})
        assert read_events(path) == [{"a": 1}, {"c": 3}]


def test_a_line_that_is_no_event_is_named_and_skipped(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_bytes(b'{"a":1}\n\x80\n[2]\n{"b":2}\n')
    assert read_events(path) == [{"a": 1}, {"b": 2}]
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"warning: {path}: line 2 is no event and is left out",
        f"warning: {path}: line 3 is no event and is left out",
    ]


def test_not_a_number_is_null_with_a_note(path: Path) -> None:
    append(path, {"loss": float("nan"), "lr": 0.1})
    assert read_events(path) == [{"loss": None, "lr": 0.1, "not_finite": {"loss": "nan"}}]


def test_a_name_that_is_no_utf8_is_kept(path: Path) -> None:
    append(path, {"file": "\udc80.jpg"})
    assert read_events(path) == [{"file": "\udc80.jpg"}]


def test_no_file_has_no_events(path: Path) -> None:
    assert read_events(path) == []
