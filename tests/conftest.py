"""Fixtures for every test: the shared real data, and a cache and data root of each test's own."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real pictures and weights (`data/`, `reference/`); tests that use it skip without it."""
    place = os.environ.get("SPARSE_TRANSFER_TEST_DATA")
    if not place:
        pytest.skip("SPARSE_TRANSFER_TEST_DATA is not set: the real pictures and weights are not here")
    return Path(place)


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache, data or run folders."""
    monkeypatch.setenv("SPARSE_TRANSFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPARSE_TRANSFER_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "120")
