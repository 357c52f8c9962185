"""Progress on stderr: a bar with an estimate on a terminal, nothing elsewhere."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Adds to the count; ``text`` is shown behind the bar until another one comes."""

    def __call__(self, count: int, text: str | None = None) -> None: ...


_quiet = False


def set_quiet(quiet: bool) -> None:
    """Switch bars and notes off for this process (``--quiet``)."""
    global _quiet  # noqa: PLW0603 - the one switch of a command line
    _quiet = quiet


@contextmanager
def progress(what: str, total: int, *, unit: str = "", done: int = 0) -> Generator[Advance]:
    """Show ``what`` with done/total, rate and time left; yields a function that adds to the count.

    ``done`` is what an earlier run finished already: it counts as done but not towards the rate.
    """
    if _quiet or not sys.stderr.isatty():
        yield lambda count, text=None: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, completed=done, text="")

        def advance(count: int, text: str | None = None) -> None:
            bar.advance(task, count)
            if text is not None:
                bar.update(task, text=text)

        yield advance


def note(text: str) -> None:
    """One line of talk on stderr."""
    if not _quiet:
        print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """One warning on stderr, also with ``--quiet``: the result is right, and something should be known of it."""
    print(f"warning: {text}", file=sys.stderr, flush=True)
