"""The results table as people read it: a grid for each way of transfer, what should be known of its lines below."""

import io
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from sparse_transfer.runs.identity import file_name
from sparse_transfer.runs.table import Summary

if TYPE_CHECKING:
    from rich.console import Console


def to_text(table: Sequence[Summary], width: int = 100, *, colour: bool = False) -> str:
    """The summaries for people, at most ``width`` (80 or more) columns wide: a table for each way of transfer.

    Below stands what should be known of the lines, by the numbers in their last column.
    """
    from rich.console import Console

    drawn = io.StringIO()
    console = Console(file=drawn, width=max(width, 80), force_terminal=colour, no_color=not colour, emoji=False)
    notes: dict[str, int] = {}
    ordered = sorted(table, key=_section)  # stable: within a section the order is the given one
    for section, lines in groupby(ordered, key=_section):
        console.print(" ".join(section), style="bold", markup=False, highlight=False)
        _print_grid(console, [_cells(line, notes) for line in lines])
        console.print()
    if table:
        console.print("± is over seeds; intervals are over the test images.", highlight=False)
    for text, number in notes.items():
        console.print(f"{number}  {text}", markup=False, highlight=False)
    return "\n".join(line.rstrip() for line in drawn.getvalue().splitlines()) + "\n"


_NAMES = ("dataset", "checkpoint")
_NUMBERS = ("sparse", "metric", "accuracy %", "95 % interval", "seeds", "MACs", "s", "notes")


def _cells(line: Summary, notes: dict[str, int]) -> tuple[str, ...]:
    return (
        file_name(line.dset),
        line.checkpoint,
        "" if line.sparsity is None else f"{line.sparsity:.0%}",
        {"top1": "top-1", "mean_per_class": "per class"}[line.metric],
        _percent(line),
        f"{100 * line.image_low:.2f}–{100 * line.image_high:.2f}",
        str(line.seeds),
        "" if line.macs is None else _count(line.macs),
        f"{line.seconds:.0f}" if line.seconds >= 10 else f"{line.seconds:.1f}",
        " ".join(str(notes.setdefault(text, len(notes) + 1)) for text in _notes(line)),
    )


def _print_grid(console: "Console", rows: Sequence[tuple[str, ...]]) -> None:
    """Names before numbers, or, where a line has no room for both, above them: neither is ever cut short."""
    from rich.cells import cell_len

    heads = (*_NAMES, *_NUMBERS)
    if not any(row[-1] for row in rows):  # nothing to note
        heads, rows = heads[:-1], [row[:-1] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(heads, *rows, strict=True)]
    both = sum(widths) + len(widths) - 1 <= console.width
    for row in (heads, *rows):
        gaps = [" " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
        names = [cell + gap for cell, gap in zip(row[:2], gaps[:2], strict=True)]
        numbers = [gap + cell for cell, gap in zip(row[2:], gaps[2:], strict=True)]
        style = "bold" if row is heads else None
        if not both:
            console.print("  ".join(row[:2]), style=style, markup=False, highlight=False)
        line = " ".join([*names, *numbers] if both else ["", *numbers])
        console.print(line, style=style, markup=False, highlight=False)


def _section(line: Summary) -> list[str]:
    return [part for part in (line.transfer, line.protocol, line.solver) if part]


def _notes(line: Summary) -> list[str]:
    partial = [f"partial: {line.partial}"] if line.partial else []
    return [*([line.differs] if line.differs else []), *partial, *line.warnings]


def _percent(line: Summary) -> str:
    return f"{100 * line.val_acc:.2f}" if line.std is None else f"{100 * line.val_acc:.2f} ± {100 * line.std:.2f}"


def _count(macs: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if macs >= size:
            return f"{macs / size:.3g} {unit}"
    return str(macs)
