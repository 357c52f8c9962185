"""State of Sparsity's two learned ways (Gale et al., 2019): which weights count is computed from a second variable.

- ``tf_variational``, variational dropout (Molchanov et al., 2017): log α = log σ² - log(θ² + 1e-8), and a weight
  counts where log α is below a threshold. google-research/google-research, state_of_sparsity/layers/
  variational_dropout/nn.py, ``conv2d_eval``.
- ``tf_l0``, L0 regularisation (Louizos et al., 2018): a weight counts θ · gate, gate = the hard concrete
  distribution's mean, clipped to [0, 1]. layers/l0_regularization/common.py, ``hard_concrete_mean``.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from sparse_transfer.checkpoints.formats.contract import Decoded, Encoding, encodings
from sparse_transfer.checkpoints.formats.source import Source
from sparse_transfer.checkpoints.formats.tf_names import ends_with, names
from sparse_transfer.checkpoints.readers.container import LazyTensor
from sparse_transfer.core.errors import listed

EPSILON = 1e-8
# sparse_rn50/evaluate/evaluate_vd.sh evaluates all published ResNet-50s with it; the flag's default is 3.
THRESHOLD = 0.5
LOWEST, HIGHEST = -0.1, 1.1  # gamma and zeta of the hard concrete distribution
LOG_SIGMA2, LOG_ALPHA = ("log_sigma2",), ("log_alpha", "log_alpha_aux")

Formula = Callable[[Tensor, Tensor], Tensor]
"""(θ, the second variable) -> what becomes of each weight, float32."""


def recognise_variational(source: Source) -> str | None:
    found = ends_with(source, *LOG_SIGMA2)
    return f"{len(found)} layers have a log σ² ({listed(found, most=1)})" if found else None


def recognise_l0(source: Source) -> str | None:
    found = ends_with(source, *LOG_ALPHA)
    return f"{len(found)} layers have a log α ({listed(found, most=1)})" if found else None


def decode_variational(source: Source) -> Decoded:
    decoded = _decode(source, LOG_SIGMA2, kept=kept_variational, effective=None)
    return replace(
        decoded, assumptions=(f"a weight counts where log α < {THRESHOLD}, as published ResNet-50s are evaluated",)
    )


def decode_l0(source: Source) -> Decoded:
    decoded = _decode(source, LOG_ALPHA, kept=kept_l0, effective=effective_l0)
    return replace(
        decoded, notes=("a weight counts times its gate, so those that are kept may be smaller than stored",)
    )


def kept_variational(theta: Tensor, log_sigma2: Tensor) -> Tensor:
    """1 where the weight counts, 0 where it does not, NaN where that is not said."""
    log_alpha = log_sigma2 - torch.log(theta.square() + EPSILON)
    return torch.where(log_alpha.isnan(), log_alpha, (log_alpha < THRESHOLD).float())


def gate_l0(log_alpha: Tensor) -> Tensor:
    """In [0, 1], exactly 0 for a pruned weight."""
    return (torch.sigmoid(log_alpha) * (HIGHEST - LOWEST) + LOWEST).clamp(0, 1)


def kept_l0(theta: Tensor, log_alpha: Tensor) -> Tensor:
    del theta
    gate = gate_l0(log_alpha)
    return torch.where(gate.isnan(), gate, (gate > 0).float())


def effective_l0(theta: Tensor, log_alpha: Tensor) -> Tensor:
    gate = gate_l0(log_alpha)
    return torch.where(gate == 0, torch.zeros(()), theta * gate)


def _decode(source: Source, beside: tuple[str, ...], *, kept: Formula, effective: Formula | None) -> Decoded:
    found = names(source, beside=beside)
    weights = {plain: source.tensors[name] for plain, name in found.weights.items()}
    masks: dict[str, LazyTensor] = {}
    for plain, name in found.beside.items():
        if plain in weights:
            theta, second = weights[plain], source.tensors[name]
            masks[plain] = _computed(kept, theta, second)
            if effective is not None:
                weights[plain] = LazyTensor(theta.shape, theta.dtype, _computed(effective, theta, second).read)
    return Decoded(
        weights=weights,
        keys=found.weights,
        masks=masks,
        mask_keys=found.beside,
        dropped=found.dropped,
        problems=found.problems,
        masks_are=f"masks computed from {beside[0]}",
    )


def _computed(formula: Formula, theta: LazyTensor, second: LazyTensor) -> LazyTensor:
    """Of the second variable's shape: that it is the weight's is checked before anything is read."""
    return LazyTensor(second.shape, torch.float32, lambda: formula(theta.read().float(), second.read().float()))


for name, recognise, decode in (
    ("tf_variational", recognise_variational, decode_variational),
    ("tf_l0", recognise_l0, decode_l0),
):
    encodings.add(name, Encoding("google-research/google-research, state_of_sparsity/layers", recognise, decode))
