"""``sparse-transfer cache list | verify | prune``."""

from pathlib import Path

import click

from sparse_transfer.cli import options


@click.group()
def command() -> None:
    """Look after the cached features.

    \b
    Example:
      sparse-transfer cache prune --max-size 20GB
    """


@command.command("list")
@options.cache_folder
@options.as_json
def list_(cache: Path | None, as_json: bool) -> None:
    """List what is cached, last used first.

    \b
    Example:
      sparse-transfer cache list
    """
    import json
    from datetime import datetime

    from sparse_transfer.core.places import cache_root
    from sparse_transfer.features.cache import entries

    found = entries(cache or cache_root())
    if as_json:
        click.echo(json.dumps([{"key": e.key, "folder": str(e.folder), "bytes": e.size_bytes} for e in found]))
        return
    for entry in found:
        used = datetime.fromtimestamp(entry.last_used).strftime("%Y-%m-%d %H:%M")
        what = (
            "not finished"
            if entry.about is None
            else (f"{entry.about.architecture}  {entry.about.split}  {entry.about.images:,} x {entry.about.dim:,}")
        )
        click.echo(f"{entry.key[:12]}  {spelt(entry.size_bytes):>9}  {used}  {what}")
    click.echo(f"{number_of(len(found))}, {spelt(sum(entry.size_bytes for entry in found))}")


@command.command()
@options.cache_folder
def verify(cache: Path | None) -> None:
    """Check every entry against its checksums.

    \b
    Example:
      sparse-transfer cache verify
    """
    from sparse_transfer.core.errors import UserError
    from sparse_transfer.core.places import cache_root
    from sparse_transfer.features import cache as feature_cache

    checked = feature_cache.verify(cache or cache_root())
    damaged = [(entry, damage) for entry, damage in checked if damage is not None]
    for entry, damage in checked:
        click.echo(f"{entry.key[:12]}  {'sound' if damage is None else damage}")
    if damaged:
        raise UserError(
            f"{len(damaged)} of {len(checked)} entries are damaged",
            do="they are made anew when they are next needed, nothing else is lost",
        )


@command.command()
@options.cache_folder
@click.option("--max-size", required=True, callback=options.size, help="Keep at most this much: 20GB, 500M or 0.")
def prune(cache: Path | None, max_size: int) -> None:
    """Remove what was not used for longest until the rest fits.

    \b
    Example:
      sparse-transfer cache prune --max-size 20GB
    """
    from sparse_transfer.core.places import cache_root
    from sparse_transfer.features import cache as feature_cache

    removed = feature_cache.prune(cache or cache_root(), max_size)
    click.echo(f"{number_of(len(removed))} removed, {spelt(sum(entry.size_bytes for entry in removed))} freed")


def number_of(count: int) -> str:
    return f"{count:,} {'entry' if count == 1 else 'entries'}"


def spelt(count: int) -> str:
    """Bytes for people: 1.2 GB."""
    amount, unit = float(count), "B"
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            break
        amount /= 1000
    return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
