"""``sparse-transfer data list | check``."""

import click

from sparse_transfer.cli import options


@click.group()
def command() -> None:
    """Look at datasets: which there are, and whether a copy is whole.

    \b
    Example:
      sparse-transfer data check pets:data/pets
    """


@command.command("list")
@click.argument("name", required=False)
@options.as_json
def list_(name: str | None, as_json: bool) -> None:
    """List the datasets, or all that is known of one.

    \b
    Example:
      sparse-transfer data list cars
    """
    import json

    from sparse_transfer.data.specs import datasets, find_spec

    chosen = [find_spec(name)] if name else [datasets.get(known) for known in datasets]
    if as_json:
        click.echo(json.dumps([spec.facts() for spec in chosen]))
        return
    if name:
        for key, value in chosen[0].facts().items():
            shown = "; ".join(map(str, value)) if isinstance(value, list | tuple) else value
            click.echo(f"{key:12} {'-' if shown is None else shown}")
        return
    click.echo(f"{'name':11}{'classes':>8}{'train':>11}{'test':>8}  {'metric':15}title")
    for spec in chosen:
        counts = f"{spec.classes or 0:>8,}{spec.train_size or 0:>11,}{spec.test_size or 0:>8,}"
        click.echo(f"{spec.name:11}{counts}  {spec.metric:15}{spec.title}")
    click.echo(f"{'folder:DIR':11}{'':>8}{'':>11}{'':>8}  {'top1':15}your own: train/ and test/, or class folders")


@command.command()
@click.argument("dataset")
@click.option("--decode/--no-decode", default=True, show_default=True, help="Decode every picture to find bad ones.")
@click.option("--download", is_flag=True, help="Fetch what is missing from its official address first.")
@options.as_json
@options.quiet
def check(dataset: str, decode: bool, download: bool, as_json: bool) -> None:
    """Say of DATASET (NAME or NAME:ROOT) what is there, missing, corrupt, or in both training and test pictures.

    \b
    Example:
      sparse-transfer data check flowers:data/flowers
    """
    import json

    from sparse_transfer.core.errors import UserError
    from sparse_transfer.data import check as checking
    from sparse_transfer.data.download import download as fetch
    from sparse_transfer.data.reading import parse

    spec, root = parse(dataset)
    if download:
        fetch(spec, root)
    report = checking.check(spec, root, decode=decode)
    click.echo(json.dumps(report.to_json()) if as_json else report.render())
    if not report.whole:
        what = "this copy is not whole" if report.problem is None else "this is no copy that can be read"
        raise UserError(what, where=dataset, do="see above for what is missing or bad")
