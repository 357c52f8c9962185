"""``sparse-transfer inspect``."""

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from sparse_transfer.cli import options

if TYPE_CHECKING:
    from sparse_transfer.checkpoints.importing import Hints


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@options.foreign
@options.as_json
def command(checkpoint: Path, as_json: bool, **foreign: Unpack["Hints"]) -> None:
    """Say what CHECKPOINT is: architecture, sparsity and pattern layer by layer, preprocessing, origin.

    A foreign file is looked at as "import" would bring it in; it takes the same options.

    \b
    Example:
      sparse-transfer inspect acdc80.safetensors
    """
    import json

    from sparse_transfer.checkpoints.inspecting import inspect

    found = inspect(checkpoint, **foreign)
    click.echo(json.dumps(found.to_json()) if as_json else found.render())
