"""Rows in columns, as plain text."""

from collections.abc import Collection, Sequence
from io import StringIO


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[int], width: int = 100) -> str:
    """The rows under their titles, at most ``width`` columns wide; ``left``: which columns are text, not numbers."""
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=None)
    for number, title in enumerate(titles):
        grid.add_column(title, justify="left" if number in left else "right", overflow="fold")
    for cells in rows:
        grid.add_row(*(cell.replace("[", r"\[") for cell in cells))
    text = StringIO()
    Console(file=text, width=width, no_color=True, force_terminal=False, legacy_windows=False).print(grid)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
