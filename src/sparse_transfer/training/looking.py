"""A network on pictures that it does not learn from: each picture once, whatever the number of processes."""

from contextlib import closing

import numpy as np
import torch
from numpy.typing import NDArray

from sparse_transfer.core.errors import Interrupted
from sparse_transfer.core.progress import progress
from sparse_transfer.data.loading import PictureCache, batches
from sparse_transfer.data.split import Split
from sparse_transfer.data.transforms import Transform
from sparse_transfer.training.distributed import Group
from sparse_transfer.training.model import Trainable
from sparse_transfer.training.sending import on_device
from sparse_transfer.training.stopping import StopRequest

BATCH = 64


def logits_of(
    model: Trainable,
    split: Split,
    transform: Transform,
    group: Group,
    *,
    workers: int | None = None,
    cache: PictureCache | None = None,
    amp: torch.dtype | None = None,
    stop: StopRequest | None = None,
) -> NDArray[np.float32]:
    """[N, C] logits in the split's order, the same on all processes. The model is in eval mode afterwards.

    Each picture is run by exactly one process; the others add 0 to its row.

    Raises:
        Interrupted: ``stop`` asks for it; nothing is lost that the state before does not hold.
    """
    model.eval()
    group.share_buffers(model)
    device = model.head.weight.device
    mine = group.share(np.arange(len(split)))
    logits = torch.zeros(len(split), model.head.out_features)
    loader = batches(
        split,
        transform,
        batch_size=BATCH,
        workers=workers,
        indices=mine,
        cache=cache,
        pinned=device.type == "cuda",
    )
    with (
        torch.inference_mode(),
        closing(on_device(loader, device)) as arriving,
        progress(f"look at {split.name}", len(mine), unit="pictures") as advance,
    ):
        for batch in arriving:
            if stop is not None and stop.asked and group.size == 1:
                raise Interrupted
            with torch.autocast(device.type, amp, enabled=amp is not None):
                rows = model(transform.normalise(batch.images))
            logits[torch.from_numpy(batch.indices)] = rows.float().cpu()
            advance(len(batch))
    return group.sum_(logits).numpy()
