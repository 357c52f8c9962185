"""ResNets against torchvision's: same names, same numbers, and each variant changes what it should."""

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_transfer.models import Backbone
from support.random_state import randomise_

IMAGES = torch.randn(2, 3, 72, 65, generator=torch.Generator().manual_seed(1))


def theirs(name: str) -> nn.Module:
    module = randomise_(torchvision.models.get_model(name))
    module.fc = nn.Identity()
    return module


def ours(architecture: str, state: dict[str, Tensor]) -> nn.Module:
    module = Backbone.create(architecture).module
    module.load_state_dict(state)
    return module


def assert_equal(a: Tensor, b: Tensor) -> None:
    # The same operations in the same order: at most the kernels' choice of blocking differs.
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


NAMES = [(name, name) for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")]


@pytest.mark.parametrize(("architecture", "name"), [*NAMES, ("resnet50,width=2", "wide_resnet50_2")])
def test_features_and_names_are_torchvision_s(architecture: str, name: str):
    reference = theirs(name)
    module = ours(architecture, reference.state_dict())
    assert list(module.state_dict()) == list(reference.state_dict())
    with torch.no_grad():
        assert_equal(module(IMAGES), reference(IMAGES))


def test_v1_strides_in_the_first_convolution_of_a_bottleneck():
    reference = theirs("resnet50")
    for stage in (reference.layer2, reference.layer3, reference.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    module = ours("resnet50,stride=v1", reference.state_dict())
    other = ours("resnet50", reference.state_dict())
    with torch.no_grad():
        expected = reference(IMAGES)
        assert_equal(module(IMAGES), expected)
        assert (other(IMAGES) - expected).abs().max() > 0.01


def test_same_pooling_pads_as_tensorflow_does_nothing_before_and_one_after():
    reference = theirs("resnet18")

    class SamePool(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2)

    reference.maxpool = SamePool()
    images = IMAGES[:, :, :64, :64]
    with torch.no_grad():
        expected = reference(images)
        assert_equal(ours("resnet18,pool=same", reference.state_dict())(images), expected)
        assert (ours("resnet18", reference.state_dict())(images) - expected).abs().max() > 0.01


def test_the_stem_of_stride_one_is_torchvision_s_with_that_stride():
    reference = theirs("resnet18")
    reference.conv1.stride = (1, 1)
    with torch.no_grad():
        assert_equal(ours("resnet18,stem=s1", reference.state_dict())(IMAGES), reference(IMAGES))
