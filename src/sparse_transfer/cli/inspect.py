"""``sparse-transfer inspect``."""

from pathlib import Path

import click

from sparse_transfer.cli import options


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--arch", help="For a foreign file: what it cannot tell, as in resnet50,stride=v1.")
@click.option("--backbone", type=click.Path(path_type=Path), help="The checkpoint that a bare linear head belongs to.")
@options.as_json
def command(checkpoint: Path, arch: str | None, backbone: Path | None, as_json: bool) -> None:
    """Say what CHECKPOINT is: architecture, sparsity and pattern layer by layer, preprocessing, origin.

    \b
    Example:
      sparse-transfer inspect acdc80.safetensors
    """
    import json

    from sparse_transfer.checkpoints.inspecting import inspect

    found = inspect(checkpoint, architecture=arch, backbone=backbone)
    click.echo(json.dumps(found.to_json()) if as_json else found.render())
