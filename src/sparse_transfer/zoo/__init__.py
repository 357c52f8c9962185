"""Tiny checkpoints for the demo, with their provenance in ``README.md`` beside them. Data only."""

from importlib import resources
from pathlib import Path

NAMES = ("resnet20-dense", "resnet20-gmp80", "resnet20-gmp90")


def path(name: str) -> Path:
    """The checkpoint file of that name."""
    return Path(str(resources.files(__name__) / f"{name}.safetensors"))
