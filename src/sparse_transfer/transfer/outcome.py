"""What a finished full transfer leaves beside its record: accuracy by class, and the pictures it got most wrong."""

import csv
import io
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparse_transfer.core.files import sha256, write_text
from sparse_transfer.data.split import Split
from sparse_transfer.metrics.calibration import log_softmax
from sparse_transfer.metrics.confusion import Confusion, predict

PER_CLASS, HARDEST = "per_class.csv", "hardest.json"
MOST = 50


def write_outcome(folder: Path, logits: NDArray[np.float32], test: Split, confusion: Confusion) -> dict[str, str]:
    """Write both files and give their digests. logits: [N, C] of the test pictures, in the split's order."""
    write_text(folder / PER_CLASS, per_class(confusion))
    write_text(folder / HARDEST, json.dumps(hardest(logits, test), indent=1, ensure_ascii=False) + "\n")
    return {name: sha256(folder / name) for name in (PER_CLASS, HARDEST)}


def per_class(confusion: Confusion) -> str:
    """CSV, a line a class: its test pictures, how many were recognised, which share, and what it was most taken for."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", "pictures", "correct", "recall", "most_taken_for"])
    for row, name in enumerate(confusion.classes):
        counts = confusion.counts[row]
        wrong = np.where(np.arange(len(counts)) == row, -1, counts)
        taken = confusion.classes[int(wrong.argmax())] if len(wrong) > 1 and wrong.max() > 0 else ""
        pictures, correct = int(counts.sum()), int(counts[row])
        writer.writerow([name, pictures, correct, f"{correct / pictures:.4f}" if pictures else "", taken])
    return text.getvalue()


def hardest(logits: NDArray[np.float32], test: Split) -> list[dict[str, str | float]]:
    """The test pictures with the largest loss, worst first: path, class, prediction, its probability, loss in nats."""
    log_p = log_softmax(logits)
    loss = -log_p[np.arange(len(logits)), test.labels]
    predictions = predict(logits)
    return [
        {
            "path": test.paths[index],
            "class": test.classes[int(test.labels[index])],
            "predicted": test.classes[int(predictions[index])],
            "probability": round(float(np.exp(log_p[index].max())), 6),
            "loss": round(float(loss[index]), 6),
        }
        for index in np.argsort(-loss, kind="stable")[:MOST].tolist()
    ]
