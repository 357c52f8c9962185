"""Every random draw of a training, from the seed and the place in the run alone: so no generator's state is kept, and a
training that was stopped draws on as if it had not been. (Crops and flips are drawn likewise, in ``data/loading.py``.)
"""

import numpy as np
import torch
from numpy.typing import NDArray

from sparse_transfer.training.objective import Mix


def order(seed: int, epoch: int, pictures: int, size: int) -> list[NDArray[np.int64]]:
    """The epoch's updates: which pictures each one of ``size`` sees. The last, smaller one is kept."""
    shuffled = np.random.default_rng((seed, epoch)).permutation(pictures)
    return [shuffled[start : start + size] for start in range(0, pictures, size)]


def mix(alpha: float, pictures: int, *, seed: int, epoch: int, rank: int, update: int, place: int) -> Mix:
    """Mixup of this process's forward pass number ``place`` of the epoch's update number ``update``."""
    return Mix.drawn(alpha, pictures, np.random.default_rng((seed, epoch, rank, update, place)))


def seed_torch(seed: int, updates: int, rank: int) -> None:
    """Set torch's own generators, which dropout and its like draw from, for the update of that number in the run."""
    drawn = np.random.SeedSequence((seed, updates, rank))
    torch.manual_seed(int(drawn.generate_state(1, np.uint64)[0] >> 1))
