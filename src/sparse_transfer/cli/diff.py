"""``sparse-transfer diff``."""

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from sparse_transfer.cli import options

if TYPE_CHECKING:
    from sparse_transfer.checkpoints.importing import Hints


@click.command()
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@options.foreign
@options.as_json
def command(first: Path, second: Path, as_json: bool, **foreign: Unpack["Hints"]) -> None:
    """Say where two checkpoints differ: architecture, masks layer by layer, weights, head.

    The options of "import" are for the foreign ones among the two; where those need different ones, import one first.
    Exit status 0 whether they differ or not; --json has "is_same".

    \b
    Example:
      sparse-transfer diff acdc80.safetensors acdc90.safetensors
    """
    import json

    from sparse_transfer.checkpoints.difference import diff

    difference = diff(first, second, **foreign)
    click.echo(json.dumps(difference.to_json()) if as_json else difference.render())
