"""Vision transformers: torchvision's names and timm's, what keys can tell of them, and CAP's files."""

from collections import OrderedDict
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from sparse_transfer.checkpoints.formats import key_families
from sparse_transfer.checkpoints.importing import Imported, Said, import_container
from sparse_transfer.core.errors import UserError
from sparse_transfer.models import Architecture, Preprocessing
from support.foreign import container, pruned, random_masks, torchvision_vit_tiny

pytest.importorskip("timm")

CLASSES = 5
HALF = (0.5, 0.5, 0.5)


def brought_in(root: object, **said: object) -> Imported:
    return import_container(container(root), "0" * 64, Said(**said))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def torchvisions() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return torchvision_vit_tiny(CLASSES).eval()


@pytest.fixture(scope="module")
def deit() -> nn.Module:
    return timm_model("deit_tiny_patch16_224")


def timm_model(name: str) -> nn.Module:
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(2)
        return timm.create_model(name, pretrained=False, num_classes=CLASSES).eval()


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    import timm

    with torch.device("meta"):
        return {key: tuple(tensor.shape) for key, tensor in timm.create_model(name).state_dict().items()}


def logits(network: nn.Module | object) -> Tensor:
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return network(images)  # type: ignore[operator]


def test_older_names_of_the_perceptron_are_the_same_network(torchvisions: nn.Module) -> None:
    state = {
        key.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): tensor
        for key, tensor in torchvisions.state_dict().items()
    }
    imported = brought_in(state)
    expected = logits(torchvisions)
    torch.testing.assert_close(logits(imported.network), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert imported.network.backbone.preprocessing == Preprocessing()
    assert any("heads of 64 channels" in line for line in imported.report.assumptions)


def test_the_name_of_timm_may_be_given_for_torchvisions_names(torchvisions: nn.Module) -> None:
    imported = brought_in(dict(torchvisions.state_dict()), architecture=Architecture("timm:vit_tiny_patch16_224"))
    assert imported.report.family == "vit_torchvision"


@pytest.mark.parametrize("name", ["pos_embed", "cls_token", "norm.weight"])
def test_a_mask_of_what_is_no_layer_is_refused_where_it_prunes_and_says_nothing_where_it_does_not(
    deit: nn.Module, name: str
) -> None:
    """Tables of positions have as many dimensions as weights."""
    state = dict(deit.state_dict())
    weights = {"blocks.0.mlp.fc1.weight": random_masks(state, 0.5)["blocks.0.mlp.fc1.weight"]}
    masks = {**weights, name: torch.ones(state[name].shape)}
    given = {"architecture": Architecture("timm:deit_tiny_patch16_224")}
    imported = brought_in({"state_dict": state, "compression_sched": {"masks_dict": masks}}, **given)
    assert list(imported.network.masks()) == list(weights)
    assert imported.report.masks.startswith("masks of the file, 1 of 1 prune")
    masks[name].view(-1)[0] = 0
    with pytest.raises(UserError) as caught:
        brought_in({"state_dict": state, "compression_sched": {"masks_dict": masks}}, **given)
    assert str(caught.value) == (
        f'1 masks are for what is no convolution or linear layer ("compression_sched.masks_dict.{name}");'
        " name another architecture with --arch, or fetch the file again"
    )


def test_vit_and_deit_have_to_be_named(deit: nn.Module) -> None:
    state = dict(deit.state_dict())
    with pytest.raises(UserError) as caught:
        brought_in(state)
    message = str(caught.value)
    assert "its tensors (12 blocks of width 192, patches of 16 px, 197 tokens) are those of" in message
    assert "--arch timm:vit_tiny_patch16_224 or --arch timm:deit_tiny_patch16_224" in message
    as_vit = brought_in(state, architecture=Architecture("timm:vit_tiny_patch16_224")).network
    as_deit = brought_in(state, architecture=Architecture("timm:deit_tiny_patch16_224")).network
    assert as_vit.backbone.preprocessing.mean == HALF
    assert as_deit.backbone.preprocessing.mean != HALF
    assert torch.equal(logits(as_vit), logits(as_deit))


def cap_tree(state: Mapping[str, Tensor], name: str | None) -> dict[str, object]:
    """CAP through SparseML: every tensor float32, the recipe's modifiers beside them, ``arch_key`` as timm's name."""
    tensors = OrderedDict((key, tensor.float()) for key, tensor in state.items())
    root: dict[str, object] = {"state_dict": tensors, "optimizer": {}, "epoch": 99, "manager": {"stage": {}}}
    return root | ({} if name is None else {"arch_key": name, "recipe": "modifiers: []"})


def test_caps_zeros_are_the_mask_and_its_name_decides_the_network(deit: nn.Module) -> None:
    state = dict(deit.state_dict())
    masks = {key: mask for key, mask in random_masks(state, 0.5).items() if key.startswith("blocks.")}
    honest = pruned(state, masks)
    imported = brought_in(cap_tree(honest, "deit_tiny_patch16_224"), method="CAP", sparsity=0.5)
    assert str(imported.network.backbone.architecture) == "timm:deit_tiny_patch16_224"
    assert imported.report.encoding == "zeros"
    assert set(imported.network.masks()) == set(masks)
    with torch.no_grad():
        before = {key: tensor.clone() for key, tensor in deit.state_dict().items()}
        deit.load_state_dict(honest)
        expected = logits(deit)
        deit.load_state_dict(before)
    torch.testing.assert_close(logits(imported.network), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert {"optimizer", "manager", "recipe", "arch_key"} <= set(imported.report.dropped)


def test_xcit_has_to_be_named_and_its_float_counters_become_whole_numbers() -> None:
    module = timm_model("xcit_nano_12_p16_224")
    name = "timm:xcit_nano_12_p16_224"
    imported = brought_in(cap_tree(dict(module.state_dict()), None), architecture=Architecture(name))
    state = imported.network.backbone.module.state_dict()
    assert state["patch_embed.proj.0.1.num_batches_tracked"].dtype == torch.int64
    assert imported.report.family == "xcit_timm"
    with pytest.raises(UserError, match=r"--arch timm:xcit_nano_12_p16_224 or --arch timm:xcit_nano_12_p16_384"):
        brought_in(cap_tree(dict(module.state_dict()), None))


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("vit_base_patch16_224", "vit_timm"),
        ("deit_small_patch16_224", "vit_timm"),
        ("xcit_small_12_p8_224", "xcit_timm"),
        ("convnext_tiny", "convnext_timm"),
        ("convnext_small", "convnext_timm"),
    ],
)
def test_sizes_that_were_published_are_told_by_their_tensors(name: str, family: str) -> None:
    found = {other: key_families.get(other).recognise(shapes(name)) for other in key_families}
    assert [other for other, evidence in found.items() if evidence is not None] == [family]
    evidence = found[family]
    assert evidence is not None
    assert Architecture(f"timm:{name}") in (evidence.architecture, *evidence.choices)


@pytest.mark.parametrize("name", ["convnextv2_tiny", "swin_tiny_patch4_window7_224", "resnet50d", "efficientnet_es"])
def test_networks_that_no_family_knows_are_left_to_the_caller(name: str) -> None:
    found = shapes(name)
    assert [other for other in key_families if key_families.get(other).recognise(found) is not None] == []


def test_a_distilled_deit_says_why_it_cannot_come_in() -> None:
    found = {key: torch.zeros(shape) for key, shape in shapes("deit_tiny_distilled_patch16_224").items()}
    with pytest.raises(UserError, match="no single linear head"):
        brought_in(found, architecture=Architecture("timm:deit_tiny_distilled_patch16_224"))


@pytest.mark.parametrize("key", ["cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"])
def test_a_transformer_with_a_scalar_for_a_tensor_is_one_sentence(deit: nn.Module, key: str) -> None:
    state = {**deit.state_dict(), key: torch.zeros(())}
    with pytest.raises(UserError):
        brought_in(state)


def test_a_transformer_of_an_unknown_size_is_left_to_the_caller() -> None:
    from torchvision.models import VisionTransformer

    state = dict(VisionTransformer(32, 16, 2, 2, 16, 32, num_classes=3).state_dict())
    with pytest.raises(
        UserError, match='of the family "vit_torchvision", and no network of it has 2 blocks of width 16'
    ):
        brought_in(state)
