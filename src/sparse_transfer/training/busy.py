"""How much of an epoch the device works: what is missing to 1 is a network that waits for its pictures."""

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from sparse_transfer.core.canonical import Json

T = TypeVar("T")


class Busy:
    """Follows one epoch, from now on. On CUDA the time of the updates is the device's own, from their first kernel to
    their last; on a CPU all counts but the wait for decoded pictures."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cuda = device.type == "cuda"
        self._began = time.perf_counter()
        self._waited_s = 0.0
        self._updates: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def wait(self, items: Iterator[T]) -> T:
        """The next one."""
        began = time.perf_counter()
        item = next(items)
        self._waited_s += time.perf_counter() - began
        return item

    @contextmanager
    def update(self) -> Generator[None]:
        """Around what the device does in an update."""
        if not self._cuda:
            yield
            return
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        yield
        last.record()
        self._updates.append((first, last))

    def told(self, pictures: int) -> dict[str, Json]:
        """At the end of an epoch of so many pictures, for its line: the device's share of the time, and the rate."""
        share = self.share()
        return {"busy": share, "pictures_per_s": pictures / (time.perf_counter() - self._began)}

    def share(self) -> float:
        """Of the time since the epoch began, in [0, 1]."""
        if self._cuda:
            torch.cuda.synchronize(self._device)
        all_s = time.perf_counter() - self._began
        worked_s = all_s - self._waited_s
        if self._cuda:
            worked_s = sum(first.elapsed_time(last) for first, last in self._updates) / 1000
        return min(worked_s / all_s, 1.0)
