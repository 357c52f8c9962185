"""Multinomial logistic regression along a path of l2, by L-BFGS with an exact line search.

    F(W, b) = mean cross-entropy + l2/2 ||W||^2, the bias free (``objective.py``)

Three things make it fast, beside the usual two-loop recursion (Nocedal and Wright, Numerical Optimization, 2nd ed.,
algorithms 7.4 and 7.5):

- Logits are linear in the head, so along a direction they are ``logits + t * step``. One product with the features
  buys the whole line search, and an iteration costs two: one for the direction, one for the gradient.
- A change of l2 changes the curvature by a known amount. The pairs (s, y) of one strength are carried over to the
  next with y += (l2_new - l2_old) s.
- Each strength begins with a line search along the last change of the solution, whose logits are known: no product.

Points, centring and the memory they need: ``problem.py``. Shapes: N images, C classes, D feature width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sparse_transfer.core.errors import UserError
from sparse_transfer.models.network import Head
from sparse_transfer.solvers.inputs import Features, Labels, check
from sparse_transfer.solvers.objective import cross_entropy
from sparse_transfer.solvers.problem import Place, Problem, dot
from sparse_transfer.solvers.report import Ended, FittedHead

# 45 strengths, a factor of 10^(1/4) apart: DINOv2's grid (dinov2/eval/log_regression.py: C = 10^-6 ... 10^5, C on the
# sum of the losses) at n = 10,000. Here l2 goes with the mean, so one grid serves every n.
DEFAULT_PATH = tuple(float(l2) for l2 in np.logspace(2, -9, 45))

LINE_SEARCH = 0.1  # a step is long enough when the slope along it has fallen to this share
LINE_SEARCH_STEPS = 30
FLAT = 1e-8  # curvature of the loss below which float32 knows nothing of it
SMALLEST = 1e-30  # of s'y, below which a pair is rounding
NOTHING = 1e-9  # nats: F is not lowered for its own share below this; with one class alone it has no minimum above 0


@dataclass(frozen=True)
class LbfgsSettings:
    """The path and when to stop on it.

    l2: one strength or several, fitted in this order, each from the last; strong to weak is fastest.
    tolerance: stop when the decrease still to be had, estimated by half the quasi-Newton decrement, is below this
    share of F.   max_iter: iterations per strength.   memory: pairs kept for the curvature.
    """

    l2: float | tuple[float, ...] = DEFAULT_PATH
    tolerance: float = 1e-7
    max_iter: int = 1000
    memory: int = 20

    def __post_init__(self) -> None:
        for l2 in self.path or (math.nan,):
            if not 0 < l2 < math.inf:
                raise UserError(
                    f"a strength of {l2:g}",
                    where="--l2",
                    do="give a finite value above 0: without it, the weights of separable classes grow without end",
                )
        if not 0 < self.tolerance < 1:
            raise UserError(f"a tolerance of {self.tolerance:g}", where="tolerance", do="it lies between 0 and 1")
        if self.max_iter < 1 or self.memory < 1:
            raise UserError(f"{self.max_iter} iterations, a memory of {self.memory}", do="both are at least 1")

    @property
    def path(self) -> tuple[float, ...]:
        """The strengths."""
        return self.l2 if isinstance(self.l2, tuple) else (self.l2,)


@torch.no_grad()
def fit(
    features: Features,
    labels: Labels,
    classes: int,
    settings: LbfgsSettings,
    seeds: Sequence[int] = (0,),
    *,
    start: Head | None = None,
) -> list[FittedHead]:
    """Fit one head per seed and strength, seed by seed, in the order of the path.

    Nothing is random: each seed gets the same heads. features: [N, D] float32, finite, C-contiguous, not copied.
    labels: [N] int64 in [0, classes).   start: where to begin, else at zero.   Memory: about 8 N · C float32.
    Raises ``UserError`` for features, labels or seeds that cannot be fitted.
    """
    check(features, labels, classes)
    if not seeds:
        raise UserError("no seed was given", where="--seeds", do="give at least one")
    problem = Problem(features, labels, classes)
    curvature = Curvature(settings.memory, settings.path[0])
    point = problem.start(start)
    logits = problem.logits(point)
    change: tuple[Tensor, Tensor] | None = None  # of the point [C, D + 1] and the logits [C, N], by the last strength
    heads: list[FittedHead] = []
    for l2 in settings.path:
        curvature.change_l2(l2)
        here = _extrapolate(problem, point, logits, change, l2)
        fitted, there = _minimise(problem, here, curvature, settings)
        heads.append(fitted)
        fresh = problem.logits(there.point)  # made anew at each strength, so that rounding does not pile up
        change = there.point - point, fresh - logits
        point, logits = there.point, fresh
    return [replace(head, seed=seed) for seed in seeds for head in heads]


def _extrapolate(
    problem: Problem, point: Tensor, logits: Tensor, change: tuple[Tensor, Tensor] | None, l2: float
) -> Place:
    """Where to begin at ``l2``: the last solution, moved along the last change as far as that lowers F."""
    if change is None:
        return problem.at(point, logits, l2)
    direction, step = change
    loss, residuals = cross_entropy(logits, problem.labels)
    length = _line_search(problem, point, logits, loss, residuals, direction, step, l2)
    return problem.at(point + length * direction, logits + length * step, l2)


def _minimise(
    problem: Problem, here: Place, curvature: "Curvature", settings: LbfgsSettings
) -> tuple[FittedHead, Place]:
    """Minimise F at the strength of ``curvature``, starting from ``here``."""
    l2 = curvature.l2
    history = [here.value]
    ended = Ended.MAX_ITERATIONS
    while len(history) <= settings.max_iter:
        direction = curvature.direction(here, problem.variance)
        if -dot(here.gradient, direction) / 2 <= settings.tolerance * max(here.value, NOTHING):
            ended = Ended.CONVERGED
            break
        step = problem.logits(direction)
        penalty = l2 / 2 * dot(here.point[:, :-1], here.point[:, :-1])
        loss = (here.value - penalty) * len(problem.labels)
        length = _line_search(problem, here.point, here.logits, loss, here.residuals, direction, step, l2)
        there = problem.at(here.point + length * direction, here.logits + length * step, l2)
        if not there.value < here.value:  # rounding, or NaN: stay
            ended = Ended.STALLED
            break
        curvature.learn(here, there)
        history.append(there.value)
        here = there
    fitted = FittedHead(
        head=problem.head(here.point),
        ended=ended,
        seed=0,
        strength=l2,
        history=tuple(history),
        objective=here.value,
        gradient_norm=problem.gradient_norm(here),
        iterations=len(history) - 1,
    )
    return fitted, here


def _line_search(
    problem: Problem,
    point: Tensor,
    logits: Tensor,
    begin: float,
    residuals: Tensor,
    direction: Tensor,
    step: Tensor,
    l2: float,
) -> float:
    """How far to go along ``direction``, whose logits are ``step``: to where the slope has all but vanished.

    F is convex, so the slope along a line only rises: its root is bracketed by sign and met by secants.
    ``begin`` is the summed loss at the start.
    """
    across = l2 * dot(point[:, :-1], direction[:, :-1])
    along = l2 * dot(direction[:, :-1], direction[:, :-1])
    count = len(problem.labels)
    first = dot(residuals, step) / count + across
    sign = -1.0 if first > 0 else 1.0  # the last change may point uphill
    length = sign
    before = low = (0.0, first)  # (length, slope) on this side of the root, and the one before it
    high: tuple[float, float] | None = None  # beyond the root
    was_beyond: bool | None = None
    for _ in range(LINE_SEARCH_STEPS):
        loss, there = cross_entropy(torch.add(logits, step, alpha=length), problem.labels)
        slope = dot(there, step) / count + across + length * along
        # A small slope is not enough beyond the root: there the loss soon runs straight, and F may lie above its start.
        # F is convex, so going back gains at most slope times distance.
        gained = (begin - loss) / count - length * across - length**2 / 2 * along
        back = abs(slope * (length - low[0]))
        if abs(slope) <= LINE_SEARCH * abs(first) and (slope * sign <= 0 or back <= gained / 2):
            break
        # An end that is kept a second time counts with half its slope (the Illinois rule): the loss bends sharply near
        # its minimum and runs straight beyond, where plain secants creep.
        beyond = slope * sign >= 0
        if beyond:
            if was_beyond:
                low = (low[0], low[1] / 2)
            high = (length, slope)
        else:
            if high is not None and was_beyond is False:
                high = (high[0], high[1] / 2)
            before, low = low, (length, slope)
        was_beyond = beyond
        a, b = (before, low) if high is None else (low, high)
        rise = b[1] - a[1]
        share = -a[1] / rise if rise else math.inf  # of the way from a to b, where the secant meets zero
        share = min(max(share, 1.5), 10.0) if high is None else min(max(share, 0.05), 0.95)
        length = a[0] + share * (b[0] - a[0])
    return length


class Curvature:
    """What the steps so far tell of the Hessian: the pairs (step, change of the gradient), oldest first."""

    def __init__(self, memory: int, l2: float) -> None:
        self.memory, self.l2 = memory, l2
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def learn(self, here: Place, there: Place) -> None:
        """Take in the step from ``here`` to ``there``; the oldest goes when memory is full."""
        pair = there.point - here.point, there.gradient - here.gradient
        if dot(*pair) > SMALLEST:  # F is convex: only rounding makes it otherwise
            self.pairs = [*self.pairs, pair][-self.memory :]

    def change_l2(self, l2: float) -> None:
        """Go on to another strength: the curvature of the penalty is known, that of the loss is kept."""
        for step, change in self.pairs:
            change[:, :-1] += (l2 - self.l2) * step[:, :-1]
        self.pairs = [pair for pair in self.pairs if dot(*pair) > SMALLEST]
        self.l2 = l2

    def direction(self, place: Place, variance: float) -> Tensor:
        """Minus the inverse Hessian times the gradient: the two-loop recursion. [C, D + 1]."""
        direction = -place.gradient
        inverses = [1 / dot(step, change) for step, change in self.pairs]
        weights: list[float] = []
        for (step, change), inverse in zip(reversed(self.pairs), reversed(inverses), strict=True):
            weights.append(inverse * dot(step, direction))
            direction.sub_(change, alpha=weights[-1])
        diagonal = self._diagonal(place, variance)
        direction /= diagonal
        if self.pairs:
            step, change = self.pairs[-1]
            direction *= dot(step, change) / dot(change, change / diagonal)
        for (step, change), inverse, weight in zip(self.pairs, inverses, reversed(weights), strict=True):
            direction.add_(step, alpha=weight - inverse * dot(change, direction))
        return direction

    def _diagonal(self, place: Place, variance: float) -> Tensor:
        """A diagonal for the Hessian where the pairs know nothing: for class k, mean p (1 - p) times the variance of a
        feature, plus l2; for its bias, mean p (1 - p). A residual is p or p - 1."""
        wrong = place.residuals.abs()
        spread = (wrong * (1 - wrong)).mean(dim=1)  # [C]
        # Where every image is fitted perfectly the loss has no curvature left, and rounding must not be divided by it.
        spread = (spread + 0.01 * spread.mean() + FLAT)[:, None]
        weight = (spread * variance + self.l2).expand(-1, place.point.shape[1] - 1)
        return torch.cat([weight, spread], dim=1)
