"""``timm:<name>`` against the complete timm model."""

import sys

import pytest
import torch
from torch import nn

from sparse_transfer.core.errors import UserError
from sparse_transfer.models import Architecture, Backbone, Preprocessing
from sparse_transfer.models.timm import preprocessing, timm_family
from support.random_state import randomise_

timm = pytest.importorskip("timm")

NAMES = [
    "resnet50", "resnet50d", "mobilenetv1_100", "mobilenetv3_large_100", "efficientnet_es", "vit_tiny_patch16_224",
    "deit_tiny_patch16_224", "convnext_atto", "swin_tiny_patch4_window7_224", "xcit_nano_12_p16_224", "vgg11",
    "densenet121", "regnety_002",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_are_those_of_the_full_model_minus_the_head_and_the_width_is_the_head_s(name: str):
    family = timm_family(name)
    with torch.device("meta"):
        backbone = family.build()
        full = timm.create_model(name, pretrained=False)
    shapes = {key: tensor.shape for key, tensor in full.state_dict().items()}
    head = {key: shapes.pop(key) for key in (f"{family.head}.weight", f"{family.head}.bias")}
    assert {key: tensor.shape for key, tensor in backbone.state_dict().items()} == shapes
    assert head[f"{family.head}.weight"][:2] == (1000, backbone.feature_dim)


@pytest.mark.parametrize(
    ("name", "size"), [("resnet50", 64), ("mobilenetv3_small_050", 64), ("vit_tiny_patch16_224", 224)]
)
def test_features_through_the_head_are_the_full_model_s_logits(name: str, size: int):
    full = randomise_(timm.create_model(name, pretrained=False))
    backbone = Backbone.create(f"timm:{name}")
    head = full.get_submodule(backbone.architecture.family.head)
    backbone.module.load_state_dict(
        {key: tensor for key, tensor in full.state_dict().items() if key in backbone.module.state_dict()}
    )
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = full(images)
        torch.testing.assert_close(head(backbone(images)), logits, rtol=1e-4, atol=1e-5 * float(logits.abs().max()))


def test_our_resnet50_and_timm_s_are_one_network():
    theirs = Backbone.create("timm:resnet50")
    randomise_(theirs.module)
    ours = Backbone.create("resnet50")
    ours.module.load_state_dict(theirs.module.state_dict())
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["resnet50.tv_in1k", "resnet50.a1_in1k", "vit_tiny_patch16_224", "mobilenetv1_100", "inception_v3"]
)
def test_preprocessing_is_timm_s_own_evaluation_transform(name: str):
    ours = Architecture.parse(f"timm:{name}").preprocessing
    model = timm.create_model(name, pretrained=False, num_classes=0)
    theirs = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    resize, crop, *_, normalise = theirs.transforms
    assert (ours.resize, ours.interpolation) == (resize.size, resize.interpolation.value)
    assert (ours.crop, ours.crop) == tuple(crop.size)
    torch.testing.assert_close(
        torch.tensor([ours.mean, ours.std]), torch.stack([normalise.mean, normalise.std]).float()
    )


def test_the_digits_of_a_timm_preprocessing():
    assert Architecture.parse("timm:vit_tiny_patch16_224").preprocessing == Preprocessing(
        resize=248, crop=224, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    )


FACTS = {
    "input_size": (3, 224, 224), "crop_pct": 0.875, "interpolation": "bicubic", "crop_mode": "center",
    "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5),
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"interpolation": "lanczos"}, 'timm:x: it expects interpolation "lanczos" and crop mode "center"; give its'),
        ({"interpolation": "random"}, 'timm:x: it expects interpolation "random"'),
        ({"crop_mode": "squash"}, 'timm:x: it expects interpolation "bicubic" and crop mode "squash"; give its'),
        ({"input_size": (1, 224, 224)}, "timm:x: its input is not a square picture of 3 channels"),
        ({"input_size": (3, 224, 256)}, "timm:x: its input is not a square picture of 3 channels"),
    ],
)
def test_what_preprocessing_cannot_say_is_refused(change: dict[str, object], message: str):
    assert preprocessing(FACTS, where="timm:x").resize == 256
    with pytest.raises(UserError) as seen:
        preprocessing(FACTS | change, where="timm:x")
    assert str(seen.value).startswith(message)


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UserError) as seen:
        timm_family("resnet5O")
    assert str(seen.value) == 'timm has no model called "resnet5O"; did you mean "resnet50"?'
    with pytest.raises(UserError, match=r"^timm has no model called \"qqqqqqqq\"; timm.list_models\(\) names them$"):
        timm_family("qqqqqqqq")


def test_a_model_with_two_heads_is_refused():
    with pytest.raises(UserError, match=r"^timm:deit_tiny_distilled_patch16_224: it has no single linear head"):
        timm_family("deit_tiny_distilled_patch16_224")


def test_a_missing_timm_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError) as seen:
        Backbone.create("timm:resnet50")
    assert str(seen.value) == "timm is not installed; make -B setup EXTRAS=timm"


def test_a_module_of_timm_is_in_eval_mode_and_has_no_head():
    module = Backbone.create("timm:resnet50").module
    assert not module.training
    assert isinstance(module.fc, nn.Identity)
