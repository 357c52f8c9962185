"""What a linear head is fitted to: mean cross-entropy and an L2 term, with the gradient."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_transfer.models.network import Head
from sparse_transfer.solvers.inputs import Features, Labels, as_tensor, blocks


@dataclass(frozen=True)
class Objective:
    """F at a head, nats, and its gradient: weight [C, D] and bias [C], float64."""

    value: float
    weight_gradient: Tensor
    bias_gradient: Tensor

    @property
    def gradient_norm(self) -> float:
        """The largest absolute entry of the gradient."""
        return max(float(self.weight_gradient.abs().max()), float(self.bias_gradient.abs().max()))


def objective(head: Head, features: Features, labels: Labels, *, l2: float) -> Objective:
    """Mean cross-entropy of a linear head plus an L2 term, and its gradient.

        F(W, b) = 1/n sum_i [ logsumexp(z_i) - z_i[y_i] ] + l2/2 ||W||_F^2,    z_i = W x_i + b

    The bias is not penalised. ``l2`` goes with the *mean* loss, so it does not depend on n: scikit-learn's C is
    1 / (n * l2). Logits are float32, or the head's own type where that is wider; sums are float64. Features are read
    in blocks of rows, so memory does not grow with n.

    features: [N, D] float32, N >= 1.   labels: [N] int64 in [0, C).   l2: >= 0.
    Source: Bishop, Pattern Recognition and Machine Learning (2006), section 4.3.4.
    """
    rows, targets = as_tensor(features), torch.from_numpy(labels)
    weight, bias = head.weight.double(), head.bias.double()
    value, weight_gradient, bias_gradient = 0.0, torch.zeros_like(weight), torch.zeros_like(bias)
    for block in blocks(features):
        images = rows[block].to(head.weight.dtype)
        loss, residuals = cross_entropy(head(images).T, targets[block])
        value += loss
        weight_gradient += residuals @ images
        bias_gradient += residuals.sum(dim=1, dtype=torch.float64)
    count = len(features)
    value = value / count + l2 / 2 * float(weight.square().sum())
    return Objective(value, weight_gradient / count + l2 * weight, bias_gradient / count)


def cross_entropy(logits: Tensor, labels: Tensor) -> tuple[float, Tensor]:
    """The summed cross-entropy, and its gradient by the logits: softmax minus one-hot.

    logits: [C, N], not changed: a row a class, which is 1.4 times as fast in the products around this as a row an
    image.   labels: [N] int64 -> nats, [C, N].

    Both keep their relative precision where the fit is nearly perfect, in float32 too: with d_k = z_k - z_y the loss
    is log1p(sum over k != y of exp(d_k)), and the gradient at y is minus the sum of the others. The usual form,
    logsumexp(z) - z_y and p_y - 1, is a difference of near equals: it stops at 1e-7, and weak l2 needs 1e-9.
    """
    index = labels[None]
    odds = logits - logits.gather(0, index)  # d [C, N]
    top = odds.amax(dim=0)  # [N], >= 0, since d_y = 0
    odds.sub_(top).exp_().scatter_(0, index, 0.0)
    others, own = odds.sum(dim=0), (-top).exp()
    # top = 0 and own = 1 wherever the right class leads: then this is log1p(others).
    losses = top + torch.log1p(others - (1 - own))
    total = others + own
    residuals = odds.div_(total).scatter_(0, index, (-others / total)[None])
    return float(losses.sum(dtype=torch.float64)), residuals
