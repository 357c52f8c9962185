"""Files that mean harm or are damaged: one sentence, nothing run, nothing hung."""

import gzip
import logging
import pickle
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_transfer.checkpoints.readers.opening import open_container
from sparse_transfer.cli import main as program
from sparse_transfer.core.errors import UserError
from support.archives import tar_of
from support.fuzzing import CASES, attack, outcome
from support.hostile import dead_pickles, deflated, legacy_of, live_pickles, text, zip_of, zip_tricks

pytestmark = pytest.mark.filterwarnings("ignore:invalid escape sequence")  # of pickletools, on damaged bytes
LIVE = sorted(live_pickles(Path("x")))
wrapped = pytest.mark.parametrize("wrap", [zip_of, legacy_of])
TENSOR = torch.arange(6.0).reshape(2, 3)
TREE = {"w": TENSOR, "b": torch.arange(4), "epoch": 3, "args": [0.5, "adam", None]}


@pytest.mark.parametrize("name", LIVE)
def test_the_live_pickles_are_live(name: str, tmp_path: Path) -> None:
    """The corpus tests nothing unless Python's own pickle falls for it."""
    marker = tmp_path / "marker"
    with suppress(ValueError, EOFError, pickle.UnpicklingError):  # once the harm is done
        made = pickle.loads(live_pickles(marker)[name])
        if isinstance(made, logging.Handler):
            made.close()
    assert marker.exists()


@wrapped
@pytest.mark.parametrize("name", LIVE)
def test_a_pickle_that_runs_a_command_is_refused_and_runs_nothing(
    name: str, wrap: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "x.pth").write_bytes(wrap(live_pickles(marker)[name]))
    with pytest.raises(
        UserError, match=r"x\.pth: the pickle (asks for|calls) .*; get the file from its authors as plain"
    ):
        open_container(tmp_path / "x.pth")
    assert not marker.exists()


CONTAINERS: dict[str, Callable[[bytes], bytes]] = {
    "a zip": zip_of,
    "a deflated zip": deflated,
    "a legacy file": legacy_of,
    "a pickle": bytes,
    "a zip in a tar": lambda content: tar_of({"run/x.pth": zip_of(content)}),
    "a legacy file in a tar in gzip": lambda content: gzip.compress(tar_of({"x.pth.tar": legacy_of(content)}), 1),
    "a zip in gzip": lambda content: gzip.compress(zip_of(content), 1),
    "a pickle in gzip": lambda content: gzip.compress(content, 1),
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("verb", ["import", "inspect", "diff"])
def test_every_hostile_pickle_ends_with_status_2_and_runs_nothing(
    verb: str, container: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marker, output, path = tmp_path / "marker", tmp_path / "out.safetensors", tmp_path / "hostile.pth"
    more = {"import": ["-o", str(output)], "inspect": [], "diff": [str(path)]}[verb]
    pickles = live_pickles(marker) | (dead_pickles() if verb == "import" else {})
    assert len(pickles) > 35
    for name, content in pickles.items():
        path.write_bytes(CONTAINERS[container](content))
        status = program.run([verb, str(path), *more])
        said = capsys.readouterr()
        assert (status, said.out) == (2, ""), (name, said.err)
        assert said.err.startswith(f"error: {path}"), (name, said.err)
        assert said.err.count("\n") == 1
    assert sorted(place.name for place in tmp_path.iterdir()) == ["hostile.pth"]


def test_the_refusal_names_the_function_as_the_guide_says(tmp_path: Path) -> None:
    (tmp_path / "old.pth").write_bytes(zip_of(b"cposix\nsystem\n(Vid\ntR."))
    with pytest.raises(UserError) as error:
        open_container(tmp_path / "old.pth")
    assert str(error.value) == (
        f'{tmp_path}/old.pth: the pickle asks for "posix.system", which is not data; '
        "get the file from its authors as plain tensors"
    )


def test_a_name_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(zip_of(b"\x80\x04" + text("a\x1b[2J\n") + text("b" * 200) + b"\x93)R."))
    with pytest.raises(UserError) as error:
        open_container(tmp_path / "x")
    assert error.value.what == 'the pickle asks for "a\\x1b[2J\\n.' + "b" * 69 + '…", which is not data'


@wrapped
@pytest.mark.parametrize("name", sorted(dead_pickles()))
def test_a_pickle_that_is_not_plain_data_is_refused_soon(
    name: str, wrap: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(wrap(dead_pickles()[name]))
    start = time.perf_counter()
    with pytest.raises(UserError, match=r": (the pickle|a dictionary key) .*; (get the file|download it again)"):
        open_container(tmp_path / "x")
    assert time.perf_counter() - start < 5


def test_the_honest_archive_of_the_tricks_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(zip_of(b"\x80\x02}."))
    assert open_container(tmp_path / "x").root == {}


@pytest.mark.parametrize("name", sorted(zip_tricks()))
def test_an_archive_that_two_readers_see_differently_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(zip_tricks()[name])
    with pytest.raises(UserError, match=r"archive|begins with the bytes"):
        open_container(tmp_path / "x")


@pytest.mark.parametrize("kind", CASES)
def test_a_file_cut_at_any_byte_is_refused(kind: str, tmp_path: Path) -> None:
    case = CASES[kind](tmp_path)
    step = 1 if len(case.data) < 1000 else 7
    for length in [*range(0, len(case.data), step), len(case.data) - 1]:
        assert outcome(case.place, case.data[:length]) is None, length


@pytest.mark.parametrize("kind", CASES)
def test_a_changed_file_is_refused_or_read_without_any_other_exception(kind: str, tmp_path: Path) -> None:
    """Of a hundred thousand in tests/long/test_fuzz.py, the first."""
    case = CASES[kind](tmp_path)
    assert 0 < sum(attack(case, seed) for seed in range(300)) < 270


OPCODES = [bytes((code,)) for code in range(256)]


@settings(max_examples=400, deadline=None)
@given(
    parts=st.lists(
        st.sampled_from(OPCODES)
        | st.binary(max_size=4)
        | st.sampled_from(
            [text("a"), b"K\x01", b"q\x00", b"h\x00", b"cm\nC\n", b"ccollections\nOrderedDict\n", b")R", b")\x81"]
        ),
        max_size=30,
    )
)
def test_no_string_of_opcodes_raises_anything_else(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]
) -> None:
    outcome(tmp_path_factory.getbasetemp() / "opcodes", zip_of(b"".join(parts) + b"."))
