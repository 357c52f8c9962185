"""What is on this machine, what is missing, and the exact way to get it."""

import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Literal

from sparse_transfer.core.places import cache_root, data_root
from sparse_transfer.core.threads import available_cores

# As README installs it. Once done, a plain `make setup` has nothing left to do.
SETUP = "make -B setup"
CLONE = Path(__file__).parents[3]  # the folder with the Makefile, where this file lies in a clone's src/
PAIR_RULE = (
    "torch and torchvision must be a pair from one source: after `make clean`, install both from PyPI (make setup)"
    ' or both from the index of your CPU or CUDA builds (make setup TORCH_ARGS="--index ADDRESS")'
)


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``remedy`` is the command or step that brings what is missing."""

    what: str
    state: Literal["ok", "missing", "broken"]
    detail: str
    remedy: str | None = None


def how_to_install(library: str, *, needed: bool = False) -> str:
    """The command that brings a library: make's in a clone; pip's, for the library alone, where a wheel was installed.

    Our own extras would not do there: they are asked for by the name of this package, which is on no index.
    """
    if not (CLONE / "Makefile").is_file():
        return f"pip install {library}"
    return SETUP if needed else f"{SETUP} EXTRAS={library}"


def examine() -> list[Finding]:
    """Everything ``doctor`` reports, cheapest first."""
    return [
        python(),
        torch_pair(),
        *(library(name, needed=True) for name in ("scikit-learn", "scipy", "safetensors", "pillow", "numpy")),
        *(library(name, needed=False) for name in ("timm", "wandb", "tensorboard")),
        hardware(),
        accelerator(),
        writable("feature cache", cache_root()),
        data(),
    ]


def python() -> Finding:
    return Finding("Python", "ok", platform.python_version())


def torch_pair() -> Finding:
    """Import both, run torchvision's own operator, compare the build tags after ``+``.

    A mixed pair installs without complaint and fails at import with ``operator torchvision::nms does not exist``.
    """
    try:
        import torch
        import torchvision
        from torchvision.ops import nms

        nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
    except Exception as error:  # whatever a broken binary pair raises is the finding
        return Finding("torch and torchvision", "broken", f"{type(error).__name__}: {error}", PAIR_RULE)
    versions = f"{torch.__version__} and {torchvision.__version__}"
    tags = {version.partition("+")[2] for version in (torch.__version__, torchvision.__version__)}
    if len(tags) > 1:
        return Finding("torch and torchvision", "broken", f"{versions} are builds of different kinds", PAIR_RULE)
    return Finding("torch and torchvision", "ok", versions)


def library(name: str, *, needed: bool) -> Finding:
    try:
        return Finding(name, "ok", metadata.version(name))
    except metadata.PackageNotFoundError:
        remedy = how_to_install(name, needed=needed)
        if needed:
            return Finding(name, "broken", "not installed", remedy)
        return Finding(name, "missing", "optional", remedy)


def hardware() -> Finding:
    memory = memory_bytes()
    shown = f"{memory / 2**30:.1f} GiB memory" if memory else "memory unknown"
    return Finding("machine", "ok", f"{available_cores()} cores, {shown}, {platform.machine()}, {platform.system()}")


def accelerator() -> Finding:
    if util.find_spec("torch") is None:
        return Finding("CUDA", "missing", "torch is not installed", how_to_install("torch", needed=True))
    import torch

    if torch.cuda.is_available():
        return Finding("CUDA", "ok", torch.cuda.get_device_name())
    return Finding("CUDA", "missing", "optional: no device that this torch can use; everything runs on the CPU")


def writable(what: str, folder: Path) -> Finding:
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if not _can_write(place):
        return Finding(
            what, "broken", f"{folder} cannot be written", "name another with SPARSE_TRANSFER_CACHE or --cache"
        )
    return Finding(what, "ok", f"{folder} ({free / 2**30:.0f} GiB free)")


def data() -> Finding:
    root = data_root()
    if root is None:
        return Finding(
            "datasets", "missing", "optional: SPARSE_TRANSFER_DATA is not set", "or name a place, as in pets:my/pets"
        )
    if not root.is_dir():
        return Finding(
            "datasets", "broken", f"SPARSE_TRANSFER_DATA={root} is no folder", "set it to a folder that exists"
        )
    return Finding("datasets", "ok", f"{root}")


def _can_write(folder: Path) -> bool:

    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def memory_bytes() -> int | None:
    """Physical memory of this machine, where the system tells."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
