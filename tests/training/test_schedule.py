"""Learning rates against hand arithmetic and torch's own schedulers."""

import math

import pytest
import torch

from sparse_transfer.core.errors import UserError
from sparse_transfer.training.schedule import Schedule, scaled_boundaries


def test_the_published_schedule_has_51_50_and_49_epochs() -> None:
    """policies/manager.py: a step after epochs 50 and 100, both counted from 0."""
    factors = [Schedule().factor(epoch, 0, 10, 150) for epoch in range(150)]
    assert [factors.count(pytest.approx(value)) for value in (1, 0.1, 0.01)] == [51, 50, 49]
    assert factors[50] == 1
    assert factors[51] == pytest.approx(0.1)


def test_within_an_epoch_a_step_schedule_is_constant() -> None:
    assert {Schedule().factor(60, step, 7, 150) for step in range(7)} == {0.1}


def test_cosine_is_torchs_cosine_annealing_update_by_update() -> None:
    steps, epochs = 5, 4
    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([weight], lr=1.0)
    oracle = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=steps * epochs, eta_min=0.0)
    schedule = Schedule("cosine")
    for epoch in range(epochs):
        for step in range(steps):
            assert schedule.factor(epoch, step, steps, epochs) == pytest.approx(optimiser.param_groups[0]["lr"])
            optimiser.step()
            oracle.step()


def test_cosine_with_warm_up_by_hand() -> None:
    """Research protocol 1.4, CosineLR: base (t + 1) / W, then (1 + cos(π (t - W) / (E - W))) / 2."""
    schedule = Schedule("cosine", warmup=2)
    assert [schedule.factor(epoch, 0, 1, 6) for epoch in range(6)] == pytest.approx(
        [0.5, 1.0, *(0.5 * (1 + math.cos(math.pi * t / 4)) for t in range(4))]
    )


def test_warm_up_rises_an_update_at_a_time() -> None:
    schedule = Schedule(warmup=2)
    rising = [schedule.factor(epoch, step, 4, 150) for epoch in range(2) for step in range(4)]
    assert rising == pytest.approx([(update + 1) / 8 for update in range(8)])


@pytest.mark.parametrize(
    ("epochs", "boundaries"), [(150, (51, 101)), (30, (10, 20)), (3, (1, 2)), (2, (1,)), (1, (1,))]
)
def test_boundaries_move_in_proportion(epochs: int, boundaries: tuple[int, ...]) -> None:
    assert scaled_boundaries(epochs) == boundaries


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"kind": "linear"}, "is no schedule"),
        ({"warmup": -1}, "a warm-up of -1 epochs"),
        ({"gamma": 0.0}, "a factor of 0; it lies in"),
        ({"boundaries": (20, 10)}, "name them ascending"),
    ],
)
def test_nonsense_is_refused(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Schedule(**given)  # type: ignore[arg-type]
