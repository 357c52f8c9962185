"""ONNX graphs come in as the networks that torch exported, layer by layer; anything else is refused in a sentence."""

import hashlib
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sparse_transfer.checkpoints.importing import import_checkpoint
from sparse_transfer.checkpoints.readers.container import LazyTensor
from sparse_transfer.checkpoints.readers.opening import open_container
from sparse_transfer.core.errors import UserError
from support.foreign import (
    CifarResNet,
    MobileNet,
    RiglResNet50,
    pruned,
    random_masks,
    randomised,
    str_resnet18,
    torchvision_resnet18,
)
from support.foreign_onnx import Operation, entry, exported, model, node, outside, rewritten, tensor

WEIGHT = torch.arange(24.0).reshape(4, 3, 1, 2)


def resnet50(classes: int) -> nn.Module:
    from torchvision.models import resnet50 as build

    return build(num_classes=classes)


def sparse(module: nn.Module) -> nn.Module:
    """The module with three fifths of each layer at 0."""
    state = nn.Module.state_dict(randomised(module))  # STR's here has names of its own
    module.load_state_dict(pruned(state, random_masks(state, 0.4)))
    return module


def pictures(size: int = 64) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(5))


def refusal(path: Path, **said: object) -> str:
    with pytest.raises(UserError) as caught:
        import_checkpoint(path, **said)  # type: ignore[arg-type]
    return str(caught.value).removeprefix(f"{path}: ")


# --- torch's exporter ---------------------------------------------------------------------------------------------


def small_mobilenet(classes: int) -> nn.Module:
    return MobileNet(4, classes)


@pytest.mark.parametrize(
    ("make", "architecture", "folded"),
    [
        (torchvision_resnet18, "resnet18", True),
        (torchvision_resnet18, "resnet18", False),
        (resnet50, "resnet50", True),
        (str_resnet18, "resnet18", True),
        (small_mobilenet, "mobilenet_v1,width=0.25", True),
        (small_mobilenet, "mobilenet_v1,width=0.25", False),
    ],
)
def test_an_exported_network_computes_what_torch_computes(
    tmp_path: Path, make: Callable[[int], nn.Module], architecture: str, folded: bool
) -> None:
    """Oracle: the module that torch exported. Folding rounds each weight once more."""
    module = sparse(make(7))
    exported(module, tmp_path / "model.onnx", folded=folded)
    imported = import_checkpoint(tmp_path / "model.onnx")
    assert imported.report.architecture == architecture
    with torch.no_grad():
        expected = module(pictures())
        torch.testing.assert_close(
            imported.network(pictures()), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max())
        )
    zeros = sum(int((stored == 0).sum()) for stored in module.state_dict().values() if stored.ndim > 1)
    assert sum(int((~kept).sum()) for kept in imported.network.masks().values()) == zeros
    assert any("folded" in note for note in imported.report.notes) == folded


def test_the_shortcut_and_the_last_convolution_of_a_block_are_not_confused(tmp_path: Path) -> None:
    """In layer1.0 of a bottleneck ResNet both are [256, 64, 1, 1]: only the graph tells them apart."""
    module = sparse(resnet50(3))
    exported(module, tmp_path / "model.onnx", folded=False)
    found = import_checkpoint(tmp_path / "model.onnx").network.tensors()
    for name, stored in module.state_dict().items():
        assert torch.equal(found[name], stored) or name.endswith("num_batches_tracked"), name


# --- networks of the same tensors, which only the graph tells apart ------------------------------------------------


def original_resnet50(classes: int) -> nn.Module:
    """He et al.'s, as Caffe and Keras have it: torchvision's with the strides moved into the first 1×1."""
    module = resnet50(classes)
    for stage in (module.layer2, module.layer3, module.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)  # type: ignore[index, union-attr]
    return module


def wide_resnet50(classes: int) -> nn.Module:
    from torchvision.models import wide_resnet50_2

    return wide_resnet50_2(num_classes=classes)


def with_a_dense_stem(classes: int) -> nn.Module:
    module = torchvision_resnet18(classes)
    module.conv1.stride = (1, 1)  # type: ignore[union-attr]
    return module


def keras_mobilenet(classes: int) -> nn.Module:
    """Padding after a strided convolution only, ReLU6, eps 1e-3 (keras_applications/mobilenet.py)."""
    module = MobileNet(4, classes)
    for layer in module.model:
        assert isinstance(layer, nn.Sequential)
        for place, step in enumerate(layer):
            if isinstance(step, nn.BatchNorm2d):
                step.eps = 1e-3
            if isinstance(step, nn.ReLU):
                layer[place] = nn.ReLU6()
            if isinstance(step, nn.Conv2d) and step.stride == (2, 2):
                step.padding = (0, 0)
                layer[place] = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), step)
    return module


@pytest.mark.parametrize(
    ("make", "architecture", "folded"),
    [
        (original_resnet50, "resnet50,stride=v1", True),
        (RiglResNet50, "resnet50,pool=same", True),
        (RiglResNet50, "resnet50,pool=same", False),
        (wide_resnet50, "resnet50,width=2", False),
        (with_a_dense_stem, "resnet18,stem=s1", False),
        (keras_mobilenet, "mobilenet_v1,flavour=tf,width=0.25", True),
        (keras_mobilenet, "mobilenet_v1,flavour=tf,width=0.25", False),
    ],
)
def test_what_tensors_cannot_tell_is_taken_from_the_graph(
    tmp_path: Path, make: Callable[[int], nn.Module], architecture: str, folded: bool
) -> None:
    """Oracle: the module that torch exported; its paddings are operations of their own, written as arithmetic."""
    module = sparse(make(3))
    exported(module, tmp_path / "model.onnx", folded=folded)
    imported = import_checkpoint(tmp_path / "model.onnx")
    assert imported.report.architecture == architecture
    assert not any("cannot tell" in sentence for sentence in imported.report.assumptions)
    assert imported.report.warnings == ()
    with torch.no_grad():
        expected = module(pictures())
        torch.testing.assert_close(
            imported.network(pictures()), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max())
        )


def test_tensorflows_same_padding_may_be_a_setting_of_the_layer(tmp_path: Path) -> None:
    """As tf2onnx writes it: ``auto_pad`` in the place of Pad, and pictures with their channels last."""
    module = sparse(keras_mobilenet(3))
    exported(module, tmp_path / "model.onnx", folded=True)

    def change(operations: list[Operation]) -> list[Operation]:
        padded = {each.outputs[0]: each.inputs[0] for each in operations if each.op == "Pad"}
        for each in operations:
            if each.op == "Conv" and each.inputs[0] in padded:
                each.inputs[0] = padded[each.inputs[0]]
                del each.attributes["pads"]
                each.attributes["auto_pad"] = "SAME_UPPER"
            each.inputs = ["turned" if name == "input.1" else name for name in each.inputs]
        turned = Operation("Transpose", ["input.1"], ["turned"], {"perm": [0, 3, 1, 2]})
        return [turned, *(each for each in operations if each.op != "Pad")]

    rewritten(tmp_path / "model.onnx", change)
    imported = import_checkpoint(tmp_path / "model.onnx")
    assert imported.report.architecture == "mobilenet_v1,flavour=tf,width=0.25"
    with torch.no_grad():
        torch.testing.assert_close(imported.network(pictures()), module(pictures()), rtol=1e-4, atol=1e-4)


def test_a_padding_that_is_a_setting_of_the_pool_is_the_same(tmp_path: Path) -> None:
    exported(randomised(RiglResNet50(3)), tmp_path / "model.onnx", folded=True)

    def change(operations: list[Operation]) -> list[Operation]:
        (padding,) = (each for each in operations if each.op == "Pad")
        (pool,) = (each for each in operations if each.op == "MaxPool")
        pool.inputs, pool.attributes["pads"] = [padding.inputs[0]], [0, 0, 1, 1]
        return [each for each in operations if each is not padding]

    rewritten(tmp_path / "model.onnx", change)
    assert import_checkpoint(tmp_path / "model.onnx").report.architecture == "resnet50,pool=same"


@pytest.mark.parametrize(
    ("value", "mode", "said"),
    [(1.0, "constant", " (Pad is in none of them)"), (0.0, "reflect", " (Pad is in none of them)")],
)
def test_a_padding_that_is_not_with_zeros_is_refused(tmp_path: Path, value: float, mode: str, said: str) -> None:
    exported(randomised(RiglResNet50(3)), tmp_path / "model.onnx", folded=True)

    def change(operations: list[Operation]) -> list[Operation]:
        (padding,) = (each for each in operations if each.op == "Pad")
        padding.inputs, padding.attributes = padding.inputs[:1], {"pads": [0, 0, 0, 0, 0, 0, 1, 1], "mode": mode}
        padding.attributes["value"] = value
        return operations

    rewritten(tmp_path / "model.onnx", change)
    assert f"is that of no network known here{said}" in refusal(tmp_path / "model.onnx")


def test_zeros_around_what_may_be_negative_are_no_part_of_the_pool(tmp_path: Path) -> None:
    """A max-pool pads with -inf: behind a BatchNorm, padding it with 0 is another network."""
    module = RiglResNet50(3)
    exported(randomised(module), tmp_path / "model.onnx", folded=True)

    def change(operations: list[Operation]) -> list[Operation]:
        place = next(index for index, each in enumerate(operations) if each.op == "Relu")
        operations[place].op = "Identity"
        return operations

    rewritten(tmp_path / "model.onnx", change)
    assert "is that of no network known here" in refusal(tmp_path / "model.onnx")


@pytest.mark.parametrize("architecture", ["resnet50", "resnet50,pool=same,stride=v1"])
def test_another_network_than_the_graphs_is_refused(tmp_path: Path, architecture: str) -> None:
    exported(randomised(RiglResNet50(3)), tmp_path / "model.onnx", folded=True)
    assert refusal(tmp_path / "model.onnx", architecture=architecture) == (
        f"its graph is that of resnet50,pool=same, and --arch says {architecture}; leave --arch out"
    )


def with_relu6() -> nn.Module:
    module = MobileNet(4, 3)
    for layer in module.model:
        assert isinstance(layer, nn.Sequential)
        layer[2] = nn.ReLU6()
    return module


def with_another_pool() -> nn.Module:
    module = torchvision_resnet18(3)
    module.maxpool = nn.MaxPool2d(3, 2, 0)
    return module


class OnMobileNet(nn.Module):
    """Heads that are no linear layer on the features."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.body, self.kind = MobileNet(4, None), kind
        self.first, self.second = nn.Linear(256, 3), nn.Linear(256, 3)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        features = self.body(x)
        if self.kind == "two outputs":
            return self.first(features), self.second(features)
        if self.kind == "two on the same features":
            return self.first(features) + self.second(features)
        if self.kind == "one on clipped features":
            return self.first(features.clip(0, 6))
        return self.first(features) * 2 if self.kind == "scaled logits" else self.first(features).relu()


@pytest.mark.parametrize(
    "make",
    [
        with_relu6,
        with_another_pool,
        lambda: OnMobileNet("two on the same features"),
        lambda: OnMobileNet("two outputs"),
        lambda: OnMobileNet("one on clipped features"),
        lambda: OnMobileNet("scaled logits"),
        lambda: OnMobileNet("cut logits"),
    ],
    ids=["relu6", "pool", "two heads", "two outputs", "clipped", "scaled", "cut"],
)
def test_one_operation_that_differs_is_enough_to_refuse(tmp_path: Path, make: Callable[[], nn.Module]) -> None:
    exported(randomised(make()), tmp_path / "model.onnx", folded=True)
    assert "is that of no network known here" in refusal(tmp_path / "model.onnx")


def test_a_bias_before_batchnorm_and_another_eps_are_kept(tmp_path: Path) -> None:
    module = randomised(MobileNet(4, 3))
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.bias = nn.Parameter(torch.linspace(-0.5, 0.5, layer.out_channels))
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = 0.1
    exported(module, tmp_path / "model.onnx", folded=False)
    network = import_checkpoint(tmp_path / "model.onnx").network
    with torch.no_grad():
        torch.testing.assert_close(network(pictures()), module(pictures()), rtol=1e-4, atol=1e-4)


def test_names_that_were_kept_do_not_make_another_graph_the_network(tmp_path: Path) -> None:
    module = randomised(with_another_pool())
    exported(module, tmp_path / "model.onnx", folded=False)
    assert refusal(tmp_path / "model.onnx") == (
        "its weights have the names of resnet18, and its graph computes otherwise; "
        "take the .pth file of the same model, or say which network it is with --arch"
    )
    assert import_checkpoint(tmp_path / "model.onnx", architecture="resnet18").report.architecture == "resnet18"


def test_names_that_were_kept_serve_where_the_graph_is_not_known(tmp_path: Path) -> None:
    module = sparse(CifarResNet("A", "linear", 4, 3))
    exported(module, tmp_path / "model.onnx", folded=False)
    imported = import_checkpoint(tmp_path / "model.onnx")
    assert imported.report.architecture == "resnet20,width=0.25"
    assert imported.report.warnings == (
        "its graph is that of no network known here: only the names of its weights say which it is",
    )
    with torch.no_grad():
        torch.testing.assert_close(imported.network(pictures()), module(pictures()), rtol=1e-4, atol=1e-4)


def test_a_backbone_without_a_head_comes_in(tmp_path: Path) -> None:
    module = sparse(MobileNet(4, None))
    exported(module, tmp_path / "model.onnx", folded=True)
    network = import_checkpoint(tmp_path / "model.onnx").network
    assert network.head is None
    with torch.no_grad():
        torch.testing.assert_close(network.backbone(pictures()), module(pictures()), rtol=1e-4, atol=1e-4)


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = MobileNet(4, None)
        self.first, self.second = nn.Linear(256, 256), nn.Linear(256, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(self.body(x)).relu())


def test_layers_behind_the_head_are_not_dropped_silently(tmp_path: Path) -> None:
    exported(randomised(TwoHeads()), tmp_path / "model.onnx", folded=True)
    assert "is that of no network known here" in refusal(tmp_path / "model.onnx")


class SoftMax(nn.Module):
    """SparseML's networks give logits and their softmax; their head is a product and a sum here."""

    def __init__(self, gives_both: bool) -> None:
        super().__init__()
        self.gives_both = gives_both
        self.body = MobileNet(4, None)
        self.weight = nn.Parameter(torch.randn(256, 3, generator=torch.Generator().manual_seed(1)))
        self.bias = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor] | Tensor:
        logits = torch.matmul(self.body(x), self.weight) + self.bias
        return (logits, logits.softmax(1)) if self.gives_both else logits.softmax(1)


@pytest.mark.parametrize("gives_both", [True, False])
def test_a_head_of_product_and_sum_with_a_softmax_behind_it_comes_in(tmp_path: Path, gives_both: bool) -> None:
    module = randomised(SoftMax(gives_both))
    exported(module, tmp_path / "model.onnx", folded=True)
    network = import_checkpoint(tmp_path / "model.onnx").network
    with torch.no_grad():
        expected = module(pictures())[0] if gives_both else module(pictures())
        logits = network(pictures())
        torch.testing.assert_close(logits if gives_both else logits.softmax(1), expected, rtol=1e-4, atol=1e-4)


def test_an_exported_file_names_its_sha256(tmp_path: Path) -> None:
    exported(randomised(MobileNet(4, 3)), tmp_path / "model.onnx", folded=True)
    digest = hashlib.sha256((tmp_path / "model.onnx").read_bytes()).hexdigest()
    imported = import_checkpoint(tmp_path / "model.onnx", licence="x")
    assert imported.origin.sha256 == digest
    assert imported.report.container == "onnx"
    assert imported.report.encoding == "dense"


# --- the container ------------------------------------------------------------------------------------------------


def opened(folder: Path, data: bytes) -> dict[str, LazyTensor]:
    (folder / "m.onnx").write_bytes(data)
    root = open_container(folder / "m.onnx").root
    assert isinstance(root, dict)
    return root["weights"]  # type: ignore[return-value]


@pytest.mark.parametrize("raw", [True, False])
def test_numbers_are_read_from_either_field(tmp_path: Path, raw: bool) -> None:
    whole = torch.tensor([3, -1, 1 << 40])
    found = opened(tmp_path, model([], [tensor("a", WEIGHT, raw=raw), tensor("b", whole, raw=raw)]))
    assert torch.equal(found["a"].read(), WEIGHT)
    assert torch.equal(found["b"].read(), whole)
    assert found["a"].shape == (4, 3, 1, 2)


def test_nodes_and_their_attributes_are_read(tmp_path: Path) -> None:
    made = node("Conv", ["x", "w"], ["y"], pads=[1, -1, 300], group=7, epsilon=0.5, value=tensor("t", WEIGHT))
    (tmp_path / "m.onnx").write_bytes(model([made], []))
    root = open_container(tmp_path / "m.onnx").root
    (found,) = root["nodes"]  # type: ignore[index]
    attributes = found["attributes"]  # type: ignore[index, call-overload]
    assert torch.equal(attributes.pop("value").read(), WEIGHT)
    assert found == {
        "op": "Conv",
        "inputs": ["x", "w"],
        "outputs": ["y"],
        "attributes": {"pads": [1, -1, 300], "group": 7, "epsilon": 0.5},
    }


def test_a_tensor_in_another_file_of_the_folder_is_read_and_counts_in_the_digest(tmp_path: Path) -> None:
    data = WEIGHT.numpy().tobytes()
    (tmp_path / "w.bin").write_bytes(b"12345678" + data)
    found = opened(tmp_path, model([], [outside("a", WEIGHT, location="w.bin", offset="8", length=str(len(data)))]))
    assert torch.equal(found["a"].read(), WEIGHT)
    both = (tmp_path / "m.onnx").read_bytes() + (tmp_path / "w.bin").read_bytes()
    assert open_container(tmp_path / "m.onnx").sha256() == hashlib.sha256(both).hexdigest()


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"location": "../w.bin"}, 'its tensor "a" lies outside its folder, at "../w.bin"'),
        ({"location": "/etc/passwd"}, 'its tensor "a" lies outside its folder, at "/etc/passwd"'),
        ({"location": "link"}, 'its tensor "a" lies outside its folder, at "link"'),
        ({}, 'its tensor "a" lies outside its folder, at ""'),
        ({"location": "gone"}, '"gone" is missing, where its tensor "a" lies; fetch both files'),
        ({"location": "in.bin", "offset": "9"}, 'its tensor "a" does not lie within "in.bin"'),
        ({"location": "in.bin", "offset": "-1"}, 'its tensor "a" does not lie within "in.bin"'),
        ({"location": "in.bin", "offset": "9" * 5000}, 'its tensor "a" does not lie within "in.bin"'),
        ({"location": "in.bin", "length": "95"}, 'its tensor "a" does not lie within "in.bin"'),
        ({"location": "a\0b"}, '"a" is missing, where its tensor "a" lies'),
    ],
)
def test_a_tensor_anywhere_else_is_refused(tmp_path: Path, where: dict[str, str], said: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(1000))
    (folder / "link").symlink_to(tmp_path / "w.bin")
    (folder / "in.bin").write_bytes(bytes(100))
    (folder / "m.onnx").write_bytes(model([], [outside("a", WEIGHT, **where)]))
    with pytest.raises(UserError) as caught:
        open_container(folder / "m.onnx")
    assert str(caught.value).startswith(f"{folder}/m.onnx: {said}")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (model([], [tensor("a", WEIGHT), tensor("a", WEIGHT)]), 'its graph says "a" twice'),
        (model([], [], more=entry(15, b"")), "its weights are sparse tensors, which are not read yet"),
        (model([], [tensor("a", WEIGHT, kind=8)]), 'its tensor "a" has the data type 8, which is not read'),
        (model([], [tensor("a", WEIGHT, field9=b"abc")]), 'its tensor "a" [4, 3, 1, 2] has 3 bytes and not 96'),
        (model([], [tensor("a", WEIGHT, field5=b"abc")]), 'its tensor "a" lies in a field that is not read'),
        (model([], [tensor("a", WEIGHT, field4=1 << 40)]), 'its tensor "a" has a number of more than 4 bytes'),
        (model([], [tensor("a", WEIGHT, field1=-5)]), 'its tensor "a" has the shape [4, 3, 1, 2, -5]'),
        (model([], [tensor("a", WEIGHT, field1=b"\xff" * 9 + b"\x01")]), 'its tensor "a" has the shape'),
        (model([], []) + entry(7, b""), "it holds 2 graphs and not one"),
        (entry(1, 7) + entry(2, "x") + entry(7, 5), "a number stands where its schema has a message"),
        (model([], [])[:-1], "a record in it is cut short"),
        (entry(1, 7) + entry(2, "x") + b"\x3b", "a record in it has a field of the unknown kind 3"),
    ],
)
def test_a_damaged_or_hostile_model_is_refused(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    assert refusal(tmp_path / "m.onnx").startswith(said)


@pytest.mark.parametrize(
    "odd",
    [
        node("Identity", [], ["y"]),
        node("ConstantOfShape", ["four"], ["y"], value=tensor("", torch.tensor([1.0, 2.0]))),
        node("ConstantOfShape", ["four"], ["y"], value=tensor("", torch.tensor([torch.inf]))),
        node("Concat", ["four", "four"], ["y"], axis=float("nan")),
        node("Conv", ["x", "w"], ["y"], group=float("inf")),
        node("ReduceMean", ["x", "axes"], ["y"]),
    ],
    ids=["no input", "two fills", "infinite fill", "axis", "group", "axes"],
)
def test_a_setting_that_is_no_number_is_no_network(tmp_path: Path, odd: bytes) -> None:
    constants = [
        tensor("four", torch.tensor([4])),
        tensor("w", WEIGHT),
        tensor("axes", torch.tensor([torch.nan, 2.0])),
    ]
    (tmp_path / "m.onnx").write_bytes(model([odd], constants))
    assert "that of no network known here" in refusal(tmp_path / "m.onnx")


@pytest.mark.parametrize("op", ["QuantizeLinear", "DequantizeLinear", "ConvInteger", "QLinearConv"])
def test_a_quantised_model_is_refused_with_the_reason(tmp_path: Path, op: str) -> None:
    made = model([node(op, ["x", "s"], ["y"])], [tensor("s", WEIGHT)])
    (tmp_path / "m.onnx").write_bytes(made)
    assert refusal(tmp_path / "m.onnx") == (
        f"its graph is quantised ({op}): activations are rounded too, so its float weights alone are another network; "
        "take the float model of the same name, whose folder has no quant in it"
    )


def test_a_model_with_too_many_parts_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sparse_transfer.checkpoints.readers import onnx_file

    monkeypatch.setattr(onnx_file, "FIELDS_MOST", 50)
    (tmp_path / "m.onnx").write_bytes(model([node("Relu", ["x"], ["y"])] * 30, []))
    assert refusal(tmp_path / "m.onnx").startswith("its graph has more than 50 parts")


@pytest.mark.parametrize("seed", range(20))
def test_no_change_of_a_file_does_more_than_refuse_it(tmp_path: Path, seed: int) -> None:
    """Bytes changed, cut out and doubled in a small model of every kind of part: a network, or a ``UserError``."""
    made = bytearray(
        model(
            [
                node("Constant", [], ["c"], value=tensor("", torch.tensor([6.0]))),
                node("Identity", ["w"], ["v"]),
                node("Conv", ["x", "v", "b"], ["y"], pads=[1, 1, 1, 1], group=1, kernel_shape=[1, 2]),
                node("BatchNormalization", ["y", "b", "b", "b", "b"], ["z"], epsilon=0.5),
                node("Clip", ["z", "c", "c"], ["u"]),
                node("Constant", [], ["four"], value=tensor("", torch.tensor([4]))),
                node("ConstantOfShape", ["four"], ["zeros"], value=tensor("", torch.tensor([0]))),
                node("Concat", ["four", "zeros"], ["some"], axis=0),
                node("Slice", ["some", "four", "four", "four", "four"], ["cut"]),
                node("Gather", ["some", "four"], ["one"], axis=0),
                node("Mul", ["some", "zeros"], ["product"]),
                node("Reshape", ["some", "four"], ["laid"]),
                node("Pad", ["u", "laid", "c"], ["around"], mode="constant", pads=[0, 0, 0, 0, 0, 0, 1, 1]),
                node("Transpose", ["around"], ["turned"], perm=[0, 3, 1, 2]),
                node("MaxPool", ["around"], ["p"], kernel_shape=[3, 3], auto_pad="SAME_UPPER"),
                node("Add", ["p", "u"], ["q"]),
                node("ReduceMean", ["q"], ["r"], axes=[2, 3]),
                node("Transpose", ["l"], ["m"], perm=[1, 0]),
                node("Gemm", ["r", "m", "b"], ["o"], alpha=1.0, transB=1),
            ],
            [tensor("w", WEIGHT), tensor("b", torch.ones(4)), tensor("l", torch.ones(4, 4), raw=False)],
        )
    )
    draw = random.Random(seed)
    path = tmp_path / "m.onnx"
    refused = 0
    for _ in range(60):
        data = bytearray(made)
        for _ in range(draw.randint(1, 4)):
            place = draw.randrange(4, len(data))
            match draw.randrange(3):
                case 0:
                    data[place] = draw.choice([0, 1, 0x7F, 0x80, 0xFF, data[place] ^ 1 << draw.randrange(8)])
                case 1:
                    del data[place : place + draw.randint(1, 20)]
                case _:
                    data[place:place] = data[place : place + draw.randint(1, 20)]
        path.write_bytes(data)
        try:
            with suppress(RecursionError):
                import_checkpoint(path)
        except UserError:
            refused += 1
    assert refused > 50
