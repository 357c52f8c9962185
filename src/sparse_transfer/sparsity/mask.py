"""Which weights of a network may be non-zero.

A mask holds one bool tensor per masked weight, ``True`` = kept. Weights without one are dense.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from sparse_transfer.core.errors import UserError, listed

PRUNABLE_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class MaskViolation(UserError):
    """A weight outside the mask is not zero."""


def audit(
    name: str,
    values: Tensor,
    kept: Tensor,
    *,
    what: str = "weights",
    do: str = "call mask.apply_ after every optimiser step",
) -> None:
    """Raise ``MaskViolation`` where ``values``, the ``what`` of ``name``, are non-zero or NaN outside ``kept``."""
    pruned = ~kept.to(values.device)
    leaked = values.ne(0).logical_and_(pruned)  # NaN != 0 holds, so NaN is a leak too
    if bool(leaked.any()):
        found = values[leaked]
        raise MaskViolation(
            f"{found.numel():,} of {int(pruned.sum()):,} pruned {what} are non-zero"
            f" (largest |w| = {float(found.abs().max()):.3g})",
            where=name,
            do=do,
        )


def prunable_weights(module: nn.Module) -> dict[str, Tensor]:
    """Name -> weight of every convolution and linear layer, in network order; never a bias, never BatchNorm."""
    return {
        f"{name}.weight".lstrip("."): layer.weight
        for name, layer in module.named_modules()
        if isinstance(layer, PRUNABLE_LAYERS)
    }


class Mask(Mapping[str, Tensor]):
    """Immutable map from parameter name to a bool tensor on CPU of the weight's shape, ``True`` = kept.

    A zero inside the kept region stays kept: a mask says what *may* be non-zero.

    Args:
        kept: name -> bool tensor. Copied.
        module: the module whose prunable weights the names mean.

    Raises:
        UserError: a tensor is not bool, not of its weight's shape, or its name is no prunable weight.
    """

    def __init__(self, kept: Mapping[str, Tensor], module: nn.Module) -> None:
        weights = prunable_weights(module)
        strangers = [name for name in kept if name not in weights]
        if strangers:
            raise UserError(
                f"{len(strangers)} names are no convolution or linear weight: {listed(strangers)}",
                do="a mask covers those weights only, never a bias or BatchNorm",
            )
        for name, tensor in kept.items():
            if tensor.dtype != torch.bool:
                raise UserError(
                    f"the mask is {tensor.dtype}, not bool", where=name, do="compare with 0 to make it bool"
                )
            if tensor.shape != weights[name].shape:
                raise UserError(
                    f"the mask has shape {list(tensor.shape)} and the weight {list(weights[name].shape)}",
                    where=name,
                )
        # In network order, whatever order the caller's mapping had: reports read top to bottom.
        self._kept = {name: kept[name].detach().cpu().clone() for name in weights if name in kept}

    @classmethod
    def none(cls) -> "Mask":
        """The mask of a dense network: no weight carries one."""
        return cls({}, nn.Identity())

    @classmethod
    def from_zeros(cls, module: nn.Module) -> "Mask":
        """Keep what is non-zero now, in every prunable weight that holds a zero at all."""
        weights = {name: weight.detach() for name, weight in prunable_weights(module).items()}
        return cls({name: weight != 0 for name, weight in weights.items() if bool((weight == 0).any())}, module)

    def __getitem__(self, name: str) -> Tensor:
        return self._kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        return self.keys() == other.keys() and all(torch.equal(self[name], other[name]) for name in self)

    __hash__ = None  # type: ignore[assignment]  # compared by value, and too large to hash

    def apply_(self, module: nn.Module) -> None:
        """Set every pruned weight of ``module`` to +0 in place. Selects, never multiplies: NaN × 0 is NaN."""
        with torch.no_grad():
            for name, kept in self._kept.items():
                weight = module.get_parameter(name)
                weight.masked_fill_(~kept.to(weight.device), 0.0)

    def audit(self, module: nn.Module) -> None:
        """Raise ``MaskViolation`` at the first weight that is non-zero (or NaN) outside the mask."""
        for name, kept in self._kept.items():
            audit(name, module.get_parameter(name).detach(), kept)

    def counts(self) -> dict[str, tuple[int, int]]:
        """Name -> (kept, size), exact Python integers."""
        return {name: (int(kept.sum()), kept.numel()) for name, kept in self._kept.items()}
