"""The moving average against its recurrence, and against torch's own."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sparse_transfer.core.errors import UserError
from sparse_transfer.training.average import Average


def test_the_average_follows_its_recurrence_by_hand() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 0.0)
    average = Average(module, 0.9)
    for value in (1.0, 2.0, 3.0):
        nn.init.constant_(module.weight, value)
        average.update(module)
    # Weights of the new value: 1 - min(0.9, (1 + n) / (10 + n)) = 9/10, 9/11, 9/12.
    first = 0.9 * 1
    second = first + 9 / 11 * (2 - first)
    assert average.shadow["weight"].item() == pytest.approx(second + 9 / 12 * (3 - second))


def test_late_in_a_run_it_is_torchs_average() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    ours, theirs = Average(module, 0.8), AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    theirs.update_parameters(module)
    ours.updates = 1000
    for seed in range(3):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.normal_(generator=torch.Generator().manual_seed(seed))
        ours.update(module)
        theirs.update_parameters(module)
    for name, parameter in theirs.module.named_parameters():
        torch.testing.assert_close(ours.shadow[name], parameter.detach())


def test_counters_are_copied_and_a_decay_of_one_is_refused() -> None:
    module = nn.BatchNorm1d(2)
    average = Average(module, 0.5)
    module(torch.randn(4, 2))
    average.update(module)
    assert average.shadow["num_batches_tracked"].item() == 1
    with pytest.raises(UserError, match="lies in"):
        Average(module, 1.0)
