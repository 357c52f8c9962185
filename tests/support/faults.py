"""Broken machines for tests: the n-th system call fails, or kills the process."""

import os
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest

CALLS = ("open", "write", "fsync", "replace", "mkdir", "ftruncate")


@contextmanager
def at_call(number: int, happens: Callable[[], None]) -> Generator[list[str]]:
    """``happens`` runs instead of the ``number``-th (from 0) of all ``CALLS``; yields the names of those made."""
    made: list[str] = []

    def watched(name: str, call):  # type: ignore[no-untyped-def]
        def instead(*args, **kwargs):  # type: ignore[no-untyped-def]
            made.append(name)
            if len(made) == number + 1:
                happens()
            return call(*args, **kwargs)

        return instead

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, watched(name, getattr(os, name)))
        yield made


def in_child(work: Callable[[], None]) -> int:
    """Run ``work`` in a forked process; its exit status, negative for a signal, 70 for an exception."""
    child = os.fork()
    if child == 0:
        status = 70
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
