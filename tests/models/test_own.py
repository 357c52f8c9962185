"""A classifier of the user's own becomes a network, or an error that says why not."""

import pytest
import torch
import torchvision
from torch import Tensor, nn

from sparse_transfer.core.errors import UserError
from sparse_transfer.models import Backbone, Preprocessing
from support.random_state import randomise_

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class ConvolutionalHead(nn.Module):
    """Pooling, then a 1×1 convolution without bias as classifier (STR's ResNet-50)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.classify = nn.Conv2d(8, 5, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.body(x)).flatten(1)


def small(*after: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3), *after)


class PooledLast(nn.Module):
    """The 1×1 classifier stands before the pooling: both are linear, so it is a head all the same (fully conv nets)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        self.classify = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.body(x)).mean((2, 3))


@pytest.mark.parametrize(
    ("module", "head"),
    [
        (PooledLast(), "classify"),
        (torchvision.models.resnet18(num_classes=7), "fc"),
        (torchvision.models.mobilenet_v2(num_classes=7), "classifier.1"),
        (ConvolutionalHead(), "classify"),
        (small(), "3"),
    ],
)
def test_backbone_and_head_together_give_the_module_s_logits(module: nn.Module, head: str):
    randomise_(module)
    network = Backbone.from_module(module, head=head, input_size=32)
    with torch.no_grad():
        logits = module(IMAGES)
        torch.testing.assert_close(network(IMAGES), logits, rtol=1e-4, atol=1e-5 * float(logits.abs().max()))
    assert network.head is not None
    assert network.backbone.feature_dim == network.head.weight.shape[1]


def test_tensors_have_the_user_s_names_and_load_into_the_user_s_module():
    module = randomise_(torchvision.models.resnet18(num_classes=7))
    network = Backbone.from_module(module, head="fc", name="mine", input_size=32)
    assert dict(network.backbone.architecture.args) == {"name": "mine", "head": "fc"}
    fresh = torchvision.models.resnet18(num_classes=7)
    fresh.load_state_dict(network.tensors())
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), module.parameters(), strict=True))


def test_the_user_s_module_is_not_changed_and_not_shared():
    module = small().train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    network = Backbone.from_module(module, head="3", input_size=32)
    with torch.no_grad():
        for parameter in network.backbone.module.parameters():
            parameter.zero_()
        assert network.head is not None
        network.head.weight.zero_()
    assert module.training
    assert isinstance(module[3], nn.Linear)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_zeros_become_the_mask_of_backbone_and_head():
    module = small()
    with torch.no_grad():
        module[0].weight[1] = 0
        module[3].weight[2, 3] = 0
    network = Backbone.from_module(module, head="3", input_size=32)
    assert network.backbone.mask.counts() == {"0.weight": (81, 108)}
    assert network.head is not None
    assert network.head.kept is not None
    assert int((~network.head.kept).sum()) == 1
    assert list(network.masks()) == ["0.weight", "3.weight"]


def test_a_dense_module_has_no_mask_and_takes_its_preprocessing_with_it():
    given = Preprocessing(resize=40, crop=32)
    network = Backbone.from_module(small(), head="3", preprocessing=given)
    assert not network.masks()
    assert network.backbone.preprocessing == given


class TwoOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * 32 * 32, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.fc(x.flatten(1)), x


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.aside = nn.Linear(3072, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1))


@pytest.mark.parametrize(
    ("module", "head", "message"),
    [
        (small(), "fc", 'Sequential: no layer is called "fc"; there are "3"'),
        (small(), "", 'Sequential: no layer is called ""; there are "3"'),
        (small(), "0", 'Sequential: the head "0" is a Conv2d; it is an nn.Linear or a 1×1 nn.Conv2d'),
        (small(nn.ReLU()), "3", 'Sequential: "3" is not the last thing it computes; pooling and activation come'),
        (small(nn.Linear(3, 3)), "3", 'Sequential: "3" is not the last thing it computes; pooling and activation come'),
        (nn.Sequential(nn.Linear(4, 2)), "0", "Sequential: it does not run on pictures [2, 3, 32, 32] ("),
        (
            nn.Sequential(nn.Linear(32, 2), nn.Flatten()),
            "0",
            'Sequential: without "0" it gives [3072] for a picture, and the layer reads 32 features; the head is',
        ),
        (TwoOutputs(), "fc", "TwoOutputs: it gives a tuple; it must give one tensor of logits"),
        (Unused(), "aside", 'Unused: "aside" is not the last thing it computes'),
        (nn.Linear(4, 2), "fc", 'Linear: no layer is called "fc"'),
        (
            torchvision.models.squeezenet1_0(),
            "classifier.1",
            'SqueezeNet: "classifier.1" is not the last thing it computes; pooling and activation come before the head',
        ),
    ],
)
def test_what_does_not_come_apart_says_why(module: nn.Module, head: str, message: str):
    with pytest.raises(UserError) as seen:
        Backbone.from_module(module, head=head, input_size=32)
    assert str(seen.value).startswith(message)


def test_a_module_that_uses_the_name_feature_dim_for_something_else_is_refused():
    module = small()
    vars(module)["feature_dim"] = 100
    with pytest.raises(UserError, match="an attribute feature_dim that means something else; rename it"):
        Backbone.from_module(module, head="3", input_size=32)
