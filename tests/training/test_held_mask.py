"""The mask holds, and each line that holds it is missed when it is gone."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_transfer.sparsity import MaskViolation
from sparse_transfer.training.held_mask import HeldMask
from sparse_transfer.training.learner import Learner
from sparse_transfer.training.optimiser import OptimiserSettings
from sparse_transfer.training.settings import Execution, TrainSettings
from support.learners import CPU, learner, part, steps


def pruned(made: Learner) -> list[tuple[str, Tensor, Tensor]]:
    """(name, weight, where it is pruned) of each masked weight."""
    return [(name, made.model.get_parameter(name), ~kept) for name, kept in made.mask.mask.items()]


@settings(deadline=None, max_examples=25)
@given(
    density=st.floats(0, 1),
    seed=st.integers(0, 1000),
    count=st.integers(1, 5),
    name=st.sampled_from(["sgd", "adamw"]),
    lr=st.sampled_from([0.01, 1.0]),
)
def test_no_pruned_weight_ever_moves(density: float, seed: int, count: int, name: str, lr: float) -> None:
    optimiser = OptimiserSettings(name, lr=lr)  # type: ignore[arg-type]
    made = learner(TrainSettings(optimiser=optimiser, average=0.9, clip=1.0), density=density, seed=seed)
    steps(made, count)
    made.audit()
    assert made.average is not None
    for key, weight, gone in pruned(made):
        assert not weight[gone].any()
        assert not made.average.shadow[key][gone].any()
        for state in made.optimiser.state[weight].values():
            if state.shape == weight.shape:
                assert not state[gone].any()


def test_gradients_are_masked_or_momentum_would_live_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleting the line leaves every weight at 0 and the momentum alive: only the optimiser's state shows it."""
    made = learner()
    monkeypatch.setattr(HeldMask, "mask_gradients", lambda self: None)
    steps(made, 2)
    made.mask.audit()
    with pytest.raises(MaskViolation, match=r"pruned values of the optimiser's momentum_buffer are non-zero"):
        made.audit()


def test_weights_are_masked_or_old_momentum_would_move_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masked gradients are no help where the optimiser remembers something (research: peers 2.1)."""
    made = learner()
    steps(made, 1)
    for _, weight, _ in pruned(made):
        made.optimiser.state[weight]["momentum_buffer"].fill_(1.0)
    steps(made, 1)
    made.mask.audit()
    monkeypatch.setattr(HeldMask, "mask_weights", lambda self: None)
    steps(made, 1)
    with pytest.raises(MaskViolation, match="pruned weights are non-zero"):
        made.mask.audit()


def test_the_average_is_masked_or_what_it_remembers_would_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    def remembering() -> Learner:
        made = learner(TrainSettings(average=0.9))
        assert made.average is not None
        for name in made.mask.mask:
            made.average.shadow[name].fill_(1.0)  # an average begun before the mask was laid over the network
        steps(made, 1)
        return made

    remembering().audit()
    monkeypatch.setattr(HeldMask, "mask_tensors", lambda self, tensors: None)
    with pytest.raises(MaskViolation, match="pruned averaged weights are non-zero"):
        remembering().audit()


def test_what_is_pruned_has_no_part_in_the_norm_that_is_clipped() -> None:
    """A huge gradient on a pruned weight would shrink all others to nothing."""

    def moved(poison: float) -> Tensor:
        made = learner(TrainSettings(clip=1.0, optimiser=OptimiserSettings(lr=1.0, momentum=0, weight_decay=0)))
        _, weight, gone = pruned(made)[0]
        handle = weight.register_hook(lambda gradient: torch.where(gone, poison, gradient))
        before = made.model.head.weight.detach().clone()
        steps(made, 1)
        handle.remove()
        return made.model.head.weight - before

    assert torch.equal(moved(1e6), moved(0.0))


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_pruned_weights_bad_gradient_is_selected_away_not_multiplied(poison: float) -> None:
    made = learner()
    _, weight, gone = pruned(made)[0]
    weight.register_hook(lambda gradient: torch.where(gone, poison, gradient))
    steps(made, 2)
    made.audit()
    assert all(bool(value.isfinite().all()) for value in made.model.state_dict().values())


@pytest.mark.parametrize(
    "execution",
    [
        replace(CPU, amp="bf16"),
        replace(CPU, amp="fp16"),
        replace(CPU, channels_last=True),
        replace(CPU, amp="bf16", channels_last=True),
    ],
    ids=lambda how: f"{how.amp}-{how.channels_last}",
)
def test_the_mask_holds_in_every_precision_and_layout(execution: Execution) -> None:
    made = learner(TrainSettings(average=0.9, clip=1.0), execution=execution)
    steps(made, 4)
    made.audit()
    for _, weight, gone in pruned(made):
        assert weight.dtype == torch.float32, "masters stay float32: float16 would make zeros of small weights"
        assert not weight[gone].any()


def test_fp16_skips_the_update_whose_gradients_overflow_and_keeps_the_mask() -> None:
    made = learner(execution=replace(CPU, amp="fp16"))
    made.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = {key: value.clone() for key, value in made.model.named_parameters()}
    steps(made, 1)
    assert made.scaler.get_scale() < 2.0**40, "the scaler has seen an overflow"
    assert all(torch.equal(value, before[key]) for key, value in made.model.named_parameters())
    made.audit()


def test_accumulated_passes_give_the_update_of_one_batch() -> None:
    """With BatchNorm's statistics held, the gradient of a batch is the sum of its parts'."""
    whole, halves = learner(freeze_bn=True), learner(freeze_bn=True)
    batch = part(count=8)
    whole.update([batch], 8, 1.0)
    halves.update([replace(batch, images=batch.images[:4], labels=batch.labels[:4]),
                   replace(batch, images=batch.images[4:], labels=batch.labels[4:])], 8, 1.0)  # fmt: skip
    for (key, ours), theirs in zip(halves.model.named_parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=key)
    halves.audit()


def test_an_audit_names_layer_count_and_size() -> None:
    made = learner()
    name, weight, gone = pruned(made)[1]
    with torch.no_grad():
        weight[gone] = torch.where(torch.arange(int(gone.sum())) < 3, -7.0, 0.0)
    with pytest.raises(MaskViolation, match=rf"{name}: 3 of \d+ pruned weights are non-zero \(largest \|w\| = 7\)"):
        made.audit()


def test_nan_outside_the_mask_is_a_violation() -> None:
    made = learner()
    _, weight, gone = pruned(made)[0]
    with torch.no_grad():
        weight[gone] = float("nan")
    with pytest.raises(MaskViolation):
        made.audit()


def test_sparsity_counts_zeros_of_weights_not_of_masks() -> None:
    made = learner(density=0.5)
    size = sum(weight.numel() for _, weight, _ in pruned(made))
    gone = sum(int(where.sum()) for _, _, where in pruned(made))
    assert made.mask.sparsity() == pytest.approx(gone / size)
    assert learner(density=None).mask.sparsity() is None


def test_digests_of_masks_differ_where_one_bit_does() -> None:
    assert learner(density=0.5).mask.digest() == learner(density=0.5).mask.digest()
    assert learner(density=0.5).mask.digest() != learner(density=0.51).mask.digest()


@pytest.mark.long
def test_the_mask_holds_under_torch_compile() -> None:
    made, plain = learner(execution=replace(CPU, compile=True)), learner()
    compiled, eager = steps(made, 3), steps(plain, 3)
    assert compiled == pytest.approx(eager, rel=1e-4)
    made.audit()
