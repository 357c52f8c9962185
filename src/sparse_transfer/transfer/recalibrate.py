"""BatchNorm's statistics estimated anew: a network that is pruned on its way in brings those of the dense one.

Source: Peste et al., CrAM (ICLR 2023), whose code does so on 1,000 training pictures before it measures.
"""

import copy
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from sparse_transfer.core.errors import UserError
from sparse_transfer.core.progress import progress
from sparse_transfer.core.threads import available_cores
from sparse_transfer.data.loading import batches
from sparse_transfer.data.transforms import evaluation
from sparse_transfer.models import Network
from sparse_transfer.transfer.compute import DEFAULT, Compute, chosen_device
from sparse_transfer.transfer.verify import labelled_pictures

PICTURES = 1000
BATCH = 50


def recalibrated(network: Network, pictures: str | Path, *, compute: Compute = DEFAULT) -> tuple[Network, int]:
    """The network with BatchNorm statistics of ``pictures``, and how many of them were run; weights and mask as before.

    pictures: class folders, as ``verify`` reads them; labels are not used, and at most ``PICTURES`` are taken, evenly
    over the classes. Each statistic is the mean over batches of nearly equal size (torch's own ``update_bn``).

    Raises:
        UserError: the network has no BatchNorm with statistics, or there are fewer than two pictures.
    """
    module = copy.deepcopy(network.backbone.module)
    if not any(isinstance(layer, nn.BatchNorm2d) and layer.track_running_stats for layer in module.modules()):
        raise UserError(
            "the network has no BatchNorm whose statistics could be estimated", do="leave out --recalibrate"
        )
    split = labelled_pictures(Path(pictures))
    if len(split) < 2:
        raise UserError("one picture has no statistics", where=pictures, do="give some hundreds")
    chosen = np.unique(np.linspace(0, len(split) - 1, PICTURES).round().astype(np.int64))
    parts = np.array_split(chosen, -(-len(chosen) // BATCH))
    transform = evaluation(network.backbone.preprocessing)
    device = torch.device(chosen_device(compute.device))
    torch.set_num_threads(compute.threads or available_cores())
    with (
        closing(batches(split, transform, parts=parts, workers=compute.workers)) as loader,
        progress("estimate BatchNorm", len(chosen), unit="pictures") as advance,
    ):

        def inputs() -> Iterator[Tensor]:
            for batch in loader:
                yield transform.normalise(batch.images.to(device))
                advance(len(batch))

        update_bn(inputs(), module.to(device))
    return replace(network, backbone=replace(network.backbone, module=module.cpu())), len(chosen)
