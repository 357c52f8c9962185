"""``sparse-transfer results``."""

from pathlib import Path

import click

from sparse_transfer.cli import options


@click.command()
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, one line a run, the published columns first.")
@options.as_json
@options.quiet
def command(runs: tuple[Path, ...], as_csv: bool, as_json: bool) -> None:
    """Print a table of the finished runs below RUNS (default: runs).

    \b
    Example:
      sparse-transfer results runs --csv
    """
    from sparse_transfer.core.errors import UserError
    from sparse_transfer.runs import table
    from sparse_transfer.runs.finished import records

    if as_csv and as_json:
        raise UserError("--csv and --json were given", do="choose one")
    roots = runs or (Path("runs"),)
    rows = table.rows(records(roots))
    if as_csv:
        click.echo(table.to_csv(rows), nl=False)
    elif as_json:
        click.echo(table.to_json(rows))
    elif not rows:
        raise UserError("no finished run lies here", where=roots[0], do="start one with `sparse-transfer linear`")
    else:
        click.echo(options.shown(table.summarise(rows)), nl=False)
