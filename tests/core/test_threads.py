"""Threads of one process among others."""

import pytest

from sparse_transfer.core.threads import available_cores


@pytest.mark.parametrize(("beside", "cores"), [(None, 6), ("1", 6), ("2", 3), ("4", 1), ("16", 1), ("", 6), ("0", 6)])
def test_processes_of_torchrun_share_the_cores(monkeypatch: pytest.MonkeyPatch, beside: str | None, cores: int) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(6)))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if beside is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", beside)
    assert available_cores() == cores
