"""Files that mean harm or are damaged: one sentence, nothing run, nothing hung."""

import pickle
import random
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from sparse_transfer.checkpoints.readers.opening import open_container
from sparse_transfer.core.errors import UserError
from support.foreign_tf import bundle, tfjs
from support.hostile import dead_pickles, legacy_of, live_pickles, text, zip_of, zip_tricks
from support.trees import read_all, same

pytestmark = pytest.mark.filterwarnings("ignore:invalid escape sequence")  # of pickletools, on damaged bytes
LIVE = sorted(live_pickles(Path("x")))
wrapped = pytest.mark.parametrize("wrap", [zip_of, legacy_of])
TENSOR = torch.arange(6.0).reshape(2, 3)
TREE = {"w": TENSOR, "b": torch.arange(4), "epoch": 3, "args": [0.5, "adam", None]}


@pytest.mark.parametrize("name", LIVE)
def test_the_live_pickles_are_live(name: str, tmp_path: Path) -> None:
    """The corpus tests nothing unless Python's own pickle falls for it."""
    marker = tmp_path / "marker"
    with suppress(ValueError):  # of numpy's f2py, once the harm is done
        pickle.loads(live_pickles(marker)[name])
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


def files(folder: Path) -> dict[str, bytes]:
    for name, is_zip in (("zip", True), ("legacy", False)):
        torch.save(TREE, folder / name, _use_new_zipfile_serialization=is_zip)
    tensors = {name: tensor for name, tensor in TREE.items() if isinstance(tensor, torch.Tensor)}
    several = {"tf-bundle": bundle(folder / "x", tensors), "tfjs": tfjs(folder, {"w": TENSOR}, groups=1)}
    return (
        {name: (folder / name).read_bytes() for name in ("zip", "legacy")}
        | {"safetensors": save(tensors)}
        | {name: path.read_bytes() for name, path in several.items()}
    )


KINDS = ["zip", "legacy", "safetensors", "tf-bundle", "tfjs"]
NAMES = {"tf-bundle": "x.index", "tfjs": "model.json"}  # beside their data, which stay as they are


def outcome(path: Path, data: bytes) -> object:
    """What is read, or None where the file is refused; any other exception is the failure looked for."""
    path.write_bytes(data)
    try:
        return read_all(open_container(path).root)
    except UserError as error:
        return None if str(error).isprintable() else error


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_at_any_byte_is_refused(kind: str, tmp_path: Path) -> None:
    data = files(tmp_path)[kind]
    step = 3 if kind == "zip" else 1  # 1,700 bytes, most of them padding
    for length in [*range(0, len(data), step), len(data) - 1]:
        assert outcome(tmp_path / NAMES.get(kind, "cut"), data[:length]) is None, length


def mutated(data: bytes, random_: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random_.choice((1, 1, 2, 8))):
        place = random_.randrange(len(changed))
        match random_.randrange(4):
            case 0:
                changed[place] = random_.randrange(256)
            case 1:
                changed[place] ^= 1 << random_.randrange(8)
            case 2:
                del changed[place : place + random_.randrange(1, 9)]
            case _:
                changed[place:place] = random_.randbytes(random_.randrange(1, 9))
    return bytes(changed)


def check_mutations(folder: Path, kind: str, seeds: range) -> int:
    """Number of changed files that were still read. In a zip and a bundle all is under checksums: read means right."""
    data, read = files(folder)[kind], 0
    for seed in seeds:
        result = outcome(folder / NAMES.get(kind, "mutated"), mutated(data, random.Random(seed)))
        read += result is not None
        if kind == "zip" and result is not None:
            assert same(result, TREE), seed
        if kind == "tf-bundle" and result is not None:
            assert same(result, {"b": TREE["b"], "w": TREE["w"]}), seed
    return read


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_file_is_refused_or_read_without_any_other_exception(kind: str, tmp_path: Path) -> None:
    assert check_mutations(tmp_path, kind, range(300)) < 250


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_twenty_thousand_changed_files_are_refused_or_read(kind: str, tmp_path: Path) -> None:
    assert check_mutations(tmp_path, kind, range(1000, 21_000)) < 16_000


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
