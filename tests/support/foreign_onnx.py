"""ONNX files: of torch's own exporter, and written by hand from onnx.proto3 for what no exporter would write."""

import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from sparse_transfer.checkpoints.readers.container import LazyTensor
from sparse_transfer.checkpoints.readers.opening import open_container
from support.foreign import MobileNet, Sample, pruned, random_masks, randomised

FLOAT, INT64 = 1, 7


def exported(module: nn.Module, path: Path, *, folded: bool, size: int = 64) -> None:
    """What torch's exporter writes. ``folded``: BatchNorm goes into the convolutions and the names are lost.

    The exporter asks the onnx package to add functions that nobody defined; without it, it stops at that last step.
    """
    import torch.onnx._internal.torchscript_exporter.onnx_proto_utils as last_step

    mode = torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.TRAINING
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this exporter is the older one: it is the one that SparseZoo used
        patch.setattr(last_step, "_add_onnxscript_fn", lambda data, _: data)
        images = torch.zeros(1, 3, size, size)
        torch.onnx.export(
            module, (images,), str(path), dynamo=False, opset_version=13, training=mode, do_constant_folding=folded
        )
    module.eval()


Attribute = int | float | list[int] | bytes | str


# --- by hand ------------------------------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    number %= 1 << 64
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def entry(field: int, value: int | bytes | str) -> bytes:
    """One field: a number, or text, bytes or a message with its length."""
    if isinstance(value, int):
        return varint(field << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(data)) + data


def tensor(name: str, value: Tensor, *, raw: bool = True, kind: int | None = None, **more: int | bytes | str) -> bytes:
    """TensorProto. ``raw`` False: the numbers in a field of their own.   more: ``field9=...`` instead of the data."""
    kind = kind or (INT64 if value.dtype == torch.int64 else FLOAT)
    out = b"".join(entry(1, length) for length in value.shape) + entry(2, kind) + entry(8, name)
    data = value.contiguous().numpy().tobytes()
    if more:
        return out + b"".join(entry(int(key.removeprefix("field")), item) for key, item in more.items())
    if raw:
        return out + entry(9, data)
    if value.dtype == torch.int64:
        return out + entry(7, b"".join(varint(int(number)) for number in value.flatten()))
    return out + entry(4, data)


def outside(name: str, value: Tensor, **where: str) -> bytes:
    """TensorProto whose data lies in another file: location, offset, length."""
    pairs = b"".join(entry(13, entry(1, key) + entry(2, text)) for key, text in where.items())
    return tensor(name, value, field14=1) + pairs


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Attribute) -> bytes:
    """NodeProto; a bytes attribute is a tensor."""
    out = b"".join(entry(1, name) for name in inputs) + b"".join(entry(2, name) for name in outputs) + entry(4, op)
    for name, value in attributes.items():
        match value:
            case int():
                body = entry(3, value)
            case float():
                body = varint(2 << 3 | 5) + struct.pack("<f", value)
            case bytes():
                body = entry(5, value)
            case str():
                body = entry(4, value)
            case _:
                body = entry(8, b"".join(map(varint, value)))
        out += entry(5, entry(1, name) + body)
    return out


def model(nodes: Sequence[bytes], tensors: Sequence[bytes], inputs: Sequence[str] = ("x",), more: bytes = b"") -> bytes:
    """ModelProto with one graph."""
    graph = b"".join(entry(1, item) for item in nodes) + entry(2, "made") + b"".join(entry(5, t) for t in tensors)
    graph += b"".join(entry(11, entry(1, name)) for name in inputs) + more
    return entry(1, 7) + entry(2, "hand") + entry(7, graph)


@dataclass
class Operation:
    """A node of an exported graph, to be changed."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Attribute]


def rewritten(path: Path, change: Callable[[list[Operation]], list[Operation]]) -> None:
    """The same model with other nodes: what an exporter that torch does not have would write."""
    root = cast("dict[str, Any]", open_container(path).root)
    operations = [
        Operation(
            each["op"],
            list(each["inputs"]),
            list(each["outputs"]),
            {
                name: tensor("", value.read()) if isinstance(value, LazyTensor) else value
                for name, value in each["attributes"].items()
            },
        )
        for each in root["nodes"]
    ]
    nodes = [node(each.op, each.inputs, each.outputs, **each.attributes) for each in change(operations)]
    tensors = [tensor(name, stored.read()) for name, stored in root["weights"].items()]
    outputs = b"".join(entry(12, entry(1, name)) for name in root["outputs"])
    path.write_bytes(model(nodes, tensors, root["inputs"], outputs))


# --- a file of the encoding ---------------------------------------------------------------------------------------


def onnx(folder: Path) -> Sample:
    module = randomised(MobileNet(4, 7))
    state = dict(module.state_dict())
    masks = random_masks(state, 0.3)
    module.load_state_dict(pruned(state, masks))
    exported(module, folder / "model.onnx", folded=True)
    return Sample(folder / "model.onnx", module, sum(int((~kept).sum()) for kept in masks.values()), size=33)


SAMPLES: Mapping[str, Callable[[Path], Sample]] = {"onnx": onnx}
