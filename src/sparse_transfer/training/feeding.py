"""What each update of an epoch is fed: this process's pictures, decoded ahead, on its device."""

from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from sparse_transfer.data.loading import PictureCache, batches
from sparse_transfer.data.split import Split
from sparse_transfer.data.transforms import Transform
from sparse_transfer.training import draws
from sparse_transfer.training.busy import Busy
from sparse_transfer.training.distributed import rounds
from sparse_transfer.training.learner import Learner, Part
from sparse_transfer.training.sending import on_device


def fed(
    learner: Learner,
    split: Split,
    transform: Transform,
    updates: Sequence[NDArray[np.int64]],
    *,
    first: int,
    seed: int,
    epoch: int,
    cache: PictureCache | None,
    busy: Busy,
) -> Iterator[list[Part]]:
    """For each of the epoch's ``updates`` from number ``first`` on, the forward passes of this process.

    updates: the pictures that all processes together see in each.
    """
    settings, group = learner.settings, learner.group
    size, alpha = settings.batch_size, settings.objective.mixup
    passes = [[update[start : start + size] for start in range(0, len(update), size)] for update in updates[first:]]
    loader = batches(
        split,
        transform,
        parts=rounds([part for update in passes for part in update], group),
        workers=learner.execution.workers,
        seed=seed,
        epoch=epoch,
        cache=cache,
        pinned=learner.device.type == "cuda",
    )
    with closing(on_device(loader, learner.device)) as arriving:
        for number, update in enumerate(passes, start=first):
            ready: list[Part] = []
            for place, whole in enumerate(update):
                batch = busy.wait(arriving)
                # Pictures travel as bytes, are cut on the device if so asked, and normalised there.
                images = transform.inputs(batch.images, batch.views)
                mix = None
                if alpha:
                    mix = draws.mix(
                        alpha, len(batch), seed=seed, epoch=epoch, rank=group.rank, update=number, place=place
                    )
                ready.append(Part(images, batch.labels, mix, len(group.share(whole)) > 0))
            yield ready
