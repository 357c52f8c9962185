import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sparse_transfer.core.errors import UserError
from sparse_transfer.sparsity import Mask, MaskViolation, audit, prunable_weights


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def kept_at(module: nn.Module, density: float, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(w.shape, generator=generator) < density for name, w in prunable_weights(module).items()}


def test_convolution_and_linear_weights_are_prunable_and_nothing_else_is():
    assert list(prunable_weights(small())) == ["0.weight", "3.weight"]
    assert list(prunable_weights(nn.Linear(2, 2))) == ["weight"]


def test_apply_sets_pruned_weights_to_plus_zero_and_leaves_the_kept_bit_for_bit():
    module = small()
    weight = module[0].weight
    mask = Mask(kept_at(module, 0.5), module)
    with torch.no_grad():
        weight[~mask["0.weight"]] = float("nan")
    before = weight.detach().clone()
    mask.apply_(module)
    assert torch.equal(weight[mask["0.weight"]], before[mask["0.weight"]])
    pruned = weight[~mask["0.weight"]]
    assert torch.equal(pruned, torch.zeros_like(pruned))
    assert not pruned.signbit().any()


@given(st.floats(0, 1), st.integers(0, 10))
def test_applying_twice_is_applying_once_and_passes_the_audit(density: float, seed: int):
    module = small()
    mask = Mask(kept_at(module, density, seed), module)
    mask.apply_(module)
    once = [p.detach().clone() for p in module.parameters()]
    mask.audit(module)
    mask.apply_(module)
    assert all(torch.equal(a, b) for a, b in zip(once, module.parameters(), strict=True))


@pytest.mark.parametrize("leak", [0.5, -0.5, float("nan"), float("inf"), 1.4e-45])
def test_audit_finds_a_leak_of_any_kind_and_says_how_large(leak: float):
    module = small()
    mask = Mask({"3.weight": torch.tensor([[True, False, True, True]] * 2)}, module)
    mask.apply_(module)
    with torch.no_grad():
        module[3].weight[1, 1] = leak
    with pytest.raises(
        MaskViolation, match=r"^3.weight: 1 of 2 pruned weights are non-zero \(largest \|w\| = "
    ) as seen:
        mask.audit(module)
    assert f"{abs(leak):.3g}" in str(seen.value)


def test_a_weight_is_audited_where_it_lies_whatever_its_mask_does():
    weight, kept = torch.zeros(2, 4), torch.ones(2, 4, dtype=torch.bool)
    audit("a", weight, kept)
    kept[0, 1] = False
    weight[0, 1] = float("nan")
    with pytest.raises(MaskViolation, match=r"^a: 1 of 1 pruned weights are non-zero \(largest \|w\| = nan\); see b$"):
        audit("a", weight, kept, do="see b")


def test_an_accidental_zero_in_the_kept_region_stays_kept():
    module = small()
    mask = Mask({"3.weight": torch.ones(2, 4, dtype=torch.bool)}, module)
    with torch.no_grad():
        module[3].weight.zero_()
    mask.apply_(module)
    assert mask.counts() == {"3.weight": (8, 8)}


def test_from_zeros_masks_the_weights_that_hold_a_zero_and_no_others():
    module = small()
    with torch.no_grad():
        module[3].weight[0, 2] = -0.0
    assert Mask.from_zeros(module).counts() == {"3.weight": (7, 8)}
    assert not Mask.none()


def test_a_mask_is_a_copy_in_network_order():
    module = small()
    given_masks = dict(reversed(kept_at(module, 0.5).items()))
    mask = Mask(given_masks, module)
    assert list(mask) == ["0.weight", "3.weight"]
    before = mask["3.weight"].clone()
    given_masks["3.weight"].logical_not_()
    assert torch.equal(mask["3.weight"], before)
    assert mask != Mask(given_masks, module)
    assert mask == Mask(dict(mask), module)


def test_what_is_no_mask_is_refused_with_its_name():
    module = small()
    ones = torch.ones(2, 4)
    for kept, message in (
        ({"3.weight": ones}, "3.weight: the mask is torch.float32, not bool; compare with 0 to make it bool"),
        ({"3.weight": ones.bool().T}, r"3.weight: the mask has shape \[4, 2\] and the weight \[2, 4\]"),
        ({"3.bias": ones[0].bool()}, '1 names are no convolution or linear weight: "3.bias"; a mask covers those'),
        ({"1.weight": ones[0].bool()}, "a mask covers those weights only, never a bias or BatchNorm"),
    ):
        with pytest.raises(UserError, match=message):
            Mask(kept, module)
