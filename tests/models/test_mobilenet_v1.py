import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_transfer.models import Backbone
from support.random_state import randomise_

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def from_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's names of ``mobilenetv1_100`` -> ours (research/methods.md 3.5 and 7.2)."""
    names = {"conv_stem": "model.0.0", "bn1": "model.0.1"}
    number = 0
    for stage, blocks in enumerate((1, 2, 2, 6, 2)):
        for index in range(blocks):
            number += 1
            for part, place in (("conv_dw", 0), ("bn1", 1), ("conv_pw", 3), ("bn2", 4)):
                names[f"blocks.{stage}.{index}.{part}"] = f"model.{number}.{place}"
    return {
        f"{names[layer]}.{leaf}": tensor for name, tensor in state.items() for layer, _, leaf in [name.rpartition(".")]
    }


def test_features_are_timm_s_mobilenetv1_with_relu():
    timm = pytest.importorskip("timm")
    theirs = randomise_(timm.create_model("mobilenetv1_100", num_classes=0, act_layer=nn.ReLU))
    module = Backbone.create("mobilenet_v1").module
    module.load_state_dict(from_timm(theirs.state_dict()))
    with torch.no_grad():
        expected = theirs(IMAGES)
        torch.testing.assert_close(module(IMAGES), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def tensorflow_same(x: Tensor, weight: Tensor, stride: int, groups: int) -> Tensor:
    """TensorFlow's SAME convolution, from its definition: as much padding as needed, the odd one after."""
    kernel = weight.shape[-1]
    sides = []
    for size in (x.shape[3], x.shape[2]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        sides += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, sides), weight, stride=stride, groups=groups)


def test_the_tf_flavour_is_keras_mobilenet_written_out():
    module = randomise_(Backbone.create("mobilenet_v1,flavour=tf,width=0.25").module)
    state = module.state_dict()

    def layer(x: Tensor, conv: str, bn: str, stride: int, groups: int) -> Tensor:
        x = tensorflow_same(x, state[f"{conv}.weight"], stride, groups)
        keys = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(state[f"{bn}.{key}"] for key in keys), eps=1e-3).clamp(0, 6)

    with torch.no_grad():
        x = layer(IMAGES, "model.0.0", "model.0.1", 2, 1)
        for i in range(1, 14):
            x = layer(x, f"model.{i}.0", f"model.{i}.1", 2 if i in (2, 4, 6, 12) else 1, x.shape[1])
            x = layer(x, f"model.{i}.3", f"model.{i}.4", 1, 1)
        torch.testing.assert_close(module(IMAGES), x.mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_both_flavours_have_the_names_and_the_size_of_the_published_networks():
    torch_names = list(Backbone.create("mobilenet_v1").module.state_dict())
    assert torch_names == list(Backbone.create("mobilenet_v1,flavour=tf").module.state_dict())
    assert torch_names[0] == "model.0.0.weight"
    assert {"model.13.0.weight", "model.13.1.bias", "model.13.3.weight", "model.13.4.running_var"} <= set(torch_names)
    size = sum(p.numel() for p in Backbone.create("mobilenet_v1").module.parameters())
    assert size + 1024 * 1000 + 1000 == 4_231_976  # Distiller, STR, Keras and torch alike


@pytest.mark.parametrize(("width", "size"), [(0.25, 470_072), (0.5, 1_331_592), (0.75, 2_585_560)])
def test_narrow_networks_have_keras_sizes(width: float, size: int):
    # Trainable parameters by Keras' applications.MobileNet(alpha=...): the head is 1024 · alpha · 1000 + 1000.
    backbone = Backbone.create(f"mobilenet_v1,width={width},flavour=tf")
    assert sum(p.numel() for p in backbone.module.parameters()) + backbone.feature_dim * 1000 + 1000 - size == 0


@pytest.mark.parametrize(
    ("profile", "stem", "last"), [("amc-0.5flops", 24, 752), ("amc-0.5time", 16, 680), ("amc-0.75flops", 24, 768)]
)
def test_amc_profiles_are_narrower_by_structure(profile: str, stem: int, last: int):
    backbone = Backbone.create(f"mobilenet_v1,profile={profile}")
    assert backbone.feature_dim == last
    assert backbone.module.get_parameter("model.0.0.weight").shape == (stem, 3, 3, 3)
    with torch.no_grad():
        assert backbone(IMAGES).shape == (2, last)
