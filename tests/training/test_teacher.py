"""A teacher sees the pictures as it was trained to, whatever its pupil's are normalised by."""

import pytest
import torch
from torch import nn

from sparse_transfer.data.transforms import evaluation
from sparse_transfer.models import Preprocessing
from sparse_transfer.training.teacher import Renormalised

WANTED = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))


@pytest.mark.parametrize(
    "given",
    [
        WANTED,
        Preprocessing(),
        Preprocessing(mean=(0.3, 0.2, 0.9), std=(1 / 255, 1, 0.4), channel_order="bgr"),
    ],
    ids=["the same", "another", "in another order"],
)
def test_the_teacher_gets_what_its_own_transform_gives(given: Preprocessing) -> None:
    pictures = torch.randint(256, (2, 5, 5, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = Renormalised(nn.Identity(), given, WANTED)(evaluation(given).normalise(pictures))
    torch.testing.assert_close(found, evaluation(WANTED).normalise(pictures), rtol=1e-4, atol=1e-5)
