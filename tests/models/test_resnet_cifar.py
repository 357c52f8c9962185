import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sparse_transfer.models import Backbone
from support.random_state import randomise_


@pytest.mark.parametrize(
    ("name", "size"), [("resnet20", 269_722), ("resnet32", 464_154), ("resnet44", 658_586), ("resnet56", 853_018)]
)
def test_sizes_with_ten_classes_are_the_published_ones(name: str, size: int):
    # akamaster/pytorch_resnet_cifar10, "Total number of params" of its test(); He et al. say 0.27, 0.46, 0.66, 0.85 M.
    module = Backbone.create(name).module
    assert sum(p.numel() for p in module.parameters()) + 64 * 10 + 10 == size


def test_option_a_takes_every_second_pixel_and_puts_zero_channels_around():
    module = Backbone.create("resnet20").module
    shortcut = module.get_submodule("layer2.0.downsample")
    x = torch.randn(2, 16, 9, 8)
    y = shortcut(x)
    assert y.shape == (2, 32, 5, 4)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert not y[:, :8].any()
    assert not y[:, 24:].any()
    assert not list(shortcut.parameters())


def test_option_b_has_the_names_of_torchvision():
    names = set(Backbone.create("resnet20,shortcut=B").module.state_dict())
    assert {"layer2.0.downsample.0.weight", "layer3.0.downsample.1.running_var"} <= names
    assert not any(name.startswith("layer1.0.downsample") for name in names)


def block(x: Tensor, state: dict[str, Tensor], name: str, stride: int, shortcut: Tensor) -> Tensor:
    def norm(x: Tensor, bn: str) -> Tensor:
        mean, variance, weight, bias = (
            state[f"{bn}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, weight, bias)

    y = F.relu(norm(F.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1), f"{name}.bn1"))
    y = norm(F.conv2d(y, state[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
    return F.relu(y + shortcut)


def test_resnet20_option_a_is_the_network_written_out():
    module = randomise_(Backbone.create("resnet20").module)
    state = module.state_dict()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        x = F.conv2d(images, state["conv1.weight"], padding=1)
        x = F.relu(F.batch_norm(x, *(state[f"bn1.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))))
        for stage in (1, 2, 3):
            for index in range(3):
                if stage > 1 and index == 0:
                    half = x[:, :, ::2, ::2]
                    nothing = torch.zeros_like(half)[:, : half.shape[1] // 2]
                    x = block(x, state, f"layer{stage}.0", 2, torch.cat([nothing, half, nothing], 1))
                else:
                    x = block(x, state, f"layer{stage}.{index}", 1, x)
        torch.testing.assert_close(module(images), x.mean((2, 3)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_width_scales_every_channel(shortcut: str):
    backbone = Backbone.create(f"resnet20,width=1.5,shortcut={shortcut}")
    assert backbone.feature_dim == 96
    assert backbone(torch.randn(1, 3, 32, 32)).shape == (1, 96)
    assert Backbone.create(f"resnet20,width=0.3,shortcut={shortcut}")(torch.randn(1, 3, 32, 32)).shape == (1, 19)
