"""How much of an epoch is work, by a clock that is set by hand."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from sparse_transfer.training.busy import Busy


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(s=100.0)
    monkeypatch.setattr("time.perf_counter", lambda: now.s)
    return now


def pictures(clock: SimpleNamespace, seconds: float) -> Iterator[int]:
    for number in range(3):
        clock.s += seconds
        yield number


def test_on_a_cpu_all_counts_but_the_wait_for_pictures(clock: SimpleNamespace) -> None:
    busy = Busy(torch.device("cpu"))
    loader = pictures(clock, 1.0)
    for number in range(3):
        assert busy.wait(loader) == number
        clock.s += 2.0
        with busy.update():
            clock.s += 2.0
    assert busy.share() == pytest.approx(12 / 15)
    with pytest.raises(StopIteration):
        busy.wait(loader)


def test_on_cuda_the_devices_own_time_of_the_updates_counts(
    clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No GPU is here: events that read the clock stand in for CUDA's, in milliseconds."""

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing
            self.at = float("nan")

        def record(self) -> None:
            self.at = clock.s

        def elapsed_time(self, last: "Event") -> float:
            return 1000 * (last.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    busy = Busy(torch.device("cuda", 0))
    loader = pictures(clock, 1.0)
    for _ in range(2):
        busy.wait(loader)
        clock.s += 0.5
        with busy.update():
            clock.s += 2.5
    assert busy.share() == pytest.approx(5 / 8)
