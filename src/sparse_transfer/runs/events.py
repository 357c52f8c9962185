"""``metrics.jsonl``: one JSON object per line, appended as things happen; every whole line is good for ever."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from sparse_transfer.core import canonical
from sparse_transfer.core.canonical import Json
from sparse_transfer.core.progress import warn
from sparse_transfer.runs.tolerant import finite

Event = Mapping[str, Json]

NAME = "metrics.jsonl"


class EventLog:
    """The file open for appending; a last line torn by a crash is cut off first, so that the next one stays whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        content = path.read_bytes()
        os.ftruncate(self._handle, content.rfind(b"\n") + 1)

    def append(self, event: Event) -> None:
        """Write one line. NaN and infinity become null, and ``not_finite`` says what stood where.

        One write call, so a killed process leaves the whole line or none. A full disk raises ``OSError``, and what
        was written of the line is taken back: the file ends with a whole line.
        """
        clean, lost = finite(event)
        if lost:
            assert isinstance(clean, dict)
            clean = {**clean, "not_finite": lost}
        # A lone surrogate (a file name that is no UTF-8) becomes its JSON escape.
        line = memoryview((canonical.dumps(clean) + "\n").encode("utf-8", "backslashreplace"))
        size = os.fstat(self._handle).st_size
        try:
            while line:
                line = line[os.write(self._handle, line) :]
        except OSError as error:
            os.ftruncate(self._handle, size)
            error.filename = str(self.path)
            raise

    def close(self) -> None:
        os.close(self._handle)


def read_events(path: Path) -> list[dict[str, Json]]:
    """All whole lines, in order; a torn last line is dropped, any other that is no JSON object is named and skipped."""
    if not path.exists():
        return []
    *lines, _torn = path.read_bytes().split(b"\n")
    events: list[dict[str, Json]] = []
    for number, line in enumerate(lines, start=1):
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if isinstance(event, dict):
            events.append(event)
        else:
            warn(f"{path}: line {number} is no event and is left out")
    return events
