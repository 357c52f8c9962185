"""``sparse-transfer evaluate``."""

from pathlib import Path
from typing import Unpack

import click

from sparse_transfer.cli import options


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("dataset")
@options.as_json
@options.compute
@options.quiet
def command(checkpoint: Path, dataset: str, as_json: bool, **compute: Unpack[options.ComputeOptions]) -> None:
    """Measure the head of CHECKPOINT on the test pictures of DATASET (NAME or NAME:ROOT).

    \b
    Example:
      sparse-transfer evaluate flowers.safetensors flowers:data/flowers
    """
    import json

    from sparse_transfer.transfer.evaluate import evaluate

    measured = evaluate(checkpoint, dataset, compute=options.to_compute(compute))
    click.echo(json.dumps(measured.to_json()) if as_json else measured.render())
