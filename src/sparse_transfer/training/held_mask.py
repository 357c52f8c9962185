"""A mask held through training: gradients, weights, momentum and averages stay inside it, and that is audited.

Masking gradients alone fails when the optimiser has momentum from before; masking weights alone leaves momentum alive
outside the mask (research: peers 2.1 has both measured). So both are done in every step.
"""

import hashlib
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from sparse_transfer.models.network import raw_bytes
from sparse_transfer.sparsity import Mask, audit

STOPPED = "the run stops before it is saved: go on from the last state, and report it"


class HeldMask:
    """``mask`` laid over the parameters of ``module``, on their device and in their memory format.

    Selects, never multiplies: NaN × 0 is NaN. One byte a weight: -1, all bits set, where it is kept, 0 where it is not.
    """

    def __init__(self, mask: Mask, module: nn.Module) -> None:
        self.mask = mask
        self._held = [
            (name, weight, torch.empty_like(weight, dtype=torch.int8).copy_(kept).neg_())
            for name, kept in mask.items()
            for weight in [module.get_parameter(name)]
        ]

    def mask_gradients(self) -> None:
        """Set the gradients of pruned weights to 0, so that momentum, norms and clipping never see them."""
        for _, weight, kept in self._held:
            if weight.grad is not None:
                _select(weight.grad, kept)

    def mask_weights(self) -> None:
        """Set the pruned weights to 0, whatever the optimiser did to them."""
        for _, weight, kept in self._held:
            _select(weight.detach(), kept)

    def mask_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """The same for tensors by the weights' names: an average of the weights."""
        for name, _, kept in self._held:
            _select(tensors[name], kept)

    def audit(
        self, optimiser: torch.optim.Optimizer | None = None, average: Mapping[str, Tensor] | None = None
    ) -> None:
        """Raise ``MaskViolation`` at the first weight, optimiser state or average that is not 0 outside the mask."""
        for name, weight, kept in self._held:
            check = partial(audit, name, kept=kept != 0, do=STOPPED)
            check(weight.detach())
            if optimiser is not None and weight in optimiser.state:
                for kind, state in optimiser.state[weight].items():
                    if isinstance(state, Tensor) and state.shape == weight.shape:
                        check(state, what=f"values of the optimiser's {kind}")
            if average is not None:
                check(average[name], what="averaged weights")

    def sparsity(self) -> float | None:
        """Share of zeros among the weights that carry a mask, counted now; None where nothing does."""
        size = sum(weight.numel() for _, weight, _ in self._held)
        if not size:
            return None
        return sum(int((weight == 0).sum()) for _, weight, _ in self._held) / size

    def digest(self) -> str:
        """SHA-256 over the mask as it lies on this process's device: equal on all processes, or something broke."""
        sha = hashlib.sha256()
        for name, _, kept in self._held:
            sha.update(name.encode())
            sha.update(raw_bytes(kept))
        return sha.hexdigest()


def _select(values: Tensor, kept: Tensor) -> None:
    """Set ``values`` to +0 in place where ``kept`` is 0.

    The bits of a float32 and those of -1 or 0, sign-extended: NaN and infinity go as well, and it takes a fifth of
    ``masked_fill_``'s time (docs/log.md).
    """
    if values.dtype == torch.float32:
        values.view(torch.int32).bitwise_and_(kept)
    else:
        values.masked_fill_(kept == 0, 0.0)
