"""How a reader says no: raised deep inside a file, turned into a ``UserError`` where the file's name is known."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from sparse_transfer.core.errors import UserError

ASK_AUTHORS = "get the file from its authors as plain tensors"
FETCH_AGAIN = "download it again"


class Refusal(Exception):
    """What is wrong inside the file, and what to do about it."""

    def __init__(self, what: str, do: str = FETCH_AGAIN) -> None:
        self.what = what
        self.do = do
        super().__init__(what)


@contextmanager
def refusals_of(path: Path) -> Generator[None]:
    """Turn a refusal, or the system's, into a ``UserError`` that names the file."""
    try:
        yield
    except Refusal as refusal:
        raise UserError(refusal.what, where=path, do=refusal.do) from None
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise UserError(f"it cannot be read ({reason})", where=path, do="check the path and its permissions") from error


def printable(text: str) -> str:
    """Fit for a terminal: what could move its cursor or change its colours is spelt out."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def shown(name: str) -> str:
    """A name from the file, printable, at most 80 characters, in quotes."""
    text = printable(name[:81])
    return f'"{text}"' if len(text) <= 80 else f'"{text[:80]}…"'
