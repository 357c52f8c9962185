"""Where a run took place: versions, hardware, the commit of this code. Best effort: what is unknown stays empty."""

import importlib.metadata
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from sparse_transfer.core.environment import memory_bytes
from sparse_transfer.core.threads import available_cores

PACKAGES = (
    "sparse-transfer",
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "scikit-learn",
    "pillow",
    "safetensors",
    "timm",
)


@dataclass(frozen=True)
class Hardware:
    """cpu: its model name.   cores: those this process may use.   memory_bytes: of the machine.   gpu: its name.

    instructions: the widest set that torch uses on this CPU, as in ``AVX2``: a time says little without it.
    """

    cpu: str
    cores: int
    memory_bytes: int | None = None
    gpu: str | None = None
    instructions: str | None = None


def hardware() -> Hardware:
    return Hardware(_cpu_model(), available_cores(), memory_bytes(), _gpu(), _instructions())


def versions() -> dict[str, str]:
    """Package -> version, of the packages that results depend on and that are installed, and Python's."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit(file: Path = Path(__file__)) -> str | None:
    """Commit of the checkout that ``file`` belongs to, with ``-dirty`` if tracked files were changed; else None.

    A package installed into somebody's repository is not tracked there: then that commit says nothing of us.
    """
    try:
        _git(file.parent, "ls-files", "--error-unmatch", file.name)
        return _git(file.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _instructions() -> str | None:
    torch = sys.modules.get("torch")  # a run has imported it; nothing else should
    return None if torch is None else str(torch.backends.cpu.get_cpu_capability())


def _gpu() -> str | None:
    torch = sys.modules.get("torch")
    try:
        return str(torch.cuda.get_device_name()) if torch is not None and torch.cuda.is_available() else None
    except RuntimeError:  # a driver that does not answer
        return None
