"""Fixtures for every test: real data, a tiny network, pictures; and a cache and data root of each test's own."""

import os
from pathlib import Path

import pytest
import torch

from sparse_transfer.core.progress import set_quiet

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real pictures and weights (`data/`, `reference/`); tests that use it skip without it."""
    place = os.environ.get("SPARSE_TRANSFER_TEST_DATA")
    if not place:
        pytest.skip("SPARSE_TRANSFER_TEST_DATA is not set: the real pictures and weights are not here")
    return Path(place)


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny sparse network of ``support.tiny`` as a file, to be read alone."""
    from support.tiny import checkpoint_file

    return checkpoint_file(tmp_path_factory.mktemp("network") / "tiny.safetensors")


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures enough for a transfer to be stopped among them: the ``crowd`` of ``support.processes``."""
    from support.processes import crowd

    return crowd(tmp_path_factory.mktemp("large") / "crowd")


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache, data or run folders, or is silenced by the ``--quiet`` of another."""
    set_quiet(False)
    monkeypatch.setenv("SPARSE_TRANSFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPARSE_TRANSFER_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "120")
