"""Which class a head says, for many heads and many images at once."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparse_transfer.solvers.inputs import Features, as_tensor, blocks


@torch.no_grad()
def predict(weights: Tensor, biases: Tensor, features: Features) -> NDArray[np.int64]:
    """The class of the largest logit, the first of equals. Features are read in blocks of rows.

    weights: [H, C, D] float32, or [C, D] for one head.   biases: [H, C], or [C].   features: [N, D] float32.
    -> [H, N] int64, or [N].
    """
    flat = weights.reshape(-1, weights.shape[-1])  # [H * C, D]: one product for all heads
    rows = as_tensor(features)
    answers = torch.empty(biases.shape[:-1].numel(), len(features), dtype=torch.int64)
    for block in blocks(features):
        logits = torch.addmm(biases.reshape(-1), rows[block], flat.T)
        answers[:, block] = logits.unflatten(1, (-1, biases.shape[-1])).argmax(dim=2).T
    return answers.reshape(*biases.shape[:-1], len(features)).numpy()
