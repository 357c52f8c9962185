"""Progress on stderr: a bar with an estimate on a terminal, nothing elsewhere."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Adds to the count; ``text`` is shown below the bar until another one comes."""

    def __call__(self, count: int, text: str | None = None) -> None: ...


_quiet = False


def set_quiet(quiet: bool) -> None:
    """Switch bars and notes off for this process (``--quiet``)."""
    global _quiet  # noqa: PLW0603 - the one switch of a command line
    _quiet = quiet


@contextmanager
def progress(what: str, total: int, *, unit: str = "", done: int = 0) -> Generator[Advance]:
    """Show ``what`` with done/total, rate and time left; yields a function that adds to the count.

    unit: of the rate; ``bytes`` are shown in MB, ``pictures`` as img/s.   total: 0 where nobody knows.
    done: what an earlier process finished; it counts as done but not towards the rate.
    """
    if _quiet or not sys.stderr.isatty():
        yield lambda count, text=None: None
        return
    from rich.console import Console

    from sparse_transfer.core.bar import Bar

    with Bar(Console(stderr=True), unit) as bar:
        task = bar.add_task(what, total=total or None, completed=done, text="")

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
