"""Files whose sparsity is a rule or a score: what is pruned, what has to be said for it, and what is refused."""

import argparse
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sparse_transfer.checkpoints.formats.rules import ORDERS, Order, is_n_of_m, largest, n_of_m
from sparse_transfer.checkpoints.importing import Imported, Said, import_checkpoint, import_container
from sparse_transfer.core.errors import UserError
from support.foreign import (
    ConvHead,
    container,
    ist,
    prefixed,
    prunable,
    pruned,
    random_masks,
    randomised,
    torchvision_vit_tiny,
    wrapped,
)
from support.foreign_explicit import CLASSES, small, small_with
from support.foreign_implicit import (
    conv_headed,
    conv_headed_with,
    convolutions,
    cram_tree,
    hidden_tree,
    keep_above,
    keep_blocks,
    keep_but_smallest,
    keep_n_of_m,
    lbc_tree,
    noise,
    sr_ste_tree,
    superblock_state,
    superblock_tree,
    supermasked,
    without_affine,
)

Masks = Mapping[str, Tensor]


def brought_in(root: object, name: str = "made.pth", /, **said: object) -> Imported:
    return import_container(container(root, name=name), "0" * 64, Said(**said))  # type: ignore[arg-type]


def assert_computes(imported: Imported, network: nn.Module, size: int = 16) -> None:
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = network(images)
        torch.testing.assert_close(
            imported.network(images), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max())
        )


def assert_masks(imported: Imported, expected: Masks) -> None:
    found = imported.network.masks()
    assert set(found) == set(expected)
    # a classifier that was a 1×1 convolution is a linear layer here
    assert [name for name in found if not torch.equal(found[name], expected[name].reshape(found[name].shape))] == []


# --- rules --------------------------------------------------------------------------------------------------------

PATTERNS = st.sampled_from([(1, 2), (2, 4), (1, 4), (3, 8), (7, 8)])


@settings(max_examples=40, deadline=None)
@given(pattern=PATTERNS, order=st.sampled_from(ORDERS), seed=st.integers(0, 99), kernel=st.sampled_from([1, 3]))
def test_n_of_m_keeps_the_n_largest_of_each_group(
    pattern: tuple[int, int], order: Order, seed: int, kernel: int
) -> None:
    n, m = pattern
    weight = noise((4, 8, kernel, kernel), seed)
    kept = n_of_m(weight, n, m, order)
    assert torch.equal(kept, keep_n_of_m(weight, n, m, {"inputs": "nhwc", "stored": "nchw"}[order]))
    assert is_n_of_m(kept, n, m, order)
    assert int(kept.sum()) == kept.numel() * n // m
    more = kept.clone()
    more[tuple((~kept).nonzero()[0])] = True
    assert not is_n_of_m(more, n, m, order)


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=60), share=st.floats(0, 0.99), shape=st.booleans()
)
def test_largest_prunes_exactly_its_share_and_nothing_larger_than_what_it_keeps(
    values: list[float], share: float, shape: bool
) -> None:
    weights = torch.tensor(values).reshape((1, -1) if shape else (-1,))
    kept = largest(weights, share)
    assert kept.shape == weights.shape
    assert int((~kept).sum()) == int(share * len(values))
    if bool(kept.all()):
        return
    assert float(weights[~kept].abs().max()) <= float(weights[kept].abs().min())


# --- a file that looks dense --------------------------------------------------------------------------------------


def test_a_dense_file_with_a_claim_says_which_methods_would_prune_it() -> None:
    _, state = small()
    with pytest.raises(UserError) as caught:
        brought_in(cram_tree(state), sparsity=0.8)
    assert "as it is, the network is dense" in str(caught.value)
    assert "--method cram, sr-ste or dnw" in str(caught.value)
    with pytest.raises(UserError, match=r"2:4 is claimed and nothing is pruned.* --method sr-ste or cram"):
        brought_in(cram_tree(state), nm=(2, 4))


def test_a_method_without_a_rule_is_only_a_name() -> None:
    _, state = small()
    imported = brought_in(cram_tree(state), method="AC/DC")
    assert imported.report.encoding == "dense"
    assert imported.origin.method == imported.report.method == "AC/DC"


@pytest.mark.parametrize("method", ["SR-STE", "sr-ste", "sr_ste", "SRSTE", "Sr Ste"])
def test_a_method_is_known_however_it_is_spelt(method: str) -> None:
    _, state = small()
    assert brought_in(sr_ste_tree(state), method=method, nm=(2, 4)).report.encoding == "sr_ste"


@pytest.mark.parametrize(
    ("said", "masks_of"),
    [({"method": "cram", "sparsity": 0.7}, 0.3), ({"method": "dnw", "sparsity": 0.7}, 0.3)],
    ids=["cram", "dnw"],
)
def test_a_file_that_was_pruned_already_is_not_pruned_again(said: dict[str, object], masks_of: float) -> None:
    _, state = small()
    masks = random_masks(state, masks_of)
    imported = brought_in(cram_tree(pruned(state, masks)), **said)
    assert_masks(imported, masks)
    assert imported.report.encoding == "zeros"
    assert any("hold zeros already" in note for note in imported.report.notes)


def test_masks_of_the_file_come_before_a_rule() -> None:
    _, state = small()
    masks = random_masks(state, 0.3)
    imported = brought_in(ist(wrapped(state, masks), "resnet20_cifar"), method="CrAM", sparsity=0.7)
    assert imported.report.encoding == "ist_wrapped"
    assert_masks(imported, masks)


# --- N:M claims ---------------------------------------------------------------------------------------------------


def test_an_n_of_m_claim_is_checked_in_both_orders() -> None:
    _, state = small()
    for order in ("nhwc", "nchw"):
        masks = {key: keep_n_of_m(state[key], 2, 4, order) for key in convolutions(state)}
        root = ist(wrapped(state, masks), "resnet20_cifar")
        assert brought_in(root, nm=(2, 4)).report.encoding == "ist_wrapped"
        with pytest.raises(UserError, match=r"1:4 is claimed and 21 of 21 layers keep more than that \(\"conv1"):
            brought_in(root, nm=(1, 4))


@pytest.mark.parametrize("nm", [(0, 4), (4, 4), (5, 4)])
def test_an_n_of_m_that_is_none_is_refused(nm: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=f"an N:M pattern of {nm[0]}:{nm[1]}; 2:4 keeps two weights of every four"):
        import_checkpoint("x.pth", nm=nm)


# --- CrAM ---------------------------------------------------------------------------------------------------------


def test_cram_without_sparsity_is_dense_and_says_what_would_prune_it() -> None:
    _, state = small()
    report = brought_in(cram_tree(state), method="CrAM+").report
    assert report.encoding == "dense"
    assert any("--sparsity or --nm prunes this one" in note for note in report.notes)


def test_cram_prunes_classifier_and_first_convolution_by_one_threshold() -> None:
    _, state = small()
    masks = keep_above(state, prunable(state), 0.8)
    imported = brought_in(cram_tree(state), method="CrAM", sparsity=0.8)
    assert_masks(imported, masks)
    assert {"conv1.weight", "fc.weight"} <= set(masks)
    assert len({round(float(kept.float().mean()), 2) for kept in masks.values()}) > 5, "one threshold is not uniform"
    assert any("BatchNorm statistics" in line for line in imported.report.warnings)
    assert any("by one threshold" in line for line in imported.report.assumptions)


def test_cram_with_n_of_m_prunes_every_layer_along_the_inputs() -> None:
    _, state = small()
    masks = {key: keep_n_of_m(state[key], 2, 4, "nhwc") for key in prunable(state)}
    imported = brought_in(cram_tree(state), method="CrAM", nm=(2, 4))
    assert_masks(imported, masks)
    assert_computes(imported, small_with(pruned(state, masks)))


def test_a_layer_that_makes_no_whole_groups_is_said() -> None:
    _, state = small()
    with pytest.raises(UserError, match=r'the weights of 22 layers make no whole groups of 5 \("conv1\.weight"\)'):
        brought_in(cram_tree(state), method="CrAM", nm=(2, 5))


# --- SR-STE -------------------------------------------------------------------------------------------------------


def test_sr_stes_two_orders_are_two_methods() -> None:
    _, state = small()
    along = {key: keep_n_of_m(state[key], 2, 4, "nhwc") for key in convolutions(state)}
    stored = {key: keep_n_of_m(state[key], 2, 4, "nchw") for key in convolutions(state)}
    assert "fc.weight" not in along
    assert "conv1.weight" in along
    assert_masks(brought_in(sr_ste_tree(state), method="SR-STE", nm=(2, 4)), along)
    imported = brought_in(sr_ste_tree(state), method="SR-STE-kernel", nm=(2, 4))
    assert_masks(imported, stored)
    assert_computes(imported, small_with(pruned(state, stored)))
    assert any("--method sr-ste takes that of ASP" in line for line in imported.report.assumptions)


def test_sr_ste_without_its_pattern_is_refused() -> None:
    _, state = small()
    with pytest.raises(UserError, match=r"made\.pth: SR-STE keeps N of every M .*; give --nm 2:4"):
        brought_in(sr_ste_tree(state), method="SR-STE", sparsity=0.5)


# --- DNW ----------------------------------------------------------------------------------------------------------


def dnw_tree(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {"epoch": 90, "state_dict": prefixed(state, "module."), "optimizer": {}}


def test_dnw_can_leave_its_first_convolution_dense() -> None:
    _, state = conv_headed()
    masks = {key: keep_but_smallest(state[key], 0.9) for key in convolutions(state) if key != "model.0.0.weight"}
    imported = brought_in(dnw_tree(state), method="DNW-first-dense", sparsity=0.9)
    assert_masks(imported, masks)
    assert "fc.weight" in masks
    assert_computes(imported, conv_headed_with(pruned(state, masks)), 33)
    assert any("non-commercial" in line for line in imported.report.warnings)
    assert any("every convolution but the first" in line for line in imported.report.assumptions)


def test_dnw_without_its_share_is_refused() -> None:
    _, state = conv_headed()
    with pytest.raises(
        UserError, match=r"DNW leaves a share .*; give --sparsity; a file called allsparse10 keeps 10 %"
    ):
        brought_in(dnw_tree(state), method="dnw", nm=(2, 4))


def test_weights_that_are_nan_are_refused_whatever_the_rule() -> None:
    _, state = small()
    state["layer1.0.conv1.weight"].view(-1)[3] = float("nan")
    for said in ({"method": "CrAM", "sparsity": 0.5}, {"method": "SR-STE", "nm": (2, 4)}):
        with pytest.raises(UserError, match=r'"layer1\.0\.conv1\.weight" has 1 values that are NaN or infinite'):
            brought_in(cram_tree(state), **said)


# --- LBC ----------------------------------------------------------------------------------------------------------


def test_lbc_says_its_pattern_itself_and_another_one_is_refused() -> None:
    _, state = small()
    root, masks = lbc_tree(state, 1, 4)
    imported = brought_in(root)
    assert_masks(imported, masks)
    assert "conv1.weight" not in masks
    assert imported.report.masks.startswith("masks by the scores of the file, 20 of 20 prune")
    assert imported.report.dropped["layer1.0.conv1.index_list"] == "ways to choose, read into the masks"
    with pytest.raises(UserError, match=r"75\.00% of the weights with a mask"):
        brought_in(root, sparsity=0.5)


def test_lbc_masks_linear_layers_as_their_weights_lie() -> None:
    """DeiT-S: NMLinear."""
    _, state = small()
    root, masks = lbc_tree({**state, "fc.weight": state["fc.weight"][:, :, None, None]}, 2, 4)
    tensors = root["state_dict"]
    assert isinstance(tensors, dict)
    tensors["fc.weight"] = state["fc.weight"]
    expected = {key: mask.flatten(1) if key == "fc.weight" else mask for key, mask in masks.items()}
    assert_masks(brought_in(root), expected)


def lbc_with(key: str, value: Tensor | None) -> dict[str, object]:
    root, _ = lbc_tree(small()[1], 2, 4)
    tensors = root["state_dict"]
    assert isinstance(tensors, dict)
    if value is None:
        del tensors[key]
    else:
        tensors[key] = value
    return root


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("layer1.0.conv1.alpha", None, r'"layer1\.0\.conv1\.index_list" has no scores'),
        ("layer1.0.conv1.weight", None, r'"layer1\.0\.conv1\.index_list" has no weight'),
        ("layer1.0.conv1.alpha", torch.ones(3, 6), r'"layer1\.0\.conv1\.alpha" is \[3, 6\], which with ways \[6, 4\]'),
        ("layer1.0.conv1.alpha", torch.full((36, 6), torch.nan), r'"layer1\.0\.conv1\.alpha" has scores that are NaN'),
        ("layer1.0.conv1.alpha", torch.ones(()), r'"layer1\.0\.conv1\.alpha" is \[\]'),
    ],
)
def test_faulty_lbc_files_are_refused_by_name(key: str, value: Tensor | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        brought_in(lbc_with(key, value))


# --- hidden-networks ----------------------------------------------------------------------------------------------


def hidden() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    _, state = conv_headed()
    return state, {key: noise(tuple(state[key].shape), seed) for seed, key in enumerate(convolutions(state))}


def test_hidden_networks_take_the_share_from_settings_or_name_before_the_caller() -> None:
    state, scores = hidden()
    for root, name, share in (
        ({**hidden_tree(state, scores), "args": argparse.Namespace(prune_rate=0.3)}, "made.pth", 0.7),
        ({**hidden_tree(state, scores), "config": {"prune_rate": 0.25}}, "made.pth", 0.75),
        (hidden_tree(state, scores), "prune_rate=0.5.pth", 0.5),
    ):
        masks = {key: keep_but_smallest(score, share) for key, score in scores.items()}
        imported = brought_in(_plain(root), name)
        assert_masks(imported, masks)
        assert_computes(imported, conv_headed_with(pruned(without_affine(state), masks)), 33)
        with pytest.raises(UserError, match=r"90\.00% is claimed"):
            brought_in(_plain(root), name, sparsity=0.9)


def _plain(root: dict[str, object]) -> dict[str, object]:
    """As a reader gives it: a Namespace is a stand-in with what the file gave it."""
    from sparse_transfer.checkpoints.readers.container import StandIn

    return {
        key: StandIn("argparse.Namespace", dict(vars(value).items()))  # type: ignore[arg-type]
        if isinstance(value, argparse.Namespace)
        else value
        for key, value in root.items()
    }


def test_hidden_networks_wide_resnet50_computes_what_torchvisions_does() -> None:
    """Two layers with scores: that all may have them is shown on a small network."""
    from torchvision.models import wide_resnet50_2

    body = wide_resnet50_2()
    body.fc = nn.Identity()
    network = randomised(ConvHead(body, 2048, CLASSES))
    state = dict(network.state_dict())
    scores = {key: noise(tuple(state[key].shape), 3) for key in ("layer1.0.conv2.weight", "fc.weight")}
    masks = {key: keep_but_smallest(score, 0.7) for key, score in scores.items()}
    imported = brought_in(hidden_tree(state, scores), sparsity=0.7)
    assert str(imported.network.backbone.architecture) == "resnet50,width=2"
    assert_masks(imported, masks)
    effective = pruned(without_affine(state), masks)
    network.load_state_dict(
        {key if key.startswith("fc.") else f"body.{key}": value for key, value in effective.items()}
    )
    assert_computes(imported, network.eval(), 33)


def test_hidden_networks_without_a_share_are_refused() -> None:
    with pytest.raises(UserError, match=r"its scores say in which order .*; give --sparsity; .* --sparsity 0\.7"):
        brought_in(hidden_tree(*hidden()))


def test_batchnorms_without_weight_and_bias_are_said() -> None:
    report = brought_in(hidden_tree(*hidden()), sparsity=0.7).report
    assert any(line.startswith("27 BatchNorms have no weight and bias: 1 and 0") for line in report.notes)
    assert not any(key.endswith((".1.weight", ".4.weight")) for key in report.mapped)


def test_a_network_that_lost_some_of_its_batchnorms_weights_is_refused() -> None:
    state, scores = hidden()
    root = hidden_tree(state, scores)
    tensors = root["state_dict"]
    assert isinstance(tensors, dict)
    tensors["module.model.0.1.weight"] = torch.ones(8)
    with pytest.raises(UserError, match=r"53 tensors of mobilenet_v1,width=0\.25 are missing"):
        brought_in(root, sparsity=0.7)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(2, 2), r'1 masks have another shape than their weight \("fc\.scores"\)'),
        (torch.full((CLASSES, 256, 1, 1), torch.nan), "some of its scores are NaN or infinite"),
    ],
)
def test_faulty_scores_are_refused(value: Tensor, message: str) -> None:
    state, scores = hidden()
    with pytest.raises(UserError, match=message):
        brought_in(hidden_tree(state, {**scores, "fc.weight": value}), sparsity=0.7)


def test_scores_without_their_weight_are_refused() -> None:
    _, state = small()
    with pytest.raises(UserError, match=r'1 masks have no weight \("conv9\.weight"\)'):
        brought_in({**state, "conv9.scores": torch.ones(2, 2)}, sparsity=0.5)


# --- SuperBlock ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def supermask_vit() -> nn.Module:
    pytest.importorskip("timm")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return supermasked(torchvision_vit_tiny(CLASSES), 0.8, 32)


def test_superblocks_vit_computes_what_torchvisions_computes_with_its_layers(supermask_vit: nn.Module) -> None:
    """The attention never calls its ``out_proj``: a mask for it would be another network than the authors measured."""
    state = dict(supermask_vit.state_dict())
    imported = brought_in(superblock_tree_plain(state), "sp0.80-ts32.pth")
    assert_computes(imported, supermask_vit, 224)
    report = imported.report
    assert report.encoding == "superblock"
    assert report.family == "vit_torchvision"
    assert set(imported.network.masks()) == {
        *(f"blocks.{block}.mlp.{layer}.weight" for block in range(12) for layer in ("fc1", "fc2")),
        "head.weight",
    }
    assert "prune nothing" in report.dropped["encoder.layers.encoder_layer_0.self_attention.out_proj.scores"]
    assert "blocks of side 32, 0.8 of each layer's pruned: the file's name says so" in report.notes
    assert imported.network.backbone.preprocessing.mean == (0.485, 0.456, 0.406)


def superblock_tree_plain(state: Mapping[str, Tensor], **args: object) -> dict[str, object]:
    return _plain(superblock_tree(state, **args))


def test_superblocks_scale_and_shift_are_applied_and_said() -> None:
    _, state = small()
    stored = superblock_state(state, ["fc.weight"], 4, scale=0.5, shift=0.25)
    imported = brought_in(superblock_tree_plain(stored), sparsity=0.5)
    kept = keep_blocks(stored["fc.scores"], 0.5, 4, (CLASSES, 16))
    head = imported.network.head
    assert head is not None
    assert torch.equal(head.weight, torch.where(kept, state["fc.weight"] * 0.5 + 0.25, 0.0))
    assert imported.report.dropped["fc.scale"] == "applied to the weight"


def test_a_sparsity_that_would_leave_no_block_is_capped() -> None:
    _, state = small()
    stored = superblock_state(state, ["fc.weight"], 4)
    kept = brought_in(superblock_tree_plain(stored, sparsity_linear=0.99)).network.masks()["fc.weight"]
    assert torch.equal(kept, keep_blocks(stored["fc.scores"], 0.99, 4, (CLASSES, 16)))
    assert 0 < int(kept.sum()) <= 2 * 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fc.scores": torch.ones(3, 3)}, r'"fc\.scores" is \[3, 3\]: no blocks of a weight \[7, 16\]'),
        ({"fc.scale": torch.ones(3)}, r'"fc\.scale" is \[3\] and its shift \[1\], not one number'),
        ({"fc.shift": None}, r'"fc" has not all of weight, scores, scale and shift'),
        ({"fc.scores": torch.full((2, 4), torch.nan)}, "some of its scores are NaN or infinite"),
        ({"fc.scores": torch.ones(())}, r'"fc\.scores" is \[\]'),
    ],
)
def test_faulty_superblock_files_are_refused(change: dict[str, Tensor | None], message: str) -> None:
    stored = superblock_state(small()[1], ["fc.weight"], 4)
    changed = {**stored, **change}
    with pytest.raises(UserError, match=message):
        brought_in(
            superblock_tree_plain({key: value for key, value in changed.items() if value is not None}), sparsity=0.5
        )


@pytest.mark.parametrize("side", [1e300, float("inf"), float("nan"), 10**400], ids=["1e300", "inf", "nan", "10^400"])
def test_a_side_of_blocks_beyond_reason_is_not_believed(side: float) -> None:
    """One score for a whole weight is a block of any side that is larger."""
    state = small()[1]
    stored = superblock_state(state, ["fc.weight"], 4096)
    imported = brought_in(superblock_tree_plain(stored, sp_linear_tile_size=side), sparsity=0.0)
    assert imported.network.masks() == {}


def test_superblock_without_its_sparsity_is_refused() -> None:
    stored = superblock_state(small()[1], ["fc.weight"], 4)
    with pytest.raises(
        UserError, match=r"its scores say .* blocks are pruned.*; give --sparsity; .* sp0\.90-ts32\.pth"
    ):
        brought_in(superblock_tree_plain(stored))


# --- the report ---------------------------------------------------------------------------------------------------


def test_the_report_is_complete_as_text_and_as_json(tmp_path: Path) -> None:
    import json

    _, state = small()
    path = tmp_path / "model-best.pth"
    torch.save({**sr_ste_tree(state), "optimizer": {"state": {}}}, path)
    report = import_checkpoint(path, method="SR-STE", nm=(2, 4), licence="unknown").report
    text, tree = report.render(), json.loads(json.dumps(report.to_json()))
    assert max(map(len, text.splitlines())) <= 100
    flat = " ".join(text.split())
    for words in (
        'sr_ste (--method "SR-STE" asks for its rule); masks by magnitude, 2 of every 4 weights, 21 of 21 prune',
        "method SR-STE",
        "licence unknown",
        "epoch, model, best_prec1, optimizer: not part of the network",
        "weights of the layers with a mask",
        "prunable weights of the backbone",
        "parameters of the network",
        "mean 0.5, 0.5, 0.5",
        "the classifier is dense",
    ):
        assert words in flat, words
    assert tree["encoding"] == {"name": "sr_ste", "because": '--method "SR-STE" asks for its rule'}
    assert tree["method"] == "SR-STE"
    assert tree["licence"] == "unknown"
    assert tree["verified"] is None
    assert set(tree["dropped"]) == {"epoch", "model", "best_prec1", "optimizer"}
    assert {"masked", "prunable", "total"} <= set(tree["sparsity"])
    assert tree["sparsity"]["masked"]["sparsity"] == 0.5
    assert tree["preprocessing"]["crop"] == 32
    assert set(tree["mapped"]) >= {"conv1.weight", "fc.weight"}
