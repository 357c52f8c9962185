"""Batches on their way to the device: each travels while the device works on the one before."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace

import torch

from sparse_transfer.data.loading import Batch


def on_device(loader: Generator[Batch], device: torch.device) -> Generator[Batch]:
    """The same batches, images and labels on ``device``.

    On CUDA one batch is held ahead of the caller's: by a stream of its own it is copied while the caller's is worked
    on. That takes pinned memory (``batches(pinned=True)``): from other memory CUDA copies before it goes on.
    """
    with closing(loader):
        if device.type != "cuda":
            yield from loader
            return
        stream = torch.cuda.Stream(device)
        before: _Sent | None = None
        for batch in loader:
            sent = _Sent.of(batch, device, stream)
            if before is not None:
                yield before.arrived(device)
            before = sent
        if before is not None:
            yield before.arrived(device)


@dataclass(frozen=True)
class _Sent:
    """A batch that may still be under way. there: set on the stream of the copy when it has arrived."""

    batch: Batch
    there: torch.cuda.Event

    @classmethod
    def of(cls, batch: Batch, device: torch.device, stream: torch.cuda.Stream) -> "_Sent":
        there = torch.cuda.Event()
        with torch.cuda.stream(stream):
            images, labels = (tensor.to(device, non_blocking=True) for tensor in (batch.images, batch.labels))
            there.record(stream)
        return cls(replace(batch, images=images, labels=labels), there)

    def arrived(self, device: torch.device) -> Batch:
        """The batch, for the caller's stream: what that does from now on happens after the copy."""
        stream = torch.cuda.current_stream(device)
        stream.wait_event(self.there)
        for tensor in (self.batch.images, self.batch.labels):
            tensor.record_stream(stream)  # else its memory could be given to the next copy while it is read
        return self.batch
