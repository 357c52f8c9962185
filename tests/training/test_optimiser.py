"""Parameter groups, and equality with torch's own optimisers where the mask keeps everything."""

import pytest
import torch
from torch import nn

from sparse_transfer.core.errors import UserError
from sparse_transfer.training.optimiser import TIMES, OptimiserSettings, depth_of, make_optimiser
from sparse_transfer.training.settings import TrainSettings
from support.learners import learner, model, part, steps


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("density", [None, 1.1])
def test_without_pruned_weights_an_update_is_torchs_own(name: str, density: float | None) -> None:
    """Oracle: a plain loop with torch.optim, as anybody writes it; a mask of all ones changes no bit."""
    settings = TrainSettings(optimiser=OptimiserSettings(name, lr=0.05, weight_decay=1e-2))  # type: ignore[arg-type]
    made, plain = learner(settings, density=density), model()
    oracle = (
        torch.optim.SGD(plain.parameters(), 0.05, 0.9, weight_decay=1e-2)
        if name == "sgd"
        else torch.optim.AdamW(plain.parameters(), 0.05, weight_decay=1e-2)
    )
    plain.train()
    for number in range(6):
        batch = part(number)
        made.update([batch], 8, 1.0)
        oracle.zero_grad()
        # The mean as the sum times 1/8: the same gradient, in the same order of operations.
        (nn.functional.cross_entropy(plain(batch.images), batch.labels, reduction="sum") / 8).backward()
        oracle.step()
    for (key, ours), theirs in zip(made.model.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), key


def test_momentum_and_decay_by_hand() -> None:
    """One weight, two steps of SGD: v = 0.9 v + (g + λ w), w ← w - lr v."""
    weight = nn.Parameter(torch.tensor([2.0]))
    holder = nn.Module()
    holder.register_parameter("w", weight)
    optimiser = make_optimiser(OptimiserSettings(lr=0.1, weight_decay=0.5), holder)
    for gradient in (1.0, -1.0):
        weight.grad = torch.tensor([gradient])
        optimiser.step()
    first = 2 - 0.1 * (1 + 0.5 * 2)
    second = first - 0.1 * (0.9 * 2 + (-1 + 0.5 * first))
    assert weight.item() == pytest.approx(second)


def test_depths_follow_the_blocks_of_the_network() -> None:
    names = ["conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer1.1.conv1.weight", "layer2.0.bn1.bias"]
    assert depth_of([f"backbone.{name}" for name in names] + ["head.weight", "head.bias"]) == {
        "backbone.conv1.weight": 0,
        "backbone.bn1.weight": 0,
        "backbone.layer1.0.conv1.weight": 1,
        "backbone.layer1.1.conv1.weight": 2,
        "backbone.layer2.0.bn1.bias": 3,
        "head.weight": 4,
        "head.bias": 4,
    }


def test_last_layers_without_a_number_are_no_part_of_the_stem() -> None:
    """As timm's EfficientNet lists them."""
    names = ["conv_stem.weight", "bn1.weight", "blocks.0.0.conv.weight", "blocks.1.0.conv.weight", "conv_head.weight",
             "bn2.weight"]  # fmt: skip
    depths = depth_of([f"backbone.{name}" for name in names] + ["head.weight"])
    assert list(depths.values()) == [0, 0, 1, 2, 3, 3, 4]


def test_layer_decay_gives_each_block_a_share_of_the_next_ones_rate() -> None:
    made = make_optimiser(OptimiserSettings(layer_decay=0.5), model())
    assert [group[TIMES] for group in made.param_groups] == [0.125, 0.25, 0.5, 1.0], "stem, two layers, head"
    rates = learner(TrainSettings(optimiser=OptimiserSettings(lr=0.8, layer_decay=0.5)))
    rates.update([part()], 8, 0.5)
    assert [group["lr"] for group in rates.optimiser.param_groups] == pytest.approx([0.05, 0.1, 0.2, 0.4])


def test_frozen_layers_do_not_change_nor_do_their_statistics() -> None:
    made = learner(TrainSettings(frozen=("layer1",)), frozen=("layer1",))
    before = {key: value.clone() for key, value in made.model.state_dict().items()}
    steps(made, 3)
    changed = {key for key, value in made.model.state_dict().items() if not torch.equal(value, before[key])}
    assert not [key for key in changed if key.startswith("backbone.layer1")]
    assert {"backbone.conv1.weight", "backbone.bn1.running_mean", "head.weight"} <= changed


def test_frozen_batchnorms_keep_their_statistics_and_train_their_scale() -> None:
    made = learner(freeze_bn=True)
    before = {key: value.clone() for key, value in made.model.state_dict().items()}
    steps(made, 3, factor=100)
    after = made.model.state_dict()
    assert torch.equal(after["backbone.bn1.running_mean"], before["backbone.bn1.running_mean"])
    assert not torch.equal(after["backbone.bn1.weight"], before["backbone.bn1.weight"])


def test_an_unknown_layer_or_nothing_left_to_train_is_refused() -> None:
    with pytest.raises(
        UserError, match=r'no layer of the backbone is called "layer9"; name one of "conv1", "bn1", "layer1"$'
    ):
        model(frozen=("layer9",))
    made = model()
    made.requires_grad_(False)
    with pytest.raises(UserError, match="every parameter is frozen"):
        make_optimiser(OptimiserSettings(), made)


@pytest.mark.parametrize(
    "given",
    [{"name": "lion"}, {"lr": 0.0}, {"lr": float("nan")}, {"momentum": 1.0}, {"weight_decay": -1}, {"layer_decay": 0}],
)
def test_nonsense_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(UserError):
        OptimiserSettings(**given)  # type: ignore[arg-type]
