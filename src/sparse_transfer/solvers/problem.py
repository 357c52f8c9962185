"""The objective of ``lbfgs`` as a function of a point: the features centred in effect, read in blocks, never copied.

With z = W (x - mean) + c the column of c is orthogonal to the others, so its scale does not spoil theirs; F is the
same, for the bias b = c - W mean is free. The mean is taken out of the logits and of the gradient, not of the
features. A point is [C, D + 1]: the weight and, as last column, c.

A class without images has its minimum at a bias of minus infinity, which no minimiser reaches. It is left out of the
problem, and its row of the head is put there by hand. Below, C is the number of classes that are present.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sparse_transfer.core.errors import UserError
from sparse_transfer.models.network import Head
from sparse_transfer.solvers.inputs import Features, Labels, as_tensor, blocks
from sparse_transfer.solvers.objective import cross_entropy

ABSENT_BIAS = -1e4  # nats: exp of it is 0 in float64, and no logit of a fitted class comes near


@dataclass(frozen=True)
class Place:
    """A point and what F is there.

    point: [C, D + 1].   logits: [C, N].   residuals: [C, N], softmax minus one-hot.   value: F, nats.
    gradient: [C, D + 1], of F by the point.
    """

    point: Tensor
    logits: Tensor
    residuals: Tensor
    value: float
    gradient: Tensor


class Problem:
    """The features and labels of one fit.

    mean: [D] float32.   variance: of a feature around its mean, on average over the D features.
    """

    def __init__(self, features: Features, labels: Labels, classes: int) -> None:
        present, renumbered = np.unique(labels, return_inverse=True)
        self.features, self.labels = as_tensor(features), torch.from_numpy(renumbered)
        self.classes, self.present = classes, torch.from_numpy(present)  # how many in all; labels of the C present
        self.blocks = list(blocks(features))
        sums = [self.features[block].sum(dim=0, dtype=torch.float64) for block in self.blocks]
        self.mean = (torch.stack(sums).sum(dim=0) / len(features)).float()
        squares = [(self.features[block] - self.mean).square_().sum(dtype=torch.float64) for block in self.blocks]
        self.variance = float(sum(squares)) / features.size
        if not self.variance < 1e30:
            raise UserError(
                f"their variance is {self.variance:.1g}", where="features", do="scale them down: float32 ends at 3e38"
            )

    def start(self, head: Head | None) -> Tensor:
        """The point of ``head``, or zero."""
        width = len(self.mean)
        if head is None:
            return torch.zeros(len(self.present), width + 1)
        if head.weight.shape != (self.classes, width):
            raise UserError(
                f"the fit starts from a head {list(head.weight.shape)}",
                do=f"these features and labels need [{self.classes}, {width}]",
            )
        weight, bias = head.weight[self.present].float(), head.bias[self.present].float()
        return torch.cat([weight, (bias + weight @ self.mean)[:, None]], dim=1)

    def logits(self, point: Tensor) -> Tensor:
        """[C, D + 1] -> [C, N]; linear, so it serves directions too."""
        weight, bias = point[:, :-1], point[:, -1] - point[:, :-1] @ self.mean
        logits = torch.empty(len(point), len(self.labels))
        for block in self.blocks:
            logits[:, block] = weight @ self.features[block].T
        return logits.add_(bias[:, None])

    def at(self, point: Tensor, logits: Tensor, l2: float) -> Place:
        """F and its gradient at ``point``, whose logits are known."""
        loss, residuals = cross_entropy(logits, self.labels)
        gradient = torch.zeros_like(point)
        for block in self.blocks:
            gradient[:, :-1] += residuals[:, block] @ self.features[block]
        gradient[:, -1] = residuals.sum(dim=1, dtype=torch.float64)
        gradient[:, :-1] -= torch.outer(gradient[:, -1], self.mean)
        gradient /= len(self.labels)
        gradient[:, :-1] += l2 * point[:, :-1]
        value = loss / len(self.labels) + l2 / 2 * dot(point[:, :-1], point[:, :-1])
        return Place(point, logits, residuals, value, gradient)

    def head(self, point: Tensor) -> Head:
        """The head at ``point``: W and b = c - W mean."""
        weight, bias = torch.zeros(self.classes, len(self.mean)), torch.full((self.classes,), ABSENT_BIAS)
        weight[self.present] = point[:, :-1]
        bias[self.present] = point[:, -1] - point[:, :-1] @ self.mean
        return Head(weight, bias)

    def gradient_norm(self, place: Place) -> float:
        """Largest absolute entry of the gradient of F by W and b: by the chain rule dF/dW gains dF/dc mean."""
        by_bias = place.gradient[:, -1]
        by_weight = place.gradient[:, :-1] + torch.outer(by_bias, self.mean)
        return max(float(by_weight.abs().max()), float(by_bias.abs().max()))


def dot(a: Tensor, b: Tensor) -> float:
    """The sum of products, added up in float64."""
    return float((a * b).sum(dtype=torch.float64))
