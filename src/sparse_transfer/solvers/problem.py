"""The objective of ``lbfgs`` as a function of a point: the features centred in effect, read in blocks, never copied.

With z = W (x - mean) + c the column of c is orthogonal to the others, so its scale does not spoil theirs; F is the
same, for the bias b = c - W mean is free. The mean is taken out of the logits and of the gradient, not of the
features. A point is [C, D + 1]: the weight and, as last column, c.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_transfer.core.errors import UserError
from sparse_transfer.models.network import Head
from sparse_transfer.solvers.inputs import Features, Labels, as_tensor, blocks
from sparse_transfer.solvers.objective import cross_entropy


@dataclass(frozen=True)
class Place:
    """A point and what F is there.

    point: [C, D + 1].   logits: [N, C].   residuals: [N, C], softmax minus one-hot.   value: F, nats.
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
        self.features, self.labels, self.classes = as_tensor(features), torch.from_numpy(labels), classes
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
            return torch.zeros(self.classes, width + 1)
        if head.weight.shape != (self.classes, width):
            raise UserError(
                f"the fit starts from a head {list(head.weight.shape)}",
                do=f"these features and labels need [{self.classes}, {width}]",
            )
        weight = head.weight.float()
        return torch.cat([weight, (head.bias.float() + weight @ self.mean)[:, None]], dim=1)

    def logits(self, point: Tensor) -> Tensor:
        """[C, D + 1] -> [N, C]; linear, so it serves directions too."""
        weight, bias = point[:, :-1], point[:, -1] - point[:, :-1] @ self.mean
        logits = torch.empty(len(self.labels), self.classes)
        for block in self.blocks:
            torch.addmm(bias, self.features[block], weight.T, out=logits[block])
        return logits

    def at(self, point: Tensor, logits: Tensor, l2: float) -> Place:
        """F and its gradient at ``point``, whose logits are known."""
        loss, residuals = cross_entropy(logits, self.labels)
        gradient = torch.zeros_like(point)
        for block in self.blocks:
            gradient[:, :-1] += residuals[block].T @ self.features[block]
        gradient[:, -1] = residuals.sum(dim=0, dtype=torch.float64)
        gradient[:, :-1] -= torch.outer(gradient[:, -1], self.mean)
        gradient /= len(logits)
        gradient[:, :-1] += l2 * point[:, :-1]
        value = loss / len(logits) + l2 / 2 * dot(point[:, :-1], point[:, :-1])
        return Place(point, logits, residuals, value, gradient)

    def head(self, point: Tensor) -> Head:
        """The head at ``point``: W and b = c - W mean."""
        weight = point[:, :-1].clone()
        return Head(weight, point[:, -1] - weight @ self.mean)

    def gradient_norm(self, place: Place) -> float:
        """Largest absolute entry of the gradient of F by W and b: by the chain rule dF/dW gains dF/dc mean."""
        by_bias = place.gradient[:, -1]
        by_weight = place.gradient[:, :-1] + torch.outer(by_bias, self.mean)
        return max(float(by_weight.abs().max()), float(by_bias.abs().max()))


def dot(a: Tensor, b: Tensor) -> float:
    """The sum of products, added up in float64."""
    return float((a * b).sum(dtype=torch.float64))
