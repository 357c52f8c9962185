"""The training loop: epochs of updates under the mask, a look after each, a state to go on from at any moment."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparse_transfer.core.canonical import Json
from sparse_transfer.core.errors import Interrupted, UserError
from sparse_transfer.core.progress import progress, warn
from sparse_transfer.data.loading import PictureCache
from sparse_transfer.data.split import Split
from sparse_transfer.data.transforms import Transform
from sparse_transfer.metrics.calibration import cross_entropy
from sparse_transfer.metrics.confusion import Confusion, predict
from sparse_transfer.training import draws
from sparse_transfer.training.busy import Busy
from sparse_transfer.training.divergence import place_of, require_restart, slower
from sparse_transfer.training.feeding import fed
from sparse_transfer.training.learner import AUTOCAST, Learner, NotFinite, Part, Step
from sparse_transfer.training.looking import logits_of
from sparse_transfer.training.state import Position, State, States
from sparse_transfer.training.stopping import StopRequest, stop_request


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
            except NotFinite as error:
                run.restart(error)
    return run.trained()


class _Run:
    """One training on its way."""

    def __init__(self, learner: Learner, task: Task, states: States, seed: int, log: Log) -> None:
        self.learner, self.task, self.states, self.seed, self.log = learner, task, states, seed, log
        self.settings = learner.settings
        self.position = Position()
        self.best: dict[str, Tensor] = {}  # counts of the best epoch; where it is kept, its tensors and logits
        self.logits: NDArray[np.float32] | None = None
        self.speed: dict[str, Json] = {}  # of this process in the epoch
        self.sparsity = learner.mask.sparsity()  # counted at the end of each epoch, after the audit
        limit = learner.execution.cache_bytes
        self.cache = PictureCache(limit) if limit else None

    @property
    def is_over(self) -> bool:
        """Whether all epochs were run, or patience ended."""
        return self.position.epoch >= self.settings.epochs or self.position.ended is not None

    # --- going on, saving, going back

    def resume(self) -> None:
        """Take up the newest state, on all processes the same; a run that is new keeps its first one to go back to."""
        self.learner.audit()
        state = self._newest()
        if state is None:
            self.save()
            return
        self._become(state)
        self.log({"event": "resume", "epoch": self.position.epoch + 1, "update": self.position.update})

    def _newest(self) -> State | None:
        state = self.states.newest()
        self.learner.group.wait()  # nobody writes before all have read
        return state

    def _become(self, state: State) -> None:
        old = state.position
        self.position = replace(old, seconds=dict(old.seconds))
        self.best = {
            name.removeprefix("best/"): value for name, value in state.tensors.items() if name.startswith("best/")
        }
        self.learner.restore(dict(state.tensors), dict(state.scalars))

    def save(self) -> None:
        """Audit, then write a state. Only the first process writes: what it has, all have."""
        began = time.perf_counter()
        self.learner.audit(together=False)
        if self.learner.group.is_first:
            tensors, scalars = self.learner.state()
            tensors |= {f"best/{name}": value for name, value in self.best.items()}
            self.states.save(State(self.position, tensors, scalars))
        self._spent("save", began)

    def restart(self, error: NotFinite) -> None:
        """After a loss that is not finite: back to the last state, at a tenth of the rate, or stop."""
        broken, order = self.position, self._order()
        rate = self._rate(self._factor(broken.update, len(order)))
        pictures = order[broken.update].tolist() if error.in_update else []
        place = place_of(broken, in_update=error.in_update)
        names = [self.task.train.paths[index] for index in pictures]
        require_restart(self.settings, error.what, place, broken.restarts, rate, names)
        state = self._newest()
        if state is None:
            raise UserError(f"{error.what} is not finite, and no state to go back to is kept", where=place)
        self._become(replace(state, position=slower(state.position, broken)))
        warn(
            f"{place}: {error.what} is not finite at rate {rate:.3g};"
            f" back to epoch {self.position.epoch + 1} at a tenth"
        )
        self.log({"event": "restart", "epoch": broken.epoch + 1, "update": broken.update, "lr": rate})
        self.save()

    # --- an epoch

    def epoch(self, stop: StopRequest) -> None:
        """The updates of the epoch that are left."""
        began = time.perf_counter()
        position, task, learner, order = self.position, self.task, self.learner, self._order()
        done, total = sum(len(update) for update in order[: position.update]), len(task.train)
        busy = Busy(learner.device)
        feed = fed(
            learner,
            task.train,
            task.train_transform,
            order,
            first=position.update,
            seed=self.seed,
            epoch=position.epoch,
            cache=self.cache,
            busy=busy,
        )
        what = f"epoch {position.epoch + 1}/{self.settings.epochs}"
        with progress(what, total, unit="pictures", done=done) as advance:
            for parts, pictures in zip(feed, map(len, order[position.update :]), strict=True):
                draws.seed_torch(self.seed, position.updates, learner.group.rank)
                factor = position.lr_scale * self._factor(position.update, len(order))
                step = self._update(parts, pictures, factor, busy)
                position.loss_sum += step.loss
                position.correct += step.correct
                position.seen += pictures
                position.update += 1
                position.updates += 1
                began = self._spent("train", began)
                advance(pictures, self._shown())
                self._pause(stop)
        self.speed = busy.told(total - done) if done < total else {}
        learner.audit()
        learner.require_finite()
        self._spent("train", began)

    def _update(self, parts: list[Part], pictures: int, factor: float, busy: Busy) -> Step:
        try:
            with busy.update():
                return self.learner.update(parts, pictures, factor)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UserError(
                "the last batch leaves a process one picture, and BatchNorm learns nothing from one pixel",
                where=place_of(self.position),
                do="use another --batch-size, or --freeze-bn",
            ) from None
        except torch.OutOfMemoryError:
            pass  # and out of this block, which holds all that the failed pass had in memory
        raise self.learner.out_of_memory(parts[0])

    def _pause(self, stop: StopRequest) -> None:
        """Save where it is time, or where any process was asked to stop: then all leave, after the state is written."""
        asked, due = self.learner.group.any(
            stop.asked, self.learner.group.is_first and self.states.due(epoch_ends=False)
        )
        if asked or due:
            self.learner.require_finite()
            self.save()
        if asked:
            self.learner.group.wait()
            raise Interrupted

    def _spent(self, phase: str, began: float) -> float:
        """Count the seconds since ``began``; the time of now."""
        now, seconds = time.perf_counter(), self.position.seconds
        seconds[phase] = seconds.get(phase, 0.0) + now - began
        return now

    def _order(self) -> list[NDArray[np.int64]]:
        size = self.settings.batch_size * self.settings.accumulate
        return draws.order(self.seed, self.position.epoch, len(self.task.train), size)

    def _factor(self, update: int, updates: int) -> float:
        """What the schedule makes of the rate in that update of this epoch."""
        return self.settings.schedule.factor(self.position.epoch, update, updates, self.settings.epochs)

    def _rate(self, factor: float) -> float:
        return self.settings.optimiser.lr * self.position.lr_scale * factor

    def _shown(self) -> str:
        position = self.position
        sparse = "" if self.sparsity is None else f"  sparse {self.sparsity:.1%}"
        return f"loss {position.loss_sum / position.seen:.3f}  top-1 {position.correct / position.seen:.1%}{sparse}"

    # --- between epochs

    def look(self, stop: StopRequest) -> None:
        """Look at the watched pictures, write the epoch down, keep what is best, and step to the next epoch."""
        began = time.perf_counter()
        try:
            logits = self._logits(stop)
        except Interrupted:
            self.save()
            raise
        if not np.isfinite(logits).all():
            raise NotFinite("what the network says of the pictures looked at")
        self.logits = logits
        self.log({"event": "epoch", **self._noted(logits), **self.speed})
        self._step_to_next_epoch()
        self._spent("look", began)
        if self.states.due(epoch_ends=True) or self.is_over or stop.asked:
            self.save()

    def _logits(self, stop: StopRequest) -> NDArray[np.float32]:
        """Of the watched pictures, by what would be kept now."""
        learner, task, amp = self.learner, self.task, self.learner.execution.amp
        with learner.averaged():
            return logits_of(
                learner.model,
                task.watched,
                task.watched_transform,
                learner.group,
                workers=learner.execution.workers,
                cache=self.cache,
                amp=None if amp == "off" else AUTOCAST[amp],
                stop=stop,
            )

    def _noted(self, logits: NDArray[np.float32]) -> dict[str, Json]:
        """The epoch in numbers; where it is the best so far, what is kept of it."""
        position, watched, updates = self.position, self.task.watched, len(self._order())
        confusion = Confusion.of(watched.labels, predict(logits), watched.classes)
        loss = cross_entropy(logits, watched.labels)
        value = -loss if self.task.selects else confusion.top1
        if position.best_value is None or value > position.best_value:
            position.best_value, position.best_epoch = value, position.epoch + 1
            self.best = {"counts": torch.from_numpy(confusion.counts.copy())}
            if self.task.selects:
                self.best["logits"] = torch.from_numpy(logits.copy())
                self.best |= {f"model/{key}": tensor.clone() for key, tensor in self.learner.evaluated().items()}
        name = "val" if self.task.selects else "test"
        self.sparsity = self.learner.mask.sparsity()
        return {
            "epoch": position.epoch + 1,
            "lr": self._rate(self._factor(updates - 1, updates)),
            "train_loss": position.loss_sum / position.seen,
            "train_top1": position.correct / position.seen,
            f"{name}_loss": loss,
            f"{name}_top1": confusion.top1,
            f"{name}_mean_per_class": confusion.mean_per_class,
            "sparsity": self.sparsity,
        }

    def _step_to_next_epoch(self) -> None:
        position, patience = self.position, self.settings.patience
        position.epoch += 1
        position.update, position.loss_sum, position.correct, position.seen = 0, 0.0, 0, 0
        if patience and position.best_epoch is not None and position.epoch - position.best_epoch >= patience:
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
            logits = self._logits(StopRequest()) if self.logits is None else self.logits
        return Trained(tensors, logits, epoch, best, position.best_epoch, position)
