"""Batches of a split, decoded ahead in threads: same pictures, same order, whatever the number of workers."""

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sparse_transfer.core.errors import UserError
from sparse_transfer.core.threads import available_cores
from sparse_transfer.data.decode import load_picture
from sparse_transfer.data.split import Split
from sparse_transfer.data.transforms import Transform

AHEAD = 2
"""Batches that are decoded before they are asked for. At 224 px a batch of 64 takes 10 MB."""


@dataclass(frozen=True)
class Batch:
    """Some pictures of a split, in the order asked for.

    indices: [B] int64 positions in the split.   images: [B, H, W, 3] uint8.   labels: [B] int64.
    bad: one error for each picture that was left out (``skip_bad``).
    """

    indices: NDArray[np.int64]
    images: Tensor
    labels: Tensor
    bad: tuple[UserError, ...] = ()

    def __len__(self) -> int:
        return len(self.indices)


class PictureCache:
    """Decoded pictures kept in memory, for a split that is looked at epoch after epoch.

    As many as fit into ``limit`` bytes (3 a pixel, at full size) stay; the others are decoded each time.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self._pictures: dict[tuple[str, int, bool], Image.Image] = {}
        self._lock = Lock()

    def load(self, split: Split, index: int, *, exif: bool) -> Image.Image:
        """``load_picture``, decoded at most once while there is room."""
        key = (split.fingerprint, index, exif)
        if (picture := self._pictures.get(key)) is not None:
            return picture
        picture = load_picture(split, index, exif=exif)
        size = 3 * picture.width * picture.height
        with self._lock:
            if key not in self._pictures and self.bytes + size <= self.limit:
                self._pictures[key] = picture
                self.bytes += size
        return picture


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
) -> Generator[Batch]:
    """Batches of ``batch_size`` of the pictures at ``indices`` (default: all), in that order; the last may be smaller.

    parts: the positions of each batch, instead of the two.   cache: decoded pictures that need not be read again.
    workers: decoding threads, default one a core (Pillow decodes and resizes outside Python's lock); 0 decodes in the
    caller's. At most ``AHEAD`` batches are held besides the caller's. Leaving the loop, or Ctrl-C, stops the threads.
    seed, epoch: a random transform draws for a picture from a generator of its own, (seed, epoch, index): its view
    depends on neither workers, batch size nor order.
    skip_bad: a picture that cannot be read is left out and listed in ``Batch.bad``; a batch may then be empty.

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

    def decode(index: int) -> NDArray[np.uint8] | UserError:
        rng = np.random.default_rng((seed, epoch, index)) if transform.random and seed is not None else None
        try:
            return _decoded(split, index, transform, rng, cache)
        except UserError as error:
            if skip_bad:
                return error
            raise

    if threads == 0:
        for part in parts:
            yield _batch(split, part, [decode(index) for index in part.tolist()])
        return

    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    queue: deque[tuple[NDArray[np.int64], list[Future[NDArray[np.uint8] | UserError]]]] = deque()
    try:
        for part in parts:
            queue.append((part, [pool.submit(decode, index) for index in part.tolist()]))
            if len(queue) > AHEAD:
                yield _gathered(split, *queue.popleft())
        while queue:
            yield _gathered(split, *queue.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _decoded(
    split: Split, index: int, transform: Transform, rng: np.random.Generator | None, cache: PictureCache | None
) -> NDArray[np.uint8]:
    load = load_picture if cache is None else cache.load
    try:
        return transform(load(split, index, exif=transform.exif), rng)
    except UserError as error:
        if error.where is not None:
            raise
        raise UserError(error.what, where=split.root / split.paths[index], do=error.do) from None


def _gathered(split: Split, part: NDArray[np.int64], futures: list[Future[NDArray[np.uint8] | UserError]]) -> Batch:
    return _batch(split, part, [future.result() for future in futures])


def _batch(split: Split, part: NDArray[np.int64], decoded: list[NDArray[np.uint8] | UserError]) -> Batch:
    pictures = [picture for picture in decoded if not isinstance(picture, UserError)]
    bad = tuple(picture for picture in decoded if isinstance(picture, UserError))
    read = part[[not isinstance(picture, UserError) for picture in decoded]] if bad else part
    images = torch.from_numpy(np.stack(pictures)) if pictures else torch.empty((0, 0, 0, 3), dtype=torch.uint8)
    return Batch(read, images, torch.from_numpy(split.labels[read]), bad)
