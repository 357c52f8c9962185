import pytest
import torch

from sparse_transfer.core.errors import UserError
from sparse_transfer.models import Architecture, Backbone, build, families


def test_a_command_line_name_gives_typed_arguments_and_reads_back():
    architecture = Architecture.parse("wideresnet, depth=16, width=8")
    assert dict(architecture.args) == {"depth": 16, "width": 8}
    assert str(architecture) == "wideresnet,depth=16,width=8"
    assert Architecture.parse(str(architecture)) == architecture
    assert Architecture.from_json(architecture.to_json()) == architecture  # type: ignore[arg-type]


def test_arguments_at_their_default_are_dropped_so_that_equal_networks_are_equal():
    assert Architecture.parse("resnet50,stride=v1.5,pool=torch") == Architecture("resnet50")
    assert Architecture.parse("mobilenet_v1,width=1") == Architecture("mobilenet_v1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resent50", 'no architecture is called "resent50"; did you mean "resnet50"?'),
        ("resnet50,strid=v1", 'architecture: resnet50 has no argument "strid"; did you mean "stride"?'),
        ("wideresnet,depth=deep", 'architecture wideresnet, depth: "deep" is no int'),
        ("resnet18,width=2", 'architecture: resnet18 has no argument "width"; there are "pool", "stem", "stride"'),
        ("resnet50,v1", 'architecture "resnet50,v1": "v1" is not key=value'),
        ("timm:resnet50,width=2", 'architecture: timm:resnet50 has no argument "width"; a timm name has none'),
    ],
)
def test_what_names_no_network_is_refused_in_one_sentence(text: str, message: str):
    with pytest.raises(UserError) as seen:
        Architecture.parse(text)
    assert str(seen.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resnet50,stride=v2", 'resnet: stride="v2"; it is "v1.5" (stride in the 3×3) or "v1" (in the 1×1)'),
        ("resnet50,width=0", "resnet: width=0; it lies between 1 and 16, 2 is a wide ResNet"),
        ("resnet20,shortcut=C", 'CIFAR ResNet: shortcut="C"; it is "A" (zero channels, no parameters) or "B" (1×1'),
        ("resnet20,width=0.01", "CIFAR ResNet: width=0.01 leaves no channel; it is above 1/32"),
        ("wideresnet,depth=18", "wideresnet: depth=18; it is 6n + 4: 10, 16, 22, 28, 34, 40"),
        ("wideresnet,width=0", "wideresnet: width=0; it lies between 1 and 100"),
        ("mobilenet_v1,flavour=keras", 'mobilenet_v1: flavour="keras"; it is "torch" or "tf" (Keras, TF-slim)'),
        ("mobilenet_v1,width=-1", "mobilenet_v1: width=-1.0; it is above 0, usually 0.25, 0.5, 0.75 or 1"),
        ("mobilenet_v1,profile=amc", 'mobilenet_v1: profile="amc"; '),
    ],
)
def test_an_argument_out_of_range_says_what_it_may_be(text: str, message: str):
    with pytest.raises(UserError) as seen:
        Backbone.create(text)
    assert str(seen.value).startswith(message)


def test_preprocessing_depends_on_the_arguments_where_the_flavour_does():
    assert Architecture.parse("mobilenet_v1").preprocessing.mean == (0.485, 0.456, 0.406)
    assert Architecture.parse("mobilenet_v1,flavour=tf").preprocessing.mean == (0.5, 0.5, 0.5)
    assert Architecture.parse("resnet20,shortcut=B").preprocessing.crop == 32


@pytest.mark.parametrize("name", families)
def test_every_family_gives_features_of_the_width_it_states_on_images_of_any_size(name: str):
    backbone = Backbone.create(name)
    assert not backbone.module.training
    with torch.no_grad():
        assert backbone(torch.randn(1, 3, 40, 33)).shape == (1, backbone.feature_dim)


@pytest.mark.parametrize("name", families)
def test_every_family_builds_on_the_meta_device_without_drawing_a_weight(name: str):
    before = torch.get_rng_state()
    module = build(Architecture(name), device="meta")
    assert {p.device.type for p in module.parameters()} == {"meta"}
    assert torch.equal(torch.get_rng_state(), before)
