"""ONNX graphs, as SparseZoo gave networks out: dense weights whose zeros are the mask.

Exporters drop the names of weights, and fold BatchNorm into the convolution before it: the weight is scaled, zeros stay
zeros, and the shift becomes the convolution's bias. So each layer is found by its place in the graph. A folded
BatchNorm comes back as one that only adds: scale 1, bias the convolution's, mean 0, variance 1 - eps.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_transfer.checkpoints.assembling import skeleton
from sparse_transfer.checkpoints.formats.contract import Decoded, Encoding, encodings
from sparse_transfer.checkpoints.formats.onnx_padding import AFTER
from sparse_transfer.checkpoints.formats.onnx_steps import Layer, Steps, keys_of, steps_of
from sparse_transfer.checkpoints.formats.resnets import width_of
from sparse_transfer.checkpoints.formats.source import Source
from sparse_transfer.checkpoints.readers.container import LazyTensor
from sparse_transfer.core.errors import UserError
from sparse_transfer.models import Architecture
from sparse_transfer.models.architecture import Argument
from sparse_transfer.models.mobilenet_v1 import PROFILES
from sparse_transfer.models.translation import graph_of

# Convolutions, shortcuts included -> network.
RESNETS = {20: "resnet18", 36: "resnet34", 53: "resnet50", 104: "resnet101", 155: "resnet152"}
BOTTLENECKS = ("resnet50", "resnet101", "resnet152")
MOBILENET_CONVOLUTIONS = 27
SIZE_PX = 64  # of the pictures that our own graph is drawn for; its keys do not depend on it
STATE = (".weight", ".bias", ".running_mean", ".running_var", ".num_batches_tracked")


@dataclass(frozen=True)
class Found:
    """A network of ours that the graph is. places: a layer's name here -> the graph's.   norms: layer -> BatchNorm."""

    architecture: Architecture
    places: Mapping[str, Layer]
    norms: Mapping[str, tuple[str, float]]
    head: Layer | None


def recognise(source: Source) -> str | None:
    return "an ONNX graph" if source.container.kind == "onnx" else None


def decode(source: Source) -> Decoded:
    root = source.container.root
    assert isinstance(root, Mapping)
    steps = steps_of(root)
    found = _find(steps)
    return _by_names(source, steps) if found is None else _by_places(steps, found)


def _find(steps: Steps) -> Found | None:
    if steps.unknown is not None:
        return None
    for architecture in _candidates(steps):
        body = skeleton(architecture)
        graph = graph_of(body, SIZE_PX, where=str(architecture))
        names, features = keys_of(graph, {name: tuple(tensor.shape) for name, tensor in body.state_dict().items()})
        if not set(names) <= set(steps.layers):
            continue
        others = [layer for key, layer in steps.layers.items() if key not in names]
        is_whole = steps.gives(features) if not others else len(others) == 1 and _is_head(steps, others[0], features)
        if is_whole:
            # a convolution's node bears its layer's name
            norms = {node.inputs[0]: (node.name, node.eps) for node in graph if node.op == "batchnorm"}
            places = {name: steps.layers[key] for key, name in names.items()}
            return Found(architecture, places, norms, others[0] if others else None)
    return None


def _is_head(steps: Steps, layer: Layer, features: str) -> bool:
    """A linear layer, or a 1×1 convolution without BatchNorm (STR), on the features, whose output is the graph's."""
    is_dense = layer.is_linear or steps.constants[layer.weight].shape[2:] == (1, 1)
    return layer.source == features and is_dense and layer.normalised is None and steps.gives(layer.key)


def _candidates(steps: Steps) -> list[Architecture]:
    """Networks with so many convolutions; where one classifies, one fewer. The graph says what tensors cannot tell."""
    layers = [layer for layer in steps.layers.values() if not layer.is_linear]
    shapes = [steps.constants[layer.weight].shape for layer in layers]
    names = [RESNETS[count] for count in (len(shapes), len(shapes) - 1) if count in RESNETS]
    found = [Architecture.checked(name, _resnet_facts(name, steps, layers, shapes)) for name in names]
    flavour = "tf" if any(layer.sides == AFTER for layer in layers) else "torch"
    for last in (-1, -2):
        if len(shapes) + last + 1 == MOBILENET_CONVOLUTIONS:
            found += [
                Architecture.checked(
                    "mobilenet_v1", {"profile": profile, "width": shapes[last][0] / channels[-1], "flavour": flavour}
                )
                for profile, channels in PROFILES.items()
            ]
    return found


def _resnet_facts(
    name: str, steps: Steps, layers: Sequence[Layer], shapes: Sequence[tuple[int, ...]]
) -> dict[str, Argument]:
    squares = [(layer, shape) for layer, shape in zip(layers, shapes, strict=True) if shape[2:] == (3, 3)]
    facts: dict[str, Argument] = {
        "pool": "same" if steps.pools == [AFTER] else "torch",
        "stem": "s1" if layers[0].strides == (1, 1) else "s2",
    }
    if name in BOTTLENECKS:
        facts["stride"] = "v1.5" if any(layer.strides == (2, 2) for layer, _ in squares) else "v1"
        facts["width"] = width_of(squares[0][1]) if squares else 1
    return facts


def _by_places(steps: Steps, found: Found) -> Decoded:
    weights: dict[str, LazyTensor] = {}
    keys: dict[str, str] = {}

    def put(name: str, key: str, tensor: LazyTensor) -> None:
        weights[name], keys[name] = tensor, key

    folded = 0
    for name, layer in found.places.items():
        put(f"{name}.weight", layer.weight, steps.constants[layer.weight])
        norm, eps = found.norms[name]
        folded += layer.normalised is None
        for part, (key, tensor) in _norm(steps, layer, eps).items():
            put(f"{norm}.{part}", key, tensor)
    if found.head is not None:
        head = found.architecture.family.head
        stored = steps.constants[found.head.weight]
        put(f"{head}.weight", found.head.weight, _as_linear(stored, found.head))
        if found.head.bias is None:
            put(f"{head}.bias", found.head.weight, _filled(weights[f"{head}.weight"].shape[0], 0.0))
        else:
            put(f"{head}.bias", found.head.bias, steps.constants[found.head.bias])
    notes = [f"each layer was found by its place in the graph, which is that of {found.architecture}"]
    if folded:
        notes.append(
            f"{folded} BatchNorms are folded into their convolutions: they come back with scale 1, mean 0 and the"
            " convolutions' biases"
        )
    used = set(keys.values())
    dropped = {name: "not a tensor of the network" for name in steps.stored if name not in used}
    return Decoded(
        weights,
        keys,
        dropped=dropped,
        read_beside=("nodes", "inputs", "outputs"),
        notes=tuple(notes),
        architecture=found.architecture,
    )


def _norm(steps: Steps, layer: Layer, eps: float) -> dict[str, tuple[str, LazyTensor]]:
    """The four tensors of the BatchNorm behind a convolution, with the keys they come from."""
    channels = steps.constants[layer.weight].shape[0]
    bias = None if layer.bias is None else steps.constants[layer.bias]
    if layer.normalised is None:
        shift = _filled(channels, 0.0) if bias is None else bias
        return {
            "weight": (layer.weight, _filled(channels, 1.0)),
            "bias": (layer.bias or layer.weight, shift),
            "running_mean": (layer.weight, _filled(channels, 0.0)),
            "running_var": (layer.weight, _filled(channels, 1.0 - eps)),
        }
    scale, shift, mean, variance = ((name, steps.constants[name]) for name in layer.normalised)
    if bias is not None:  # (conv + bias - mean): the bias goes into the mean
        before, added = mean[1], bias
        mean = (mean[0], _computed(before, lambda: before.read() - added.read()))
    if layer.eps != eps:  # variance + its eps = (variance + its eps - ours) + ours
        stored, difference = variance[1], layer.eps - eps
        variance = (variance[0], _computed(stored, lambda: stored.read() + difference))
    return {"weight": scale, "bias": shift, "running_mean": mean, "running_var": variance}


def _as_linear(stored: LazyTensor, layer: Layer) -> LazyTensor:
    """[C, D]: of a 1×1 convolution without its kernel, of a matrix product transposed."""
    if not layer.is_transposed:
        return LazyTensor(stored.shape[:2], stored.dtype, lambda: stored.read().reshape(stored.shape[:2]))
    return LazyTensor(stored.shape[::-1], stored.dtype, lambda: torch.transpose(stored.read(), 0, 1).contiguous())


def _filled(count: int, value: float) -> LazyTensor:
    return LazyTensor((count,), torch.float32, lambda: torch.full((count,), value))


def _computed(like: LazyTensor, read: Callable[[], Tensor]) -> LazyTensor:
    return LazyTensor(like.shape, like.dtype, read)


def _by_names(source: Source, steps: Steps) -> Decoded:
    """A network that is none of those above: its weights, if the exporter kept their names."""
    named = {key: tensor for key, tensor in source.tensors.items() if key.endswith(STATE)}
    nameless = [layer for layer in steps.layers.values() if layer.weight.removeprefix(source.prefix) not in named]
    if nameless or not steps.layers:
        because = f" ({steps.unknown} is in none of them)" if steps.unknown else ""
        raise UserError(
            f"its graph of {len(steps.layers)} convolutions and linear layers is that of no network known here"
            f"{because}, and {len(nameless)} of them have lost their names",
            where=source.container.path,
            do="take the .pth file of the same model",
        )
    dropped = {key: "not a tensor of the network" for key in source.tensors if key not in named}
    return Decoded(
        named,
        {key: key for key in named},
        dropped=dropped,
        read_beside=("nodes", "inputs", "outputs"),
        warnings=("its graph is that of no network known here: only the names of its weights say which it is",),
        contradicts=(*RESNETS.values(), "mobilenet_v1"),
    )


encodings.add("onnx", Encoding(cite="onnx/onnx.proto3; torch.onnx's exporter", recognise=recognise, decode=decode))
