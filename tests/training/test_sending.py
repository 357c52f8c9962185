"""Batches on their way to the device. No GPU is here: one that notes what it is asked stands in for it. The copies
themselves are tested in test_on_cuda.py, where there is one."""

from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from sparse_transfer.data.loading import Batch
from sparse_transfer.training.sending import on_device

CUDA = torch.device("cuda", 0)


def test_on_a_cpu_the_batches_pass_as_they_are_and_the_loader_ends_with_them() -> None:
    ended: list[bool] = []

    def loader() -> Generator[Batch]:
        try:
            for number in range(3):
                yield Batch(np.array([number]), torch.zeros(1, 2, 2, 3, dtype=torch.uint8), torch.tensor([number]))
        finally:
            ended.append(True)

    with closing(on_device(loader(), torch.device("cpu"))) as arriving:
        assert [int(next(arriving).labels), int(next(arriving).labels)] == [0, 1]
        assert not ended
    assert ended


@dataclass
class Pictures:
    """Pictures of a batch that note where they are sent, and who reads them."""

    name: str
    did: list[str]

    def to(self, device: torch.device, *, non_blocking: bool) -> "Pictures":
        assert (device, non_blocking) == (CUDA, True)
        self.did.append(f"copy {self.name}")
        return self

    def record_stream(self, stream: object) -> None:
        self.did.append(f"{stream} reads {self.name}")


@pytest.fixture
def did(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a device with two streams was asked, in order."""
    done: list[str] = []

    class Event:
        number = 0

        def record(self, stream: object) -> None:
            self.number = Event.number = Event.number + 1
            done.append(f"event {self.number}")

    class Working:
        def wait_event(self, event: Event) -> None:
            done.append(f"wait for event {event.number}")

        def __str__(self) -> str:
            return "worker"

    @contextmanager
    def stream(chosen: object) -> Generator[None]:
        done.append("[")
        yield
        done.append("]")

    working = Working()
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: "copier")
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: working)
    return done


@pytest.mark.parametrize("count", [0, 1, 3])
def test_each_batch_is_copied_while_the_one_before_is_worked_on(did: list[str], count: int) -> None:
    def loader() -> Generator[Batch]:
        for number in range(count):
            did.append(f"decode {number}")
            yield Batch(np.array([number]), Pictures(f"i{number}", did), Pictures(f"l{number}", did))  # type: ignore[arg-type]

    for number, batch in enumerate(on_device(loader(), CUDA)):
        assert batch.indices.tolist() == [number]
        did.append(f"work on {number}")
    sent = [
        [f"decode {number}", "[", f"copy i{number}", f"copy l{number}", f"event {number + 1}", "]"]
        for number in range(count)
    ]
    worked = [
        [f"wait for event {number + 1}", f"worker reads i{number}", f"worker reads l{number}", f"work on {number}"]
        for number in range(count)
    ]
    expected = [step for number in range(1, count) for step in sent[number] + worked[number - 1]]
    assert did == (sent[0] + expected + worked[-1] if count else [])
