"""The training loop: epochs of updates under the mask, a look after each, a state to go on from at any moment."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparse_transfer.core.canonical import Json
from sparse_transfer.core.errors import Interrupted, UserError, listed
from sparse_transfer.core.progress import progress, warn
from sparse_transfer.data.loading import Batch, PictureCache, batches
from sparse_transfer.data.split import Split
from sparse_transfer.data.transforms import Transform
from sparse_transfer.metrics.calibration import cross_entropy
from sparse_transfer.metrics.confusion import Confusion, predict
from sparse_transfer.training.busy import Busy
from sparse_transfer.training.distributed import rounds
from sparse_transfer.training.learner import AUTOCAST, Learner, NotFinite, Part
from sparse_transfer.training.looking import logits_of
from sparse_transfer.training.objective import Mix
from sparse_transfer.training.state import Position, State, States
from sparse_transfer.training.stopping import StopRequest, stop_request

LOWER = 0.1  # what a restart leaves of the learning rate


@dataclass(frozen=True)
class Task:
    """What is learnt, and what is looked at after each epoch.

    watched: its pictures.   selects: whether they choose the epoch that is kept (a validation part, lowest
    cross-entropy), or are only looked at (the test pictures, best top-1 noted).
    """

    train: Split
    train_transform: Transform
    watched: Split
    watched_transform: Transform
    selects: bool


@dataclass(frozen=True)
class Trained:
    """How a training ended. logits: [N, C] of the watched pictures, of the network that is kept.

    tensors: that network's, by the names of a ``Trainable``: the last epoch's, or the chosen one's.
    best: of all epochs on the watched pictures, with its epoch, from 1.
    """

    tensors: Mapping[str, Tensor]
    logits: NDArray[np.float32]
    epoch: int
    best: Confusion
    best_epoch: int
    position: Position


Log = Callable[[Mapping[str, Json]], None]


def train(learner: Learner, task: Task, states: States, seed: int, log: Log) -> Trained:
    """Train until the last epoch, or until patience ends, from the newest state if there is one.

    Bit for bit the same on CPU, at the same number of threads, however often it was stopped and taken up again.

    Raises:
        UserError: the loss is not finite (after all restarts), or a batch does not fit into the device's memory.
        MaskViolation: something outside the mask is not zero; nothing is saved then.
        Interrupted: SIGTERM or Ctrl-C, after the state was saved.
    """
    run = _Run(learner, task, states, seed, log)
    with stop_request() as stop:
        run.resume()
        while not run.is_over:
            try:
                run.epoch(stop)
                run.look(stop)
            except NotFinite:
                run.restart()
    return run.trained()


class _Run:
    """One training on its way."""

    def __init__(self, learner: Learner, task: Task, states: States, seed: int, log: Log) -> None:
        self.learner, self.task, self.states, self.seed, self.log = learner, task, states, seed, log
        self.settings = learner.settings
        self.position = Position()
        self.best: dict[str, Tensor] = {}  # counts of the best epoch; where it is kept, its tensors and logits
        self.logits: NDArray[np.float32] | None = None
        self.busy: float | None = None  # a time of this process, so no part of the history
        limit = learner.execution.cache_bytes
        self.cache = PictureCache(limit) if limit else None

    # --- going on, saving, going back

    def resume(self) -> None:
        """Take up the newest state, on all processes the same; a run that is new keeps its first one to go back to."""
        self.learner.audit()
        state = self.states.newest()
        self.learner.group.wait()  # nobody writes before all have read
        if state is None:
            self.save()
            return
        self._become(state)
        self.log({"event": "resume", "epoch": self.position.epoch + 1, "update": self.position.update})

    def _become(self, state: State) -> None:
        old = state.position
        self.position = replace(old, history=list(old.history), seconds=dict(old.seconds))
        self.best = {
            name.removeprefix("best/"): value for name, value in state.tensors.items() if name.startswith("best/")
        }
        self.learner.restore(dict(state.tensors), dict(state.scalars))

    def save(self) -> None:
        """Audit, then write a state. Only the first process writes: what it has, all have."""
        began = time.perf_counter()
        self.learner.mask.audit(
            self.learner.optimiser, None if self.learner.average is None else self.learner.average.shadow
        )
        if self.learner.group.is_first:
            tensors, scalars = self.learner.state()
            tensors |= {f"best/{name}": value for name, value in self.best.items()}
            self.states.save(State(self.position, tensors, scalars))
        self._spent("save", began)

    def restart(self) -> None:
        """After a loss that is not finite: back to the last state, at a tenth of the rate, or stop."""
        settings, broken = self.settings, self.position
        where = f"epoch {broken.epoch + 1}, update {broken.update + 1}"
        rate = settings.optimiser.lr * broken.lr_scale * self._factor(broken)
        indices = [index for part in self._order()[broken.update : broken.update + 1] for index in part.tolist()]
        names = [self.task.train.paths[index] for index in indices]
        if settings.on_divergence == "stop" or broken.restarts >= settings.restarts:
            tried = f" after {broken.restarts} restarts" if broken.restarts else ""
            pictures = f", pictures {listed(names, most=64)}" if names else ", on the pictures looked at"
            raise UserError(
                f"the loss is not finite{tried} (learning rate {rate:.3g}{pictures})",
                where=where,
                do="lower --lr, add --clip-grad 1, or let it go back by itself with --on-divergence restart",
            )
        scale = broken.lr_scale * LOWER
        state = self.states.newest()
        if state is None:
            raise UserError("the loss is not finite, and no state to go back to is kept", where=where)
        restarts = broken.restarts + 1
        self._become(state)
        self.position.lr_scale, self.position.restarts = scale, restarts
        warn(f"{where}: the loss is not finite at rate {rate:.3g}; back to epoch {self.position.epoch + 1} at a tenth")
        self.log({"event": "restart", "epoch": broken.epoch + 1, "update": broken.update, "lr": rate})
        self.save()

    @property
    def is_over(self) -> bool:
        """Whether all epochs were run, or patience ended."""
        return self.position.epoch >= self.settings.epochs or self.position.ended is not None

    # --- an epoch

    def epoch(self, stop: StopRequest) -> None:
        """The updates of the epoch that are left."""
        began = time.perf_counter()
        position, settings, learner = self.position, self.settings, self.learner
        order = self._order()
        what = f"epoch {position.epoch + 1}/{settings.epochs}"
        done = sum(len(part) for part in order[: position.update])
        total, busy = len(self.task.train), Busy(learner.device)
        with progress(what, total, unit="pictures", done=done) as advance:
            for parts, part in zip(self._parts(order, busy), order[position.update :], strict=True):
                self._seed_torch()
                factor = position.lr_scale * self._factor(position)
                try:
                    with busy.update():
                        step = learner.update(parts, len(part), factor)
                except torch.OutOfMemoryError:
                    raise learner.out_of_memory(parts[0]) from None
                sums = learner.group.sum_(torch.tensor([step.loss, step.correct, stop.asked], dtype=torch.float64))
                position.loss_sum += float(sums[0])
                position.correct += int(sums[1])
                position.seen += len(part)
                position.update += 1
                position.updates += 1
                began = self._spent("train", began)
                advance(len(part), self._shown())
                if sums[2] > 0 or self.states.due(epoch_ends=False):
                    self.save()
                if sums[2] > 0:
                    learner.group.wait()  # none leaves before the state is written
                    raise Interrupted
        self.busy = busy.share() if done < total else None
        learner.audit()
        self._spent("train", began)

    def _spent(self, phase: str, began: float) -> float:
        """Count the seconds since ``began``; the time of now."""
        now, seconds = time.perf_counter(), self.position.seconds
        seconds[phase] = seconds.get(phase, 0.0) + now - began
        return now

    def _order(self) -> list[NDArray[np.int64]]:
        """The epoch's updates: which pictures each one sees. The last, smaller one is kept."""
        rng = np.random.default_rng((self.seed, self.position.epoch))
        order, size = rng.permutation(len(self.task.train)), self.settings.batch_size * self.settings.accumulate
        return [order[start : start + size] for start in range(0, len(order), size)]

    def _parts(self, order: list[NDArray[np.int64]], busy: Busy) -> Iterator[list[Part]]:
        """For each update that is left, this process's forward passes, decoded ahead."""
        settings, learner, position = self.settings, self.learner, self.position
        size, rank = settings.batch_size, learner.group.rank
        passes = [
            [update[start : start + size] for start in range(0, len(update), size)]
            for update in order[position.update :]
        ]
        mine = rounds([part for update in passes for part in update], learner.group)
        loader = batches(
            self.task.train,
            self.task.train_transform,
            parts=mine,
            workers=learner.execution.workers,
            seed=self.seed,
            epoch=position.epoch,
            cache=self.cache,
        )
        with closing(loader):
            for number, update in enumerate(passes, start=position.update):
                ready: list[Part] = []
                for place, whole in enumerate(update):
                    counts = len(learner.group.share(whole)) > 0
                    draw = (self.seed, position.epoch, rank, number, place)
                    ready.append(self._part(busy.wait(loader), counts, draw))
                yield ready

    def _part(self, batch: Batch, counts: bool, draw: tuple[int, ...]) -> Part:
        """A batch on the device: pictures travel as bytes, are cut there if so asked, and normalised."""
        device, alpha = self.learner.device, self.settings.objective.mixup
        images = self.task.train_transform.inputs(batch.images.to(device, non_blocking=True), batch.views)
        mix = Mix.drawn(alpha, len(batch), np.random.default_rng(draw)) if alpha else None
        return Part(images, batch.labels.to(device), mix, counts)

    def _seed_torch(self) -> None:
        """Dropout and its like draw from torch's generator, set anew for each update, so no state of it is kept."""
        draw = np.random.SeedSequence((self.seed, self.position.updates, self.learner.group.rank))
        torch.manual_seed(int(draw.generate_state(1, np.uint64)[0] >> 1))

    def _factor(self, position: Position) -> float:
        updates = len(self._order())
        return self.settings.schedule.factor(position.epoch, position.update, updates, self.settings.epochs)

    def _shown(self) -> str:
        position = self.position
        return f"loss {position.loss_sum / position.seen:.3f}  acc {position.correct / position.seen:.1%}"

    # --- between epochs

    def look(self, stop: StopRequest) -> None:
        """Look at the watched pictures, write the epoch down, keep what is best, and step to the next epoch."""
        began = time.perf_counter()
        position, watched = self.position, self.task.watched
        try:
            self.logits = self._look(stop)
        except Interrupted:
            self.save()
            raise
        if not np.isfinite(self.logits).all():
            raise NotFinite
        confusion = Confusion.of(watched.labels, predict(self.logits), watched.classes)
        loss = cross_entropy(self.logits, watched.labels)
        name = "val" if self.task.selects else "test"
        event: dict[str, Json] = {
            "epoch": position.epoch + 1,
            "lr": self.settings.optimiser.lr * position.lr_scale * self._last_factor(),
            "train_loss": position.loss_sum / position.seen,
            "train_top1": position.correct / position.seen,
            f"{name}_loss": loss,
            f"{name}_top1": confusion.top1,
            f"{name}_mean_per_class": confusion.mean_per_class,
            "sparsity": self.learner.mask.sparsity(),
        }
        value = -loss if self.task.selects else confusion.top1
        if position.best_value is None or value > position.best_value:
            position.best_value, position.best_epoch = value, position.epoch + 1
            self.best = {"counts": torch.from_numpy(confusion.counts.copy())}
            if self.task.selects:
                self.best["logits"] = torch.from_numpy(self.logits.copy())
                self.best |= {f"model/{key}": tensor.clone() for key, tensor in self.learner.evaluated().items()}
        position.history.append(event)
        self.log({"event": "epoch", **event, "busy": self.busy})
        self._step_to_next_epoch()
        self._spent("look", began)
        if self.states.due(epoch_ends=True) or self.is_over or stop.asked:
            self.save()

    def _look(self, stop: StopRequest) -> NDArray[np.float32]:
        """Logits of what would be kept now."""
        learner, task = self.learner, self.task
        kept = None
        if learner.average is not None:
            kept = {name: value.clone() for name, value in learner.model.state_dict().items()}
            learner.model.load_state_dict(learner.average.shadow)
        amp = learner.execution.amp
        logits = logits_of(
            learner.model,
            task.watched,
            task.watched_transform,
            learner.group,
            workers=learner.execution.workers,
            cache=self.cache,
            amp=None if amp == "off" else AUTOCAST[amp],
            stop=stop,
        )
        if kept is not None:
            learner.model.load_state_dict(kept)
        return logits

    def _last_factor(self) -> float:
        updates = len(self._order())
        return self.settings.schedule.factor(self.position.epoch, updates - 1, updates, self.settings.epochs)

    def _step_to_next_epoch(self) -> None:
        position, patience = self.position, self.settings.patience
        position.epoch += 1
        position.update, position.loss_sum, position.correct, position.seen = 0, 0.0, 0, 0
        if (
            patience is not None
            and position.best_epoch is not None
            and position.epoch - position.best_epoch >= patience
        ):
            position.ended = f"no better validation loss in {patience} epochs: ended after {position.epoch}"

    def trained(self) -> Trained:
        """What was learnt."""
        position, task = self.position, self.task
        assert position.best_epoch is not None
        best = Confusion(self.best["counts"].numpy(), task.watched.classes)
        if task.selects:
            tensors = {
                name.removeprefix("model/"): value for name, value in self.best.items() if name.startswith("model/")
            }
            logits, epoch = self.best["logits"].numpy(), position.best_epoch
        else:
            tensors, epoch = dict(self.learner.evaluated()), position.epoch
            logits = self._look(StopRequest()) if self.logits is None else self.logits
        return Trained(tensors, logits, epoch, best, position.best_epoch, position)
