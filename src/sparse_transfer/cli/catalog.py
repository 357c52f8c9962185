"""``sparse-transfer catalog list | show | get``."""

from pathlib import Path

import click

from sparse_transfer.cli import options


@click.group()
def command() -> None:
    """Published sparse checkpoints by name: what their owners say of them, and where they are.

    \b
    Example:
      sparse-transfer catalog list --method RigL --arch resnet50
    """


@command.command("list")
@click.option("--method", help="Only of methods whose name contains this.")
@click.option("--arch", help="Only of this network, as in resnet50.")
@options.as_json
def list_(method: str | None, arch: str | None, as_json: bool) -> None:
    """List the published checkpoints.

    \b
    Example:
      sparse-transfer catalog list --method AC/DC
    """
    import json

    from sparse_transfer.checkpoints.catalog import search

    found = search(method=method, network=arch)
    if as_json:
        click.echo(json.dumps([item.facts() for item in found]))
        return
    wide = max(len("name"), *(len(item.name) for item in found))
    click.echo(f"{'name':{wide}}{'sparsity':>10}{'top-1':>8}  {'get':5}{'format'}")
    for item in found:
        sparsity = "-" if item.sparsity is None else f"{100 * item.sparsity:.4g} %"
        top1 = "-" if item.top1 is None else f"{item.top1:.2f}"
        click.echo(f"{item.name:{wide}}{sparsity:>10}{top1:>8}  {'no' if item.by_hand else 'yes':5}{item.format}")


@command.command()
@click.argument("name")
@options.as_json
def show(name: str, as_json: bool) -> None:
    """Say all that is known of one, and how to import it.

    \b
    Example:
      sparse-transfer catalog show resnet50.acdc_s95
    """
    import json
    import shlex

    from sparse_transfer.checkpoints.catalog import published

    item = published().get(name)
    if as_json:
        click.echo(json.dumps(item.facts()))
        return
    for key, value in item.facts().items():
        click.echo(f"{key.replace('_', ' '):13} {'-' if value is None else value}")
    words = ["sparse-transfer", "import", item.file_name, "-o", f"{item.name}.safetensors", *item.import_options()]
    click.echo(f"{'import with':13} {shlex.join(words)}")


@command.command()
@click.argument("name")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), help="Where to write it.  [default: NAME and its extension]"
)
@options.quiet
def get(name: str, output: Path | None) -> None:
    """Fetch one as its owner gives it out; a fetch that was broken off goes on where it stopped.

    \b
    Example:
      sparse-transfer catalog get resnet50.acdc_s95 -o acdc95.pth
    """
    from sparse_transfer.checkpoints.catalog import fetchable
    from sparse_transfer.checkpoints.download import download
    from sparse_transfer.core.progress import note

    item = fetchable(name)
    assert item.address is not None
    target = output or Path(item.file_name)
    note(f"{item.name}: fetching {item.address} (its page: {item.page}; licence: {item.licence or 'not stated'})")
    digest = download(item.address, target, sha256=item.sha256)
    checked = "as it should be" if item.sha256 is not None else "nothing published to compare it with"
    click.echo(f"written: {target} (SHA-256 {digest}; {checked})")
