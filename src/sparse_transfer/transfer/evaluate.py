"""How good a network with a head is on labelled pictures."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sparse_transfer.checkpoints.file import Checkpoint
from sparse_transfer.core.canonical import Json
from sparse_transfer.core.errors import UserError, listed
from sparse_transfer.data.reading import parse, read
from sparse_transfer.data.split import Split
from sparse_transfer.data.transforms import evaluation
from sparse_transfer.metrics.calibration import cross_entropy, expected_calibration_error
from sparse_transfer.metrics.confusion import Confusion, predict
from sparse_transfer.models import Head, Network
from sparse_transfer.runs.record import Accuracy
from sparse_transfer.solvers.selection import logits as logits_of
from sparse_transfer.transfer.compute import DEFAULT, Compute


@dataclass(frozen=True)
class Measured:
    """A head on the features of labelled pictures.

    predictions: [N] int64, in the data set's labels.   cross_entropy: nats.   ece: in [0, 1], 15 bins.
    """

    accuracy: Accuracy
    confusion: Confusion
    predictions: NDArray[np.int64]
    cross_entropy: float
    ece: float

    def to_json(self) -> Json:
        """Accuracies with their intervals, and what was measured beside them."""
        return {
            **asdict(self.accuracy),
            "cross_entropy": self.cross_entropy,
            "ece": self.ece,
            "empty_classes": list(self.confusion.empty_classes),
        }

    def render(self) -> str:
        """A few lines for people."""
        accuracy = self.accuracy
        lines = [f"{'pictures':20} {accuracy.total:,} ({accuracy.correct:,} right)"]
        for name, value, interval in (
            ("top-1", accuracy.top1, accuracy.top1_interval),
            ("mean per class", accuracy.mean_per_class, accuracy.mean_per_class_interval),
        ):
            lines.append(
                f"{name:20} {value:.2%}  (95 % interval over images {interval.low:.2%} to {interval.high:.2%})"
            )
        lines.append(f"{'cross-entropy':20} {self.cross_entropy:.4f} nats")
        lines.append(f"{'calibration error':20} {self.ece:.2%} (ECE, 15 bins)")
        if self.confusion.empty_classes:
            lines.append(f"left out             no test picture of {listed(list(self.confusion.empty_classes))}")
        return "\n".join(lines)


def evaluate(checkpoint: Checkpoint | Network | str | Path, dataset: str, *, compute: Compute = DEFAULT) -> Measured:
    """Accuracy of the checkpoint's own head on the test pictures of ``dataset``, turned upright by EXIF.

    Raises:
        UserError: there is no head, or its classes are not the data set's.
    """
    checkpoint = Checkpoint.of(checkpoint)
    if checkpoint.head is None:
        raise UserError(
            "this checkpoint has no head", where=checkpoint.path, do="fit one with `sparse-transfer linear`"
        )
    test = read(*parse(dataset)).test
    head = aligned(checkpoint.head, test, checkpoint.path)
    features = compute.features(checkpoint.backbone, test, evaluation(checkpoint.backbone.preprocessing, exif=True))
    return measure(head, features, test)


def measure(head: Head, features: NDArray[np.float32], test: Split) -> Measured:
    """The head's accuracy on features [N, D] of the split, in its order."""
    return measure_logits(logits_of(head, features), test)


def measure_logits(logits: NDArray[np.float32], test: Split) -> Measured:
    """The accuracy of logits [N, C] of the split, in its order and of its classes."""
    predictions = predict(logits)
    confusion = Confusion.of(test.labels, predictions, test.classes)
    return Measured(
        Accuracy.of(confusion),
        confusion,
        predictions,
        cross_entropy(logits, test.labels),
        expected_calibration_error(logits, test.labels),
    )


OTHER_CLASSES = "evaluate on the classes it was fitted for, or fit a head with `sparse-transfer linear`"


def aligned(head: Head, test: Split, where: Path, do: str = OTHER_CLASSES) -> Head:
    """The head with its rows in the order of the split's classes; without names the order is taken to be the same.

    do: what to do about a head for other classes.
    """
    if not head.classes:
        if len(head.weight) != len(test.classes):
            raise UserError(
                f"a head of {len(head.weight)} classes, and {len(test.classes)} in the pictures", where=where, do=do
            )
        return head
    strangers = [name for name in test.classes if name not in head.classes]
    if strangers:
        raise UserError(
            f"the head does not know {len(strangers)} of the {len(test.classes)} classes: {listed(strangers)}",
            where=where,
            do=do,
        )
    rows = torch.tensor([head.classes.index(name) for name in test.classes])
    kept = None if head.kept is None else head.kept[rows]
    return Head(head.weight[rows], head.bias[rows], test.classes, kept)
