import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sparse_transfer.core.errors import UserError
from sparse_transfer.models import Backbone, Head, Network
from sparse_transfer.models import sparsities as of_network
from sparse_transfer.sparsity import Mask, Share, prunable_weights, sparsities


def test_the_three_sparsities_agree_with_counting_by_hand():
    weights = {
        "conv": torch.tensor([[1.0, 0.0], [0.0, 0.0]]),  # masked: 2 pruned, 1 trained zero
        "other": torch.tensor([[0.0, 3.0, 4.0]]),  # no mask: its zero is a trained one
        "fc": torch.tensor([[5.0, 0.0]]),  # the head, masked: 1 pruned
    }
    masks = {"conv": torch.tensor([[True, True], [False, False]]), "fc": torch.tensor([[True, False]])}
    counts = sparsities(masks, weights, 20, head=["fc"])
    assert (counts.masked, counts.prunable, counts.total) == (Share(3, 6), Share(2, 7), Share(3, 20))
    assert counts.trained_zeros == 2
    assert [(row.name, row.pruned, row.trained_zeros, row.is_masked) for row in counts.layers] == [
        ("conv", Share(2, 4), 1, True),
        ("other", Share(0, 3), 1, False),
        ("fc", Share(1, 2), 0, True),
    ]
    assert counts.prunable.sparsity == 2 / 7
    assert type(counts.total.zeros) is int


def test_a_dense_network_has_no_masked_weights_and_sparsity_zero():
    counts = sparsities({}, {"conv": torch.ones(2, 2)}, 6)
    assert counts.masked == Share(0, 0)
    assert counts.masked.sparsity == 0
    assert (counts.masked.density, counts.total.density) == (1, 1)


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5), st.booleans()), min_size=1, max_size=5), st.integers(0, 9)
)
def test_rows_add_up_and_pruned_and_trained_zeros_are_all_the_zeros(sizes: list[tuple[int, int, bool]], seed: int):
    generator = torch.Generator().manual_seed(seed)
    weights, masks = {}, {}
    for index, (rows, columns, is_masked) in enumerate(sizes):
        weight = torch.randint(-1, 2, (rows, columns), generator=generator).float()
        if is_masked:
            masks[str(index)] = torch.rand(rows, columns, generator=generator) < 0.5
            weight[~masks[str(index)]] = 0
        weights[str(index)] = weight
    counts = sparsities(masks, weights, 1000)
    zeros = sum(int((weight == 0).sum()) for weight in weights.values())
    assert counts.prunable.zeros + counts.trained_zeros == zeros
    assert counts.masked.zeros == counts.prunable.zeros == counts.total.zeros
    assert counts.prunable.size == sum(weight.numel() for weight in weights.values())
    assert sum((row.pruned for row in counts.layers), Share(0, 0)) == counts.prunable


def test_a_mask_that_fits_no_weight_is_refused():
    weight = {"conv": torch.ones(2, 2)}
    with pytest.raises(UserError, match=r"^conv2: this mask belongs to no prunable weight$"):
        sparsities({"conv2": torch.ones(2, 2, dtype=torch.bool)}, weight, 4)
    with pytest.raises(UserError, match=r"^conv: the mask has shape \[1, 4\] and the weight \[2, 2\]$"):
        sparsities({"conv": torch.ones(1, 4, dtype=torch.bool)}, weight, 4)


def test_a_network_counts_batchnorm_biases_and_head_in_total_but_not_its_statistics():
    backbone = Backbone.create("resnet20")
    name = "layer1.0.conv1.weight"
    kept = torch.ones(16, 16, 3, 3, dtype=torch.bool)
    kept[:4] = False
    module: nn.Module = backbone.module
    mask = Mask({name: kept}, module)
    mask.apply_(module)
    network = Network(
        Backbone(module, backbone.architecture, backbone.preprocessing, mask),
        Head(torch.ones(10, 64), torch.zeros(10), kept=torch.arange(640).reshape(10, 64) >= 10),
    )
    counts = of_network(network)
    convolutions = sum(weight.numel() for weight in prunable_weights(module).values())
    assert counts.masked == Share(4 * 16 * 9 + 10, 16 * 16 * 9 + 640)
    assert counts.prunable == Share(576, convolutions)
    assert counts.total == Share(586, 269_722)  # the published size of ResNet-20 (akamaster/pytorch_resnet_cifar10)
    assert counts.layers[-1].name == "fc.weight"
    assert of_network(Network(network.backbone)).total == Share(576, 269_722 - 650)
