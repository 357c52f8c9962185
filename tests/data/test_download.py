"""No test goes over the network: the hosts here are this machine, where nobody listens, or nobody at all."""

import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torchvision.datasets

from sparse_transfer.core.errors import UserError
from sparse_transfer.data.download import download
from sparse_transfer.data.specs import datasets


@pytest.fixture(autouse=True)
def this_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up of any other host is a bug of the test."""
    look_up = socket.getaddrinfo

    def local(host: str, *arguments: object, **options: object) -> object:
        assert host == "127.0.0.1", host
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", local)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Missing(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def missing_pages() -> Iterator[int]:
    with http.server.HTTPServer(("127.0.0.1", 0), Missing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def refusal(name: str, root: Path) -> str:
    with pytest.raises(UserError) as caught:
        download(datasets.get(name), root)
    return str(caught.value)


def test_a_host_that_does_not_answer_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    address = f"http://127.0.0.1:{closed_port}/"
    monkeypatch.setattr(torchvision.datasets.Flowers102, "_download_url_prefix", address)
    said = refusal("flowers", tmp_path)
    assert said.startswith("flowers: the host www.robots.ox.ac.uk does not answer (")
    assert "refused" in said
    assert said.endswith(
        "; look at your connection and at https://www.robots.ox.ac.uk/~vgg/data/flowers/102/, "
        f"or unpack the archive into {tmp_path} yourself"
    )


def test_a_page_that_is_gone_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing_pages: int) -> None:
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", f"http://127.0.0.1:{missing_pages}/cifar.tar.gz")
    assert refusal("cifar10", tmp_path) == (
        "cifar10: the host www.cs.toronto.edu answers 404 (Not Found), the archive may have moved; "
        f"look at https://www.cs.toronto.edu/~kriz/cifar.html, and unpack it into {tmp_path}"
    )


def test_an_archive_with_other_bytes_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr(torchvision.datasets, "DTD", broken)
    assert refusal("dtd", tmp_path) == (
        "dtd: torchvision's downloader gave up (File not found or corrupted.); delete what it left in "
        f"{tmp_path}, or unpack the archive from https://www.robots.ox.ac.uk/~vgg/data/dtd/ there yourself"
    )


@pytest.mark.parametrize("name", [name for name in datasets if datasets.get(name).downloader is None])
def test_what_nobody_fetches_says_why_and_where_to_look(tmp_path: Path, name: str) -> None:
    said = refusal(name, tmp_path / "new")
    assert said.startswith(f"{name}: it cannot be fetched: ")
    assert said.endswith(f"; see {datasets.get(name).address}")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", [name for name in datasets if datasets.get(name).downloader])
def test_every_downloader_is_called_with_arguments_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real constructor runs up to its download, which is stopped at the first wish for a host."""
    asked: list[str] = []

    def stop(url: str, *_: object, **__: object) -> None:
        asked.append(url)
        print("this belongs on stderr")
        raise RuntimeError("stopped")

    from torchvision.datasets import utils

    monkeypatch.setattr(utils, "_get_redirect_url", stop)
    assert "(stopped)" in refusal(name, tmp_path / "deep" / "root")
    assert len(asked) == 1
    assert asked[0].startswith("http")
    assert capsys.readouterr().out == ""


def test_a_root_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refusal("dtd", tmp_path / "file" / "x") == (
        f"{tmp_path}/file/x: the folder cannot be filled (Not a directory); give another"
    )
