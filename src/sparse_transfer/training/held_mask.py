"""A mask held through training: gradients, weights, momentum and averages stay inside it, and that is audited.

Masking gradients alone fails when the optimiser has momentum from before; masking weights alone leaves momentum alive
outside the mask (research: peers 2.1 has both measured). So both are done in every step.
"""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sparse_transfer.models.network import raw_bytes
from sparse_transfer.sparsity import Mask, MaskViolation


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
            pruned = kept == 0
            _audit(name, "weights", weight.detach(), pruned)
            if optimiser is not None and weight in optimiser.state:
                for kind, state in optimiser.state[weight].items():
                    if isinstance(state, Tensor) and state.shape == weight.shape:
                        _audit(name, f"values of the optimiser's {kind}", state, pruned)
            if average is not None:
                _audit(name, "averaged weights", average[name], pruned)

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


def _audit(name: str, what: str, values: Tensor, pruned: Tensor) -> None:
    leaked = values.ne(0).logical_and_(pruned)  # NaN != 0 holds, so NaN is a leak too
    if bool(leaked.any()):
        found = values[leaked]
        raise MaskViolation(
            f"{found.numel():,} pruned {what} are non-zero (largest {float(found.abs().max()):.3g} of"
            f" {int(pruned.sum()):,} pruned)",
            where=name,
            do="the run stops before it is saved: go on from the last state, and report it",
        )
