"""Pictures in, class names out."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sparse_transfer.checkpoints.file import Checkpoint
from sparse_transfer.core.errors import UserError
from sparse_transfer.core.progress import progress
from sparse_transfer.data.decode import CHECK
from sparse_transfer.data.loading import batches
from sparse_transfer.data.readers.found import is_picture, path_bytes, visible_files
from sparse_transfer.data.split import Split
from sparse_transfer.data.transforms import evaluation
from sparse_transfer.models import Head, Network
from sparse_transfer.transfer.compute import DEFAULT, Compute


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one picture, best first, or why it could not be read.

    classes: names (the label's number where the head has none).   probabilities: softmax, in [0, 1], same order.
    """

    path: Path
    classes: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    error: str | None = None


def predict(
    checkpoint: Checkpoint | Network | str | Path,
    pictures: Sequence[str | Path],
    *,
    top: int = 3,
    compute: Compute = DEFAULT,
) -> Generator[Prediction]:
    """One prediction per picture, in the order given; folders are searched, sub-folders too, in byte-wise order.

    A picture is turned upright by its EXIF orientation. One that cannot be read gives a prediction with ``error`` set.

    Raises:
        UserError: the checkpoint has no head, a path does not exist, a folder holds no picture, or the backbone gives
            NaN or infinity for one.
    """
    checkpoint = Checkpoint.of(checkpoint)
    head = checkpoint.head
    if head is None:
        raise UserError(
            "this checkpoint has no head", where=checkpoint.path, do="fit one: sparse-transfer linear ... -o OUT"
        )
    if top < 1:
        raise UserError(f"{top} classes", where="--top", do="ask for 1 or more")
    split = _as_split(list(_found(pictures)))
    transform = evaluation(checkpoint.backbone.preprocessing, exif=True)
    with (
        closing(compute.compile(checkpoint.backbone)) as compiled,
        closing(
            batches(split, transform, batch_size=compute.batch_size, workers=compute.workers, skip_bad=True)
        ) as loader,
        progress("predict", len(split), unit="pictures") as advance,
    ):
        position = 0
        for loaded in loader:
            features = (
                compiled(transform.normalise(loaded.images).numpy())
                if len(loaded)
                else np.empty((0, checkpoint.backbone.feature_dim), dtype=np.float32)
            )
            unusable = ~np.isfinite(features).all(axis=1)
            if unusable.any():
                raise UserError(
                    "its features hold NaN or infinity",
                    where=split.paths[loaded.indices[unusable.argmax()]],
                    do="look at the backbone's weights, and use fp32 if this was bf16",
                )
            readable = dict(zip(loaded.indices.tolist(), _ranked(head, features, top), strict=True))
            errors = iter(loaded.bad)
            for index in range(position, position + len(loaded) + len(loaded.bad)):
                path = Path(split.paths[index])
                if index in readable:
                    yield Prediction(path, *readable[index])
                else:
                    yield Prediction(path, error=_shown(next(errors)))
            position += len(loaded) + len(loaded.bad)
            advance(len(loaded) + len(loaded.bad))


def _shown(error: UserError) -> str:
    """Without the advice to check the data set, which these pictures are none of."""
    return str(UserError(error.what, where=error.where, do=(error.do or "").removesuffix(CHECK).rstrip("; ") or None))


def _ranked(head: Head, features: np.ndarray, top: int) -> list[tuple[tuple[str, ...], tuple[float, ...]]]:
    """features [B, D] -> for each picture the best classes and their probabilities."""
    probabilities = head(torch.from_numpy(features)).softmax(dim=1)
    best = probabilities.topk(min(top, probabilities.shape[1]), dim=1)
    names = head.classes or tuple(str(label) for label in range(len(head.weight)))
    return [
        (tuple(names[label] for label in labels), tuple(values))
        for labels, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _found(pictures: Sequence[str | Path]) -> Generator[Path]:
    for place in map(Path, pictures):
        if place.is_dir():
            below = sorted(
                (name for name, size in visible_files(place) if size is not None and is_picture(name)), key=path_bytes
            )
            if not below:
                raise UserError("no picture lies in this folder", where=place)
            yield from (place / name for name in below)
        elif place.exists():
            yield place
        else:
            raise UserError("there is no such picture or folder", where=place)


def _as_split(paths: list[Path]) -> Split:
    """The pictures as a split without labels, so that they go the way of every other picture."""
    nothing = np.zeros(len(paths), dtype=np.int64)
    return Split("pictures", Path(), tuple(str(path) for path in paths), nothing, nothing, ("",))
