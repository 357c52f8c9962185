"""A graph, ONNX's or ours, reduced to what decides which layer is which.

Each value of a graph gets a key: the operation that made it, with its settings, and the keys that it was made from. Two
graphs of one network give each layer the same key, whatever the order of their nodes and the names of their weights; a
stride in another layer, or another padding, changes the keys of all that follows. BatchNorm right after a convolution
is left out of the keys, so that a graph in which it was folded has the same ones.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from sparse_transfer.checkpoints.formats.onnx_arithmetic import MOST, Whole, computed
from sparse_transfer.checkpoints.formats.onnx_keys import Key, key_of
from sparse_transfer.checkpoints.formats.onnx_padding import NONE, Paddings, Sides, automatic
from sparse_transfer.checkpoints.readers.container import LazyTensor, Tree
from sparse_transfer.core.errors import UserError
from sparse_transfer.models import Graph
from sparse_transfer.models.graph import IMAGES

PASSED = ("Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Cast")
ASKS_FOR_SHAPES = ("Shape", "Size")
QUANTISED = (
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger", "QLinearMatMul",
    "MatMulInteger",
)  # fmt: skip
START: Key = "images"


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer of an ONNX graph; names are those of its constants.

    normalised: scale, bias, mean, variance of the BatchNorm behind it, where that is not folded into it.
    strides, sides: of a convolution, along height and width; zeros above, on the left, below and on the right.
    """

    key: Key
    source: Key
    weight: str
    is_linear: bool
    is_transposed: bool = False
    bias: str | None = None
    normalised: tuple[str, str, str, str] | None = None
    eps: float = 0.0
    strides: tuple[int, ...] = (1, 1)
    sides: Sides = NONE


@dataclass
class Steps:
    """``keys``: value -> its key.   ``layers``: key -> layer.

    constants: name -> tensor.   stored: those of them that are tensors of the file.   pools: sides of the max-pools.
    outputs: keys of the values that the graph gives.   unknown: the first operation that these networks do not have.
    """

    constants: dict[str, LazyTensor]
    stored: tuple[str, ...]
    keys: dict[str, Key] = field(default_factory=dict[str, Key])
    layers: dict[Key, Layer] = field(default_factory=dict[Key, Layer])
    paddings: Paddings = field(default_factory=Paddings)
    pools: list[Sides] = field(default_factory=list[Sides])
    outputs: tuple[Key, ...] = ()
    unknown: str | None = None

    def gives(self, key: Key) -> bool:
        """Whether the graph's output is that value, or its softmax."""
        return key in self.outputs or key_of("softmax", None, key) in self.outputs


def keys_of(graph: Graph, shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[Key, str], Key]:
    """Our own graph: key of each convolution -> its layer's name; key of the features. ``shapes``: of its weights."""
    keys: dict[str, Key] = {IMAGES: START}
    layers: dict[Key, str] = {}
    paddings = Paddings()
    convolutions: set[str] = set()
    for node in graph:
        sources = [keys[name] for name in node.inputs]
        if node.op == "conv" and node.weight is not None:
            source, sides = paddings.taken_in(sources[0], (*node.padding, *node.padding))
            settings = (shapes[node.weight], node.stride, sides, node.dilation, node.groups)
            keys[node.name] = key_of("conv", settings, source)
            layers[keys[node.name]] = node.weight.removesuffix(".weight")
            convolutions.add(node.name)
        elif node.op == "flatten" or (node.op == "batchnorm" and node.inputs[0] in convolutions):
            keys[node.name] = sources[0]
        elif node.op == "maxpool":
            source, sides = paddings.taken_in(sources[0], (*node.padding, *node.padding), by_maximum=True)
            keys[node.name] = key_of("maxpool", (node.kernel, node.stride, sides, node.is_ceil), source)
        elif node.op in ("relu", "relu6"):
            keys[node.name] = paddings.rectify(node.op, sources[0])
        elif node.op == "pad" and node.value == 0 and not (node.before[0] or node.after[0]):
            keys[node.name] = paddings.pad(sources[0], (*node.before[1:], *node.after[1:]))
        elif node.op == "add":
            keys[node.name] = key_of("add", None, *sorted(sources))
        else:
            own = replace(node, name="", inputs=(), output_shape=())
            keys[node.name] = key_of(node.op, None if node.op == "globalavgpool" else own, *sources)
    return layers, keys[graph.output]


def steps_of(root: Mapping[str | int, Tree]) -> Steps:
    """An ONNX graph, node by node. Raises ``UserError`` where it is quantised."""
    weights, nodes = root.get("weights"), root.get("nodes")
    inputs, outputs = root.get("inputs"), root.get("outputs")
    assert isinstance(weights, Mapping)
    assert isinstance(nodes, Sequence)
    assert isinstance(inputs, Sequence)
    assert isinstance(outputs, Sequence)
    stored = {str(name): tensor for name, tensor in weights.items() if isinstance(tensor, LazyTensor)}
    steps = Steps(stored, tuple(stored))
    steps.keys = {str(name): START for name in inputs if name not in weights}  # old exporters list weights as inputs
    for node in nodes:
        assert isinstance(node, Mapping)
        _step(steps, _Node(node))
    steps.outputs = tuple(steps.keys[str(name)] for name in outputs if str(name) in steps.keys)
    return steps


class _Node:
    """One node of the tree, with its attributes by type."""

    def __init__(self, node: Mapping[str | int, Tree]) -> None:
        def texts(value: Tree) -> list[str]:
            return [str(item) for item in value] if isinstance(value, Sequence) else []

        attributes = node.get("attributes")
        self.op = str(node.get("op"))
        self.inputs, self.outputs = texts(node.get("inputs")), texts(node.get("outputs"))
        self.attributes: Mapping[str | int, Tree] = attributes if isinstance(attributes, Mapping) else {}

    def number(self, name: str, default: float) -> float:
        value = self.attributes.get(name)
        return value if isinstance(value, int | float) else default

    def whole(self, name: str, default: int) -> int:
        value = self.attributes.get(name)
        return value if isinstance(value, int) else default

    def numbers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        value = self.attributes.get(name)
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            return default
        return tuple(item for item in value if isinstance(item, int))


def _step(steps: Steps, node: _Node) -> None:
    if node.op in QUANTISED:
        raise UserError(
            f"its graph is quantised ({node.op}): activations are rounded too, so its float weights alone are another"
            " network",
            do="take the float model of the same name, whose folder has no quant in it",
        )
    if not node.outputs:
        return
    output = node.outputs[0]
    tensor = node.attributes.get("value")
    if node.op == "Constant" and isinstance(tensor, LazyTensor):
        steps.constants[output] = tensor
        return
    if node.op in ("Identity", "Transpose") and node.inputs and node.inputs[0] in steps.constants:
        _constant(steps, node, output)
        return
    sources = [steps.keys[name] for name in node.inputs if name in steps.keys]
    held = [name for name in node.inputs if name in steps.constants]
    if not sources:
        _calculate(steps, node, output)
        return
    key = _key(steps, node, sources, held)
    if key is not None:
        steps.keys[output] = key
    elif node.op not in ASKS_FOR_SHAPES and steps.unknown is None:
        steps.unknown = node.op


def _constant(steps: Steps, node: _Node, output: str) -> None:
    stored = steps.constants[node.inputs[0]]
    if node.op == "Identity":
        steps.constants[output] = stored
        return
    order = node.numbers("perm", tuple(reversed(range(len(stored.shape)))))
    if sorted(order) == list(range(len(stored.shape))):
        shape = tuple(stored.shape[axis] for axis in order)
        steps.constants[output] = LazyTensor(shape, stored.dtype, lambda: stored.read().permute(order).contiguous())


def _calculate(steps: Steps, node: _Node, output: str) -> None:
    """Arithmetic of constants, as far as paddings are made of it."""
    held = [value for name in node.inputs if (value := _whole(steps, name)) is not None]
    filling = node.attributes.get("value")  # of a ConstantOfShape
    fill = _only(filling) if isinstance(filling, LazyTensor) else 0
    value = None
    if len(held) == len(node.inputs) and math.isfinite(fill):
        value = computed(node.op, held, axis=node.whole("axis", 0), fill=int(fill))
    if value is not None:
        tensor = torch.from_numpy(value.copy())
        steps.constants[output] = LazyTensor(value.shape, tensor.dtype, tensor.clone)


def _whole(steps: Steps, name: str) -> Whole | None:
    """A constant of a few whole numbers."""
    constant = steps.constants.get(name)
    if constant is None or constant.dtype not in (torch.int32, torch.int64) or math.prod(constant.shape) > MOST:
        return None
    return constant.read().numpy().astype(np.int64)


def _only(constant: LazyTensor) -> float:
    """The one number of a constant; NaN where it has several."""
    return float(constant.read()) if math.prod(constant.shape) == 1 else math.nan


def _key(steps: Steps, node: _Node, sources: list[Key], held: list[str]) -> Key | None:
    """The key of a node's value; None where it is none that these networks are made of."""
    first = sources[0]
    match node.op:
        case "Conv" if len(held) in (1, 2):
            return _conv(steps, node, first, held)
        case "Gemm" | "MatMul" if held:
            return _linear(steps, node, first, held)
        case "BatchNormalization" if len(held) == 4:
            return _batchnorm(steps, node, first, held)
        case "Relu":
            return steps.paddings.rectify("relu", first)
        case "Clip":
            return steps.paddings.rectify("relu6", first) if _bounds(steps, node, held) == (0.0, 6.0) else None
        case "Pad":
            return _pad(steps, node, first)
        case "Transpose" if first == START and node.numbers("perm", ()) == (0, 3, 1, 2):
            return first  # pictures that TensorFlow keeps with their channels last
        case "MaxPool":
            return _maxpool(steps, node, first)
        case "GlobalAveragePool" | "AveragePool" | "ReduceMean" if _is_global(steps, node, held):
            return key_of("globalavgpool", None, first)
        case "Add" if len(sources) == 2:
            return key_of("add", None, *sorted(sources))
        case "Add" if len(held) == 1 and (layer := steps.layers.get(first)) is not None and layer.is_linear:
            if layer.bias is not None:
                return None
            steps.layers[first] = replace(layer, bias=held[0])
            return _instead(steps, node, first)
        case "Softmax" | "LogSoftmax":
            return key_of("softmax", None, first)
        case op if op in PASSED:
            return first
        case _:
            return None


def _conv(steps: Steps, node: _Node, source: Key, held: list[str]) -> Key | None:
    shape = steps.constants[held[0]].shape
    own = _sides(node, shape[2:])
    if len(shape) != 4 or own is None or any(steps.constants[name].shape != shape[:1] for name in held[1:]):
        return None
    source, sides = steps.paddings.taken_in(source, own)
    strides = node.numbers("strides", (1, 1))
    settings = (shape, strides, sides, node.numbers("dilations", (1, 1)), node.whole("group", 1))
    key = key_of("conv", settings, source)
    if key in steps.layers:  # two alike on one value: no key tells which is which
        return None
    bias = held[1] if len(held) > 1 else None
    steps.layers[key] = Layer(key, source, held[0], False, bias=bias, strides=strides, sides=sides)
    return key


def _maxpool(steps: Steps, node: _Node, source: Key) -> Key | None:
    kernel = node.numbers("kernel_shape", ())
    own = _sides(node, kernel)
    if own is None or node.numbers("dilations", (1, 1)) != (1, 1):
        return None
    source, sides = steps.paddings.taken_in(source, own, by_maximum=True)
    steps.pools.append(sides)
    settings = (kernel, node.numbers("strides", (1, 1)), sides, node.number("ceil_mode", 0) != 0)
    return key_of("maxpool", settings, source)


def _sides(node: _Node, kernel: tuple[int, ...]) -> Sides | None:
    """The padding of a convolution or max-pool."""
    mode = node.attributes.get("auto_pad")
    if mode in (None, "NOTSET"):
        sides = node.numbers("pads", NONE)
        return sides if len(sides) == 4 else None
    return automatic(str(mode), kernel, node.numbers("strides", (1, 1)), node.numbers("dilations", (1, 1)))


def _pad(steps: Steps, node: _Node, source: Key) -> Key | None:
    """Zeros around a map, [N, C, H, W]: attributes in old graphs, constants in new ones."""
    names = [*node.inputs[1:], *("",) * 3][:3]
    pads, value, axes = names
    filled = _only(steps.constants[value]) if value in steps.constants else node.number("value", 0)
    whole = _whole(steps, pads)
    sides = node.numbers("pads", ()) if whole is None else tuple(int(side) for side in whole.flat)
    is_plain = node.attributes.get("mode", "constant") == "constant" and filled == 0 and not axes
    if not is_plain or len(sides) != 8 or any(sides[axis] for axis in (0, 1, 4, 5)) or min(sides) < 0:
        return None
    return steps.paddings.pad(source, (*sides[2:4], *sides[6:8]))


def _linear(steps: Steps, node: _Node, source: Key, held: list[str]) -> Key | None:
    if node.number("alpha", 1) != 1 or node.number("beta", 1) != 1 or node.number("transA", 0):
        return None
    if len(steps.constants[held[0]].shape) != 2:
        return None
    is_transposed = node.op == "MatMul" or not node.number("transB", 0)
    key = key_of("linear", steps.constants[held[0]].shape, source)
    if key in steps.layers:
        return None
    bias = held[1] if len(held) > 1 else None
    steps.layers[key] = Layer(key, source, held[0], True, is_transposed, bias)
    return key


def _batchnorm(steps: Steps, node: _Node, source: Key, held: list[str]) -> Key | None:
    layer = steps.layers.get(source)
    if layer is None or layer.is_linear or layer.normalised is not None:
        return None
    if any(steps.constants[name].shape != steps.constants[layer.weight].shape[:1] for name in held):
        return None
    scale, bias, mean, variance = held
    steps.layers[source] = replace(layer, normalised=(scale, bias, mean, variance), eps=node.number("epsilon", 1e-5))
    return _instead(steps, node, source)


def _instead(steps: Steps, node: _Node, key: Key) -> Key:
    """The key of what was done to a layer's value; nothing else may read that value as it was before."""
    for name in node.inputs:
        if steps.keys.get(name) == key:
            del steps.keys[name]
    return key


def _bounds(steps: Steps, node: _Node, held: list[str]) -> tuple[float, float]:
    """Of a Clip: attributes in old graphs, constants in new ones."""
    if len(held) == 2 and all(math.prod(steps.constants[name].shape) == 1 for name in held):
        low, high = (float(steps.constants[name].read()) for name in held)
        return low, high
    return node.number("min", -math.inf), node.number("max", math.inf)


def _is_global(steps: Steps, node: _Node, held: list[str]) -> bool:
    """Whether it averages the whole map: of a fixed window nothing is known but that it lies next to the last one."""
    if node.op == "GlobalAveragePool":
        return True
    if node.op == "AveragePool":
        kernel = node.numbers("kernel_shape", ())
        return not any(node.numbers("pads", ())) and node.numbers("strides", ()) == kernel
    axes = node.numbers("axes", ())
    if held and (whole := _whole(steps, held[0])) is not None:
        axes = tuple(int(axis) for axis in whole.flat)
    return sorted(axis % 4 for axis in axes) == [2, 3]
