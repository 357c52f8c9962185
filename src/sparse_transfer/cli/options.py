"""Options that several commands share, spelt once."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, TypeVar

import click

if TYPE_CHECKING:
    from sparse_transfer.runs.table import Summary
    from sparse_transfer.transfer.compute import Compute

F = TypeVar("F", bound=Callable[..., object])


def _quiet(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        from sparse_transfer.core.progress import set_quiet

        set_quiet(True)


def quiet(function: F) -> F:
    return click.option(
        "--quiet", "-q", is_flag=True, expose_value=False, callback=_quiet, help="No progress, no notes on stderr."
    )(function)


def as_json(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON value on stdout.")(function)


def cache_folder(function: F) -> F:
    return click.option(
        "--cache",
        type=click.Path(path_type=Path),
        help="Folder of the feature cache.  [default: SPARSE_TRANSFER_CACHE, or the platform's cache folder]",
    )(function)


def compute(function: F) -> F:
    """How the backbone is run: device, precision, batch, threads, workers."""
    for option in reversed(
        (
            click.option("--device", default="auto", show_default=True, help="cpu, cuda or auto."),
            click.option(
                "--amp",
                type=click.Choice(["off", "bf16"]),
                default="off",
                show_default=True,
                help="Lower precision for the backbone, slower on a CPU without instructions for it; a numerics class"
                " of its own in cache and records.",
            ),
            click.option(
                "--batch-size",
                "-b",
                type=click.IntRange(1),
                help="Pictures a forward pass.  [default: 16 on CPU, 128 on CUDA]",
            ),
            click.option("--threads", type=click.IntRange(1), help="Threads of a forward pass.  [default: all cores]"),
            click.option("--workers", "-j", type=click.IntRange(0), help="Threads that decode.  [default: all cores]"),
            cache_folder,
        )
    ):
        function = option(function)
    return function


def _nm(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    return None if value is None else n_of_m(value)


def foreign(function: F) -> F:
    """What somebody else's file may leave to its reader to say."""
    for option in reversed(
        (
            click.option(
                "--arch", "architecture", help="What the file cannot tell, as in resnet50,stride=v1 or timm:NAME."
            ),
            click.option(
                "--backbone",
                type=click.Path(path_type=Path),
                help="The checkpoint that a bare linear head belongs to.",
            ),
            click.option(
                "--sparsity", type=click.FloatRange(0, 1), help="What the file's authors claim: checked against it."
            ),
            click.option(
                "--nm",
                metavar="N:M",
                callback=_nm,
                help="Keep N weights of every M, for files that leave that to their reader.",
            ),
            click.option(
                "--ticket",
                type=click.Choice(["initial", "trained"]),
                help="Which weights of a lottery ticket to take.",
            ),
            click.option("--method", help="Pruning method; cram, sr-ste and dnw prune by their rule where asked to."),
        )
    ):
        function = option(function)
    return function


class ComputeOptions(TypedDict):
    """What ``compute`` adds to a command's keywords."""

    device: str
    amp: Literal["off", "bf16"]
    batch_size: int | None
    threads: int | None
    workers: int | None
    cache: Path | None


def to_compute(given: ComputeOptions) -> "Compute":
    from sparse_transfer.transfer.compute import Compute

    return Compute(
        given["device"],
        "bf16" if given["amp"] == "bf16" else "fp32",
        given["batch_size"],
        given["threads"],
        given["workers"],
        given["cache"],
    )


def shown(summaries: "list[Summary]") -> str:
    """The results table for this terminal: its width, colours where it has them and NO_COLOR is not set."""
    import os
    import sys

    from sparse_transfer.runs.table_text import to_text

    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return to_text(summaries, width=width(), colour=colour)


def width() -> int:
    """Columns to print in: the terminal's, 80 at least; 110 where there is none."""
    import shutil

    return max(80, shutil.get_terminal_size((110, 24)).columns)


UNITS = {"": 1, "b": 1} | {
    letter + end: base**power
    for power, letter in enumerate("kmgt", 1)
    for end, base in (("", 1024), ("ib", 1024), ("b", 1000))
}


def size(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """``500M`` and ``2KiB`` count in 1024s, ``20GB`` in 1000s; in bytes."""
    import re

    match = re.fullmatch(r"\s*(\d{0,15}\.?\d{1,15})\s*([a-z]*)\s*", value, re.ASCII | re.IGNORECASE)
    if match is None or match[2].lower() not in UNITS:
        raise click.BadParameter(f'"{value}" is no size: write 500M or 20GB')
    return int(float(match[1]) * UNITS[match[2].lower()])


def n_of_m(text: str) -> tuple[int, int]:
    """``2:4`` is two weights kept of every four."""
    from sparse_transfer.core.errors import UserError

    kept, _, of = text.partition(":")
    if not (kept.isdecimal() and of.isdecimal() and 0 < int(kept) < int(of) <= 64):
        raise UserError(f'"{text}" is no N:M pattern', where="--nm", do="write 2:4 for two weights kept of every four")
    return int(kept), int(of)
