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
        click.echo(f"{entry.key[:12]}  {size(entry.size_bytes):>9}  {used}  {what}")
    click.echo(f"{number_of(len(found))}, {size(sum(entry.size_bytes for entry in found))}")


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
@click.option("--max-size", required=True, help="Keep at most this much, e.g. 20GB, 500MB or 0.")
def prune(cache: Path | None, max_size: str) -> None:
    """Remove what was not used for longest until the rest fits.

    \b
    Example:
      sparse-transfer cache prune --max-size 20GB
    """
    from sparse_transfer.core.places import cache_root
    from sparse_transfer.features import cache as feature_cache

    removed = feature_cache.prune(cache or cache_root(), parse_size(max_size))
    click.echo(f"{number_of(len(removed))} removed, {size(sum(entry.size_bytes for entry in removed))} freed")


UNITS = {
    "": 1,
    "b": 1,
    "kb": 1e3,
    "mb": 1e6,
    "gb": 1e9,
    "tb": 1e12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}


def parse_size(text: str) -> int:
    """``20GB`` -> bytes; units of 1000, or of 1024 when spelt KiB, MiB, GiB, TiB."""
    import re

    from sparse_transfer.core.errors import UserError

    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if match is None or match[2].lower() not in UNITS:
        raise UserError(f'"{text}" is no size', where="--max-size", do="write one as in 20GB, 500MB or 0")
    return int(float(match[1]) * UNITS[match[2].lower()])


def number_of(count: int) -> str:
    return f"{count:,} {'entry' if count == 1 else 'entries'}"


def size(count: int) -> str:
    """Bytes for people: 1.2 GB."""
    amount, unit = float(count), "B"
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            break
        amount /= 1000
    return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
