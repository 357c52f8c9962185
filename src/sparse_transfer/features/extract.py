"""What a backbone makes of a split, computed once and kept."""

import time
from collections import deque
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparse_transfer.core import canonical, places
from sparse_transfer.core.canonical import Json
from sparse_transfer.core.errors import UserError
from sparse_transfer.core.progress import progress, warn
from sparse_transfer.core.threads import available_cores
from sparse_transfer.data.loading import batches
from sparse_transfer.data.split import Split
from sparse_transfer.data.transforms import Transform
from sparse_transfer.features import cache
from sparse_transfer.features.writer import About, Writer
from sparse_transfer.inference import Compiled, Engine, Numerics
from sparse_transfer.models import Backbone

KEY_VERSION = 1  # raised when the same key would mean other features


@dataclass(frozen=True)
class View:
    """One augmented look at every picture: a random transform draws from (seed, index, picture)."""

    seed: int
    index: int = 0


def features(
    backbone: Backbone,
    split: Split,
    transform: Transform,
    engine: Engine,
    *,
    batch: int,
    workers: int | None = None,
    threads: int | None = None,
    cache_root: Path | None = None,
    view: View | None = None,
    numerics: Numerics = "fp32",
) -> NDArray[np.float32]:
    """[N, D], finite, of every picture in the split's order, from the cache where it holds them: a read-only map.

    batch: pictures the engine takes at once; with a divisor of ``writer.CHUNK_ROWS`` a resumed extraction is equal bit
    for bit.   workers: decoding threads; threads: the engine's; both one a core by
    default.   cache_root: default ``core.places.cache_root()``.   view: needed by a random transform, and by it only.

    Killed or interrupted, the next call goes on at the chunk of 512 pictures where this one stopped.

    Raises:
        UserError: a picture cannot be read, or its features are not finite; it names the file.
        OSError: the disk of the cache is full.
    """
    if not len(split):
        raise UserError("the split has no pictures", where=split.root)
    if transform.random != (view is not None):
        raise ValueError("a random transform needs a view, and no other takes one")
    root = cache_root or places.cache_root()
    about = _about(backbone, split, transform, engine, view, numerics)
    folder = cache.folder_of(root, about.key)

    if folder.is_dir() and cache.damage(folder, about.images, about.dim, split.labels) is None:
        with suppress(FileNotFoundError):  # another process pruned it this very moment
            return _opened(folder)
    with cache.explained(root, about.images * about.dim * 4), cache.only_one(folder, f"features of {split.name}"):
        if folder.is_dir():  # another process may have finished it by now
            damage = cache.damage(folder, about.images, about.dim, split.labels)
            if damage is None:
                return _opened(folder)
            warn(f"{folder}: {damage}; what is damaged is made anew")
            cache.demote(folder)
        writer = Writer(folder.with_name(f"{folder.name}.partial"), about.images, about.dim)
        with writer.writing():
            compiled = engine.compile(
                backbone,
                batch=min(batch, len(split)),
                threads=threads or available_cores(),
                input_size=transform.preprocessing.crop,
                numerics=numerics,
            )
            with closing(compiled):
                _extract(writer, split, transform, compiled, batch, workers, view)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        writer.finish(split.labels, replace(about, seconds=round(writer.seconds(), 3), created=created))
    return _opened(folder)


def _about(
    backbone: Backbone, split: Split, transform: Transform, engine: Engine, view: View | None, numerics: Numerics
) -> About:
    digest = backbone.digest()
    identity: dict[str, Json] = {
        "version": KEY_VERSION,
        "backbone": digest,
        "fingerprint": split.fingerprint,
        "transform": transform.to_json(),
        "numerics": numerics,
        "view": None if view is None else asdict(view),
    }
    return About(
        key=canonical.digest(identity),
        backbone=digest,
        architecture=str(backbone.architecture),
        split=split.name,
        fingerprint=split.fingerprint,
        transform=transform.to_json(),
        view=None if view is None else asdict(view),
        numerics=numerics,
        engine=engine.name,
        images=len(split),
        dim=backbone.feature_dim,
        versions={name: version(name) for name in ("torch", "numpy", "pillow")},
    )


def _extract(
    writer: Writer,
    split: Split,
    transform: Transform,
    compiled: Compiled,
    batch: int,
    workers: int | None,
    view: View | None,
) -> None:
    """Fill the chunks that are missing, in order."""
    missing = deque(writer.missing())
    indices = np.concatenate([np.asarray(writer.rows(chunk)) for chunk in missing] or [np.arange(0)])
    seed, epoch = (None, 0) if view is None else (view.seed, view.index)
    pending = np.empty((0, writer.dim), dtype=np.float32)
    started = time.perf_counter()
    with (
        closing(
            batches(split, transform, batch_size=batch, workers=workers, indices=indices, seed=seed, epoch=epoch)
        ) as loader,
        progress(f"features of {split.name}", len(split), unit="pictures", done=len(split) - len(indices)) as advance,
    ):
        for loaded in loader:
            rows = compiled(transform.normalise(loaded.images).numpy())
            unusable = ~np.isfinite(rows).all(axis=1)
            if unusable.any():
                raise UserError(
                    "its features hold NaN or infinity",
                    where=split.root / split.paths[loaded.indices[unusable.argmax()]],
                    do="look at the backbone's weights, and use fp32 if this was bf16",
                )
            pending = np.concatenate([pending, rows])
            while missing and len(pending) >= (count := len(writer.rows(missing[0]))):
                now = time.perf_counter()
                writer.write(missing.popleft(), pending[:count], now - started)
                pending, started = pending[count:], now
            advance(len(rows))


def _opened(folder: Path) -> NDArray[np.float32]:
    cache.touch(folder)
    return np.load(folder / "features.npy", mmap_mode="r")
