"""Runs a Graph with torch's functions and a state dict: what the ops mean, said a second time."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from sparse_transfer.models import Graph, Node


def interpret(graph: Graph, state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """images [N, C, H, W] -> what the graph's output node gives; every node's shape is checked."""
    values = {"images": images}
    for node in graph:
        value = compute(node, [values[name] for name in node.inputs], state)
        assert tuple(value.shape[1:]) == node.output_shape, node
        values[node.name] = value
    return values[graph.output]


def compute(node: Node, inputs: list[Tensor], state: Mapping[str, Tensor]) -> Tensor:
    x, *others = inputs
    weight = None if node.weight is None else state[node.weight]
    bias = None if node.bias is None else state[node.bias]
    match node.op:
        case "conv":
            assert weight is not None
            assert tuple(weight.shape[2:]) == node.kernel
            return F.conv2d(x, weight, bias, node.stride, node.padding, node.dilation, node.groups)
        case "batchnorm":
            shape = (-1,) + (1,) * (x.ndim - 2)
            assert node.mean is not None
            assert node.variance is not None
            scaled = (x - state[node.mean].reshape(shape)) / (state[node.variance].reshape(shape) + node.eps).sqrt()
            scaled = scaled if weight is None else scaled * weight.reshape(shape)
            return scaled if bias is None else scaled + bias.reshape(shape)
        case "relu":
            return x.clamp(min=0)
        case "relu6":
            return x.clamp(0, 6)
        case "maxpool":
            return F.max_pool2d(x, node.kernel, node.stride, node.padding, ceil_mode=node.is_ceil)
        case "avgpool":
            return F.avg_pool2d(x, node.kernel, node.stride, node.padding, node.is_ceil, node.counts_padding)
        case "globalavgpool":
            return x.mean((2, 3), keepdim=True)
        case "pad":
            sides = [side for pair in zip(node.before[::-1], node.after[::-1], strict=True) for side in pair]
            return F.pad(x, sides, value=node.value)
        case "slice":
            for axis, (start, step) in enumerate(zip(node.start, node.step, strict=True), start=1):
                count = node.output_shape[axis - 1]
                x = x.index_select(axis, torch.arange(count) * step + start)
            return x
        case "add":
            return x + others[0]
        case "concat":
            return torch.cat(inputs, dim=1)
        case "flatten":
            return x.reshape(len(x), -1)
        case "linear":
            assert weight is not None
            return F.linear(x, weight, bias)
