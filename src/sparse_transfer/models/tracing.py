"""A module's forward pass recorded by torch.fx on the meta device, and how to read what was recorded.

``make_fx`` records the functions that a forward pass calls, before autograd and decompositions: Python control flow,
whatever its style, is gone, all shapes are numbers, and no weight is copied or read.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload

from sparse_transfer.core.errors import UserError

BATCH = 2  # pictures in the trace: a batch of one could not be told from an axis of length one

Arguments = Mapping[str, object]


def trace(module: nn.Module, input_size: int, *, where: str) -> tuple[fx.Graph, list[str]]:
    """The fx graph at the level of aten functions, and the state's names in the order of its first placeholders."""
    from torch.fx.experimental.proxy_tensor import make_fx

    state: dict[str, Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    on_meta = {name: torch.empty_like(tensor, device="meta") for name, tensor in state.items()}
    # A copy whose tensors are replaced while it is copied: eval mode without touching the module, no memory.
    skeleton = copy.deepcopy(module, {id(tensor): on_meta[name] for name, tensor in state.items()}).eval()

    def run(state: dict[str, Tensor], images: Tensor) -> Tensor:
        return torch.func.functional_call(skeleton, state, (images,))

    images = torch.empty(BATCH, 3, input_size, input_size, device="meta")
    try:
        with torch.no_grad():
            traced = make_fx(run, pre_dispatch=True)(on_meta, images)
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"it cannot be traced at {input_size} px ({reason[0]})",
            where=where,
            do="its course must not depend on the values in the picture, and all its tensors must be parameters or"
            " buffers",
        ) from error
    return traced.graph, list(on_meta)


def function_name(node: fx.Node) -> str:
    """``conv2d`` for ``aten.conv2d.default``; fx's own name for what is no aten function."""
    return (
        node.target.name().removeprefix("aten::").partition(".")[0]
        if isinstance(node.target, OpOverload)
        else node.name
    )


def bound(node: fx.Node, overload: OpOverload) -> Arguments:
    """The call's arguments by name, defaults filled in from the operator's schema."""
    schema = overload._schema  # pyright: ignore[reportPrivateUsage]  # torch has no public way to it
    names = [argument.name for argument in schema.arguments]
    defaults = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    return {**defaults, **dict(zip(names, node.args, strict=False)), **node.kwargs}


def full_shape(node: object) -> tuple[int, ...]:
    """Shape of an fx node's value, batch included."""
    value = cast("fx.Node", node).meta["val"]
    return tuple(int(size) for size in cast("Tensor", value).shape)


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Shape of an fx node's value, without the batch."""
    return full_shape(node)[1:]


def ints(value: object) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(cast("Sequence[int]", value or ()))


def pair(value: object) -> tuple[int, int]:
    """An int or a sequence of one or two -> (height, width)."""
    both = ints(value)
    return (both[0], both[-1])


def triple(values: Sequence[int]) -> tuple[int, int, int]:
    channels, height, width = values
    return (channels, height, width)
