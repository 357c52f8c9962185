"""A classifier of the user's own, taken apart into backbone and head."""

import copy

import torch
from torch import Tensor, nn

from sparse_transfer.core.errors import UserError
from sparse_transfer.core.registry import suggestion


def split(module: nn.Module, head: str, input_size: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A copy of ``module`` that gives features, and the weight [C, D] and bias [C] of the layer called ``head``.

    The layer is an ``nn.Linear`` or a 1×1 ``nn.Conv2d``, and the last thing the module computes: both are tried on a
    picture of noise, and their logits compared. A missing bias is zeros. ``module`` is not changed.

    Raises:
        UserError: no such layer, of another kind, used otherwise than last, or a module that does not run.
    """
    where = type(module).__name__
    backbone = copy.deepcopy(module).eval()
    layers = dict(backbone.named_modules())
    if not head or head not in layers:
        linear = [name for name, layer in layers.items() if is_linear(layer)]
        raise UserError(f'no layer is called "{head}"', where=where, do=suggestion(head, linear))
    layer = layers[head]
    if not is_linear(layer):
        raise UserError(
            f'the head "{head}" is a {type(layer).__name__}', where=where, do="it is an nn.Linear or a 1×1 nn.Conv2d"
        )
    images = torch.randn(2, 3, input_size, input_size, generator=torch.Generator().manual_seed(0))
    logits = output(backbone, images, where)
    parameters = dict(layer.named_parameters())
    weight = parameters["weight"].detach().clone().flatten(1)
    bias = parameters["bias"].detach().clone() if "bias" in parameters else torch.zeros(len(weight))
    parent, _, child = head.rpartition(".")
    backbone.get_submodule(parent).register_module(child, nn.Identity())
    not_last = UserError(
        f'"{head}" is not the last thing it computes', where=where, do="pooling and activation come before the head"
    )
    try:
        features = output(backbone, images, where)
    except UserError as error:  # it ran with the layer, so what follows the layer needs its logits
        raise not_last from error
    if features.shape != (2, weight.shape[1]):
        raise UserError(
            f'without "{head}" it gives {list(features.shape[1:])} for a picture, and the layer reads'
            f" {weight.shape[1]} features",
            where=where,
            do="the head is the last layer, after the pooling",
        )
    # Both sum the same D products, in another order at most: a few ulp of the largest logit.
    if logits.shape != (2, len(weight)) or not torch.allclose(
        nn.functional.linear(features, weight, bias), logits, rtol=1e-4, atol=1e-5 * float(logits.abs().max())
    ):
        raise not_last
    if getattr(backbone, "feature_dim", weight.shape[1]) != weight.shape[1]:
        raise UserError("it has an attribute feature_dim that means something else", where=where, do="rename it")
    vars(backbone)["feature_dim"] = weight.shape[1]  # a plain attribute: neither tensor nor module
    return backbone, weight, bias


def is_linear(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or (
        isinstance(layer, nn.Conv2d)
        and (layer.kernel_size, layer.stride, layer.groups, layer.padding) == ((1, 1), (1, 1), 1, (0, 0))
    )


def output(module: nn.Module, images: Tensor, where: str) -> Tensor:
    """One forward pass; whatever goes wrong in the user's code is the user's to read."""
    try:
        with torch.no_grad():
            result: object = module(images)
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"it does not run on pictures {list(images.shape)} ({reason[0]})",
            where=where,
            do="give input_size, and a module on the CPU in float32",
        ) from error
    if not isinstance(result, Tensor):
        raise UserError(f"it gives a {type(result).__name__}", where=where, do="it must give one tensor of logits")
    return result
