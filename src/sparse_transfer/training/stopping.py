"""SIGTERM and Ctrl-C in a long training: noted when they come, obeyed between two steps, when all is consistent."""

import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

from sparse_transfer.core.errors import Interrupted

PATIENCE_S = 5.0  # torchrun passes one Ctrl-C on several times


class StopRequest:
    """``asked`` becomes True at the first signal; another one, some seconds later, stops at once without saving."""

    def __init__(self) -> None:
        self.asked = False
        self._since = 0.0

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        del signum, frame
        if self.asked and time.monotonic() - self._since > PATIENCE_S:
            raise Interrupted
        if not self.asked:
            self.asked, self._since = True, time.monotonic()


@contextmanager
def stop_request() -> Generator[StopRequest]:
    """Take SIGTERM and SIGINT over inside the block. In a thread that may not, they act as before."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
