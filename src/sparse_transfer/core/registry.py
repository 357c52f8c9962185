"""One small thing for every set of named items: a dict from name to item that refuses a second of the same name."""

import difflib
from collections.abc import Iterator
from typing import Generic, TypeVar

from sparse_transfer.core.errors import UserError, listed

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to items, filled where the items are defined.

    >>> solvers: Registry[int] = Registry("solver")
    >>> solvers.add("sgd", 1)
    1
    >>> solvers.get("sdg")
    Traceback (most recent call last):
    sparse_transfer.core.errors.UserError: no solver is called "sdg"; did you mean "sgd"?
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def add(self, name: str, item: T) -> T:
        """Register ``item``; a second item of the same name is a bug and raises ``ValueError``."""
        if name in self._items:
            raise ValueError(f'a {self.kind} called "{name}" is registered already')
        self._items[name] = item
        return item

    def get(self, name: str) -> T:
        """The item of that name, or a ``UserError`` that suggests the nearest one."""
        if name in self._items:
            return self._items[name]
        raise UserError(f'no {self.kind} is called "{name}"', do=suggestion(name, list(self._items)))

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, name: object) -> bool:
        return name in self._items


def suggestion(name: str, known: list[str], *, otherwise: str | None = None) -> str:
    """``did you mean "x"?``, or ``otherwise``, which is to list the names there are."""
    lowered = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.6)
    if near:
        return f'did you mean "{lowered[near[0]]}"?'
    return otherwise or f"there are {listed(sorted(known), most=40)}"
