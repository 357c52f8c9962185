"""Draws follow from the seed and the place in the run, and from nothing else."""

import numpy as np
import pytest
import torch

from sparse_transfer.training import draws


@pytest.mark.parametrize(("pictures", "sizes"), [(7, [3, 3, 1]), (6, [3, 3]), (2, [2])])
def test_an_epoch_sees_each_picture_once_in_updates_of_one_size(pictures: int, sizes: list[int]) -> None:
    found = draws.order(21, 0, pictures, 3)
    assert [len(update) for update in found] == sizes
    assert sorted(np.concatenate(found).tolist()) == list(range(pictures))


def test_each_epoch_and_seed_has_an_order_of_its_own() -> None:
    orders = {
        tuple(np.concatenate(draws.order(seed, epoch, 50, 8)).tolist()) for seed in (21, 51) for epoch in range(3)
    }
    assert len(orders) == 6
    again = draws.order(21, 2, 50, 16)
    assert np.array_equal(np.concatenate(again), np.concatenate(draws.order(21, 2, 50, 8))), "whatever the batch"


def test_each_process_update_and_pass_mixes_in_its_own_way() -> None:
    def share(**other: int) -> float:
        return draws.mix(0.4, 5, **{"seed": 21, "epoch": 0, "rank": 0, "update": 0, "place": 0, **other}).share

    places = [{}, {"epoch": 1}, {"rank": 1}, {"update": 1}, {"place": 1}, {"seed": 22}]
    assert len({share(**place) for place in places}) == len(places)
    assert share(update=3) == share(update=3)


def test_torch_draws_the_same_in_the_same_update_whatever_was_drawn_before() -> None:
    with torch.random.fork_rng():
        draws.seed_torch(21, 4, 0)
        first = torch.rand(3)
        torch.rand(17)
        draws.seed_torch(21, 4, 0)
        assert torch.equal(torch.rand(3), first)
        for other in ((21, 5, 0), (21, 4, 1), (22, 4, 0)):
            draws.seed_torch(*other)
            assert not torch.equal(torch.rand(3), first)
