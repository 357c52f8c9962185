"""Ask a server for a file over HTTP(S). Whatever comes instead of its bytes is said in one sentence."""

import http.client
import re
import socket
import ssl
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from typing import IO
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import urlparse

from sparse_transfer.core.errors import UserError

BLOCK_BYTES = 1 << 16
PAGE_BYTES = 1 << 14  # of a page that came instead of the file, to find its title
MAY_PASS = (408, 429, 500, 502, 503, 504)
LOOK = "look at its page"


class Broken(Exception):
    """No answer, or one that stopped before its end: another try may go on with it."""


class BeyondTheEnd(Exception):
    """The file has fewer bytes than those asked for."""


@dataclass(frozen=True)
class Answer:
    """A server's answer with a file in it, or a part of one."""

    response: http.client.HTTPResponse
    address: str
    stall_s: float

    def header(self, name: str) -> str | None:
        return self.response.headers.get(name)

    def block(self) -> bytes:
        """What has come so far, at most 64 KiB; nothing at the end. Raises ``Broken``."""
        try:
            return self.response.read1(BLOCK_BYTES)
        except TimeoutError:
            raise Broken(f"the host {host(self.address)} sent nothing for {self.stall_s:g} s") from None
        except (http.client.HTTPException, OSError, ValueError) as error:
            why = str(error) or type(error).__name__
            raise Broken(f"the connection to {host(self.address)} broke ({why})") from error


@contextmanager
def ask(address: str, headers: Mapping[str, str], *, stall_s: float) -> Generator[Answer]:
    """GET ``address``; redirections are followed, but not out of https or off the web.

    Raises:
        UserError: the host is unknown, refuses, has no such file, or sends a page for people.
        Broken: what may pass by itself.   BeyondTheEnd: status 416.
    """
    headers = {"User-Agent": "sparse-transfer", "Accept-Encoding": "identity", **headers}
    try:
        response = _opener().open(request.Request(address, headers=headers), timeout=stall_s)
    except HTTPError as error:
        with error:
            raise _refused(error, address) from None
    except URLError as error:
        raise _unreachable(error.reason, address, stall_s) from error
    except (http.client.HTTPException, ValueError, OSError) as error:
        raise _unreachable(error, address, stall_s) from error
    with response:
        answer = Answer(response, address, stall_s)
        if "html" in (answer.header("Content-Type") or "").lower():
            raise a_page(answer.block()[:PAGE_BYTES], address)
        yield answer


def host(address: str) -> str:
    return urlparse(address).netloc or address


def is_page(head: bytes) -> bool:
    """Whether these first bytes are those of an HTML page, whatever type the server gives it."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html"))


def a_page(text: bytes, address: str) -> UserError:
    """The sentence for a page that came instead of a file; it names the page's title."""
    title = re.search(r"<title[^>]*>(.*?)</title>", text.decode(errors="replace"), re.IGNORECASE | re.DOTALL)
    words = "".join(letter for letter in " ".join(unescape(title[1]).split()) if letter.isprintable()) if title else ""
    called = f' ("{words[:80]}")' if words else ""
    return UserError(
        f"the host {host(address)} sent an HTML page{called} instead of the file",
        where=address,
        do="open it in a browser: the file may have moved, or want something confirmed",
    )


def _refused(error: HTTPError, address: str) -> Exception:
    said = f"the host {host(error.url or address)} answers {error.code} ({error.reason})"
    if error.code in MAY_PASS:
        return Broken(said)
    if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
        return BeyondTheEnd(said)
    if error.code in (404, 410):
        return UserError(f"{said}: the file is gone or has moved", where=address, do=LOOK)
    if error.code in (401, 403):
        return UserError(f"{said}: it does not give the file to everybody", where=address, do="ask its owner")
    if 300 <= error.code < 400:
        circles = str(error.reason).startswith(request.HTTPRedirectHandler.inf_msg)
        how = "in circles" if circles else "to what is no file on the web"
        return UserError(f"the host {host(error.url or address)} redirects {how}", where=address, do=LOOK)
    return UserError(said, where=address, do=LOOK)


def _unreachable(reason: object, address: str, stall_s: float) -> Exception:
    name = host(address)
    match reason:
        case socket.gaierror():
            what = f"no host {name} is found"
            return UserError(what, where=address, do="look at your connection, and if that is fine the host is gone")
        case ConnectionRefusedError():
            return UserError(f"the host {name} refuses connections", where=address, do="try again later")
        case ssl.SSLCertVerificationError():
            what = f"the host {name} shows a certificate that is not trusted ({reason.verify_message})"
            return UserError(what, where=address, do="do not fetch it over this connection")
        case TimeoutError():
            return Broken(f"the host {name} did not answer within {stall_s:g} s")
        case _:
            return Broken(f"the host {name} did not answer ({reason or type(reason).__name__})")


class _Redirects(request.HTTPRedirectHandler):
    """At most ten, to any host; leaving encryption, or the web, is refused. urllib itself would follow to ftp."""

    max_redirections = 10

    def redirect_request(
        self, req: request.Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> request.Request | None:
        before, after = urlparse(req.full_url).scheme, urlparse(newurl).scheme
        if after not in ("http", "https") or (before == "https" and after == "http"):
            fp.close()
            raise UserError(
                f"the host {host(req.full_url)} redirects from {before} to {after}, where the file is not safe",
                where=req.full_url,
                do=LOOK,
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> request.OpenerDirector:
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        request.HTTPHandler(),
        request.HTTPSHandler(),
        request.HTTPDefaultErrorHandler(),
        _Redirects(),
        request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener
