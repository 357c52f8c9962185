import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sparse_transfer.core.errors import UserError
from sparse_transfer.sparsity import pattern


def random(shape: tuple[int, ...], density: float, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < density


def n_of_m(n: int, m: int, outputs: int, inputs: int, kernel: int, seed: int = 0) -> Tensor:
    """Exactly n of m neighbours along the input channels, at random."""
    noise = torch.rand(outputs, inputs // m, m, kernel, kernel, generator=torch.Generator().manual_seed(seed))
    ranks = noise.argsort(2).argsort(2)
    return (ranks < n).reshape(outputs, inputs, kernel, kernel)


seeds = st.integers(0, 2**16)


@given(st.sampled_from([0.5, 0.7, 0.9, 0.95, 0.99, 0.999]), seeds)
def test_an_unstructured_mask_of_any_density_is_unstructured(density: float, seed: int):
    # Whatever the seed: a pattern is named at a chance of 1e-6 at most.
    assert pattern(random((32, 32, 3, 3), 1 - density, seed)) in ("unstructured", "empty")


def test_at_99_percent_every_group_of_four_may_keep_two_or_fewer_and_it_is_still_unstructured():
    kept = random((64, 64, 1, 1), 0.01)
    assert int(kept.reshape(64, 16, 4).sum(2).max()) <= 2
    assert pattern(kept) == "unstructured"


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (1, 2), (3, 4), (1, 16), (2, 8), (4, 8), (8, 16), (8, 32)])
def test_n_of_m_is_named_with_the_smallest_group(n: int, m: int):
    assert pattern(n_of_m(n, m, 32, 64, 3)) == f"{n}:{m}"
    assert pattern(n_of_m(n, m, 32, 64, 1).flatten(1)) == f"{n}:{m}"


def test_a_few_groups_below_n_are_still_n_of_m_and_one_above_is_not():
    kept = n_of_m(2, 4, 32, 64, 3)
    fewer = kept.clone()
    fewer[:2, :, 0] = False
    assert pattern(fewer) == "2:4"
    more = kept.clone()
    more[5, 8:12, 1, 1] = torch.tensor([True, True, True, False])
    assert pattern(more) == "unstructured"


def test_groups_run_along_input_channels_not_along_kernel_or_output():
    kept = n_of_m(2, 4, 64, 64, 1).squeeze()
    assert pattern(kept) == "2:4"
    assert pattern(kept.T) == "unstructured"


@given(
    st.sampled_from([(1, 2), (2, 1), (4, 1), (1, 4), (4, 4), (16, 16), (8, 2), (64, 1)]),
    st.floats(0.3, 0.7),
    seeds,
    st.sampled_from([1, 3]),
)
def test_blocks_are_named_with_their_size(size: tuple[int, int], density: float, seed: int, kernel: int):
    rows, columns = size
    blocks = random((8, 8, kernel, kernel), density, seed)
    # Neighbours made to differ each way: larger blocks and channels are impossible.
    blocks[0, 0], blocks[0, 1], blocks[1, 0], blocks[1, 1] = True, False, False, True
    kept = blocks.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
    assert pattern(kept) == f"block {rows}x{columns}"


def test_whole_kernels_are_named():
    assert pattern(random((16, 24, 1, 1), 0.5).expand(16, 24, 3, 3)) == "kernel"


@given(seeds, st.sampled_from([(16, 24, 3, 3), (32, 64), (64, 1, 3, 3)]), st.booleans())
def test_whole_channels_are_named_whichever_side_they_are_on(seed: int, shape: tuple[int, ...], is_input: bool):
    generator = torch.Generator().manual_seed(seed)
    kept = torch.ones(shape, dtype=torch.bool)
    side = 1 if is_input and shape[1] > 1 else 0
    pruned = torch.randperm(shape[side], generator=generator)[: shape[side] // 2]
    kept.transpose(0, side)[pruned] = False
    assert pattern(kept) == "channel"
    one = kept.clone()
    one[tuple((~kept).nonzero()[0])] = True
    assert pattern(one) != "channel"


def test_a_single_kept_weight_is_no_channel():
    kept = torch.zeros(64, 64, dtype=torch.bool)
    kept[3, 4] = True
    assert pattern(kept) == "unstructured"


def test_a_mask_too_small_to_tell_is_unstructured():
    assert pattern(torch.tensor([[True, False, True, False]])) == "unstructured"


def test_all_and_nothing_have_names():
    assert pattern(torch.ones(4, 4, dtype=torch.bool)) == "dense"
    assert pattern(torch.zeros(4, 4, 3, 3, dtype=torch.bool)) == "empty"


@given(st.sampled_from(["2:4", "block", "channel", "free"]), seeds)
def test_the_order_of_output_channels_changes_no_name_but_a_block_s(kind: str, seed: int):
    generator = torch.Generator().manual_seed(seed)
    made = {
        "2:4": n_of_m(2, 4, 32, 32, 1, seed),
        "block": random((32, 4, 1, 1), 0.5, seed).repeat_interleave(8, 1),
        "channel": (torch.arange(32) % 3 > 0)[:, None].expand(32, 32),
        "free": random((32, 32), 0.3, seed),
    }[kind]
    assert pattern(made[torch.randperm(32, generator=generator)]) == pattern(made)


def test_what_is_no_mask_is_refused():
    with pytest.raises(UserError, match=r"^a mask of torch.float32 with shape \[2, 2\]; it is bool and \[O, I, ...\]$"):
        pattern(torch.ones(2, 2))
    with pytest.raises(UserError, match=r"shape \[2\]"):
        pattern(torch.ones(2, dtype=torch.bool))
