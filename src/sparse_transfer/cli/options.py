"""Options that several commands share, spelt once."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, Unpack

import click

if TYPE_CHECKING:
    from sparse_transfer.runs.table import Summary
    from sparse_transfer.transfer.compute import Compute

F = TypeVar("F", bound=Callable[..., Any])


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


def runs_folder(function: F) -> F:
    return click.option(
        "--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Where run records go."
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
                help="Lower precision for the backbone; a numerics class of its own in cache and records.",
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


class ComputeOptions(TypedDict):
    """What ``compute`` adds to a command's keywords."""

    device: str
    amp: Literal["off", "bf16"]
    batch_size: int | None
    threads: int | None
    workers: int | None
    cache: Path | None


def to_compute(**given: Unpack[ComputeOptions]) -> "Compute":
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
    import shutil
    import sys

    from sparse_transfer.runs.table import to_text

    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return to_text(summaries, width=max(80, shutil.get_terminal_size((110, 24)).columns), colour=colour)


def seeds(text: str) -> tuple[int, ...]:
    """``5`` is the paper's first five seeds; ``1,2,3`` or ``7,`` is a list."""
    from sparse_transfer.core.errors import UserError
    from sparse_transfer.transfer.protocols import PAPER_SEEDS

    try:
        numbers = [int(part) for part in text.removesuffix(",").split(",")]
    except ValueError:
        raise UserError(
            f'"{text}" is no list of seeds', where="--seeds", do="write 5 for the first five, or 21,51,81"
        ) from None
    if "," in text:
        if len(set(numbers)) != len(numbers) or not all(0 <= number < 2**63 for number in numbers):
            raise UserError(
                f'"{text}" repeats a seed or has one outside 0 to 2^63 - 1', where="--seeds", do="name each seed once"
            )
        return tuple(numbers)
    if not 1 <= numbers[0] <= len(PAPER_SEEDS):
        raise UserError(
            f"{text} seeds, and the paper has {len(PAPER_SEEDS)}",
            where="--seeds",
            do="name your own, as in 1,2,3,4,5,6",
        )
    return PAPER_SEEDS[: numbers[0]]
