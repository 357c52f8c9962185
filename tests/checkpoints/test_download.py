"""Downloads from a server here that stalls, cuts, redirects, lies and changes: whole files, or a sentence."""

import errno
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparse_transfer.checkpoints import download as downloading
from sparse_transfer.checkpoints import web
from sparse_transfer.checkpoints.download import Patience, download
from sparse_transfer.core.errors import UserError
from support.file_server import FileServer, Sends, file_server

FILE = bytes(range(256)) * 1000
OTHER = FILE[::-1]
DIGEST = hashlib.sha256(FILE).hexdigest()
QUICK = Patience(stall_s=0.3, tries=2, pause_s=0.01)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with file_server() as running:
        yield running


def fetched(address: str, target: Path, **options: object) -> bytes:
    """The file, and that nothing lies beside it."""
    assert download(address, target, patience=QUICK, **options) == hashlib.sha256(target.read_bytes()).hexdigest()  # type: ignore[arg-type]
    assert os.listdir(target.parent) == [target.name]
    return target.read_bytes()


def refusal(address: str, target: Path, patience: Patience = QUICK, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        download(address, target, patience=patience, **options)  # type: ignore[arg-type]
    assert not target.exists()
    return str(caught.value)


def left(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if not name.endswith(".lock"))


# --- whole files --------------------------------------------------------------------------------------------------


def test_a_file_comes_whole_and_nothing_lies_beside_it(server: FileServer, tmp_path: Path) -> None:
    assert fetched(server.put("/a.pth", Sends(FILE, etag='"1"')), tmp_path / "new" / "a.pth") == FILE
    assert len(server.asked) == 1


@pytest.mark.parametrize("length", ["", None])
def test_a_file_without_a_stated_length_comes_and_that_is_said(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], length: str | None
) -> None:
    address = server.put("/a", Sends(FILE, chunked=length is None, length=length))
    assert fetched(address, tmp_path / "a") == FILE
    assert capsys.readouterr().err == (
        f"warning: {tmp_path / 'a'}: its server does not say how long it is, so whether it is whole is not known\n"
    )


@pytest.mark.parametrize("digits", [8, 64])
def test_a_checksum_or_its_first_digits_are_compared(server: FileServer, tmp_path: Path, digits: int) -> None:
    address = server.put("/a", Sends(FILE))
    assert fetched(address, tmp_path / "right" / "a", sha256=DIGEST[:digits].upper()) == FILE
    (tmp_path / "wrong").mkdir()
    said = refusal(address, tmp_path / "wrong" / "a", sha256="0" * digits)
    assert said == (
        f"{tmp_path}/wrong/a: {web.host(address)} sends a file with SHA-256 {DIGEST[:digits]}, and it should be "
        f"{'0' * digits}; nothing was kept: fetch it again, and look at its page if it stays so"
    )
    assert os.listdir(tmp_path / "wrong") == []


def test_redirections_to_another_host_are_followed(server: FileServer, tmp_path: Path) -> None:
    server.put("/there", Sends(FILE, etag='"1"'))
    there = server.address.replace("127.0.0.1", "localhost") + "/there"
    for status in (301, 302, 303, 307, 308):
        address = server.put("/here", Sends(status=status, to=there))
        assert fetched(address, tmp_path / str(status) / "a") == FILE


# --- going on -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "facts",
    [{"etag": '"1"'}, {"modified": "Sat, 01 Feb 2020 00:00:00 GMT"}, {"etag": '"1"', "modified": "x"}],
    ids=["etag", "date", "both"],
)
@pytest.mark.parametrize("fault", [{}, {"stall_s": 5}, {"chunked": True}], ids=["hangs up", "stalls", "chunks"])
def test_a_broken_transfer_goes_on_where_it_stopped(
    server: FileServer, tmp_path: Path, facts: dict[str, str], fault: dict[str, float]
) -> None:
    first = Sends(FILE, cut=100_000, **facts, **fault)  # type: ignore[arg-type]
    address = server.put("/a", first, Sends(FILE, **facts))  # type: ignore[arg-type]
    assert fetched(address, tmp_path / "a", sha256=DIGEST) == FILE
    assert server.ranges() == [None, "bytes=100000-"]
    assert server.asked[1][1]["If-Range"] == facts.get("etag", facts.get("modified"))


def test_a_transfer_that_breaks_often_but_comes_further_is_not_given_up(server: FileServer, tmp_path: Path) -> None:
    cuts = [Sends(FILE, etag='"1"', cut=40_000)] * 6
    address = server.put("/a", *cuts, Sends(FILE, etag='"1"'))
    assert fetched(address, tmp_path / "a", sha256=DIGEST) == FILE
    assert server.ranges() == [None, *(f"bytes={40_000 * times}-" for times in range(1, 7))]


def test_a_second_command_goes_on_where_the_first_gave_up(server: FileServer, tmp_path: Path) -> None:
    address = server.put("/a", Sends(FILE, etag='"1"', cut=999))
    said = refusal(address, tmp_path / "a", Patience(stall_s=1, tries=1))
    assert said == (
        f"{tmp_path}/a: the host {web.host(address)} stopped after 999 of 256,000 bytes; 999 bytes are kept; "
        "the same command goes on from there"
    )
    assert left(tmp_path) == ["a.part", "a.part.json"]
    server.put("/a", Sends(FILE, etag='"1"'))
    assert fetched(address, tmp_path / "a") == FILE
    assert server.ranges() == [None, "bytes=999-"]


@pytest.mark.parametrize(
    "facts", [{}, {"etag": 'W/"1"'}], ids=["nothing tells versions apart", "a weak ETag promises no equal bytes"]
)
def test_what_cannot_be_told_apart_is_fetched_from_the_start(
    server: FileServer, tmp_path: Path, facts: dict[str, str]
) -> None:
    address = server.put("/a", Sends(FILE, cut=999, **facts), Sends(FILE, **facts))  # type: ignore[arg-type]
    assert fetched(address, tmp_path / "a") == FILE
    assert server.ranges() == [None, None]


@pytest.mark.parametrize(
    "second",
    [
        Sends(OTHER, etag='"2"'),
        Sends(OTHER, etag='"2"', keeps_ranges=False),
        Sends(OTHER[:500], etag='"2"'),
        Sends(OTHER),
        Sends(OTHER[:-1], etag='"1"'),
    ],
    ids=["honest", "ignores Range", "shorter", "says no version", "same ETag, other length"],
)
def test_two_versions_of_a_file_are_never_glued(server: FileServer, tmp_path: Path, second: Sends) -> None:
    address = server.put("/a", Sends(FILE, etag='"1"', cut=100_000), second)
    assert fetched(address, tmp_path / "a") == second.data


@pytest.mark.parametrize("facts", [{"etag": '"2"'}, {}, {"modified": "now"}])
def test_a_server_that_is_deaf_to_if_range_is_found_out(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facts: dict[str, str]
) -> None:
    address = server.put("/a", Sends(FILE, etag='"1"', cut=100_000), Sends(OTHER, **facts))  # type: ignore[arg-type]
    ask = web.ask

    def without_condition(address: str, headers: dict[str, str], *, stall_s: float) -> object:
        return ask(address, {key: value for key, value in headers.items() if key != "If-Range"}, stall_s=stall_s)

    monkeypatch.setattr(downloading, "ask", without_condition)
    assert fetched(address, tmp_path / "a") == OTHER
    assert server.ranges() == [None, "bytes=100000-", None]


def test_a_part_of_another_address_is_not_gone_on_with(server: FileServer, tmp_path: Path) -> None:
    refusal(server.put("/a", Sends(FILE, etag='"1"', cut=999)), tmp_path / "a", Patience(tries=1))
    assert fetched(server.put("/b", Sends(OTHER, etag='"1"')), tmp_path / "a") == OTHER


@pytest.mark.parametrize("notes", [None, b"", b"[]", b'{"address": 1}', b"\xff"])
def test_a_part_without_its_notes_is_begun_anew(server: FileServer, tmp_path: Path, notes: bytes | None) -> None:
    (tmp_path / "a.part").write_bytes(b"somebody else's")
    if notes is not None:
        (tmp_path / "a.part.json").write_bytes(notes)
    assert fetched(server.put("/a", Sends(FILE, etag='"1"')), tmp_path / "a") == FILE


def test_a_part_that_is_whole_is_asked_for_its_last_byte_alone(server: FileServer, tmp_path: Path) -> None:
    """A crash between the last byte and the renaming."""
    address = server.put("/a", Sends(FILE, etag='"1"', cut=len(FILE) - 1))
    refusal(address, tmp_path / "a", Patience(stall_s=1, tries=1))
    (tmp_path / "a.part").write_bytes(FILE)
    server.put("/a", Sends(FILE, etag='"1"'))
    assert fetched(address, tmp_path / "a") == FILE
    assert server.ranges()[-1] == f"bytes={len(FILE) - 1}-"


def test_a_part_beyond_the_end_is_begun_anew(server: FileServer, tmp_path: Path) -> None:
    """Its length was not known, and what the server has now is shorter."""
    address = server.put("/a", Sends(FILE, etag='"1"', cut=5000, chunked=True))
    refusal(address, tmp_path / "a", Patience(stall_s=1, tries=1))
    server.put("/a", Sends(FILE[:5000], etag='"1"'))
    assert fetched(address, tmp_path / "a") == FILE[:5000]
    assert server.ranges() == [None, "bytes=5000-", None]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 6000), max_size=5), keeps=st.booleans(), tag=st.sampled_from(['"1"', None]))
def test_however_often_it_breaks_the_file_is_that_of_the_server(
    server: FileServer, tmp_path: Path, cuts: list[int], keeps: bool, tag: str | None
) -> None:
    data = FILE[7:6000]
    answers = [Sends(data, etag=tag, cut=cut, keeps_ranges=keeps) for cut in cuts]
    address = server.put("/a", *answers, Sends(data, etag=tag, keeps_ranges=keeps))
    target = tmp_path / "a"
    download(address, target, patience=Patience(stall_s=1, tries=20, pause_s=0))
    assert target.read_bytes() == data
    target.unlink()


def test_an_interrupt_keeps_what_has_come(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = server.put("/a", Sends(FILE, etag='"1"'))
    block = web.Answer.block
    blocks = iter([block, block])

    def interrupted(answer: web.Answer) -> bytes:
        if (read := next(blocks, None)) is None:
            raise KeyboardInterrupt
        return read(answer)

    monkeypatch.setattr(web.Answer, "block", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download(address, tmp_path / "a", patience=QUICK)
    monkeypatch.undo()
    kept = (tmp_path / "a.part").read_bytes()
    assert 0 < len(kept) < len(FILE)
    assert FILE.startswith(kept)
    assert fetched(address, tmp_path / "a") == FILE
    assert server.ranges() == [None, f"bytes={len(kept)}-"]


# --- refusals -----------------------------------------------------------------------------------------------------


def test_a_host_in_trouble_is_asked_again(server: FileServer, tmp_path: Path) -> None:
    address = server.put("/a", Sends(status=503), Sends(FILE))
    assert fetched(address, tmp_path / "a") == FILE
    address = server.put("/b", Sends(status=502))
    assert refusal(address, tmp_path / "b") == (
        f"{tmp_path}/b: the host {web.host(address)} answers 502 (Bad Gateway); 0 bytes are kept; "
        "the same command goes on from there"
    )


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (404, "404 (Not Found): the file is gone or has moved; look at its page"),
        (410, "410 (Gone): the file is gone or has moved; look at its page"),
        (403, "403 (Forbidden): it does not give the file to everybody; ask its owner"),
        (418, "418 (I'm a Teapot); look at its page"),
        (204, "204; fetch it in a browser"),
    ],
)
def test_a_refusal_of_the_host_is_said(server: FileServer, tmp_path: Path, status: int, said: str) -> None:
    address = server.put("/a", Sends(status=status))
    assert refusal(address, tmp_path / "a") == f"{address}: the host {web.host(address)} answers {said}"
    assert left(tmp_path) == []
    assert len(server.asked) == 1


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_page_sent_with_status_200_is_no_file(server: FileServer, tmp_path: Path, kind: str) -> None:
    page = b"\n<!DOCTYPE html><head><title>File\n does &amp; not\x1b exist</title>"
    address = server.put("/a", Sends(page, kind=kind, etag='"1"'))
    assert refusal(address, tmp_path / "a") == (
        f'{address}: the host {web.host(address)} sent an HTML page ("File does & not exist") instead of the file; '
        "open it in a browser: the file may have moved, or want something confirmed"
    )
    assert left(tmp_path) == []


def test_a_page_on_going_on_is_no_file_either_and_keeps_the_part(server: FileServer, tmp_path: Path) -> None:
    address = server.put("/a", Sends(FILE, etag='"1"', cut=999), Sends(b"<html>", kind="text/html"))
    assert "sent an HTML page instead of the file" in refusal(address, tmp_path / "a")
    assert (tmp_path / "a.part").stat().st_size == 999


def test_redirections_in_circles_end(server: FileServer, tmp_path: Path) -> None:
    server.put("/b", Sends(status=302, to=f"{server.address}/a"))
    address = server.put("/a", Sends(status=302, to=f"{server.address}/b"))
    said = refusal(address, tmp_path / "a")
    assert said == f"{address}: the host {web.host(address)} redirects in circles; look at its page"
    assert len(server.asked) < 25


def test_ever_new_redirections_end(server: FileServer, tmp_path: Path) -> None:
    for number in range(30):
        server.put(f"/{number}", Sends(status=302, to=f"{server.address}/{number + 1}"))
    assert "redirects in circles" in refusal(f"{server.address}/0", tmp_path / "a")
    assert len(server.asked) <= 12


@pytest.mark.parametrize("there", ["ftp://127.0.0.1/a", "file:///etc/hostname", "data:,x"])
def test_a_redirection_off_the_web_is_refused(server: FileServer, tmp_path: Path, there: str) -> None:
    said = refusal(server.put("/a", Sends(status=302, to=there)), tmp_path / "a")
    assert "redirects to what is no file on the web" in said or "redirects from http to ftp" in said


def test_a_redirection_from_https_to_http_is_refused() -> None:
    """Without a server that speaks TLS: urllib's own question to the handler."""
    import io
    from http.client import HTTPMessage
    from urllib.request import Request

    handler = web._Redirects()  # type: ignore[attr-defined]
    before = Request("https://example.org/a")
    with pytest.raises(UserError) as caught:
        handler.redirect_request(before, io.BytesIO(), 302, "Found", HTTPMessage(), "http://example.org/a")
    assert str(caught.value) == (
        "https://example.org/a: the host example.org redirects from https to http, where the file is not safe; "
        "look at its page"
    )
    assert handler.redirect_request(before, io.BytesIO(), 302, "Found", HTTPMessage(), "https://b.org/a") is not None


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ({"length": "300000"}, "stopped after 256,000 of 300,000 bytes"),
        ({"length": "99999999999999"}, "says that it has 99,999,999,999,999 bytes, and at most"),
        ({"data": b"", "length": "0"}, "sends an empty file"),
    ],
)
def test_a_lie_about_the_length_is_found(server: FileServer, tmp_path: Path, lie: dict[str, object], said: str) -> None:
    address = server.put("/a", Sends(**({"data": FILE} | lie)))  # type: ignore[arg-type]
    assert said in refusal(address, tmp_path / "a")


def test_a_length_that_is_too_small_is_found_by_the_checksum(server: FileServer, tmp_path: Path) -> None:
    """HTTP ends a body at its stated length: all that a reader can see is a shorter file."""
    address = server.put("/a", Sends(FILE, length="1000"))
    assert "it should be" in refusal(address, tmp_path / "a", sha256=DIGEST)


@pytest.mark.parametrize(
    "span", ["bytes 0-255999/256000", "bytes 999-255999/*", "bytes 999-255999/255999", "octets", "bytes 999-10/256000"]
)
def test_a_range_that_was_not_asked_for_is_refused(server: FileServer, tmp_path: Path, span: str) -> None:
    address = server.put("/a", Sends(FILE, etag='"1"', cut=999), Sends(FILE, etag='"1"', content_range=span))
    assert refusal(address, tmp_path / "a") == (
        f'{address}: the host {web.host(address)} was asked for the bytes from 999 and sends "{span}"; '
        "fetch it in a browser"
    )


def test_a_file_without_end_is_cut_at_the_most_that_is_taken(server: FileServer, tmp_path: Path) -> None:
    address = server.put("/a", Sends(FILE, chunked=True))
    said = refusal(address, tmp_path / "a", Patience(most_bytes=100_000))
    assert said == f"{address}: more than its 100,000 bytes come; fetch it in a browser"
    assert left(tmp_path) == []


def test_a_host_that_never_answers_is_given_up(server: FileServer, tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/a"
        assert refusal(address, tmp_path / "a").startswith(
            f"{tmp_path}/a: the host {web.host(address)} did not answer within 0.3 s; 0 bytes are kept"
        )


def test_a_host_that_refuses_connections_is_said(server: FileServer, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/a"
    said = refusal(address, tmp_path / "a")
    assert said == f"{address}: the host {web.host(address)} refuses connections; try again later"


def test_a_host_that_does_not_exist_is_said(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(*_: object, **__: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    assert refusal("https://gone.example/a", tmp_path / "a") == (
        "https://gone.example/a: no host gone.example is found; "
        "look at your connection, and if that is fine the host is gone"
    )


def test_words_that_are_no_http_are_said(server: FileServer, tmp_path: Path) -> None:
    with socket.socket() as rude:
        rude.bind(("127.0.0.1", 0))
        rude.listen()

        def greet() -> None:
            for _ in range(2):
                talk, _ = rude.accept()
                with talk:
                    talk.recv(1000)
                    talk.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        address = f"http://127.0.0.1:{rude.getsockname()[1]}/a"
        assert "did not answer (220 mail.example ESMTP" in refusal(address, tmp_path / "a")
        thread.join()


@pytest.mark.parametrize("address", ["ftp://example.org/a", "file:///etc/passwd", "zoo:cv", "a.pth"])
def test_only_addresses_on_the_web_are_fetched(tmp_path: Path, address: str) -> None:
    assert refusal(address, tmp_path / "a") == f"{address}: this is no address on the web; it begins with https://"


# --- the disk -----------------------------------------------------------------------------------------------------


def test_what_is_there_already_is_never_overwritten(server: FileServer, tmp_path: Path) -> None:
    address, target = server.put("/a", Sends(OTHER)), tmp_path / "a"
    target.write_bytes(FILE)
    assert download(address, target, sha256=DIGEST[:8], patience=QUICK) == DIGEST
    with pytest.raises(UserError, match=r"something of that name is there already; remove it, or name another with -o"):
        download(address, target, patience=QUICK)
    with pytest.raises(UserError, match=r"is there already"):
        download(address, target, sha256="0" * 64, patience=QUICK)
    assert target.read_bytes() == FILE
    assert server.asked == []
    assert os.listdir(tmp_path) == ["a"]


def test_too_little_room_is_said_before_anything_is_fetched(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")(1, 1, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    said = refusal(server.put("/a", Sends(FILE)), tmp_path / "a")
    assert said == f"{tmp_path}: 256,000 bytes are to come and 1,000 are free; make room there"


def test_a_full_disk_is_named_and_what_has_come_is_kept(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = server.put("/a", Sends(FILE, etag='"1"'))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(downloading, "write_text", lambda path, text: path.write_text(text))
    with pytest.raises(OSError, match=r"No space left on device \(256,000 bytes have come\)") as caught:
        download(address, tmp_path / "a", patience=QUICK)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a.part"))
    monkeypatch.undo()
    assert fetched(address, tmp_path / "a") == FILE
    assert server.ranges() == [None, "bytes=255999-"]


def test_two_processes_do_not_write_one_part(server: FileServer, tmp_path: Path) -> None:
    from filelock import FileLock

    address = server.put("/a", Sends(FILE))
    with FileLock(tmp_path / "a.part.lock"):
        said = refusal(address, tmp_path / "a")
    assert said == f"{tmp_path}/a: another process is fetching it; wait for it"
    assert fetched(address, tmp_path / "a") == FILE
