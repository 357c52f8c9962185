"""A server of files on this machine that does what its script says: stall, cut, redirect, lie, change the file."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Sends:
    """One answer. ``data`` is the file; the rest is how the server deals with it.

    keeps_ranges: a Range is answered, and If-Range looked at.   cut: so many bytes of the body, then it hangs up.
    stall_s: it waits so long before the body, or where it would hang up.   length: what it claims instead, "" for
    nothing (the body ends with the connection).   chunked: the body in chunks, without a length.
    content_range: what it claims instead.   to: where it redirects.
    """

    data: bytes = b""
    status: int = 200
    etag: str | None = None
    modified: str | None = None
    kind: str = "application/octet-stream"
    keeps_ranges: bool = True
    cut: int | None = None
    stall_s: float = 0
    length: str | None = None
    chunked: bool = False
    content_range: str | None = None
    to: str | None = None


@dataclass
class FileServer:
    """``scripts``: path -> its answers in order, the last for ever.   ``asked``: (path, headers) of every request."""

    address: str = ""
    scripts: dict[str, list[Sends]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def put(self, path: str, *answers: Sends) -> str:
        """The address at which these answers will be given."""
        self.scripts[path] = list(answers)
        return f"{self.address}{path}"

    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for _, headers in self.asked]


@contextmanager
def file_server() -> Iterator[FileServer]:
    """Runs on a free port of 127.0.0.1 until the block ends."""
    shared = FileServer()
    stopped = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.close_connection = True
            shared.asked.append((self.path, dict(self.headers)))
            script = shared.scripts.get(self.path, [Sends(status=404)])
            answer(self, script.pop(0) if len(script) > 1 else script[0], stopped)

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    server.handle_error = lambda *_: None  # type: ignore[method-assign] # a client that hangs up is part of the tests
    shared.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield shared
    finally:
        stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()


def answer(handler: BaseHTTPRequestHandler, sends: Sends, stopped: threading.Event) -> None:
    body, status, first = sends.data, sends.status, 0
    wanted, condition = handler.headers.get("Range"), handler.headers.get("If-Range")
    if wanted and sends.keeps_ranges and condition in (None, sends.etag, sends.modified):
        first = int(wanted.removeprefix("bytes=").removesuffix("-"))
        body, status = sends.data[first:], 206 if first < len(sends.data) else 416
    handler.send_response(status)
    if status == 206:
        span = f"bytes {first}-{len(sends.data) - 1}/{len(sends.data)}"
        handler.send_header("Content-Range", sends.content_range or span)
    for name, value in (
        ("Location", sends.to),
        ("ETag", sends.etag),
        ("Last-Modified", sends.modified),
        ("Content-Type", sends.kind),
        ("Transfer-Encoding", "chunked" if sends.chunked else None),
        ("Content-Length", None if sends.chunked else (str(len(body)) if sends.length is None else sends.length)),
    ):
        if value:
            handler.send_header(name, value)
    handler.end_headers()
    sent = body if sends.cut is None else body[: sends.cut]
    if sends.chunked:
        sent = b"%x\r\n%s\r\n" % (len(sent), sent) + (b"0\r\n\r\n" if sends.cut is None else b"")
    if sends.cut is None:
        wait(sends.stall_s, stopped)
    handler.wfile.write(sent)
    handler.wfile.flush()
    if sends.cut is not None:
        wait(sends.stall_s, stopped)


def wait(seconds: float, stopped: threading.Event) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not stopped.is_set():
        stopped.wait(0.02)
