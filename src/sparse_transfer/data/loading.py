"""Batches of a split, decoded ahead in threads: same pictures, same order, whatever the number of workers."""

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparse_transfer.core.errors import UserError
from sparse_transfer.core.threads import available_cores
from sparse_transfer.data.decode import load_picture
from sparse_transfer.data.split import Split
from sparse_transfer.data.transforms import Still, Transform
from sparse_transfer.data.views import View

AHEAD = 2
"""Batches that are decoded before they are asked for. At 224 px a batch of 64 takes 10 MB."""

Decoded = tuple[NDArray[np.uint8], View | None]
"""Pixels [H, W, 3], and what is to be cut from them."""


@dataclass(frozen=True)
class Batch:
    """Some pictures of a split, in the order asked for.

    indices: [B] int64 positions in the split.   images: [B, H, W, 3] uint8.   labels: [B] int64.
    bad: one error for each picture that was left out (``skip_bad``).
    views: of a transform ``on_device``, what is to be cut from each picture; smaller pictures have 0 beside them.
    """

    indices: NDArray[np.int64]
    images: Tensor
    labels: Tensor
    bad: tuple[UserError, ...] = ()
    views: tuple[View, ...] = ()

    def __len__(self) -> int:
        return len(self.indices)


class PictureCache:
    """Pictures kept in memory as their transform leaves them before any draw, for what is looked at in every epoch.

    As many as fit into ``limit`` bytes (3 a pixel) stay; the others are decoded each time.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self._kept: dict[tuple[str, int, Transform], Still] = {}
        self._lock = Lock()

    def still(self, split: Split, index: int, transform: Transform) -> Still:
        """The picture at that position, decoded at most once while there is room."""
        key = (split.fingerprint, index, transform)
        if (kept := self._kept.get(key)) is not None:
            return kept
        still = _still(split, index, transform)
        size = 3 * still.image.width * still.image.height
        with self._lock:
            if key not in self._kept and self.bytes + size <= self.limit:
                self._kept[key] = still
                self.bytes += size
        return still


def batches(
    split: Split,
    transform: Transform,
    *,
    batch_size: int | None = None,
    workers: int | None = None,
    indices: Sequence[int] | NDArray[np.int64] | None = None,
    parts: Sequence[NDArray[np.int64]] | None = None,
    cache: PictureCache | None = None,
    seed: int | None = None,
    epoch: int = 0,
    skip_bad: bool = False,
    pinned: bool = False,
) -> Generator[Batch]:
    """Batches of ``batch_size`` of the pictures at ``indices`` (default: all), in that order; the last may be smaller.

    parts: the positions of each batch, instead of the two.   cache: decoded pictures that need not be read again.
    workers: decoding threads, default one a core (Pillow decodes and resizes outside Python's lock); 0 decodes in the
    caller's. At most ``AHEAD`` batches are held besides the caller's. Leaving the loop, or Ctrl-C, stops the threads.
    seed, epoch: a random transform draws for a picture from a generator of its own, (seed, epoch, index): its view
    depends on neither workers, batch size nor order.
    skip_bad: a picture that cannot be read is left out and listed in ``Batch.bad``; a batch may then be empty.
    pinned: images and labels lie in page-locked memory, from which CUDA copies while the caller goes on.

    Raises:
        UserError: a picture cannot be read; it names the file.
    """
    if transform.random and seed is None:
        raise ValueError("a random transform needs a seed")
    if parts is None:
        if batch_size is None:
            raise ValueError("batches need a size, or their parts")
        chosen = np.arange(len(split)) if indices is None else np.asarray(indices, dtype=np.int64)
        parts = [chosen[start : start + batch_size] for start in range(0, len(chosen), batch_size)]
    threads = available_cores() if workers is None else workers

    def decode(index: int) -> Decoded | UserError:
        rng = np.random.default_rng((seed, epoch, index)) if transform.random and seed is not None else None
        try:
            return _decoded(split, index, transform, rng, cache)
        except UserError as error:
            if skip_bad:
                return error
            raise

    if threads == 0:
        for part in parts:
            yield _batch(split, part, [decode(index) for index in part.tolist()], pinned)
        return

    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    queue: deque[tuple[NDArray[np.int64], list[Future[Decoded | UserError]]]] = deque()
    try:
        for part in parts:
            queue.append((part, [pool.submit(decode, index) for index in part.tolist()]))
            if len(queue) > AHEAD:
                yield _gathered(split, *queue.popleft(), pinned)
        while queue:
            yield _gathered(split, *queue.popleft(), pinned)
    finally:
        pool.shutdown(cancel_futures=True)


def _decoded(
    split: Split, index: int, transform: Transform, rng: np.random.Generator | None, cache: PictureCache | None
) -> Decoded:
    still = _still(split, index, transform) if cache is None else cache.still(split, index, transform)
    if not transform.random:
        return np.asarray(still.image), None
    view = transform.drawn(still, rng)
    if not transform.on_device:
        return transform.cut_one(still, view), None
    return np.asarray(still.image), view.shrunk((still.width, still.height), still.image.size)


def _still(split: Split, index: int, transform: Transform) -> Still:
    try:
        return transform.still(load_picture(split, index, exif=transform.exif))
    except UserError as error:
        if error.where is not None:
            raise
        raise UserError(error.what, where=split.root / split.paths[index], do=error.do) from None


def _gathered(split: Split, part: NDArray[np.int64], futures: list[Future[Decoded | UserError]], pinned: bool) -> Batch:
    return _batch(split, part, [future.result() for future in futures], pinned)


def _batch(split: Split, part: NDArray[np.int64], decoded: list[Decoded | UserError], pinned: bool) -> Batch:
    found = [one for one in decoded if not isinstance(one, UserError)]
    bad = tuple(one for one in decoded if isinstance(one, UserError))
    read = part[[not isinstance(one, UserError) for one in decoded]] if bad else part
    images, labels = _stacked([pixels for pixels, _ in found], pinned), torch.from_numpy(split.labels[read])
    views = tuple(view for _, view in found if view is not None)
    return Batch(read, images, labels.pin_memory() if pinned else labels, bad, views)


def _stacked(pictures: list[NDArray[np.uint8]], pinned: bool) -> Tensor:
    """[B, H, W, 3] of the largest height and width among them; smaller ones lie at the top left."""
    height, width = (max((picture.shape[axis] for picture in pictures), default=0) for axis in (0, 1))
    images = torch.zeros((len(pictures), height, width, 3), dtype=torch.uint8, pin_memory=pinned)
    for row, picture in zip(images.numpy(), pictures, strict=True):
        row[: picture.shape[0], : picture.shape[1]] = picture
    return images
