"""Stochastic gradient descent on features: all seeds and learning rates in one batched pass.

Heads are ordered seed by seed, and within a seed by learning rate. Shapes: S seeds, L learning rates, H = S · L heads,
B images in a batch, N images, D feature width, C classes.

Randomness. Each seed has one ``torch.Generator``, which draws in this order: the weight [C, D], the bias [C] (both
as ``torch.nn.Linear`` does), then one permutation of the N images per epoch. Nothing else is drawn, and all learning
rates of a seed share these draws: a head does not depend on what it is fitted together with.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sparse_transfer.core.errors import UserError
from sparse_transfer.models.network import Head
from sparse_transfer.solvers.inputs import Features, Labels, check
from sparse_transfer.solvers.report import Ended, FittedHead

# (epoch from 0, weights [H, C, D], biases [H, C]) after each epoch. They are the live tensors: read, do not keep.
OnEpoch = Callable[[int, Tensor, Tensor], None]


@dataclass(frozen=True)
class SgdSettings:
    """Mini-batch SGD with momentum on the mean cross-entropy of a batch; weight decay on weight and bias alike.

    lr: one learning rate, or several to fit side by side.   boundaries: epochs, counted from 0, from which the
    learning rate is ``gamma`` times the one before: (51, 101) gives 51, 50 and 49 epochs of 150, as the published
    code does.   The last, partial batch of an epoch is kept.   No dampening, no Nesterov.
    """

    lr: float | tuple[float, ...] = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 64
    epochs: int = 150
    boundaries: tuple[int, ...] = (51, 101)
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if not self.lrs or not all(0 < lr < math.inf for lr in self.lrs):
            raise UserError(f"a learning rate of {self.lr}", where="--lr", do="give finite numbers above 0")
        if self.batch_size < 1 or self.epochs < 1:
            raise UserError(f"batches of {self.batch_size}, {self.epochs} epochs", do="both are at least 1")
        if not 0 <= self.momentum < 1:
            raise UserError(f"a momentum of {self.momentum}", where="momentum", do="it lies in [0, 1)")
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(f"a weight decay of {self.weight_decay}", where="weight_decay", do="it is 0 or more")

    @property
    def lrs(self) -> tuple[float, ...]:
        """The learning rates, L of them."""
        return self.lr if isinstance(self.lr, tuple) else (self.lr,)

    def decay(self, epoch: int) -> float:
        """What the learning rates are multiplied by in that epoch, counted from 0."""
        return self.gamma ** sum(epoch >= boundary for boundary in self.boundaries)


def fit(
    features: Features | Sequence[Features],
    labels: Labels,
    classes: int,
    settings: SgdSettings,
    seeds: Sequence[int],
    *,
    on_epoch: OnEpoch | None = None,
) -> list[FittedHead]:
    """Fit one head per seed and learning rate, seed by seed.

    features: [N, D] float32, finite, C-contiguous; read batch by batch, never copied as a whole. Or several such
    views of the same images, which the epochs take in turn: epoch e reads view e mod V.
    labels: [N] int64 in [0, classes).   on_epoch: called after each epoch, for instance to measure.
    Raises ``UserError`` for features, labels or seeds that cannot be fitted.
    """
    views = [features] if isinstance(features, np.ndarray) else list(features)
    if not views:
        raise UserError("there are none", where="features", do="give at least one view")
    for view in views:
        check(view, labels, classes)
    (count, width), shapes = views[0].shape, {view.shape for view in views}
    if len(shapes) > 1:
        raise UserError(f"the views differ in shape: {sorted(shapes)}", where="features", do="give equal ones")
    sgd = BatchedSgd(width, classes, settings, seeds)
    # A batch's images are gathered into one buffer by NumPy: torch does not take a read-only memory map.
    buffer = np.empty((len(seeds), min(settings.batch_size, count), width), dtype=np.float32)
    for epoch in range(settings.epochs):
        sgd.start_epoch(epoch)
        order = np.stack([torch.randperm(count, generator=generator).numpy() for generator in sgd.generators])  # [S, N]
        for start in range(0, count, settings.batch_size):
            chosen = order[:, start : start + settings.batch_size]  # [S, B]
            batch = buffer if chosen.shape[1] == buffer.shape[1] else np.empty((*chosen.shape, width), np.float32)
            # mode="raise", the default, would gather into a second buffer
            np.take(views[epoch % len(views)], chosen, axis=0, out=batch, mode="clip")
            sgd.step(torch.from_numpy(batch), torch.from_numpy(labels[chosen]))
        if on_epoch is not None:
            on_epoch(epoch, sgd.weights, sgd.biases)
    return sgd.finish()


@dataclass(frozen=True)
class SgdState:
    """One seed's L heads after an epoch, with all that moves them on. Plain tensors, so that a file can hold them.

    weights, weight_momenta: [L, C, D] float32.   biases, bias_momenta: [L, C] float32.
    losses: [L, epochs] float64, each the sum over an epoch's images.   images: [epochs] int64, how many those were.
    steps: [] int64, updates so far.   generator: uint8, the state of the seed's random generator.
    """

    weights: Tensor
    biases: Tensor
    weight_momenta: Tensor
    bias_momenta: Tensor
    losses: Tensor
    images: Tensor
    steps: Tensor
    generator: Tensor


class BatchedSgd:
    """H heads and their momenta, moved one batch at a time. ``fit`` drives it over features that are there; a caller
    whose features are made anew for every epoch (augmentation) drives it by itself:

        sgd = BatchedSgd(width, classes, settings, seeds)
        for epoch in range(settings.epochs):
            sgd.start_epoch(epoch)
            for features, labels in stream(epoch):      # [B, D] and [B]: every head sees the same images
                sgd.step(features, labels)
        heads = sgd.finish()

    Between two epochs, ``states`` says all that is needed to go on elsewhere with ``go_on``, bit for bit.
    """

    def __init__(self, width: int, classes: int, settings: SgdSettings, seeds: Sequence[int]) -> None:
        if not seeds:
            raise UserError("no seed was given", where="--seeds", do="give at least one")
        self.settings, self.seeds = settings, tuple(seeds)
        self.generators = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        drawn = [_linear_init(width, classes, generator) for generator in self.generators]
        each = len(settings.lrs)
        self.weights = torch.stack([weight for weight, _ in drawn]).repeat_interleave(each, dim=0)  # [H, C, D]
        self.biases = torch.stack([bias for _, bias in drawn]).repeat_interleave(each, dim=0)  # [H, C]
        self._weight_momenta = torch.zeros_like(self.weights)
        self._bias_momenta = torch.zeros_like(self.biases)
        self._lrs = torch.tensor(settings.lrs * len(self.seeds), dtype=torch.float32)  # [H]
        self._minus_lrs = -self._lrs
        self._minus_one = torch.tensor(-1.0)
        self._losses: list[Tensor] = []  # one [H] float64 an epoch: the sum over its images
        self._images: list[int] = []  # how many those were
        self._steps = 0

    def start_epoch(self, epoch: int) -> None:
        """Set the learning rates of that epoch, counted from 0, and begin its loss."""
        self._minus_lrs = -self._lrs * self.settings.decay(epoch)
        self._losses.append(torch.zeros(len(self._lrs), dtype=torch.float64))
        self._images.append(0)

    @torch.no_grad()
    def step(self, features: Tensor, labels: Tensor) -> None:
        """One update of every head.

        features: [B, D] float32 and labels [B] int64, seen by all heads, or [S, B, D] and [S, B], one batch a seed.
        """
        # The gradient of softmax regression is written out: softmax minus one-hot, times the features. Momentum is
        # the beta of that same product. Logits are kept as [classes, images]: W X' is 1.4 times as fast as X W' here.
        features, labels = features.reshape(-1, *features.shape[-2:]), labels.reshape(-1, 1, 1, labels.shape[-1])
        groups, batch, width = features.shape  # G: S, or 1 where all heads share the batch
        heads, classes, _ = self.weights.shape
        weights, momenta = (
            t.view(groups, -1, width) for t in (self.weights, self._weight_momenta)
        )  # [G, H / G * C, D]
        logits = torch.baddbmm(self.biases.view(groups, -1, 1), weights, features.transpose(1, 2))
        logs = logits.view(groups, heads // groups, classes, batch).log_softmax(dim=2)
        targets = labels.expand(-1, heads // groups, 1, -1)
        self._losses[-1] -= logs.gather(2, targets).sum(dim=(2, 3), dtype=torch.float64).flatten()
        self._images[-1] += batch
        slopes = logs.exp_().scatter_add_(2, targets, self._minus_one.expand(targets.shape)).div_(batch)

        decay, momentum = self.settings.weight_decay, self.settings.momentum
        momenta.baddbmm_(slopes.view(groups, -1, batch), features, beta=momentum).add_(weights, alpha=decay)
        self.weights.addcmul_(self._weight_momenta, self._minus_lrs[:, None, None])
        self._bias_momenta.mul_(momentum).add_(slopes.sum(dim=3).view(heads, classes)).add_(self.biases, alpha=decay)
        self.biases.addcmul_(self._bias_momenta, self._minus_lrs[:, None])
        self._steps += 1

    def states(self) -> list[SgdState]:
        """The state of each seed after the epoch that has just ended; shares no memory with the heads."""
        each, losses = len(self.settings.lrs), torch.stack(self._losses, dim=1)
        states: list[SgdState] = []
        for position, generator in enumerate(self.generators):
            heads = slice(position * each, (position + 1) * each)
            states.append(
                SgdState(
                    weights=self.weights[heads].clone(),
                    biases=self.biases[heads].clone(),
                    weight_momenta=self._weight_momenta[heads].clone(),
                    bias_momenta=self._bias_momenta[heads].clone(),
                    losses=losses[heads].clone(),
                    images=torch.tensor(self._images),
                    steps=torch.tensor(self._steps),
                    generator=generator.get_state(),
                )
            )
        return states

    def go_on(self, states: Sequence[SgdState]) -> None:
        """Take up the state of each seed, all after the same epoch; the next is ``start_epoch`` of the one after it.

        Raises ``ValueError`` where they are not states of such heads.
        """
        weights = torch.cat([state.weights for state in states])
        if weights.shape != self.weights.shape:
            raise ValueError(f"states of heads {list(weights.shape)}, and these are {list(self.weights.shape)}")
        self.weights, self.biases = weights, torch.cat([state.biases for state in states])
        self._weight_momenta = torch.cat([state.weight_momenta for state in states])
        self._bias_momenta = torch.cat([state.bias_momenta for state in states])
        self._losses = list(torch.cat([state.losses for state in states]).unbind(dim=1))
        self._images, self._steps = states[0].images.tolist(), int(states[0].steps)
        for generator, state in zip(self.generators, states, strict=True):
            generator.set_state(state.generator)

    def finish(self) -> list[FittedHead]:
        """The H heads as they are now, with their history."""
        losses = torch.stack(self._losses) / torch.tensor(self._images)[:, None]  # [epochs, H]
        return [
            FittedHead(
                head=Head(self.weights[index].clone(), self.biases[index].clone()),
                ended=Ended.ALL_EPOCHS if math.isfinite(history[-1]) else Ended.DIVERGED,
                seed=self.seeds[index // len(self.settings.lrs)],
                strength=self.settings.lrs[index % len(self.settings.lrs)],
                history=tuple(history),
                objective=history[-1],
                gradient_norm=None,
                iterations=self._steps,
            )
            for index, history in enumerate(losses.T.tolist())
        ]


def _linear_init(width: int, classes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Weight [C, D] and bias [C] as ``torch.nn.Linear`` draws them: uniform in ± 1 / sqrt(D), weight first."""
    weight, bias = torch.empty(classes, width), torch.empty(classes)
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
    nn.init.uniform_(bias, -1 / math.sqrt(width), 1 / math.sqrt(width), generator=generator)
    return weight, bias
