"""A network from its tensors: how a checkpoint of ours and an imported file come together."""

from collections.abc import Mapping

from torch import Tensor, nn

from sparse_transfer.core.errors import UserError, listed
from sparse_transfer.models import Architecture, Backbone, Head, Network, Preprocessing, build
from sparse_transfer.models.network import dtype_name, head_name
from sparse_transfer.sparsity import Mask


def skeleton(architecture: Architecture) -> nn.Module:
    """The backbone without weights; timm's modules compute some buffers at construction, so theirs are real.

    Raises:
        UserError: no such architecture, or arguments (a file may state any) of which no network can be made.
    """
    try:
        if architecture.name.startswith("timm:"):
            return build(architecture)
        return build(architecture, device="meta")
    except (ArithmeticError, TypeError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"no network can be made of {architecture} ({reason})") from error


def assemble(
    architecture: Architecture,
    preprocessing: Preprocessing,
    tensors: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    classes: tuple[str, ...],
    *,
    module: nn.Module,
) -> Network:
    """The network of these tensors, by canonical name, head included. ``module`` gets the tensors themselves.

    Raises:
        UserError: a tensor is missing, fits no layer, or has another shape or kind of number than its layer.
    """
    tensors, masks = dict(tensors), dict(masks)
    head = _take_head(tensors, masks, head_name(architecture), classes)
    _fill(module, tensors, architecture)
    backbone = Backbone(module, architecture, preprocessing, Mask(masks, module))
    if head is not None and head.weight.shape[1] != backbone.feature_dim:
        raise UserError(
            f"the head reads {head.weight.shape[1]} features and {architecture} gives {backbone.feature_dim}"
        )
    return Network(backbone, head)


def _take_head(
    tensors: dict[str, Tensor], masks: dict[str, Tensor], layer: str, classes: tuple[str, ...]
) -> Head | None:
    weight, bias = tensors.pop(f"{layer}.weight", None), tensors.pop(f"{layer}.bias", None)
    kept = masks.pop(f"{layer}.weight", None)
    if weight is None and bias is None:
        if classes:
            raise UserError(f"there are {len(classes)} class names and no head")
        return None
    if weight is None or bias is None:
        raise UserError(f"the head has no {'weight' if weight is None else 'bias'}")
    if not weight.dtype.is_floating_point or not bias.dtype.is_floating_point:
        raise UserError(f"the head is {dtype_name(weight.dtype)} and {dtype_name(bias.dtype)}, not floating point")
    return Head(weight, bias, classes, kept)


def _fill(module: nn.Module, tensors: Mapping[str, Tensor], architecture: Architecture) -> None:
    """Put the tensors into the module, all of them and nothing else."""
    expected = module.state_dict()
    missing = sorted(set(expected) - set(tensors))
    strangers = sorted(set(tensors) - set(expected))
    problems = [f"{len(missing)} tensors of {architecture} are missing ({listed(missing)})"] if missing else []
    problems += [f"{len(strangers)} tensors fit no layer of {architecture} ({listed(strangers)})"] if strangers else []
    if problems:
        raise UserError(" and ".join(problems))
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise UserError(
                f"{name} has shape {list(tensor.shape)} and {architecture} needs {list(expected[name].shape)}"
            )
        if tensor.dtype.is_floating_point != expected[name].dtype.is_floating_point:
            raise UserError(
                f"{name} is {dtype_name(tensor.dtype)} and {architecture} needs {dtype_name(expected[name].dtype)}"
            )
    module.load_state_dict(dict(tensors), assign=True)
