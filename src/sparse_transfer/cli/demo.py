"""``sparse-transfer demo``."""

from pathlib import Path

import click

from sparse_transfer.cli import options


@click.command()
@click.option("--runs", type=click.Path(path_type=Path), default=Path("demo-runs"), show_default=True,
              help="Where run records go.")  # fmt: skip
@options.cache_folder
@options.quiet
def command(runs: Path, cache: Path | None) -> None:
    """Transfer tiny dense and sparse networks to handwritten digits: about a minute, no download.

    \b
    Example:
      sparse-transfer demo
    """
    import textwrap

    from sparse_transfer.runs import table
    from sparse_transfer.transfer.compute import Compute
    from sparse_transfer.transfer.demo import demo

    done = demo(runs, compute=Compute(cache=cache))
    click.echo(options.shown(table.summarise(table.rows(done.runs))))
    click.echo(textwrap.fill(done.answer, options.width(), break_on_hyphens=False))
    click.echo(f"\nThe runs lie in {runs}; `sparse-transfer results {runs} --csv` prints them as a table.")
