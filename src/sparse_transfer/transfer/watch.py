"""What the heads of a fit reach on the test pictures, epoch by epoch."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparse_transfer.data.split import Split
from sparse_transfer.metrics.confusion import Confusion
from sparse_transfer.runs.store import Run
from sparse_transfer.solvers.predict import predict
from sparse_transfer.solvers.sgd import SgdSettings


class Watch:
    """Looks at the test pictures after every epoch, as the published code did, and remembers each seed's best one.

    Best is the first epoch whose top-1 no later one exceeds: *selected on test*, so never the headline.
    Every look is logged in the runs of the seeds, where there are any.
    """

    def __init__(self, features: NDArray[np.float32], test: Split, runs: Sequence[Run]) -> None:
        self.features, self.test, self.runs = features, test, runs
        self.best: dict[int, Confusion] = {}
        self.best_epoch: dict[int, int] = {}

    def look(self, epoch: int, weights: Tensor, biases: Tensor, settings: SgdSettings) -> None:
        """weights [S, C, D], biases [S, C]: the heads after ``epoch``, counted from 0."""
        for position, predictions in enumerate(predict(weights, biases, self.features)):
            confusion = Confusion.of(self.test.labels, predictions, self.test.classes)
            if position not in self.best or confusion.top1 > self.best[position].top1:
                self.best[position], self.best_epoch[position] = confusion, epoch + 1
            if self.runs:
                event = {"event": "epoch", "epoch": epoch + 1, "lr": settings.lrs[0] * settings.decay(epoch)}
                scores = {"test_top1": confusion.top1, "test_mean_per_class": confusion.mean_per_class}
                self.runs[position].log({**event, **scores})

    def state(self, position: int) -> dict[str, Tensor]:
        """What is remembered of one seed, as tensors."""
        counts, epoch = self.best[position].counts, self.best_epoch[position]
        return {"best_counts": torch.from_numpy(counts), "best_epoch": torch.tensor(epoch)}

    def go_on(self, position: int, state: Mapping[str, Tensor]) -> None:
        """Remember what ``state`` holds of one seed."""
        self.best[position] = Confusion(state["best_counts"].numpy(), self.test.classes)
        self.best_epoch[position] = int(state["best_epoch"])
