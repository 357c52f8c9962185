from pathlib import Path

import pytest

from sparse_transfer.core.places import cache_root, data_root


def test_no_data_root_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARSE_TRANSFER_DATA", raising=False)
    assert data_root() is None
    monkeypatch.setenv("SPARSE_TRANSFER_DATA", "")
    assert data_root() is None


def test_the_environment_names_both_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SPARSE_TRANSFER_DATA", "~/sets")
    monkeypatch.setenv("SPARSE_TRANSFER_CACHE", "~/kept here")
    assert data_root() == tmp_path / "sets"
    assert cache_root() == tmp_path / "kept here"


def test_without_the_variable_the_cache_is_the_platforms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SPARSE_TRANSFER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "sparse-transfer"
