"""TensorFlow's networks: bundles and tfjs under RigL's, Keras' and TF-slim's names, with masks, gates or zeros."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sparse_transfer.checkpoints.formats import key_families
from sparse_transfer.checkpoints.formats.tf_gates import gate_l0, kept_variational
from sparse_transfer.checkpoints.formats.tf_names import levelled
from sparse_transfer.checkpoints.importing import Imported, import_checkpoint
from sparse_transfer.core.errors import UserError
from support.foreign_tf import (
    FAMILIES,
    Graph,
    KerasMobileNet,
    RiglMobileNet,
    RiglResNet50,
    SlimMobileNet,
    bundle,
    doubled,
    random_masks,
    tfjs,
    trained,
    with_log_alpha,
    with_log_sigma2,
    with_masks,
)

SMALL = {name: family for name, family in FAMILIES.items() if name != "resnet_tf"}


def pictures(size: int) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(5))


def check_equal(found: Imported, graph: Graph) -> None:
    """Oracle: the graph, whose sums are other convolutions in another order of memory."""
    images = pictures(graph.size)
    with torch.no_grad():
        expected = graph(images)
        torch.testing.assert_close(found.network(images), expected, rtol=1e-4, atol=2e-5 * float(expected.abs().max()))
    found.network.backbone.mask.audit(found.network.backbone.module)


def rigl(folder: Path, change: Callable[[dict[str, Tensor]], object] = dict) -> Path:
    """A RigL MobileNet with masks on its pointwise convolutions and its head, after a change."""
    graph = RiglMobileNet()
    variables = with_masks(graph, random_masks(graph, names=[n for n in graph.kernels if n.endswith("/weights")]))
    change(variables)
    return bundle(folder / "model.ckpt-1", variables)


# --- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["tf_mask", "zeros", "dense"])
@pytest.mark.parametrize("name", sorted(SMALL))
def test_an_imported_network_computes_what_its_origin_computes(name: str, encoding: str, tmp_path: Path) -> None:
    graph = SMALL[name].make()
    masks = {} if encoding == "dense" else random_masks(graph)
    if encoding == "zeros":
        graph.variables |= {kernel: graph.variables[kernel] * kept for kernel, kept in masks.items()}
    variables = with_masks(graph, masks) if encoding == "tf_mask" else graph.variables
    found = import_checkpoint(bundle(tmp_path / "model.ckpt-9", trained(variables)))
    assert str(found.network.backbone.architecture) == SMALL[name].architecture
    assert found.origin.format == f"{encoding}/{name}"
    assert found.network.backbone.preprocessing.interpolation == SMALL[name].interpolation
    assert sum(int((~kept).sum()) for kept in found.network.masks().values()) == (
        sum(int((~kept).sum()) for kept in masks.values())
        - (int((~masks[SlimMobileNet.head][..., 0]).sum()) if masks and name == "mobilenet_slim" else 0)
    )
    check_equal(found, graph)


def test_rigl_s_resnet50_computes_what_its_graph_computes(tmp_path: Path) -> None:
    """With a dense stem, as uniform sparsity has it, whose scope stands twice; the projection's BatchNorm is first."""
    graph = RiglResNet50()
    stem = "resnet_model/initial_conv"
    masks = random_masks(graph, names=[name for name in graph.kernels if not name.startswith(stem)])
    variables = doubled(with_masks(graph, masks), stem)
    assert f"{stem}/initial_conv/weights" in variables
    found = import_checkpoint(bundle(tmp_path / "model.ckpt-32000", variables, shards=2, blocks=4, interval=16))
    assert found.origin.format == "tf_mask/resnet_tf"
    assert str(found.network.backbone.architecture) == "resnet50,pool=same"
    assert len(found.network.masks()) == 53
    assert "conv1.weight" not in found.network.masks()
    assert "were not 0 where they are pruned, and were set to 0" in found.report.masks
    check_equal(found, graph)
    mapped = found.report.mapped  # 53 BatchNorms, numbered by hand from research 4.4
    assert mapped["layer1.0.downsample.1.weight"] == "resnet_model/batch_normalization_1/gamma"
    assert mapped["layer2.0.downsample.1.bias"] == "resnet_model/batch_normalization_11/beta"
    assert mapped["layer3.0.downsample.1.running_mean"] == "resnet_model/batch_normalization_24/moving_mean"
    assert mapped["layer4.0.bn1.running_var"] == "resnet_model/batch_normalization_44/moving_variance"
    assert mapped["layer4.2.bn3.weight"] == "resnet_model/batch_normalization_52/gamma"
    assert mapped["bn1.weight"] == "resnet_model/batch_normalization/gamma"


def test_a_resnet_of_another_depth_is_said_not_to_be_known(tmp_path: Path) -> None:
    graph = RiglMobileNet()
    variables = {
        f"resnet_model/bottleneck_1_block_group{group}_1_1/weights": torch.ones(1, 1, 4, 4) for group in (1, 2)
    }
    with pytest.raises(UserError, match=r'the family "resnet_tf", and no network of it has 1, 1 blocks'):
        import_checkpoint(bundle(tmp_path / "x", graph.variables | variables))


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_the_names_of_tensorflow_are_of_one_family_each(name: str) -> None:
    graph = FAMILIES[name].make()
    shapes = {
        f"{key.rpartition('/')[0]}/weight": tuple(value.shape)
        for key, value in graph.variables.items()
        if value.ndim == 4
    }
    assert [family for family in key_families if key_families.get(family).recognise(shapes) is not None] == [name]


def test_a_head_that_is_not_pruned_is_called_kernel_and_bias(tmp_path: Path) -> None:
    def unpruned(variables: dict[str, Tensor]) -> None:
        for last in ("mask", "threshold"):
            del variables[f"resnet_model/final_dense/{last}"]
        variables["resnet_model/final_dense/kernel"] = variables.pop("resnet_model/final_dense/weights")
        variables["resnet_model/final_dense/bias"] = variables.pop("resnet_model/final_dense/biases")

    network = import_checkpoint(rigl(tmp_path, unpruned)).network
    assert len(network.masks()) == 13
    assert network.head is not None
    assert network.head.kept is None


def test_slim_s_background_is_left_out_and_said(tmp_path: Path) -> None:
    found = import_checkpoint(bundle(tmp_path / "mobilenet.ckpt", SlimMobileNet().variables))
    assert found.report.classes == 1000
    assert any("has the background as its first, which was left out" in line for line in found.report.assumptions)


def test_a_slim_head_for_another_dataset_keeps_all_its_classes(tmp_path: Path) -> None:
    graph = SlimMobileNet(classes=36)
    assert import_checkpoint(bundle(tmp_path / "flowers.ckpt", graph.variables)).report.classes == 37


# --- what else a checkpoint holds ---------------------------------------------------------------------------------


def test_slots_averages_and_counters_are_left_out_with_the_reason(tmp_path: Path) -> None:
    graph = RiglMobileNet()
    masks = random_masks(graph, names=["resnet_model/contraction_1x1_0/weights"])
    variables = trained(with_masks(graph, masks))
    report = import_checkpoint(bundle(tmp_path / "x", variables)).report
    assert sorted({*report.mapped.values(), *report.dropped, *(n for n in variables if n.endswith("/mask"))}) == sorted(
        variables
    )
    scope = "resnet_model/contraction_1x1_0"
    assert report.dropped[f"{scope}/weights/Momentum"] == "an optimiser's state"
    assert report.dropped[f"{scope}/weights/ExponentialMovingAverage"].startswith("averaged weights")
    for name in (f"{scope}/threshold", "global_step", "last_mask_update_step", "is_snipped"):
        assert report.dropped[name] == "a number of the training (step, threshold)"


def test_scopes_that_stand_twice_are_levelled() -> None:
    assert levelled("resnet_model/initial_conv/initial_conv") == "resnet_model/initial_conv"
    assert levelled("a/a/a") == "a"
    assert levelled("conv1/conv1_bn") == "conv1/conv1_bn"
    assert levelled("a") == "a"


# --- how sparsity is written --------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [with_log_sigma2, with_log_alpha])
def test_gates_prune_as_state_of_sparsity_evaluates(write: Callable[..., tuple[dict, int]], tmp_path: Path) -> None:
    graph = RiglMobileNet()
    variables, pruned = write(graph, [name for name in graph.kernels if name.endswith("/weights")])
    found = import_checkpoint(bundle(tmp_path / "model.ckpt-1", variables))
    assert 0.2 < found.report.sparsities.masked.sparsity < 0.8
    assert found.report.sparsities.masked.zeros == pruned
    assert "masks computed from log_" in found.report.masks
    assert any(line.startswith("a weight counts") for line in (*found.report.assumptions, *found.report.notes))
    check_equal(found, graph)


def test_a_weight_counts_below_log_alpha_one_half_by_hand() -> None:
    theta = torch.tensor([1.0, 1.0, 1.0, 0.1, 0.0])  # log θ²: 0, 0, 0, -4.6, -18.4
    log_sigma2 = torch.tensor([0.4, 0.6, float("nan"), -4.0, -18.0])
    kept = kept_variational(theta, log_sigma2)
    assert kept[:2].tolist() == [1, 0]
    assert bool(kept[2].isnan())
    assert kept[3:].tolist() == [0, 1]  # log α = 0.6 and 0.4


def test_gates_of_l0_by_hand() -> None:
    gates = gate_l0(torch.tensor([0.0, 5.0, -5.0]))  # sigmoid 0.5, 0.9933, 0.0067
    assert gates.tolist() == pytest.approx([0.5, 1.0, 0.0])  # 0.5·1.2 - 0.1, above 1, below 0


@pytest.mark.parametrize("write", [with_log_sigma2, with_log_alpha])
def test_a_gate_that_is_nan_is_refused_by_name(write: Callable[..., tuple[dict, int]], tmp_path: Path) -> None:
    graph = RiglMobileNet()
    variables, _ = write(graph, ["resnet_model/contraction_1x1_3/weights"])
    second = next(name for name in variables if "/log_" in name)
    variables[second].view(-1)[:2] = torch.nan
    with pytest.raises(UserError, match=r'contraction_1x1_3/log_\w+" has 2 values that are neither 0 nor 1'):
        import_checkpoint(bundle(tmp_path / "x", variables))


@pytest.mark.parametrize("write", [with_log_sigma2, with_log_alpha])
def test_a_gate_of_another_shape_is_refused_before_it_is_read(
    write: Callable[..., tuple[dict, int]], tmp_path: Path
) -> None:
    graph = RiglMobileNet()
    variables, _ = write(graph, ["resnet_model/contraction_1x1_3/weights"])
    second = next(name for name in variables if "/log_" in name)
    variables[second] = torch.zeros(3)
    with pytest.raises(UserError, match=r"1 masks have another shape than their weight"):
        import_checkpoint(bundle(tmp_path / "x", variables))


# --- faults -------------------------------------------------------------------------------------------------------

LAYER = "resnet_model/contraction_1x1_4"


def without_mask(variables: dict[str, Tensor]) -> None:
    del variables[f"{LAYER}/mask"]


def without_weights(variables: dict[str, Tensor]) -> None:
    del variables["resnet_model/final_dense/weights"]


def mask_of_another_shape(variables: dict[str, Tensor]) -> None:
    variables[f"{LAYER}/mask"] = variables[f"{LAYER}/mask"][..., :3]


def mask_of_halves(variables: dict[str, Tensor]) -> None:
    variables[f"{LAYER}/mask"][0, 0, 0, :4] = 0.5


def weights_not_finite(variables: dict[str, Tensor]) -> None:
    variables[f"{LAYER}/weights"][0, 0, 0, :3] = torch.inf


def weights_of_another_shape(variables: dict[str, Tensor]) -> None:
    for last in ("weights", "mask"):
        variables[f"{LAYER}/{last}"] = variables[f"{LAYER}/{last}"].repeat(3, 3, 1, 1)


def half_of_the_keys(variables: dict[str, Tensor]) -> None:
    for name in [n for n in variables if "batch_normalization" in n][::2]:
        del variables[name]


def twice_the_same(variables: dict[str, Tensor]) -> None:
    variables[f"{LAYER}/kernel"] = variables[f"{LAYER}/weights"]


def a_stranger(variables: dict[str, Tensor]) -> None:
    variables["resnet_model/se/squeeze/weights"] = torch.ones(3, 3)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without_mask, rf'1 pruned layers have no mask \("{LAYER}"\)'),
        (without_weights, r'1 variables go with a weight that is not there \("resnet_model/final_dense/mask"\)'),
        (mask_of_another_shape, rf'1 masks have another shape than their weight \("{LAYER}/mask"\)'),
        (mask_of_halves, rf'the mask "{LAYER}/mask" has 4 values that are neither 0 nor 1'),
        (weights_not_finite, rf'"{LAYER}/weights" has 3 values that are NaN or infinite'),
        (weights_of_another_shape, rf'"{LAYER}/weights" is \[3, 3, 64, 64\], not \[64, 64, 1, 1\]'),
        (half_of_the_keys, r"54 tensors of mobilenet_v1,width=0\.25 are missing"),
        (
            twice_the_same,
            rf'"{LAYER}/weights" and "{LAYER}/kernel" are the same tensor|"{LAYER}/kernel" and "{LAYER}/w',
        ),
        (a_stranger, r'1 tensors fit no layer of mobilenet_v1,width=0\.25 \("resnet_model/se/squeeze/weights"\)'),
    ],
)
def test_what_does_not_fit_is_said_by_name(
    change: Callable[[dict[str, Tensor]], None], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        import_checkpoint(rigl(tmp_path, change))
    assert "\n" not in str(caught.value)


def test_a_grown_weight_that_is_0_stays_kept(tmp_path: Path) -> None:
    def grown(variables: dict[str, Tensor]) -> None:
        variables[f"{LAYER}/mask"].view(-1)[5] = 1
        variables[f"{LAYER}/weights"].view(-1)[5] = 0

    before = import_checkpoint(rigl(tmp_path)).report.sparsities
    found = import_checkpoint(rigl(tmp_path, grown))
    assert found.report.sparsities.trained_zeros == 1
    assert before.masked.zeros - found.report.sparsities.masked.zeros <= 1


def test_tensors_numbered_by_tensorflow_2_are_refused_with_a_way_out(tmp_path: Path) -> None:
    from support.foreign_tf import HEADER, entry, raw, table

    names = [f"layer_with_weights-{i}/kernel/.ATTRIBUTES/VARIABLE_VALUE" for i in range(9)]
    data = [raw(torch.ones(3)) for _ in names]
    pairs = [(b"", HEADER), (b"_CHECKPOINTABLE_OBJECT_GRAPH", entry(7, (), 0, 108, b"abc"))]
    pairs += [
        (name.encode(), entry(1, (3,), 0, 12 * i, piece))
        for i, (name, piece) in enumerate(zip(names, data, strict=True))
    ]
    (tmp_path / "ckpt-1.index").write_bytes(table(pairs))
    (tmp_path / "ckpt-1.data-00000-of-00001").write_bytes(b"".join(data) + b"abc")
    with pytest.raises(UserError, match=r"named by their place in a program \(TensorFlow 2\).*; save the model with"):
        import_checkpoint(tmp_path / "ckpt-1.index")


# --- tfjs and real files ------------------------------------------------------------------------------------------


def test_quantised_shards_come_in_restored(tmp_path: Path) -> None:
    """uint8 with a scale and a minimum for each weight, as tensorflowjs_converter --quantize_uint8 writes."""
    graph = KerasMobileNet()
    path = tfjs(tmp_path, graph.variables, groups=1, shard_bytes=1 << 30)
    model = json.loads(path.read_text())
    data = b""
    for weight in model["weightsManifest"][0]["weights"]:
        value = graph.variables[weight["name"]]
        low, scale = float(value.min()), float(value.max() - value.min()) / 255
        stored = ((value - low) / scale).round().to(torch.uint8)
        graph.effective[weight["name"]] = stored.float() * scale + low
        weight["quantization"] = {"dtype": "uint8", "scale": scale, "min": low, "original_dtype": "float32"}
        data += stored.numpy().tobytes()
    (tmp_path / "group1-shard1of1.bin").write_bytes(data)
    path.write_text(json.dumps(model))
    check_equal(import_checkpoint(tmp_path), graph)


def test_the_sha256_of_several_files_is_of_all_of_them(tmp_path: Path) -> None:
    import hashlib

    path = rigl(tmp_path)
    found = import_checkpoint(path)
    data = path.with_name("model.ckpt-1.data-00000-of-00001")
    assert found.origin.sha256 == hashlib.sha256(path.read_bytes() + data.read_bytes()).hexdigest()
    assert found.origin.file == "model.ckpt-1.index"


def test_google_s_mobilenet_comes_in_from_its_shards(test_data: Path, tmp_path: Path) -> None:
    """Its accuracy is measured in tests/models/test_published_weights.py."""
    folder = test_data / "data/weights/mobilenet/tfjs_v1_1.0_224"
    found = import_checkpoint(folder)
    assert found.origin.format == "dense/mobilenet_keras"
    assert str(found.network.backbone.architecture) == "mobilenet_v1,flavour=tf"
    assert found.report.sparsities.total.size == 4_231_976
    shutil.copytree(folder, tmp_path / "cut")
    for file in (tmp_path / "cut").iterdir():
        file.chmod(0o644)
    (tmp_path / "cut/group3-shard1of1").write_bytes(b"1234")
    with pytest.raises(UserError, match=r"group3-shard1of1"):
        import_checkpoint(tmp_path / "cut")


def test_a_real_lenet_of_tensorflow_1_has_no_family_and_no_slots(test_data: Path) -> None:
    with pytest.raises(UserError, match=r'no known network has these 10 tensors \("Variable", "Variable_1"'):
        import_checkpoint(test_data / "data/weights/tf1_bundle/saved_model/variables/variables.index")
