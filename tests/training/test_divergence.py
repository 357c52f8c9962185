"""After a loss that is not finite: the sentence, and where a restart goes on."""

from dataclasses import replace

import pytest

from sparse_transfer.core.errors import UserError
from sparse_transfer.training.divergence import place_of, require_restart, slower
from sparse_transfer.training.settings import TrainSettings
from sparse_transfer.training.state import Position

BROKEN = Position(epoch=1, update=2, updates=7, restarts=2, lr_scale=0.1)


def test_restarts_that_are_left_are_taken() -> None:
    require_restart(TrainSettings(on_divergence="restart", restarts=3), "the loss", "", BROKEN.restarts, 0.1, ["a.jpg"])


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        (TrainSettings(), "lower --lr, add --clip-grad 1, or let it go back by itself with --on-divergence restart"),
        (TrainSettings(on_divergence="restart", restarts=2), "lower --lr, or add --clip-grad 1"),
    ],
)
def test_else_the_sentence_says_where_at_which_rate_and_on_what(settings: TrainSettings, advice: str) -> None:
    with pytest.raises(UserError) as error:
        require_restart(settings, "the loss", place_of(BROKEN), BROKEN.restarts, 0.001, ["a.jpg", "b.jpg"])
    assert str(error.value) == (
        'epoch 2, update 3: the loss is not finite after 2 restarts (learning rate 0.001, pictures "a.jpg", "b.jpg"); '
        + advice
    )


def test_between_two_updates_the_one_before_is_named() -> None:
    assert place_of(BROKEN, in_update=False) == "epoch 2, after update 2"


def test_a_run_that_diverged_is_the_same_run_when_a_restart_is_asked_for() -> None:
    assert TrainSettings().to_json() == TrainSettings(on_divergence="restart", restarts=9).to_json()


def test_a_restart_goes_on_from_what_was_saved_at_a_tenth_of_the_rate_that_broke() -> None:
    saved = Position(epoch=1, update=0, updates=5, lr_scale=1.0, restarts=0, loss_sum=2.5)
    assert slower(saved, BROKEN) == replace(saved, lr_scale=pytest.approx(0.01), restarts=3)
