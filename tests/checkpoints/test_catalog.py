"""The catalogue is whole and consistent, and its commands say what it knows. Nothing here leaves this machine."""

import gzip
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlparse

import click
import pytest

from sparse_transfer.checkpoints import catalog
from sparse_transfer.checkpoints.catalog import Published, fetchable, published, search
from sparse_transfer.checkpoints.file import load
from sparse_transfer.checkpoints.importing import import_checkpoint
from sparse_transfer.cli import main as program
from sparse_transfer.core.errors import UserError
from sparse_transfer.core.progress import set_quiet
from sparse_transfer.models import Architecture
from support import foreign_tf
from support.archives import tar_of
from support.file_server import FileServer, Sends, file_server

NOT_BUILT = {"several", "inception_v3", "vgg11", "vgg16", "vgg19"}
ALL = [published().get(name) for name in published()]


@pytest.fixture(autouse=True)
def talking() -> Iterator[None]:
    """``--quiet`` is the process's: no other test is to be quiet after it."""
    yield
    set_quiet(False)


def ran(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = program.run(["catalog", *words])
    return status, *capsys.readouterr()


# --- facts --------------------------------------------------------------------------------------------------------


def test_every_published_set_is_in_it() -> None:
    """Counts by hand, from the owners' tables."""
    counts: dict[str, int] = {}
    for item in ALL:
        counts[item.method] = counts.get(item.method, 0) + 1
    assert counts == {
        "AC/DC": 10,
        "STR": 18,
        "RigL": 27,
        "State of Sparsity, GMP": 10,
        "State of Sparsity, random pruning": 6,
        "State of Sparsity, variational dropout": 5,
        "M-FAC": 4,
        "WoodFisher": 6,
        "CrAM": 2,
        "transfer paper": 7,
        "SR-STE": 2,
        "SR-STE-kernel": 5,
        "LBC": 1,
        "DNW": 10,
        "DNW-first-dense": 9,
        "hidden-networks": 6,
        "SuperBlock": 22,
        "SparseZoo": 26,
        "DeGirum": 2,
        "LTH-T": 1,
        "dense": 1,
    }


@pytest.mark.parametrize(
    ("name", "sparsity", "top1", "address"),
    [
        ("resnet50.acdc_s95", 0.95, 73.14, "https://seafile.ist.ac.at/f/e51ab6ee47bb490cb119/?dl=1"),
        ("mobilenet_v1.str_s75", 0.7528, 68.35, "https://drive.google.com/file/d/19LWzHdUMpE5gm7tW9lIDs-T7rA3mcqFh"),
        ("resnet50.rigl_erk5x_s96.5", 0.965, 72.77, "https://storage.googleapis.com/gresearch/rigl/s965erk5x.tar.gz"),
        ("resnet50.woodfisher_s98", 0.98, 65.47, None),
        ("resnet50.dnw_first_dense_s90", 0.9, 75.044, "https://drive.google.com/drive/folders/1TrwDTtwW_V7pyeHo1n7aRMrq8Yth9t6I"),
    ],
)  # fmt: skip
def test_what_its_owner_says_is_what_it_says(name: str, sparsity: float, top1: float, address: str | None) -> None:
    item = published().get(name)
    assert (item.sparsity, item.top1, item.address) == (sparsity, top1, address)


@pytest.mark.parametrize("item", ALL, ids=lambda item: item.name)
def test_an_entry_agrees_with_itself(item: Published) -> None:
    assert re.fullmatch(r"[a-z]+\w*\.[a-z0-9_]+(?:\.5)?", item.name)
    if item.architecture not in NOT_BUILT:
        assert str(Architecture.parse(item.architecture)) == item.architecture
    assert item.sparsity is None or 0 <= item.sparsity < 1
    assert item.top1 is None or 40 < item.top1 < 90
    assert item.counted in (None, "masked", "prunable", "average over layers")
    if (named := re.search(r"_s([\d.]+)$", item.name)) is not None:
        assert item.sparsity is not None
        assert abs(100 * item.sparsity - float(named[1])) < 0.5
    if item.nm is not None:
        kept, of = map(int, item.nm.split(":"))
        assert item.sparsity == 1 - kept / of
        assert item.name.endswith(f"_{kept}of{of}")
    assert item.sha256 is None or re.fullmatch(r"[0-9a-f]{8,64}", item.sha256)
    assert item.address is None or urlparse(item.address).scheme in ("https", "zoo")
    assert item.page is not None
    assert item.page.startswith("https://github.com/")
    if item.by_hand is None:  # a file, not a folder
        assert item.address is not None
        assert re.search(r"/f/\w+/\?dl=1$|\.(pth|tar|tar\.gz)$", item.address)


def test_no_two_files_have_one_address_unless_it_is_said() -> None:
    addresses: dict[str, str] = {}
    for item in ALL:
        if item.by_hand is None or "/file/d/" in (item.address or ""):
            other = addresses.setdefault(str(item.address), item.name)
            assert other == item.name or "several rows" in str(item.note)
    assert len(addresses) > 100


def test_every_import_command_it_shows_parses() -> None:
    command = program.cli.get_command(click.Context(program.cli), "import")
    assert command is not None
    for item in ALL:
        command.make_context("import", [item.file_name, "-o", "x.safetensors", *item.import_options()])


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("resnet50.acdc_s95", "resnet50.acdc_s95.pth"),
        ("resnet50.rigl_erk5x_s96.5", "resnet50.rigl_erk5x_s96.5.tar.gz"),
        ("resnet50.sos_random_s50", "resnet50.sos_random_s50.tar"),
        ("vit_b_16.superblock_t32_s80", "vit_b_16.superblock_t32_s80.pth"),
        ("resnet50.woodfisher_s80", "resnet50.woodfisher_s80.pth"),
    ],
)
def test_a_file_is_called_by_its_name_here(name: str, file: str) -> None:
    assert published().get(name).file_name == file


def test_a_search_by_method_and_network() -> None:
    assert {item.name for item in search(method="acdc", network="mobilenet_v1")} == {
        "mobilenet_v1.acdc_s75",
        "mobilenet_v1.acdc_s90",
    }
    assert len(search(network="resnet50,pool=same")) == 22 + 21
    assert search() == ALL


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"method": "rigle"}, 'no published checkpoint is of the method "rigle"; did you mean "RigL"?'),
        ({"network": "resnet5"}, 'none of 180 published checkpoints is a "resnet5"; did you mean "resnet50"?'),
        (
            {"method": "AC/DC", "network": "vgg19"},
            'none of 10 published checkpoints is a "vgg19"; there are "mobilenet_v1", "resnet50"',
        ),
    ],
)
def test_a_search_that_finds_nothing_says_what_there_is(asked: dict[str, str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        search(**asked)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet50.str_s90", "Google Drive wants large files confirmed in a browser; open "
         "https://drive.google.com/file/d/1sya0OI1o53a64M0oXNhYRnkLGPhVRXaQ in a browser"),
        ("resnet50.mfac_s95", "it is a folder of several files; open "
         "https://seafile.ist.ac.at/d/5d06074221604d90909b/ in a browser"),
        ("resnet50.lbc", "it is a folder of several files on Google Drive; open "
         "https://drive.google.com/drive/folders/1PYuZUgeI9Mz7yfeD3lartUcZF7Zo4u6- in a browser"),
        ("resnet50.woodfisher_s80", "it has no public address; open "
         "https://github.com/IST-DASLab/WoodFisher in a browser and ask its authors"),
        ("vgg19.sparsezoo_pruned_moderate", "SparseZoo, which resolved its address, ended on 2 June 2025; open "
         "https://github.com/neuralmagic/sparsezoo in a browser"),
    ],
)  # fmt: skip
def test_what_only_people_can_fetch_says_why_and_where(name: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        fetchable(name)
    assert str(caught.value) == f"{name}: it cannot be fetched from here: {said}"


# --- commands -----------------------------------------------------------------------------------------------------


def test_list_is_a_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = ran(capsys, "list", "--method", "ac/dc", "--arch", "mobilenet_v1")
    assert (status, err) == (0, "")
    assert [line.rstrip() for line in out.splitlines()] == [
        "name                   sparsity   top-1  get  format",
        "mobilenet_v1.acdc_s75      75 %   70.41  yes  IST wrapper",
        "mobilenet_v1.acdc_s90      90 %   66.24  yes  IST wrapper",
    ]
    status, out, _ = ran(capsys, "list", "--json")
    assert status == 0
    assert json.loads(out)[0]["name"] == "resnet50.acdc_s80"
    assert len(json.loads(out)) == len(ALL)


def test_show_says_how_to_import(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = ran(capsys, "show", "resnet50.srste_2of4")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == (
        "import with   sparse-transfer import resnet50.srste_2of4.pth -o resnet50.srste_2of4.safetensors "
        "--method SR-STE-kernel --sparsity 0.5 --nm 2:4"
    )
    status, out, _ = ran(capsys, "show", "resnet50.acdc_s80", "--json")
    assert json.loads(out)["licence"] == "Apache-2.0"
    assert ran(capsys, "show", "resnet50.acdc_95") == (
        2,
        "",
        'error: no published checkpoint is called "resnet50.acdc_95"; did you mean "resnet50.acdc_s95"?\n',
    )


def test_nothing_is_fetched_before_get(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def never(*_: object, **__: object) -> object:
        raise AssertionError("this goes over the network")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    monkeypatch.setattr(socket, "create_connection", never)
    assert ran(capsys, "list")[0] == ran(capsys, "show", "resnet50.acdc_s80")[0] == 0
    assert ran(capsys, "get", "resnet50.str_s90")[0] == 2


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FileServer]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    with file_server() as running:
        monkeypatch.setattr(catalog, "published", lambda: relocated(running.address))
        yield running


def relocated(address: str) -> dict[str, Published]:
    return {item.name: replace(item, address=f"{address}/{item.file_name}") for item in ALL}


def test_get_fetches_and_says_what_it_wrote(server: FileServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.put("/resnet50.acdc_s80.pth", Sends(b"abc", etag='"1"'))
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert ran(capsys, "get", "resnet50.acdc_s80") == (
        0,
        f"written: resnet50.acdc_s80.pth (SHA-256 {digest}; nothing published to compare it with)\n",
        f"resnet50.acdc_s80: fetching {server.address}/resnet50.acdc_s80.pth "
        "(its page: https://github.com/IST-DASLab/ACDC; licence: Apache-2.0)\n",
    )
    assert Path("resnet50.acdc_s80.pth").read_bytes() == b"abc"
    status, out, err = ran(capsys, "get", "resnet50.acdc_s80", "-o", "deep/er/a.pth", "--quiet")
    assert (status, out.split(" (")[0], err) == (0, "written: deep/er/a.pth", "")


def test_an_archive_that_get_wrote_comes_in_by_the_line_that_show_prints(
    server: FileServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """RigL's networks are TensorFlow bundles in a ``.tar.gz``."""
    name = "mobilenet_v1.rigl_erk10x_s89"
    made = tmp_path / "made"
    made.mkdir()
    sample = foreign_tf.mask_sample(made)
    files = {f"run/{path.name}": path.read_bytes() for path in made.iterdir()}
    found = import_checkpoint(sample.path)
    items = relocated(server.address)
    items[name] = replace(items[name], sparsity=round(found.report.sparsities.masked.sparsity, 3))
    monkeypatch.setattr(catalog, "published", lambda: items)
    server.put(f"/{name}.tar.gz", Sends(gzip.compress(tar_of(files))))
    assert ran(capsys, "get", name, "-q")[0] == 0
    words = shlex.split(ran(capsys, "show", name)[1].splitlines()[-1].removeprefix("import with"))
    assert program.run(words[1:]) == 0
    written = load(f"{name}.safetensors")
    assert written.digest == found.network.digest()
    assert (written.origin.method, written.origin.licence) == ("RigL", "Apache-2.0")
    assert written.origin.file == f"{name}.tar.gz/{sample.path.name}"


def test_get_compares_the_digits_that_are_published(server: FileServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.put("/efficientnet_es.degirum_s75.pth", Sends(b"abc"))
    status, out, err = ran(capsys, "get", "efficientnet_es.degirum_s75", "-q")
    assert (status, out) == (2, "")
    assert "sends a file with SHA-256 ba7816bf, and it should be 1b7248cf" in err


def test_get_says_that_a_host_is_gone(server: FileServer, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = ran(capsys, "get", "resnet50.acdc_s90", "-q")
    assert (status, out) == (2, "")
    assert err.endswith("answers 404 (Not Found): the file is gone or has moved; look at its page\n")
