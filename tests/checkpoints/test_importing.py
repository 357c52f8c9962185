"""Importing: what comes in is the network that its authors' own code runs, or a sentence that says why not."""

import random
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sparse_transfer.checkpoints.file import load, save
from sparse_transfer.checkpoints.formats import encodings, key_families
from sparse_transfer.checkpoints.importing import Imported, Said, import_checkpoint, import_container
from sparse_transfer.core.errors import UserError
from sparse_transfer.models import Architecture, Preprocessing
from sparse_transfer.sparsity import prunable_weights
from support import foreign, foreign_tf
from support.foreign import ORIGINS, container, ist, prefixed, pruned, random_masks, randomised, wrapped

CLASSES = 7


def brought_in(root: object, **said: object) -> Imported:
    return import_container(container(root), "0" * 64, Said(**said))  # type: ignore[arg-type]


def cifar(seed: int = 0) -> tuple[nn.Module, dict[str, Tensor]]:
    """The smallest network: Distiller's ResNet-20 at a quarter of its width."""
    module = randomised(ORIGINS["resnet_cifar_distiller"].make(CLASSES), seed)
    return module, {key: tensor.clone() for key, tensor in module.state_dict().items()}


def pictures(size: int) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(5))


def loaded(module: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    if isinstance(module, foreign.ConvHead):
        state = {key if key.startswith("fc.") else f"body.{key}": tensor for key, tensor in state.items()}
    module.load_state_dict(dict(state))
    return module.eval()


# --- the contract of every format ---------------------------------------------------------------------------------


def test_every_family_of_names_has_a_network_in_these_tests() -> None:
    assert len(key_families) >= 9
    assert set(key_families) == set(ORIGINS) | set(foreign_tf.FAMILIES)  # those in test_tf.py


@pytest.mark.parametrize("encoding", ["ist_wrapped", "zeros", "dense"])
@pytest.mark.parametrize("name", sorted(ORIGINS))
def test_an_imported_network_computes_what_its_origin_computes(name: str, encoding: str) -> None:
    """Oracle: the origin's own definition, run with zeros where the masks say so."""
    origin = ORIGINS[name]
    for package in origin.needs:
        pytest.importorskip(package)
    module = randomised(origin.make(CLASSES))
    state = dict(module.state_dict())
    masks = {} if encoding == "dense" else random_masks(state, 0.4)
    honest = pruned(state, masks)
    # An IST file may hold anything where its mask is 0; the others have their zeros in the weights.
    stored = wrapped(state, masks) if encoding == "ist_wrapped" else honest
    said = {"architecture": Architecture.parse(origin.given)} if origin.given else {}
    imported = brought_in(ist(prefixed(stored, "module."), origin.arch), **said)

    assert str(imported.network.backbone.architecture) == origin.architecture
    assert imported.report.encoding == encoding
    assert imported.report.family == name
    assert imported.origin.format == f"{encoding}/{name}"
    images = pictures(origin.size)
    with torch.no_grad():
        expected = loaded(module, honest)(images)
        found = imported.network(images)
    # The same sums in the same order but for the head, whose 1×1 convolution becomes a linear layer.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    zeros = sum(int((~kept).sum()) for kept in masks.values())
    assert sum(int((~kept).sum()) for kept in imported.network.masks().values()) == zeros
    imported.network.backbone.mask.audit(imported.network.backbone.module)


@pytest.mark.parametrize("name", sorted(ORIGINS))
def test_every_key_of_the_file_is_accounted_for_exactly_once(name: str) -> None:
    origin = ORIGINS[name]
    for package in origin.needs:
        pytest.importorskip(package)
    state = dict(origin.make(CLASSES).state_dict())
    stored = wrapped(state, random_masks(state, 0.5))
    said = {"architecture": Architecture.parse(origin.given)} if origin.given else {}
    report = brought_in(ist(stored, origin.arch), **said).report
    masks = [key for key in stored if key.endswith("_weight_mask")]
    taken = list(report.mapped.values())
    dropped = [key for key in report.dropped if key in stored]
    assert sorted([*taken, *dropped, *masks]) == sorted(stored)
    assert len(set(report.mapped)) == len(taken)


def test_no_two_families_take_the_same_keys() -> None:
    seen = 0
    for name, origin in ORIGINS.items():
        if origin.needs or origin.given:
            continue
        shapes = {key: tuple(tensor.shape) for key, tensor in origin.make(3).state_dict().items()}
        taking = [other for other in key_families if key_families.get(other).recognise(shapes) is not None]
        assert taking == [name]
        seen += 1
    assert seen >= 8


def test_every_format_says_where_its_facts_are_from() -> None:
    records = [encodings.get(name) for name in encodings] + [key_families.get(name) for name in key_families]
    assert len(records) >= 11
    assert [record for record in records if len(record.cite) < 10] == []


# --- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "fp16"])
def test_an_imported_file_keeps_one_digest_through_save_load_and_import(tmp_path: Path, kind: str) -> None:
    _, state = cifar()
    masks = random_masks(state, 0.3)
    path = tmp_path / "grünes Netz.pth"
    if kind == "safetensors":
        save_file({key: tensor.contiguous() for key, tensor in pruned(state, masks).items()}, path)
    elif kind == "fp16":
        halves = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
        torch.save({"state_dict": pruned(halves, masks)}, path)
    else:
        root = ist(prefixed(wrapped(state, masks), "module."), "resnet20_cifar", "cifar10")
        torch.save(root, path, _use_new_zipfile_serialization=kind == "zip")
    imported = import_checkpoint(path, method="test", licence="MIT", classes=list("abcdefg"))
    digest = imported.network.digest()
    for encoding in ("packed", "dense"):
        out = tmp_path / f"{encoding}.safetensors"
        assert save(imported.network, out, encoding=encoding, origin=imported.origin) == digest
        checkpoint = load(out)
        assert checkpoint.digest == checkpoint.network.digest() == digest
        assert checkpoint.origin == imported.origin
        assert checkpoint.origin.licence == "MIT"
        again = import_checkpoint(out)
        assert again.network.digest() == digest
        assert again.origin == imported.origin
        assert again.network.head is not None
        assert again.network.head.classes == tuple("abcdefg")


def test_the_source_files_sha256_is_kept(tmp_path: Path) -> None:
    import hashlib

    path = tmp_path / "net.pth"
    torch.save(cifar()[1], path)
    imported = import_checkpoint(path)
    assert imported.origin.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == imported.report.sha256
    assert imported.origin.file == "net.pth"


def test_import_changes_nothing_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(cifar()[1], path)
    before = path.read_bytes()
    import_checkpoint(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["net.pth"]


def test_a_truncated_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(cifar()[1], path)
    whole = path.read_bytes()
    for length in (0, 1, 10, 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"^.*net\.pth: ") as caught:
            import_checkpoint(path)
        assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"^missing\.pth: "):
        import_checkpoint("missing.pth")


# --- masks --------------------------------------------------------------------------------------------------------


def test_weights_under_a_mask_are_selected_to_zero_and_counted() -> None:
    _, state = cifar()
    masks = random_masks(state, 0.5)
    imported = brought_in(ist(wrapped(state, masks), "resnet20_cifar"))
    stored = sum(int((state[key][~kept] != 0).sum()) for key, kept in masks.items())
    assert f"{stored:,} stored weights in {len(masks)} layers were not 0" in imported.report.masks
    assert imported.network.head is not None
    assert bool((imported.network.head.weight[~masks["fc.weight"]] == 0).all())


def test_a_zero_that_the_mask_keeps_stays_a_kept_weight() -> None:
    """RigL grows connections at 0: they are active."""
    _, state = cifar()
    masks = random_masks(state, 0.5)
    state["layer1.0.conv1.weight"].view(-1)[0] = 0  # kept: random_masks keeps the first
    imported = brought_in(ist(wrapped(state, masks), "resnet20_cifar"))
    assert torch.equal(imported.network.backbone.mask["layer1.0.conv1.weight"], masks["layer1.0.conv1.weight"])
    assert imported.report.sparsities.trained_zeros == 1


def test_all_ones_masks_over_zeros_give_way_to_the_zeros_with_a_warning() -> None:
    """The original's loader wraps an unwrapped sparse file this way; finetuning would fill it silently."""
    _, state = cifar()
    masks = random_masks(state, 0.2)
    imported = brought_in(wrapped(pruned(state, masks)))
    assert imported.report.encoding == "zeros"
    assert dict(imported.network.masks()).keys() == masks.keys()
    assert all(torch.equal(imported.network.masks()[key], kept) for key, kept in masks.items())
    assert imported.report.warnings == (
        "all 22 masks of the file keep everything though its weights hold zeros: zeros count",
    )


def test_all_ones_masks_over_a_dense_network_are_no_masks() -> None:
    imported = brought_in(ist(wrapped(cifar()[1]), "resnet20_cifar"))
    assert imported.report.encoding == "dense"
    assert len(imported.network.masks()) == 0


def test_a_layer_whose_mask_is_all_ones_is_dense_beside_pruned_ones() -> None:
    _, state = cifar()
    masks = {"layer1.0.conv1.weight": random_masks(state, 0.5)["layer1.0.conv1.weight"]}
    imported = brought_in(ist(wrapped(state, masks), "resnet20_cifar"))
    assert list(imported.network.masks()) == ["layer1.0.conv1.weight"]
    assert "1 of 22 prune and 21 are all ones" in imported.report.masks


def test_a_pruned_head_keeps_its_mask() -> None:
    _, state = cifar()
    masks = {"fc.weight": random_masks(state, 0.5)["fc.weight"]}
    head = brought_in(ist(wrapped(state, masks), "resnet20_cifar")).network.head
    assert head is not None
    assert head.kept is not None
    assert torch.equal(head.kept, masks["fc.weight"])


@pytest.mark.parametrize(
    ("share", "is_sparse"), [(0.049, False), (0.051, True)], ids=["just below 5 %", "just above 5 %"]
)
def test_zeros_are_a_mask_from_five_per_cent_on(share: float, is_sparse: bool) -> None:
    """Spread evenly, so that no single tensor has a fifth."""
    _, state = cifar()
    for key in foreign.prunable(state):
        flat = state[key].view(-1)
        flat[: round(share * flat.numel())] = 0
    total = sum(state[key].numel() for key in foreign.prunable(state))
    zeros = sum(int((state[key] == 0).sum()) for key in foreign.prunable(state))
    assert (zeros / total >= 0.05) == is_sparse
    assert (brought_in(state).report.encoding == "zeros") == is_sparse


def test_one_large_tensor_with_a_fifth_of_zeros_is_enough() -> None:
    _, state = cifar()
    flat = state["layer3.0.downsample.0.weight"].view(-1)  # 128 weights: too small to tell
    flat[:64] = 0
    assert brought_in(state).report.encoding == "dense"
    flat = state["layer2.1.conv1.weight"].view(-1)  # 576: too small as well
    flat[:200] = 0
    assert brought_in(state).report.encoding == "dense"
    flat = state["layer3.1.conv1.weight"].view(-1)
    assert flat.numel() == 2304
    flat[: 2304 // 5 + 1] = 0
    assert brought_in(state).report.encoding == "zeros"


def test_too_few_zeros_are_said_and_kept() -> None:
    _, state = cifar()
    state["conv1.weight"].view(-1)[:3] = 0
    report = brought_in(state).report
    assert report.masks.startswith("nothing is pruned (3 of ")
    assert report.sparsities.trained_zeros == 3


# --- claims -------------------------------------------------------------------------------------------------------


def test_a_claim_that_any_way_of_counting_confirms_is_kept() -> None:
    _, state = cifar()
    masks = random_masks(state, 0.2)
    for kept in masks.values():
        kept.view(-1)[:] = torch.arange(kept.numel()) % 5 == 0
    imported = brought_in(ist(wrapped(state, masks), "resnet20_cifar"), sparsity=0.8)
    assert imported.origin.sparsity == imported.report.claimed == 0.8


def test_a_claim_half_a_point_off_is_refused_with_both_numbers() -> None:
    _, state = cifar()
    masks = {key: torch.ones_like(state[key], dtype=torch.bool) for key in foreign.prunable(state)}
    for kept in masks.values():
        kept.view(-1)[:] = torch.arange(kept.numel()) % 2 == 0
    with pytest.raises(UserError) as caught:
        brought_in(ist(wrapped(state, masks), "resnet20_cifar"), sparsity=0.9)
    assert "90.00% is claimed and 50.00% of the weights with a mask" in str(caught.value)
    assert "--sparsity 0.50" in str(caught.value)


def test_a_sparse_network_never_comes_in_dense() -> None:
    _, state = cifar()
    for root in (state, ist(wrapped(state), "resnet20_cifar")):
        with pytest.raises(UserError, match="as it is, the network is dense"):
            brought_in(root, sparsity=0.9)
    assert brought_in(state, sparsity=0.0).report.claimed == 0.0


def test_a_claim_in_per_cent_is_told_the_unit() -> None:
    with pytest.raises(UserError, match=r"a claimed sparsity of 80; it is a share in \[0, 1\): 80 % is 0\.8"):
        import_checkpoint("x.pth", sparsity=80)


# --- what a file may lack, or have wrong --------------------------------------------------------------------------


def test_a_missing_head_gives_a_backbone_alone() -> None:
    _, state = cifar()
    body = {key: tensor for key, tensor in state.items() if not key.startswith("fc.")}
    imported = brought_in(body)
    assert imported.network.head is None
    assert imported.report.classes is None


def test_missing_counters_are_zero_and_said() -> None:
    _, state = cifar()
    old = {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}
    imported = brought_in(old)
    assert int(imported.network.backbone.module.state_dict()["bn1.num_batches_tracked"]) == 0
    assert any("21 BatchNorm counters" in note for note in imported.report.notes)


def test_counters_stored_as_floats_become_integers() -> None:
    """SparseML casts every tensor to float32."""
    _, state = cifar()
    counter = brought_in({key: tensor.float() for key, tensor in state.items()}).network.backbone.module.state_dict()[
        "bn1.num_batches_tracked"
    ]
    assert counter.dtype == torch.int64


def test_half_precision_becomes_float32_and_rounded_zeros_are_mentioned() -> None:
    _, state = cifar()
    halves = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    imported = brought_in(halves)
    assert imported.network.backbone.module.get_parameter("conv1.weight").dtype == torch.float32
    assert any("float16" in note and "rounded to 0" in note for note in imported.report.notes)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_weights_are_rejected_by_name(value: float) -> None:
    _, state = cifar()
    state["layer2.0.conv1.weight"][0, 0, 0, :2] = value
    with pytest.raises(UserError, match=r'"layer2\.0\.conv1\.weight" has 2 values that are NaN or infinite'):
        brought_in(state)


def test_all_problems_are_in_one_message() -> None:
    _, state = cifar()
    del state["layer1.0.conv1.weight"], state["bn1.bias"]
    state["layer3.0.se.weight"] = torch.zeros(4, 4)
    state["layer2.0.conv2.weight"] = torch.zeros(8, 8, 1, 1)
    with pytest.raises(UserError) as caught:
        brought_in(state, architecture=Architecture.parse("resnet20,shortcut=B,width=0.25"))
    message = str(caught.value)
    assert "2 tensors of resnet20,shortcut=B,width=0.25 are missing" in message
    assert '1 tensors fit no layer of resnet20,shortcut=B,width=0.25 ("layer3.0.se.weight")' in message
    assert '"layer2.0.conv2.weight" is [8, 8, 1, 1], not [8, 8, 3, 3]' in message
    assert "\n" not in message


def test_a_block_that_is_missing_is_said() -> None:
    _, state = cifar()
    torn = {key: tensor for key, tensor in state.items() if not key.startswith("layer3.2.")}
    with pytest.raises(UserError, match="no network of it has a 3×3 stem and 3, 3, 2 blocks"):
        brought_in(torn)
    with pytest.raises(UserError, match=r'10 tensors of .* are missing \("layer3\.2\.'):
        brought_in(ist(torn, "resnet20_cifar"), architecture=Architecture.parse("resnet20,shortcut=B,width=0.25"))


def test_a_wrapped_layer_without_its_mask_and_a_mask_without_its_weight_are_said_together() -> None:
    _, state = cifar()
    stored = wrapped(state, random_masks(state, 0.5))
    del stored["layer1.0.conv1._weight_mask"]
    del stored["layer1.1.conv1._layer.weight"]
    with pytest.raises(UserError) as caught:
        brought_in(ist(stored, "resnet20_cifar"))
    assert '1 wrapped layers have no mask ("layer1.0.conv1.weight")' in str(caught.value)
    assert '1 masks have no weight ("layer1.1.conv1.weight")' in str(caught.value)


@pytest.mark.parametrize("value", [0.5, 2.0, -1.0, float("nan")])
def test_a_mask_of_anything_but_0_and_1_is_refused(value: float) -> None:
    _, state = cifar()
    stored = wrapped(state, random_masks(state, 0.5))
    stored["conv1._weight_mask"].view(-1)[3] = value
    with pytest.raises(UserError, match=r'"conv1\._weight_mask" has 1 values that are neither 0 nor 1'):
        brought_in(ist(stored, "resnet20_cifar"))


def test_a_mask_of_another_shape_is_refused() -> None:
    _, state = cifar()
    stored = wrapped(state, random_masks(state, 0.5))
    stored["conv1._weight_mask"] = torch.ones(4, 3)
    with pytest.raises(UserError, match=r'1 masks have another shape than their weight \("conv1\._weight_mask"\)'):
        brought_in(ist(stored, "resnet20_cifar"))


def test_a_bias_mask_that_prunes_is_refused() -> None:
    _, state = cifar()
    stored = wrapped(state, random_masks(state, 0.5))
    stored["fc._bias_mask"][0] = 0
    with pytest.raises(UserError, match=r'"fc\._bias_mask" prunes biases'):
        brought_in(ist(stored, "resnet20_cifar"))


def test_old_files_without_bias_masks_come_in() -> None:
    _, state = cifar()
    imported = brought_in(ist(wrapped(state, random_masks(state, 0.5), bias_masks=False), "resnet20_cifar"))
    assert imported.report.encoding == "ist_wrapped"


def test_quantised_weights_are_refused() -> None:
    _, state = cifar()
    state["conv1.weight"] = torch.ones(4, 3, 3, 3, dtype=torch.int8)
    with pytest.raises(UserError, match=r'"conv1\.weight" is stored as int8: quantised weights are not read yet'):
        brought_in(state)


def test_a_mask_beside_the_weights_is_never_overlooked() -> None:
    _, state = cifar()
    with pytest.raises(UserError, match=r'"mask" \[9\] fits none of the lists of weights'):
        brought_in({"model": state, "mask": torch.ones(9, dtype=torch.bool), "epoch": 3})


def damaged(seed: int) -> object:
    """An IST file with tensors lost, reshaped, of other dtypes, renamed, or replaced by what is no tensor."""
    draw = random.Random(seed)
    name = draw.choice(["resnet_cifar_akamaster", "resnet_cifar_distiller", "mobilenet_str"])
    state: dict[str, object] = dict(ORIGINS[name].make(5).state_dict())
    if draw.random() < 0.5:
        state = dict(wrapped(state, random_masks(state, 0.5)))  # type: ignore[arg-type]
    for _ in range(draw.choice([1, 1, 2, 5])):
        key = draw.choice(list(state))
        match draw.randrange(5):
            case 0:
                del state[key]
            case 1:
                state[key] = torch.zeros([draw.choice([0, 1, 2, 3, 5, 8]) for _ in range(draw.randrange(6))])
            case 2 if isinstance(tensor := state[key], Tensor):
                state[key] = tensor.to(draw.choice([torch.float64, torch.int8, torch.bool, torch.float8_e4m3fn]))
            case 3:
                state[draw.choice(["x", "fc", "a._weight_mask", "fc._layer", "module.", "\0", ""])] = state[key]
            case _:
                state[key] = draw.choice([None, 3, "x", [], {}, True])
    root = ist(state, draw.choice([None, "resnet20", ORIGINS[name].arch]))  # type: ignore[arg-type]
    if draw.random() < 0.3:
        root[draw.choice(["model_config", "mask", "compression_sched", "arch"])] = draw.choice([None, 3, "x", [], {}])
    return root


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_file_is_one_sentence_or_a_network(seed: int) -> None:
    with suppress(UserError):
        imported = brought_in(damaged(seed))
        imported.network.backbone.mask.audit(imported.network.backbone.module)


def test_keys_of_no_known_network_are_listed() -> None:
    with pytest.raises(UserError, match=r'no known network has these 2 tensors \("a\.weight", "b\.weight"\); name it'):
        brought_in({"a.weight": torch.zeros(2, 2), "b.weight": torch.zeros(2, 2)})


def test_a_file_without_weights_says_where_they_were_looked_for() -> None:
    with pytest.raises(UserError, match=r'no network is found among its 2 entries \("epoch", "optimizer"\)'):
        brought_in({"epoch": 3, "optimizer": {}})


# --- prefixes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix",
    ["module.", "module.module.", "_orig_mod.", "module._orig_mod.", "_orig_module.", "model.", "model._orig_mod."],
)
def test_a_wrappers_prefix_that_all_keys_share_is_taken_off(prefix: str) -> None:
    _, state = cifar()
    imported = brought_in(prefixed(state, prefix))
    assert imported.report.prefix == prefix
    assert imported.network.digest() == brought_in(state).network.digest()


def test_a_prefix_on_some_keys_only_is_a_half_matching_file() -> None:
    _, state = cifar()
    state["module.bn1.bias"] = state.pop("bn1.bias")
    with pytest.raises(UserError) as caught:
        brought_in(state)
    assert '("bn1.bias")' in str(caught.value)
    assert '("module.bn1.bias")' in str(caught.value)


def test_mobilenets_own_model_prefix_is_not_a_wrappers() -> None:
    state = dict(ORIGINS["mobilenet"].make(3).state_dict())
    body = {key: tensor for key, tensor in state.items() if not key.startswith("fc.")}
    assert brought_in(body).report.prefix == ""


# --- which network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("projection", [("fc",), ("fc.0", "fc.2")], ids=["v1", "v2"])
def test_mocos_trained_encoder_comes_in_without_its_projection(projection: tuple[str, ...]) -> None:
    """moco/builder.py: encoder_q is trained, encoder_k follows it; fc projects to 128 numbers, in v2 by two layers."""
    module = randomised(foreign.torchvision_resnet18(3))
    body = {key: tensor for key, tensor in module.state_dict().items() if not key.startswith("fc.")}
    heads = {f"{name}.{kind}": torch.randn(2, 2)[: 2 if kind == "weight" else 1] for name in projection
             for kind in ("weight", "bias")}  # fmt: skip
    query = prefixed({**body, **heads}, "module.encoder_q.")
    follower = {key.replace("_q.", "_k."): torch.zeros_like(tensor) for key, tensor in query.items()}
    queue = {"module.queue": torch.randn(128, 5), "module.queue_ptr": torch.tensor([3])}
    imported = brought_in({"epoch": 200, "arch": "resnet18", "state_dict": {**query, **follower, **queue}})

    assert imported.network.head is None
    assert imported.report.prefix == "module.encoder_q."
    for key, tensor in imported.network.tensors().items():
        assert torch.equal(tensor, body[key]), key
    assert imported.report.dropped[f"module.encoder_q.{projection[0]}.weight"] == (
        "MoCo's projection, which is no classifier"
    )
    assert imported.report.dropped["module.queue"] == "MoCo's other encoder"


@pytest.mark.parametrize("place", ["state_dict_ema", "model_ema", "model"])
def test_averaged_weights_come_in_where_they_are_alone(place: str) -> None:
    """torch.optim.swa_utils.AveragedModel: a counter beside the weights, which are under "module."."""
    _, state = cifar()
    averaged = {**prefixed(state, "module."), "n_averaged": torch.tensor(5)}
    imported = brought_in({place: averaged, "epoch": 3})
    assert imported.report.place == place
    assert imported.report.dropped["n_averaged"] == "a counter of averages"
    assert torch.equal(imported.network.tensors()["conv1.weight"], state["conv1.weight"])


def test_averaged_weights_beside_the_trained_ones_are_named_and_left_out() -> None:
    _, state = cifar()
    _, other = cifar(seed=1)
    imported = brought_in({"model": state, "model_ema": {**prefixed(other, "module."), "n_averaged": torch.tensor(5)}})
    assert torch.equal(imported.network.tensors()["conv1.weight"], state["conv1.weight"])
    assert imported.report.dropped["model_ema"] == "averaged weights, another network than the one trained"


def test_inverted_masks_are_refused() -> None:
    """``reverse_mask`` of CV_LTH_Pre-training: 1 where a weight is pruned. Taken as it is, nothing would be left."""
    _, state = cifar()
    masks = random_masks(state, 0.4)
    inverted = {key: ~kept for key, kept in masks.items()}
    nonzero = sum(int((pruned(state, masks)[key] != 0).sum()) for key in masks)
    with pytest.raises(UserError) as caught:
        brought_in(ist(wrapped(pruned(state, masks), inverted), None))
    assert str(caught.value) == (
        f"its {len(masks)} masks keep nothing but zeros and prune {nonzero:,} weights that are not 0: they are"
        " inverted, 1 stands for pruned; save 1 - mask in the place of each"
    )


def test_a_head_with_tensorflows_background_class_is_warned_about() -> None:
    module = randomised(foreign.MobileNet(4, 1001))
    assert brought_in(module.state_dict()).report.warnings == (
        "the head has 1,001 classes: most likely ImageNet's 1,000 with a background class before them, as TensorFlow's"
        " networks have it, which moves every label by one",
    )


def test_many_tensors_with_one_fault_are_one_clause() -> None:
    _, state = cifar()
    small = {key: tensor.to(torch.int8) if tensor.ndim == 4 else tensor for key, tensor in state.items()}
    with pytest.raises(UserError) as caught:
        brought_in(small)
    count = sum(tensor.ndim == 4 for tensor in state.values())
    assert str(caught.value) == (
        f'{count} tensors ("conv1.weight", "layer1.0.conv1.weight", "layer1.0.conv2.weight" and {count - 3} more) are'
        " stored as int8: quantised weights are not read yet; fetch the file again"
    )


def test_the_files_name_for_its_network_is_held_against_its_keys() -> None:
    _, state = cifar()
    with pytest.raises(UserError) as caught:
        brought_in(ist(state, "resnet50"))
    assert 'the file calls its network "resnet50" and its tensors are those of resnet20,' in str(caught.value)
    assert "give --arch resnet20,shortcut=B,width=0.25 to go by the tensors" in str(caught.value)
    with pytest.raises(UserError, match='calls its network "resnet56_cifar" and its tensors are those of resnet20,'):
        brought_in(ist(state, "resnet56_cifar"))
    trusted = brought_in(ist(state, "resnet50"), architecture=Architecture.parse("resnet20"))
    assert str(trusted.network.backbone.architecture) == "resnet20,shortcut=B,width=0.25"


def test_resnet50_and_resnet50_torch_are_one_network() -> None:
    declared = key_families.get("resnet").declared
    assert declared["resnet50"] == declared["resnet50_torch"] == Architecture("resnet50")


def test_an_unknown_name_in_the_file_is_noted() -> None:
    report = brought_in(ist(cifar()[1], "my_own_resnet")).report
    assert 'the file calls its network "my_own_resnet"' in report.notes


def test_arch_of_another_network_is_refused() -> None:
    with pytest.raises(UserError, match=r"its tensors are those of resnet20,.* and --arch says resnet56; leave"):
        brought_in(cifar()[1], architecture=Architecture("resnet56"))


def test_what_tensors_cannot_tell_is_assumed_aloud_unless_it_is_said() -> None:
    state = dict(torch.nn.Module.state_dict(_resnet50_on_meta()))
    zeros = {key: torch.zeros(tensor.shape, dtype=tensor.dtype) for key, tensor in state.items()}
    for key in zeros:
        if zeros[key].ndim >= 2:
            zeros[key].fill_(1)
    report = brought_in(zeros).report
    assert any("give --arch resnet50,stride=v1" in line for line in report.assumptions)
    v1 = brought_in(zeros, architecture=Architecture.parse("resnet50,stride=v1"))
    assert not any("stride" in line for line in v1.report.assumptions)
    assert str(v1.network.backbone.architecture) == "resnet50,stride=v1"
    assert v1.network.digest() != brought_in(zeros).network.digest()
    renamed = brought_in(ist(zeros, "resnet50_rigl")).network.backbone
    assert str(renamed.architecture) == "resnet50,pool=same"
    assert renamed.preprocessing.interpolation == "tf1_bicubic"


def _resnet50_on_meta() -> nn.Module:
    from torchvision.models import resnet50

    with torch.device("meta"):
        return resnet50()


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("wide_resnet50_2", "resnet50,width=2"), ("wide_resnet101_2", "resnet101,width=2"), ("resnet152", "resnet152")],
)
def test_a_wide_resnet_is_told_by_its_middle_convolutions(theirs: str, ours: str) -> None:
    from torchvision.models import get_model

    with torch.device("meta"):
        state = get_model(theirs).state_dict()
    evidence = key_families.get("resnet").recognise({key: tuple(tensor.shape) for key, tensor in state.items()})
    assert evidence is not None
    assert evidence.architecture == Architecture.parse(ours)
    assert ("2 times as wide" in evidence.because) == ("width" in ours)
    assumed = key_families.get("resnet").assumptions(evidence.architecture)
    assert [f"--arch {evidence.architecture.name}," in line for line in assumed] == [True, True]


@pytest.mark.parametrize("channels", [32 * 4, 65, 64 * 17])
def test_middle_convolutions_of_groups_or_odd_widths_fit_no_network(channels: int) -> None:
    """Of ResNeXt's 128 channels each reads four."""
    inputs = 4 if channels == 128 else channels
    state = {key: torch.empty(tensor.shape) for key, tensor in _resnet50_on_meta().state_dict().items()}
    state["layer1.0.conv2.weight"] = torch.empty(channels, inputs, 3, 3)
    with pytest.raises(UserError, match=rf"1 tensors have another shape than in resnet50 \(first: .*\[{channels}, "):
        brought_in(state)


def test_preprocessing_travels_with_the_format() -> None:
    distiller = brought_in(cifar()[1])
    assert distiller.network.backbone.preprocessing == Preprocessing(
        resize=32, crop=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    )
    akamaster = brought_in(dict(ORIGINS["resnet_cifar_akamaster"].make(3).state_dict()))
    assert akamaster.network.backbone.preprocessing == Preprocessing(resize=32, crop=32)
    mine = Preprocessing(resize=40, crop=36)
    said = brought_in(cifar()[1], preprocessing=mine)
    assert said.network.backbone.preprocessing == said.report.preprocessing == mine


# --- heads --------------------------------------------------------------------------------------------------------


def test_a_linear_head_alone_joins_its_backbone(tmp_path: Path) -> None:
    module, state = cifar()
    base = tmp_path / "base.safetensors"
    masks = random_masks(state, 0.3)
    save(brought_in(ist(wrapped(state, masks), "resnet20_cifar")).network, base)
    path = tmp_path / "seed_21.pth"
    weight, bias = torch.randn(37, 16), torch.randn(37)
    torch.save(ist({"weight": weight, "bias": bias}, "linear", "pets"), path)
    imported = import_checkpoint(path, backbone=base, classes=[f"pet {number}" for number in range(37)])
    images = pictures(16)
    with torch.no_grad():
        body = loaded(module, pruned(state, masks))
        body.add_module("fc", nn.Identity())
        expected = body(images) @ weight.T + bias
        torch.testing.assert_close(imported.network(images), expected, rtol=1e-4, atol=1e-4)
    assert imported.network.backbone.digest() == load(base).backbone.digest()
    assert imported.report.warnings == ()


def test_a_head_alone_without_its_backbone_says_what_is_missing() -> None:
    with pytest.raises(UserError, match=r"a linear head alone \(weight \[37, 16\]\); name .* with --backbone"):
        brought_in({"weight": torch.zeros(37, 16), "bias": torch.zeros(37)})


def test_what_is_said_about_a_head_alone_is_held_against_its_network_or_refused(tmp_path: Path) -> None:
    state = cifar()[1]
    base = tmp_path / "base.safetensors"
    whole = brought_in(ist(wrapped(state, random_masks(state, 0.3)), "resnet20_cifar"), method="AC/DC")
    save(whole.network, base, origin=whole.origin)
    head = {"weight": torch.randn(37, 16), "bias": torch.zeros(37)}
    counts = brought_in(head, backbone=base).report.sparsities

    report = brought_in(head, backbone=base, sparsity=counts.masked.sparsity).report
    assert (report.method, report.claimed) == ("AC/DC", counts.masked.sparsity)
    assert brought_in(head, backbone=base, method="RigL").report.method == "RigL"
    assert brought_in(head, backbone=base, architecture=whole.network.backbone.architecture).report.warnings == ()
    with pytest.raises(UserError, match=r"2:4 is claimed and .* layers keep more than that"):
        brought_in(head, backbone=base, nm=(2, 4))
    with pytest.raises(UserError, match=r"its backbone is resnet20,.* and --arch says resnet56; leave --arch out"):
        brought_in(head, backbone=base, architecture=Architecture("resnet56"))
    with pytest.raises(UserError, match="--ticket was given and the file is no lottery ticket"):
        brought_in(head, backbone=base, ticket="trained")


def test_a_head_alone_whose_mask_would_be_lost_is_refused(tmp_path: Path) -> None:
    root = {
        "state_dict": {"weight": torch.randn(3, 16), "bias": torch.zeros(3)},
        "compression_sched": {"masks_dict": {"weight": (torch.rand(3, 16) < 0.5).float()}},
    }
    with pytest.raises(UserError, match="the head alone has a mask, which is not read"):
        brought_in(root, backbone=tmp_path / "any.safetensors")


def test_a_head_of_another_width_than_the_backbone_is_refused(tmp_path: Path) -> None:
    base = tmp_path / "base.safetensors"
    save(brought_in(cifar()[1]).network, base)
    with pytest.raises(UserError, match=r"the head reads \[2048\] features and .* gives 16"):
        brought_in({"weight": torch.zeros(37, 2048), "bias": torch.zeros(37)}, backbone=base)


def test_a_backbone_for_a_file_that_has_one_is_refused() -> None:
    with pytest.raises(UserError, match="the file has a backbone of its own"):
        brought_in(cifar()[1], backbone=Path("base.safetensors"))


def test_a_head_whose_class_count_is_not_the_datasets_is_warned_about() -> None:
    report = brought_in(ist(cifar()[1], "resnet20_cifar", "pets")).report
    assert report.warnings == ('the file says its head is for "pets", which has 37 classes, and the head has 7',)


def test_too_few_class_names_are_refused() -> None:
    with pytest.raises(UserError, match="2 class names for a head of 7 classes"):
        brought_in(cifar()[1], classes=("a", "b"))


# --- ours ---------------------------------------------------------------------------------------------------------


def test_a_checkpoint_of_ours_takes_what_is_said_about_it(tmp_path: Path) -> None:
    first = brought_in(cifar()[1], method="AC/DC")
    path = tmp_path / "ours.safetensors"
    save(first.network, path, origin=first.origin)
    again = import_checkpoint(path, licence="Apache-2.0", classes=list("tuvwxyz"))
    assert again.network.digest() == first.network.digest()
    assert again.origin.method == again.report.method == "AC/DC"
    assert again.origin.licence == "Apache-2.0"
    assert again.network.head is not None
    assert again.network.head.classes == tuple("tuvwxyz")
    with pytest.raises(UserError, match=r"ours\.safetensors: it holds resnet20,.* and --arch says resnet56"):
        import_checkpoint(path, architecture="resnet56")
    with pytest.raises(UserError, match="--ticket was given and the file is no lottery ticket: it is a checkpoint of"):
        import_checkpoint(path, ticket="initial")


# --- the report ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet_cifar_akamaster", "resnet_cifar_distiller"])
def test_a_mean_and_std_that_are_given_take_the_place_of_what_was_assumed_of_them(name: str) -> None:
    state = dict(randomised(ORIGINS[name].make(37)).state_dict())
    imported = brought_in(ist(wrapped(state, random_masks(state, 0.3)), "resnet20", "pets"))
    assert sum("mean and std" in text for text in imported.report.assumptions) == 2
    given = imported.normalised_by((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)).report.render()
    assert "mean 0.1, 0.2, 0.3, std 0.4, 0.5, 0.6" in given
    assert "mean and std" not in given
    assert "normalise" not in given


def test_the_report_fits_a_terminal_and_is_json() -> None:
    import json

    _, state = cifar()
    root = ist(prefixed(wrapped(state, random_masks(state, 0.5)), "module."), "resnet20_cifar", "pets", optimizer={})
    report = brought_in(root, method="AC/DC", licence="Apache-2.0").report
    assert max(map(len, report.render().splitlines())) <= 100
    assert json.loads(json.dumps(report.to_json()))["family"]["name"] == "resnet_cifar_distiller"
    for words in ("resnet20", "22 of 22 prune", "warning", "assumed", "optimizer", "Apache-2.0"):
        assert words in report.render()


# --- real files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "architecture", "zeros"),
    [
        ("cifar/resnet20-12fca82f.th", "resnet20", 0),
        ("cifar/resnet56-4bfd9763.th", "resnet56", 0),
        ("distiller/checkpoint_trained_ch_regularized_dense.pth.tar", "resnet20,shortcut=B", 24_048),
        ("woodfisher/resnet20_cifar10.pth.tar", "resnet20,shortcut=B", 0),
    ],
)
def test_real_files_classify_real_pictures(test_data: Path, file: str, architecture: str, zeros: int) -> None:
    """Oracle: the accuracy that the files' own page states (over 91 % of CIFAR-10's test pictures), on 200 of them."""
    imported = import_checkpoint(test_data / "data" / "weights" / file)
    assert str(imported.network.backbone.architecture) == architecture
    assert imported.report.sparsities.prunable.zeros == zeros
    assert imported.network.head is not None
    images, labels = _cifar10(test_data, imported.network.backbone.preprocessing)
    with torch.no_grad():
        found = imported.network(images).argmax(1)
    # 91.7 % of 200 pictures has a standard error of 2 points: 84 % is four of them below.
    assert float((found == labels).float().mean()) > 0.84


def _cifar10(test_data: Path, wanted: Preprocessing) -> tuple[Tensor, Tensor]:
    import numpy as np

    file = np.load(test_data / "data" / "cifar10_small.npz")
    pictures, labels = torch.from_numpy(file["x_test"][:200]), torch.from_numpy(file["y_test"][:200])
    scaled = pictures.permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (wanted.mean, wanted.std))
    return (scaled - mean) / std, labels.long()


def test_prunable_weights_of_a_skeleton_are_those_of_the_network() -> None:
    network = brought_in(cifar()[1]).network
    assert not any(weight.is_meta for weight in prunable_weights(network.backbone.module).values())
