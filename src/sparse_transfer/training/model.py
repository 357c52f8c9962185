"""Backbone and head as one module that can be trained, and back."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from sparse_transfer.core.errors import UserError, listed
from sparse_transfer.models import Backbone, Head, Network
from sparse_transfer.sparsity import Mask

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Trainable(nn.Module):
    """images [B, 3, H, W] -> logits [B, C]; parameters are ``backbone.NAME`` and ``head.weight``, ``head.bias``.

    frozen: prefixes of backbone names whose parameters do not change and whose BatchNorms stay in eval mode.
    freeze_bn: all BatchNorms stay in eval mode (their scale and shift are still trained).
    head_kept: [C, D] bool where the head is pruned too.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Linear,
        *,
        frozen: Sequence[str] = (),
        freeze_bn: bool = False,
        head_kept: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.head_kept = head_kept
        names = [name for name, _ in backbone.named_parameters()]
        for prefix in frozen:
            if not any(_below(name, prefix) for name in names):
                tops = list(dict.fromkeys(name.split(".")[0] for name in names))
                raise UserError(
                    f'no layer of the backbone is called "{prefix}"',
                    where="--freeze",
                    do=f"name one of {listed(tops, most=8)}",
                )
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(not any(_below(name, prefix) for prefix in frozen))
        self._still = [layer for name, layer in backbone.named_modules() if _stays(name, layer, frozen, freeze_bn)]

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))

    def train(self, mode: bool = True) -> "Trainable":
        """As every module, but what is frozen stays in eval mode: its statistics do not drift."""
        super().train(mode)
        for layer in self._still:
            layer.eval()
        return self


def has_moving_statistics(backbone: nn.Module, frozen: Sequence[str], freeze_bn: bool) -> bool:
    """Whether any BatchNorm of a ``Trainable`` updates its statistics in training."""
    return any(
        isinstance(layer, NORMS) and not _stays(name, layer, frozen, freeze_bn)
        for name, layer in backbone.named_modules()
    )


def new_head(width: int, classes: int, seed: int) -> nn.Linear:
    """A head as ``torch.nn.Linear`` starts one (uniform ±1/√D), drawn by ``seed`` alone."""
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(width, classes)
    bound = width**-0.5
    with torch.no_grad():
        head.weight.uniform_(-bound, bound, generator=generator)
        head.bias.uniform_(-bound, bound, generator=generator)
    return head


def shown_mask(mask: Mask, model: Trainable) -> Mask:
    """The backbone's mask under the names that ``model`` has, and that of its head where there is one."""
    masks = {f"backbone.{name}": kept for name, kept in mask.items()}
    return Mask(masks if model.head_kept is None else {**masks, "head.weight": model.head_kept}, model)


def network_of(
    backbone: Backbone, tensors: dict[str, Tensor], classes: tuple[str, ...], head_kept: Tensor | None = None
) -> Network:
    """``backbone``'s module with the values of a ``Trainable``'s state dict, and its head: on CPU, in eval mode."""
    values = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    module = backbone.module
    module.load_state_dict(
        {name.removeprefix("backbone."): value for name, value in values.items() if name.startswith("backbone.")},
        assign=True,
    )
    head = Head(values["head.weight"], values["head.bias"], classes, head_kept)
    return Network(replace(backbone, module=module.eval()), head)


def _stays(name: str, layer: nn.Module, frozen: Sequence[str], freeze_bn: bool) -> bool:
    """Whether that layer is in eval mode all through the training."""
    return any(_below(name, prefix) for prefix in frozen) or (freeze_bn and isinstance(layer, NORMS))


def _below(name: str, prefix: str) -> bool:
    """Whether a dotted name lies at or below ``prefix``: ``layer1`` holds ``layer1.0.conv1``, not ``layer10``."""
    return name == prefix or name.startswith(prefix + ".")
