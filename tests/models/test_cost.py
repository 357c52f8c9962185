"""MACs against torchvision's published figures, torch's own counter and arithmetic by hand."""

from dataclasses import replace

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sparse_transfer.models import Backbone, Head, LayerCost, build, cost, families, head_cost
from sparse_transfer.models.architecture import Architecture
from sparse_transfer.sparsity import Mask, prunable_weights


def unfilled(name: str) -> Backbone:
    """On the meta device: shapes are all that a cost needs."""
    architecture = Architecture.parse(name)
    return Backbone(build(architecture, device="meta"), architecture, architecture.preprocessing)


def test_resnet50_at_224_px_has_the_published_macs():
    backbone = unfilled("resnet50")
    total = cost(backbone, 224).macs_dense + head_cost(Head(torch.ones(1000, 2048), torch.zeros(1000))).macs_dense
    assert total == 4_089_184_256


WIDE = {"resnet50,width=2": "wide_resnet50_2", "resnet101,width=2": "wide_resnet101_2"}


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", *WIDE])
def test_macs_are_torchvision_s_ops(name: str):
    weights = torchvision.models.get_model_weights(WIDE.get(name, name))
    published = weights["IMAGENET1K_V1"].meta["_ops"]  # in 10^9, three decimals
    backbone = unfilled(name)
    total = cost(backbone, 224).macs_dense + backbone.feature_dim * 1000
    assert round(total / 1e9, 3) == published


@pytest.mark.parametrize("name", [*families, "mobilenet_v1,flavour=tf,width=0.5", "resnet50,stride=v1"])
def test_macs_are_half_of_what_torch_s_flop_counter_counts(name: str):
    backbone = unfilled(name)
    size = backbone.preprocessing.crop
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone(torch.empty(1, 3, size, size, device="meta"))
    assert 2 * cost(backbone, size).macs_dense == counter.get_total_flops()


def test_the_macs_of_mobilenet_are_the_paper_s_569_million():
    # Howard et al., 2017, table 4: 569 million mult-adds, 4.2 million parameters, classifier included.
    assert round((cost(Backbone.create("mobilenet_v1"), 224).macs_dense + 1024 * 1000) / 1e6) == 569


def own() -> Backbone:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(4, 5), nn.Linear(5, 2),
    )  # fmt: skip
    return Backbone.from_module(module, head="5", input_size=8).backbone


def test_every_row_agrees_with_counting_by_hand():
    backbone = own()
    kept = torch.zeros(4, 2, 3, 3, dtype=torch.bool)
    kept[0, 0, 0, :] = True
    mask = Mask({"1.weight": kept, "4.weight": torch.ones(5, 4, dtype=torch.bool)}, backbone.module)
    table = cost(replace(backbone, mask=mask), 8)
    assert table.layers == (
        LayerCost("0", "conv", 108, 108, 108 * 16, 108 * 16),
        LayerCost("1", "conv", 72, 3, 72 * 16, 3 * 16),
        LayerCost("4", "linear", 20, 20, 20, 20),
    )
    assert (table.macs_dense, table.macs_sparse) == (2900, 1796)
    assert type(table.macs_sparse) is int


def test_the_head_is_counted_alone():
    kept = torch.arange(20).reshape(4, 5) > 6
    head = Head(torch.ones(4, 5), torch.zeros(4), kept=kept)
    assert head_cost(head, "fc") == LayerCost("fc", "linear", 20, 13, 20, 13)
    assert head_cost(Head(torch.ones(4, 5), torch.zeros(4))).macs_sparse == 20


@settings(max_examples=15)
@given(st.floats(0, 1), st.integers(0, 99), st.sampled_from([8, 9, 16]))
def test_sparse_macs_are_the_dense_ones_weighted_by_density_layer_by_layer(density: float, seed: int, size: int):
    backbone = own()
    generator = torch.Generator().manual_seed(seed)
    kept = {n: torch.rand(w.shape, generator=generator) < density for n, w in prunable_weights(backbone.module).items()}
    table = cost(replace(backbone, mask=Mask(kept, backbone.module)), size)
    for row in table.layers:
        assert row.macs_sparse * row.size == row.macs_dense * row.kept
    assert table.macs_sparse <= table.macs_dense
