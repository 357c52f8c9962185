"""SGD on features made anew in every epoch, and how such a fit goes on where it was stopped."""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import fields, replace

import numpy as np
import torch

from sparse_transfer.core.progress import note, progress
from sparse_transfer.data.loading import batches
from sparse_transfer.data.split import Split
from sparse_transfer.data.transforms import Transform
from sparse_transfer.models import Backbone
from sparse_transfer.runs.states import EpochStates
from sparse_transfer.runs.store import Run
from sparse_transfer.solvers.report import FittedHead
from sparse_transfer.solvers.sgd import BatchedSgd, SgdSettings, SgdState
from sparse_transfer.transfer.compute import Compute
from sparse_transfer.transfer.watch import Watch

# Augmented views are drawn with this seed for every run: all seeds see the same pictures.
VIEW_SEED = 0


def fit_augmented(
    backbone: Backbone,
    train: Split,
    settings: SgdSettings,
    compute: Compute,
    transform: Transform,
    seeds: Sequence[int],
    watch: Watch | None = None,
    runs: Sequence[Run] = (),
) -> tuple[list[FittedHead], float]:
    """One head a seed, as the paper's DeepSparse path trained its heads; and the seconds of earlier attempts.

    All seeds see each epoch's pictures in one order: what differs between them is where their heads start.
    runs: of these seeds, in work. They keep the state of each epoch. Order and views of an epoch are drawn from its
    number alone, so a fit that is stopped goes on after its last whole epoch, and ends bit for bit as an unbroken one.
    """
    fit = _Fit(BatchedSgd(backbone.feature_dim, len(train.classes), settings, seeds), watch, runs)
    done = fit.take_up()
    facing = replace(backbone, preprocessing=transform.preprocessing)
    with (
        closing(compute.compile(facing)) as compiled,
        progress("fit", settings.epochs * len(train), unit="pictures", done=done * len(train)) as advance,
    ):
        for epoch in range(done, settings.epochs):
            fit.heads.start_epoch(epoch)
            order = np.random.default_rng((VIEW_SEED, epoch)).permutation(len(train))
            loader = batches(
                train,
                transform,
                batch_size=settings.batch_size,
                workers=compute.workers,
                indices=order,
                seed=VIEW_SEED,
                epoch=epoch,
            )
            with closing(loader):
                for batch in loader:
                    images = transform.normalise(batch.images).numpy()
                    parts = [images[i : i + compute.batch_size] for i in range(0, len(images), compute.batch_size)]
                    features = torch.from_numpy(np.concatenate([compiled(part) for part in parts]))
                    fit.heads.step(features, batch.labels)
                    advance(len(batch))
            fit.end_epoch(epoch)
    return fit.heads.finish(), fit.earlier_s


class _Fit:
    """The heads, who watches them, and what is kept of both after each epoch."""

    def __init__(self, heads: BatchedSgd, watch: Watch | None, runs: Sequence[Run]) -> None:
        self.heads, self.watch, self.runs = heads, watch, runs
        self.states = EpochStates(runs)
        self.earlier_s = 0.0
        self.began = time.perf_counter()

    def take_up(self) -> int:
        """Go on from the newest state that all runs have; how many epochs are done."""
        found = self.states.newest()
        if found is None:
            return 0
        done, states = found
        self.heads.go_on([SgdState(**{item.name: state[item.name] for item in fields(SgdState)}) for state in states])
        if self.watch is not None:
            for position, state in enumerate(states):
                self.watch.go_on(position, state)
        self.earlier_s = float(states[0]["seconds"])
        for run in self.runs:
            run.log({"event": "resume", "epoch": done})
        note(f"{done} of {self.heads.settings.epochs} epochs were done before; the fit goes on from there")
        return done

    def end_epoch(self, epoch: int) -> None:
        """Look, then keep the state; epochs count from 0 here."""
        if self.watch is not None:
            self.watch.look(epoch, self.heads.weights, self.heads.biases, self.heads.settings)
        if self.runs:
            seconds = torch.tensor(self.earlier_s + time.perf_counter() - self.began, dtype=torch.float64)
            seen = [{} if self.watch is None else self.watch.state(position) for position in range(len(self.runs))]
            states = zip(self.heads.states(), seen, strict=True)
            self.states.keep(epoch + 1, [{**vars(state), **best, "seconds": seconds} for state, best in states])
