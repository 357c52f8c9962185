"""Losses against torch, and against hand arithmetic."""

import numpy as np
import pytest
import torch
from torch import nn

from sparse_transfer.core.errors import UserError
from sparse_transfer.training.objective import Mix, ObjectiveSettings, losses

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]])
LABELS = torch.tensor([0, 1])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_is_torchs(smoothing: float) -> None:
    expected = nn.functional.cross_entropy(LOGITS, LABELS, reduction="none", label_smoothing=smoothing)
    assert torch.equal(losses(LOGITS, LABELS, ObjectiveSettings(label_smoothing=smoothing)), expected)


def test_mixup_is_the_loss_of_the_mixed_label() -> None:
    """Zhang et al. 2018: cross-entropy against λ y_i + (1 - λ) y_j."""
    mix = Mix(0.3, torch.tensor([1, 0]))
    soft = 0.3 * nn.functional.one_hot(LABELS, 3) + 0.7 * nn.functional.one_hot(LABELS[[1, 0]], 3)
    expected = nn.functional.cross_entropy(LOGITS, soft.float(), reduction="none")
    torch.testing.assert_close(losses(LOGITS, LABELS, ObjectiveSettings(mixup=1), mix), expected)
    images = torch.arange(24.0).reshape(2, 3, 2, 2)
    torch.testing.assert_close(mix.images(images), 0.3 * images + 0.7 * images[[1, 0]])


def test_mixups_draw_depends_on_its_generator_alone() -> None:
    first, again = (Mix.drawn(0.4, 5, np.random.default_rng((1, 2))) for _ in range(2))
    assert first.share == again.share
    assert torch.equal(first.partner, again.partner)
    assert sorted(first.partner.tolist()) == list(range(5))


def test_distillation_by_hand() -> None:
    """Hinton et al. 2015: (1 - a) CE + a T² Σ p log(p / q), p and q softened by T."""
    teacher, settings = torch.tensor([[1.0, 1.0, 0.0], [0.0, 2.0, 0.0]]), ObjectiveSettings(distil=0.25, temperature=4)
    p, q = (teacher / 4).softmax(1), (LOGITS / 4).softmax(1)
    expected = 0.75 * losses(LOGITS, LABELS, ObjectiveSettings()) + 0.25 * 16 * (p * (p / q).log()).sum(1)
    torch.testing.assert_close(losses(LOGITS, LABELS, settings, teacher=teacher), expected)


def test_a_pupil_that_equals_its_teacher_has_nothing_to_learn_from_it() -> None:
    found = losses(LOGITS, LABELS, ObjectiveSettings(distil=1.0), teacher=LOGITS)
    torch.testing.assert_close(found, torch.zeros(2), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "given", [{"label_smoothing": 1.5}, {"mixup": -1}, {"distil": 2}, {"temperature": 0}, {"mixup": float("nan")}]
)
def test_nonsense_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(UserError):
        ObjectiveSettings(**given)
