"""Files of torch that state their sparsity: masks, thresholds, tickets; with their quirks and their faults."""

import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn

from sparse_transfer.checkpoints.formats import encodings, find_source
from sparse_transfer.checkpoints.formats.str_native import decode as decode_str
from sparse_transfer.checkpoints.importing import Imported, Said, import_checkpoint, import_container
from sparse_transfer.checkpoints.readers.opening import open_container
from sparse_transfer.core.errors import UserError
from support import foreign_explicit as made
from support.foreign import ORIGINS, container, ist, prefixed, prunable, pruned, random_masks, randomised, wrapped

CLASSES = made.CLASSES


def brought_in(root: object, **said: object) -> Imported:
    return import_container(container(root), "0" * 64, Said(**said))  # type: ignore[arg-type]


def refusal(root: object, **said: object) -> str:
    with pytest.raises(UserError) as caught:
        brought_in(root, **said)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pictures(size: int = 16) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(5))


def assert_computes(imported: Imported, network: nn.Module, size: int = 16) -> None:
    with torch.no_grad():
        expected = network(pictures(size))
        # The same sums in the same order but for the head, whose 1×1 convolution becomes a linear layer.
        torch.testing.assert_close(
            imported.network(pictures(size)), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max())
        )


def half(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return OrderedDict(list(state.items())[::2])


LACKS = re.compile("tensors of resnet20.* are missing|those of no network|no known network has|no network of it has")


# --- AC/DC, GMP, WoodFisher ---------------------------------------------------------------------------------------


def test_acdc_comes_in_though_its_classes_are_nowhere_and_the_report_lists_them(tmp_path: Path) -> None:
    _, state = made.small()
    masks = random_masks(state, 0.3)
    imported = import_checkpoint(made.save_acdc(tmp_path / "best_sparse_checkpoint.ckpt", state, masks))
    report = imported.report
    assert report.container == "torch-zip"
    assert report.stand_ins == ("optimization.lr_schedulers.CosineLR", "optimization.sgd.SGD")
    assert report.dropped["optimizer"] == report.dropped["lr_scheduler"] == "not part of the network"
    assert report.dropped["fc._bias_mask"] == "a mask of a bias or a BatchNorm, all ones"
    assert report.prefix == "module."
    assert_computes(imported, made.small_with(pruned(state, masks)))


def test_acdcs_best_dense_is_a_dense_network_and_says_so(tmp_path: Path) -> None:
    """All masks are ones at the end of a dense phase, and the weights are dense."""
    _, state = made.small()
    imported = import_checkpoint(made.save_acdc(tmp_path / "best_dense_checkpoint.ckpt", state, None))
    assert imported.report.encoding == "dense"
    assert imported.report.warnings[0] == (
        "all 22 masks of the file keep everything and its weights hold no zeros: a dense network, as AC/DC saves one"
        " in its dense phases (best_dense)"
    )
    assert_computes(imported, made.small_with(state))


def test_a_uniform_run_of_acdc_leaves_stem_and_classifier_dense_in_every_count(tmp_path: Path) -> None:
    _, state = made.small()
    layers = [key for key in prunable(state) if key not in ("conv1.weight", "fc.weight")]
    masks = {key: torch.arange(state[key].numel()).reshape(state[key].shape) % 10 == 0 for key in layers}
    counts = import_checkpoint(made.save_acdc(tmp_path / "unif.ckpt", state, masks)).report.sparsities
    size = sum(state[key].numel() for key in layers)
    zeros = size - sum(int(kept.sum()) for kept in masks.values())
    assert (counts.masked.zeros, counts.masked.size) == (zeros, size)
    assert (counts.prunable.zeros, counts.prunable.size) == (zeros, size + state["conv1.weight"].numel())
    parameters = sum(tensor.numel() for key, tensor in state.items() if "running" not in key and "num" not in key)
    assert (counts.total.zeros, counts.total.size) == (zeros, parameters)


def test_woodfishers_older_files_come_in(tmp_path: Path) -> None:
    _, state = made.small()
    masks = random_masks(state, 0.2)
    imported = import_checkpoint(made.save_woodfisher(tmp_path / "regular_checkpoint99.ckpt", state, masks))
    assert imported.report.container == "torch-legacy"
    assert imported.report.stand_ins == ("torch.optim.lr_scheduler.ExponentialLR", "torch.optim.sgd.SGD")
    assert_computes(imported, made.small_with(pruned(state, masks)))


def test_half_a_wrapped_file_is_refused() -> None:
    _, state = made.small()
    assert LACKS.search(refusal(ist(half(wrapped(state, random_masks(state, 0.5))), "resnet20_cifar")))


def test_a_weight_that_is_there_plain_and_wrapped_is_refused() -> None:
    """Which of the two counts, nobody can say."""
    _, state = made.small()
    stored = wrapped(state, random_masks(state, 0.5))
    stored["conv1.weight"] = torch.zeros_like(state["conv1.weight"])
    message = refusal(ist(stored, "resnet20_cifar"))
    assert '1 tensors are there twice, plain and wrapped ("conv1.weight")' in message


def test_the_real_woodfisher_files_are_read_as_torch_reads_them(test_data: Path) -> None:
    """Oracle: torch's own restricted unpickler, with the two classes allowed by name."""
    path = test_data / "data" / "weights" / "woodfisher" / "mnist_25_epoch_93.97.ckpt"
    allowed = [torch.optim.SGD, torch.optim.lr_scheduler.ExponentialLR]
    with torch.serialization.safe_globals(allowed):
        stored = torch.load(path, map_location="cpu", weights_only=True)["model_state_dict"]
    source = find_source(open_container(path))
    decoded = encodings.get("ist_wrapped").decode(source)
    assert decoded.problems == ()
    assert sorted(decoded.masks) == ["fc1.weight", "fc2.weight", "fc3.weight"]
    for name, mask in decoded.masks.items():
        layer = name.removesuffix(".weight")
        assert torch.equal(mask.read(), stored[f"module.{layer}._weight_mask"])
        assert torch.equal(decoded.weights[name].read(), stored[f"module.{layer}._layer.weight"])
    with pytest.raises(UserError, match=r'no known network has these 3 tensors \("fc1\.weight"'):
        import_checkpoint(path)
    assert import_checkpoint(path.with_name("resnet20_cifar10.pth.tar")).report.encoding == "dense"


# --- STR ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "arch"), [("resnet_str", "ResNet18"), ("mobilenet_str", "MobileNetV1")])
def test_strs_survivors_shrink_by_their_threshold(name: str, arch: str) -> None:
    """Oracle: STR's own convolution. Read as a mask alone, the weights would be too large."""
    origin = ORIGINS[name]
    module = made.with_thresholds(randomised(origin.make(CLASSES)), -3.5)
    imported = brought_in(made.str_tree(module, arch))
    assert imported.report.encoding == "str_native"
    assert imported.report.family == name
    assert_computes(imported, module, origin.size)
    layers = [layer for layer in module.modules() if isinstance(layer, made.StrConv)]
    assert imported.report.sparsities.masked.zeros == sum(int((layer.sparse_weight() == 0).sum()) for layer in layers)
    first = layers[0]
    effective = next(iter(imported.network.tensors().values()))
    kept = effective != 0
    torch.testing.assert_close(
        (first.weight.abs() - effective.abs())[kept].detach(),
        torch.sigmoid(torch.tensor(-3.5)).expand(int(kept.sum())),
        rtol=0,
        atol=1e-6,
    )
    assert "what STR's thresholds leave" in imported.report.masks


def test_strs_initial_threshold_leaves_the_network_as_it_is() -> None:
    """sigmoid(-3200) is 0 in float32."""
    module, state = made.small()
    imported = brought_in(made.str_tree(made.with_thresholds(module, -3200.0), "resnet20_cifar"))
    assert imported.report.encoding == "dense"
    assert torch.equal(imported.network.tensors()["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])


def test_a_layer_of_str_without_a_threshold_is_dense() -> None:
    module, state = made.small()
    made.with_thresholds(module, -2.0, dense=["conv1"])
    imported = brought_in(made.str_tree(module, "resnet20_cifar"))
    assert "conv1.weight" not in imported.network.masks()
    assert "layer1.0.conv1.weight" in imported.network.masks()
    assert torch.equal(imported.network.tensors()["conv1.weight"], state["conv1.weight"])
    assert_computes(imported, module)


def test_strs_doubled_weights_are_left_out() -> None:
    module, _ = made.small()
    tree = made.str_tree(made.with_thresholds(module, -2.0), "resnet20_cifar")
    state: dict[str, Tensor] = tree["state_dict"]  # type: ignore[assignment]
    for key in [key for key in state if key.endswith("sparseThreshold")]:
        layer = key.removesuffix("sparseThreshold")
        state[f"{layer}sparseWeight"] = torch.full_like(state[f"{layer}weight"], 9.0)
    imported = brought_in(tree)
    assert imported.report.dropped["conv1.sparseWeight"] == "a copy of a weight, as STR's first files have it"
    assert_computes(imported, module)


def test_strs_dense_conversion_has_its_zeros_in_the_weights() -> None:
    module = randomised(ORIGINS["mobilenet_str"].make(CLASSES))
    honest = pruned(module.state_dict(), random_masks(module.state_dict(), 0.2))
    imported = brought_in({"epoch": 0, "arch": "MobileNetV1", "state_dict": prefixed(honest, "module.")})
    assert (imported.report.encoding, imported.report.family) == ("zeros", "mobilenet_str")


@pytest.mark.parametrize(
    ("threshold", "words"),
    [
        (torch.full((2, 1), -3.0), r'"conv1.sparseThreshold" is [2, 1] torch.float32 and not one finite number'),
        (torch.full((1, 1), float("nan")), "not one finite number"),
        (torch.full((1, 1), -3), "torch.int64 and not one finite number"),
    ],
)
def test_a_threshold_that_is_no_number_is_refused(threshold: Tensor, words: str) -> None:
    module, _ = made.small()
    tree = made.str_tree(made.with_thresholds(module, -2.0), "resnet20_cifar")
    tree["state_dict"]["module.conv1.sparseThreshold"] = threshold  # type: ignore[index]
    assert words in refusal(tree)


def test_faulty_str_files_are_refused() -> None:
    module, _ = made.small()
    tree = made.str_tree(made.with_thresholds(module, -2.0), "resnet20_cifar")
    state: dict[str, Tensor] = tree["state_dict"]  # type: ignore[assignment]
    assert LACKS.search(refusal({**tree, "state_dict": half(state)}))
    orphan = {key: tensor for key, tensor in state.items() if key != "module.layer1.0.conv1.weight"}
    assert '"layer1.0.conv1.sparseThreshold" has no weight' in refusal({**tree, "state_dict": orphan})
    broken = state["module.conv1.weight"].clone()
    broken[0, 0, 0, 0] = float("nan")
    assert '"conv1.weight" has 1 values that are NaN' in refusal(
        {**tree, "state_dict": {**state, "module.conv1.weight": broken}}
    )


@given(
    arrays(np.float32, 24, elements=st.floats(-2, 2, width=32)),
    st.floats(-40, 10, width=32),
    st.integers(0, 23),
)
def test_strs_mask_is_where_its_weight_is_not_zero(stored: np.ndarray, threshold: float, at: int) -> None:
    """Also where a weight equals the threshold exactly."""
    weight = torch.from_numpy(stored).clone()
    weight[at] = torch.sigmoid(torch.tensor(threshold))
    tensors = {"a.weight": weight.reshape(4, 6), "a.sparseThreshold": torch.tensor([[threshold]])}
    decoded = decode_str(find_source(container(tensors)))
    effective, kept = decoded.weights["a.weight"].read(), decoded.masks["a.weight"].read()
    assert torch.equal(kept, effective != 0)
    assert not bool(kept.view(-1)[at])
    shrunk = tensors["a.weight"].sign() * (tensors["a.weight"].abs() - torch.sigmoid(torch.tensor(threshold)))
    assert torch.equal(effective[kept], shrunk[kept])


# --- torch.nn.utils.prune -----------------------------------------------------------------------------------------


def test_after_prune_remove_the_zeros_are_the_mask() -> None:
    from torch.nn.utils import prune

    module, state = made.small()
    masks = random_masks(state, 0.4)
    made.prune_by_torch(module, masks)
    for key in masks:
        prune.remove(module.get_submodule(key.removesuffix(".weight")), "weight")
    imported = brought_in(module.state_dict())
    assert imported.report.encoding == "zeros"
    assert_computes(imported, module)


def test_a_mask_beside_a_plain_weight_is_read_too() -> None:
    _, state = made.small()
    masks = random_masks(state, 0.4)
    stored = state | {f"{key}_mask": kept.to(torch.uint8) for key, kept in masks.items()}
    imported = brought_in(stored)
    assert imported.report.encoding == "torch_prune"
    assert_computes(imported, made.small_with(pruned(state, masks)))


def test_what_lies_under_torchs_masks_is_counted_and_set_to_zero() -> None:
    module, state = made.small()
    masks = random_masks(state, 0.4)
    stored = sum(int((state[key][~kept] != 0).sum()) for key, kept in masks.items())
    imported = brought_in(made.prune_by_torch(module, masks).state_dict())
    assert f"{stored:,} stored weights in {len(masks)} layers were not 0" in imported.report.masks


def test_faulty_files_of_torchs_pruning_are_refused() -> None:
    module, state = made.small()
    stored = dict(made.prune_by_torch(module, random_masks(state, 0.4)).state_dict())
    mask = stored["conv1.weight_mask"]
    without = {key: tensor for key, tensor in stored.items() if key != "conv1.weight_mask"}
    assert '1 weights stored as "weight_orig" have no mask ("conv1.weight")' in refusal(without)
    without = {key: tensor for key, tensor in stored.items() if key != "layer2.0.conv2.weight_orig"}
    assert '1 masks have no weight ("layer2.0.conv2.weight")' in refusal(without)
    assert 'masks have another shape than their weight ("conv1.weight_mask")' in refusal(
        {**stored, "conv1.weight_mask": mask[:2]}
    )
    without = {key: tensor for key, tensor in stored.items() if key != "conv1.weight_orig"}
    assert '1 masks have no weight ("conv1.weight") and no known network has' in refusal(without)
    grey = mask.clone()
    grey.view(-1)[0] = 0.5
    assert '"conv1.weight_mask" has 1 values that are neither 0 nor 1' in refusal({**stored, "conv1.weight_mask": grey})
    assert LACKS.search(refusal(half(stored)))
    masks_alone = {key: tensor for key, tensor in stored.items() if key.endswith("_mask")}
    assert "the file holds 22 masks alone, without the weights" in refusal(masks_alone)


def test_pruned_biases_and_batchnorms_are_refused_and_all_ones_are_not() -> None:
    from torch.nn.utils import prune

    for name, words in (("fc", '"fc.bias_mask" prunes biases'), ("bn1", "no convolution or linear layer")):
        module, state = made.small()
        made.prune_by_torch(module, {"conv1.weight": random_masks(state, 0.5)["conv1.weight"]})
        prune.l1_unstructured(module.get_submodule(name), "bias" if name == "fc" else "weight", amount=2)
        assert words in refusal(module.state_dict())
    module, state = made.small()
    made.prune_by_torch(module, {"conv1.weight": random_masks(state, 0.5)["conv1.weight"]})
    prune.identity(module.get_submodule("fc"), "bias")
    assert brought_in(module.state_dict()).report.dropped["fc.bias_mask"].endswith("all ones")


# --- LTH-T --------------------------------------------------------------------------------------------------------


def lth() -> tuple[dict[str, object], dict[str, Tensor], dict[str, Tensor], nn.Module]:
    trained, _ = made.small(seed=1)
    _, initial = made.small(seed=2)
    masks = made.lth_masks(initial)
    return made.lth_tree(trained, initial, masks), initial, masks, trained


def test_a_lottery_ticket_asks_which_of_its_two_networks_is_meant() -> None:
    tree, *_ = lth()
    message = refusal(tree)
    assert (
        'two networks under one mask, the initial weights ("init_weight") and the trained ones ("state_dict")'
        in message
    )
    assert "--ticket initial (the ticket, what LTH-T transfers) or --ticket trained" in message


def test_the_initial_ticket_is_the_pretrained_weights_under_the_mask() -> None:
    tree, initial, masks, _ = lth()
    imported = brought_in(tree, ticket="initial")
    assert_computes(imported, made.small_with(pruned(initial, masks)))
    assert imported.report.mapped["layer1.0.conv1.weight"] == "init_weight.layer1.0.conv1.weight"
    assert "initial ones are taken" in imported.report.dropped["layer1.0.conv1.weight_orig"]
    assert "init_weight" not in imported.report.dropped
    assert set(imported.network.masks()) == set(masks)


def test_the_trained_ticket_is_the_trained_weights_under_the_mask() -> None:
    tree, _, masks, trained = lth()
    imported = brought_in(tree, ticket="trained")
    assert_computes(imported, trained)
    assert imported.report.dropped["init_weight"] == "not part of the network"
    assert set(imported.network.masks()) == set(masks)


def test_a_ticket_keeps_its_masks_beside_plain_weights_too() -> None:
    """After ``remove_prune`` the state is plain, and "mask" alone has the masks, under DataParallel's prefix."""
    _, initial, masks, _ = lth()
    _, state = made.small(seed=1)
    tree = {
        "arch": "resnet20_cifar",
        "state_dict": state,
        "mask": {f"module.{key}_mask": kept.float() for key, kept in masks.items()},
        "init_weight": prefixed(initial, "module."),
    }
    assert_computes(brought_in(tree, ticket="trained"), made.small_with(pruned(state, masks)))
    assert_computes(brought_in(tree, ticket="initial"), made.small_with(pruned(initial, masks)))
    assert "mask" not in brought_in(tree, ticket="initial").report.dropped
    del tree["init_weight"]
    assert_computes(brought_in(tree), made.small_with(pruned(state, masks)))
    assert '--ticket initial was given and the file has no initial weights (no entry "init_weight")' in refusal(
        tree, ticket="initial"
    )


def test_initial_weights_without_a_head_give_a_backbone_alone() -> None:
    """Self-supervised pretraining (simCLR, MoCo) has no classifier."""
    tree, initial, masks, _ = lth()
    tree["init_weight"] = {key: tensor for key, tensor in initial.items() if not key.startswith("fc.")}
    imported = brought_in(tree, ticket="initial")
    assert imported.network.head is None
    assert set(imported.network.masks()) == set(masks)


def test_faulty_tickets_are_refused() -> None:
    tree, initial, _, _ = lth()
    assert LACKS.search(refusal({**tree, "init_weight": half(initial)}, ticket="initial"))
    torn = {key: tensor for key, tensor in initial.items() if key != "layer1.0.conv1.weight"}
    assert '1 masks have no weight ("layer1.0.conv1.weight")' in refusal(
        {**tree, "init_weight": torn}, ticket="initial"
    )
    broken = {**initial, "conv1.weight": torch.full_like(initial["conv1.weight"], float("inf"))}
    assert "NaN or infinite" in refusal({**tree, "init_weight": broken}, ticket="initial")
    assert brought_in({**tree, "init_weight": broken}, ticket="trained").network.head is not None


def test_a_ticket_of_a_file_that_is_none_is_refused() -> None:
    """Or its trained weights would be taken for the initial ones."""
    module, state = made.small()
    stored = made.prune_by_torch(module, random_masks(state, 0.4)).state_dict()
    for root in (state, stored):
        assert "--ticket was given and the file is no lottery ticket" in refusal(root, ticket="initial")


# --- M-FAC --------------------------------------------------------------------------------------------------------


def lists(state: dict[str, Tensor]) -> dict[str, list[str]]:
    """What papers prune, as methods list them, in the network's order."""
    weights = prunable(state)
    return {
        "the script's": made.mfac_list(state),
        "all": weights,
        "no classifier": [key for key in weights if key != "fc.weight"],
        "no stem": [key for key in weights if key != "conv1.weight"],
        "neither": [key for key in weights if key not in ("conv1.weight", "fc.weight")],
        "every parameter": [key for key in state if "running" not in key and "num_batches" not in key],
    }


@pytest.mark.parametrize("which", ["the script's", "all", "no classifier", "no stem", "neither", "every parameter"])
def test_a_flat_mask_finds_its_weights_by_its_length(which: str) -> None:
    _, state = made.small()
    chosen = lists(state)[which]
    masks = {key: kept for key, kept in random_masks(state, 0.3).items() if key in chosen}
    imported = brought_in(made.mfac_tree(state, masks, chosen) | {"model": prefixed(state, "module.")})
    assert imported.report.encoding == "mfac"
    found = imported.network.masks()
    assert set(found) == set(masks)
    assert all(torch.equal(found[key], kept) for key, kept in masks.items())
    assert_computes(imported, made.small_with(pruned(state, masks)))
    assert "mask" not in imported.report.dropped


def test_a_flat_mask_that_fits_no_list_gives_way_to_zeros_aloud() -> None:
    _, state = made.small()
    masks = random_masks(state, 0.3)
    tree = {"model": pruned(state, masks), "mask": torch.ones(9, dtype=torch.bool), "epoch": 3}
    report = brought_in(tree).report
    assert report.encoding == "zeros"
    assert report.warnings == (
        '"mask" [9] fits none of the lists of weights that are known: the zeros of the weights decide',
    )
    assert "mask" in report.dropped


def test_a_flat_mask_that_fits_no_list_of_a_dense_network_is_refused() -> None:
    _, state = made.small()
    for mask in (torch.ones(9, dtype=torch.bool), torch.ones(2, 2)):
        assert "fits none of the lists of weights that are known, and the weights hold no zeros" in refusal(
            {"model": state, "mask": mask, "epoch": 3}
        )


def test_a_flat_mask_that_fits_two_lists_is_refused() -> None:
    """Without stem and without classifier, both of 288 weights here, the mask has one length."""
    _, state = made.small()
    state["fc.weight"] = torch.randn(27, 16, generator=torch.Generator().manual_seed(0))
    state["fc.bias"] = torch.zeros(27)
    state["conv1.weight"] = torch.randn(4, 12, 3, 3, generator=torch.Generator().manual_seed(0))
    assert state["fc.weight"].numel() == state["conv1.weight"].numel()
    tree = made.mfac_tree(state, {}, lists(state)["no stem"])
    assert "fits 2 of the lists of weights that are known, and they differ" in refusal(tree)


def test_a_flat_mask_of_other_values_or_over_biases_is_refused() -> None:
    _, state = made.small()
    tree = made.mfac_tree(state, {}, made.mfac_list(state))
    tree["mask"] = torch.full((int(tree["mask"].numel()),), 2, dtype=torch.uint8)  # type: ignore[attr-defined]
    assert 'the mask "mask (of conv1.weight)" has 108 values that are neither 0 nor 1' in refusal(tree)
    everything = lists(state)["every parameter"]
    masks = {"bn1.bias": torch.tensor([True, False, True, True])}
    assert 'masks are for what is no convolution or linear layer ("mask (of bn1.bias)")' in refusal(
        made.mfac_tree(state, masks, everything)
    )


def test_a_mask_of_an_unknown_form_is_never_overlooked() -> None:
    _, state = made.small()
    assert 'its "mask" is neither one flat tensor (M-FAC) nor tensors by name (LTH)' in refusal(
        {"model": state, "mask": [1, 0, 1]}
    )


# --- torch.ao.pruning ---------------------------------------------------------------------------------------------


def sparsified() -> tuple[dict[str, object], nn.Module]:
    module, state = made.small()
    return made.sparsified(module, [key for key in prunable(state) if key.startswith("layer")]), module


def test_a_sparsifiers_state_is_found_under_any_name_and_laid_out_flat() -> None:
    tree, module = sparsified()
    state = tree.pop("sparsifier")
    for more in ({"pruner_state": state}, dict(state)):  # type: ignore[call-overload]
        imported = brought_in({**tree, **more})
        assert imported.report.encoding == "ao_pruning"
        assert_computes(imported, module)
    assert "pruner_state" not in brought_in({**tree, "pruner_state": state}).report.dropped


def test_a_sparsifier_that_saw_the_network_under_dataparallel_comes_in() -> None:
    tree, module = sparsified()
    masks: dict[str, object] = tree["sparsifier"]["state"]  # type: ignore[index,call-overload]
    root = {
        "model": prefixed(tree["model"], "module."),  # type: ignore[arg-type]
        "sparsifier": {"state": {f"module.{key}": entry for key, entry in masks.items()}},
    }
    assert_computes(brought_in(root), module)


def test_parametrised_weights_without_the_sparsifier_are_refused_with_the_reason() -> None:
    tree, _ = sparsified()
    for root in (tree["model"], {"model": tree["model"]}):
        message = refusal(root)
        assert "torch.ao.pruning, which keeps the masks in the sparsifier and not in the model's state dict" in message
        assert "sparsifier.squash_mask()" in message


def test_after_squash_mask_the_zeros_are_the_mask() -> None:
    from torch.nn.utils import parametrize

    _, module = sparsified()
    before = module(pictures()).detach()
    for layer in module.modules():
        if parametrize.is_parametrized(layer):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)  # what squash_mask does
    imported = brought_in(module.state_dict())
    assert imported.report.encoding == "zeros"
    with torch.no_grad():
        torch.testing.assert_close(imported.network(pictures()), before, rtol=1e-4, atol=1e-4)


def test_other_parametrisations_are_refused_by_name() -> None:
    module, _ = made.small()
    torch.nn.utils.parametrizations.weight_norm(module.get_submodule("conv1"))
    message = refusal(module.state_dict())
    assert "2 tensors are parametrisations other than torch.ao.pruning's" in message
    assert "conv1.parametrizations.weight.original0" in message


def test_a_parametrised_weight_without_its_mask_and_a_mask_without_its_weight_are_said() -> None:
    tree, _ = sparsified()
    masks: dict[str, object] = tree["sparsifier"]["state"]  # type: ignore[index,call-overload]
    masks["layer9.weight"] = masks.pop("layer1.0.conv1.weight")
    message = refusal(tree)
    assert '1 parametrised weights have no mask ("layer1.0.conv1.weight")' in message
    assert '1 masks have no weight ("layer9.weight")' in message


# --- Distiller ----------------------------------------------------------------------------------------------------


def test_the_real_distiller_file_has_exactly_its_masks(test_data: Path) -> None:
    """Oracle: torch reads the file."""
    path = test_data / "data" / "weights" / "distiller" / "checkpoint_trained_ch_regularized_dense.pth.tar"
    scheduled = torch.load(path, map_location="cpu", weights_only=True)["compression_sched"]["masks_dict"]
    masks = {key.removeprefix("module."): mask == 1 for key, mask in scheduled.items() if mask is not None}
    assert len(masks) == 7
    imported = import_checkpoint(path)
    found = imported.network.masks()
    assert set(found) == set(masks)
    assert all(torch.equal(found[key], kept) for key, kept in masks.items())
    assert imported.report.encoding == "distiller"
    assert imported.report.encoding_because == '7 masks in "compression_sched"'
    assert "compression_sched" not in imported.report.dropped


def test_distillers_masks_count_and_not_its_zeros() -> None:
    _, state = made.small()
    masks = {"layer1.0.conv1.weight": random_masks(state, 0.5)["layer1.0.conv1.weight"]}
    state["layer2.0.conv1.weight"][:] = 0
    imported = brought_in(made.distiller_tree(state, masks))
    assert list(imported.network.masks()) == ["layer1.0.conv1.weight"]
    assert_computes(imported, made.small_with(pruned(state, masks)))


def test_distillers_masks_of_biases_that_keep_everything_say_nothing() -> None:
    _, state = made.small()
    masks = {key: random_masks(state, 0.5)[key] for key in ("conv1.weight",)}
    ones = {"fc.bias": torch.ones(CLASSES), "bn1.weight": torch.ones(4)}
    assert brought_in(made.distiller_tree(state, masks | ones)).report.encoding == "distiller"
    ones["bn1.weight"][0] = 0
    assert 'no convolution or linear layer ("compression_sched.masks_dict.module.bn1.weight")' in refusal(
        made.distiller_tree(state, masks | ones)
    )


def test_faulty_schedules_of_distiller_are_refused() -> None:
    _, state = made.small()
    masks = random_masks(state, 0.5)
    tree = made.distiller_tree(state, masks)
    scheduled: dict[str, Tensor | None] = tree["compression_sched"]["masks_dict"]  # type: ignore[index,call-overload]
    scheduled["module.layer9.conv1.weight"] = torch.ones(2, 2)
    assert '1 masks have no weight ("layer9.conv1.weight")' in refusal(tree)
    del scheduled["module.layer9.conv1.weight"]
    scheduled["module.conv1.weight"] = torch.ones(3, 3)
    assert "1 masks have another shape than their weight" in refusal(tree)
    assert LACKS.search(refusal({**tree, "state_dict": half(prefixed(state, "module."))}))


def test_a_schedule_without_masks_is_no_mask() -> None:
    _, state = made.small()
    assert brought_in(made.distiller_tree(state, {})).report.encoding == "dense"


# --- SparseML, GraNet ---------------------------------------------------------------------------------------------


def test_sparsemls_own_tree_comes_in_with_its_recipe_left_out(tmp_path: Path) -> None:
    """Every tensor is float32, counters too; the arguments are an object; a manager keeps the recipe's state."""
    from argparse import Namespace

    module = randomised(ORIGINS["resnet_sparseml"].make(CLASSES))
    honest = pruned(module.state_dict(), random_masks(module.state_dict(), 0.2))
    path = tmp_path / "model.pth"
    tree = {
        "state_dict": {key: tensor.float() for key, tensor in honest.items()},
        "optimizer": {"state": {}, "param_groups": []},
        "loss_scaler": None,
        "epoch": -1,
        "manager": {"version": "1.1.0", "modifiers": {}},
        "recipe": "modifiers:\n  - !GMPruningModifier\n    params: __ALL_PRUNABLE__\n",
        "arch_key": "resnet18",
        "args": Namespace(lr=0.1),
    }
    torch.save(tree, path)
    imported = import_checkpoint(path)
    module.load_state_dict(honest)
    assert_computes(imported, module, 33)
    assert imported.report.stand_ins == ("argparse.Namespace",)
    assert {"manager", "recipe", "args", "optimizer"} <= set(imported.report.dropped)
    assert 'the file calls its network "resnet18"' in imported.report.notes


def test_sparsemls_resnet_v2_is_no_network_of_ours() -> None:
    state = dict(ORIGINS["resnet_sparseml"].make(3).state_dict())
    state["sections.1.0.identity.weight"] = state.pop("sections.1.0.identity.conv.weight")
    assert '1 tensors fit no layer of resnet18 ("sections.1.0.identity.weight")' in refusal(state)
    short = {key: tensor for key, tensor in state.items() if not key.startswith("sections.3.")}
    assert "no network of it has sections of 2, 2, 2 blocks of 2 convolutions" in refusal(short)


def test_sparsemls_mobilenet_with_a_section_missing_is_said() -> None:
    state = dict(ORIGINS["mobilenet_sparseml"].make(3).state_dict())
    short = {key: tensor for key, tensor in state.items() if not key.startswith("sections.4.")}
    assert "no network of it has sections of 1, 2, 2, 6 separable blocks" in refusal(short)


def test_observers_of_quantisation_are_left_out_with_a_warning(tmp_path: Path) -> None:
    imported = import_checkpoint(made.observed(tmp_path).path)
    assert imported.report.warnings == (
        "the network was trained to be quantised: its float weights are taken, without the rounding",
    )
    left_out = [key for key, why in imported.report.dropped.items() if why == "an observer of quantisation"]
    assert "conv1.weight_fake_quant.scale" in left_out
    assert "bn1.activation_post_process.zero_point" in left_out
    assert not any(key.endswith((".weight", ".running_mean")) for key in left_out)


def test_a_granet_file_has_its_zeros_in_the_weights(tmp_path: Path) -> None:
    imported = import_checkpoint(made.plain(tmp_path).path)
    assert (imported.report.encoding, imported.report.container) == ("zeros", "torch-zip")
    assert set(imported.report.dropped) == {"epoch", "arch", "best_prec1", "optimizer"}
