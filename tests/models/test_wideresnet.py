import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sparse_transfer.models import Backbone
from support.random_state import randomise_


@pytest.mark.parametrize(
    ("depth", "width", "millions"),
    [(40, 1, 0.6), (40, 2, 2.2), (40, 4, 8.9), (28, 10, 36.5), (16, 8, 11.0), (22, 8, 17.2)],
)
def test_sizes_with_ten_classes_are_the_paper_s(depth: int, width: int, millions: float):
    # Zagoruyko and Komodakis, 2016, table 4 ("# params").
    backbone = Backbone.create(f"wideresnet,depth={depth},width={width}")
    size = sum(p.numel() for p in backbone.module.parameters()) + 64 * width * 10 + 10
    assert round(size / 1e6, 1) == millions


def test_wrn_28_10_has_the_published_parameter_count_to_the_digit():
    backbone = Backbone.create("wideresnet")
    assert sum(p.numel() for p in backbone.module.parameters()) + 6410 == 36_479_194


@pytest.mark.parametrize("width", [1, 2])
def test_a_wide_resnet_is_the_network_written_out(width: int):
    module = randomise_(Backbone.create(f"wideresnet,depth=16,width={width}").module)
    state = module.state_dict()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def active(x: Tensor, bn: str) -> Tensor:
        keys = ("running_mean", "running_var", "weight", "bias")
        return F.relu(F.batch_norm(x, *(state[f"{bn}.{key}"] for key in keys)))

    with torch.no_grad():
        x = F.conv2d(images, state["conv1.weight"], padding=1)
        for stage in (1, 2, 3):
            for index in range(2):
                name, stride = f"layer{stage}.{index}", 2 if stage > 1 and index == 0 else 1
                y = active(x, f"{name}.bn1")
                # The shortcut convolution reads the activated input; without one the raw input goes on.
                widens = f"{name}.downsample.weight" in state
                assert widens == (index == 0 and (stage > 1 or width > 1))
                shortcut = F.conv2d(y, state[f"{name}.downsample.weight"], stride=stride) if widens else x
                y = F.conv2d(y, state[f"{name}.conv1.weight"], stride=stride, padding=1)
                x = F.conv2d(active(y, f"{name}.bn2"), state[f"{name}.conv2.weight"], padding=1) + shortcut
        torch.testing.assert_close(module(images), active(x, "bn1").mean((2, 3)), rtol=1e-5, atol=1e-5)
