"""Where things lie on this machine when nobody says so: the data root and the cache."""

import os
from pathlib import Path


def data_root() -> Path | None:
    """Folder of datasets by name, from ``SPARSE_TRANSFER_DATA``; None where that is not set."""
    place = os.environ.get("SPARSE_TRANSFER_DATA")
    return Path(place).expanduser() if place else None


def cache_root() -> Path:
    """Folder of what can be made anew: ``SPARSE_TRANSFER_CACHE``, else the platform's folder. May be absent."""
    place = os.environ.get("SPARSE_TRANSFER_CACHE")
    if place:
        return Path(place).expanduser()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("sparse-transfer"))
