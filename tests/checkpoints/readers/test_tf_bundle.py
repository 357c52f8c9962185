"""TensorFlow's bundles: what TensorFlow wrote is read, what is damaged or means harm is one sentence."""

import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_transfer.checkpoints.readers.opening import open_container
from sparse_transfer.checkpoints.readers.wire import fields
from sparse_transfer.core.errors import UserError
from support.foreign_tf import HEADER, block, bundle, entry, field, masked_crc, raw, table, table_of, varint
from support.trees import read_all, same

DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
)
TREE = {f"layer/{dtype}".replace("torch.", ""): torch.arange(6).to(dtype).reshape(2, 3) for dtype in DTYPES} | {
    "empty": torch.zeros(0, 3),
    "global_step": torch.tensor(32000),
    "größer/weights": torch.randn(3, 3, 4, 5, generator=torch.Generator().manual_seed(0)),
}


def ordered(tree: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(sorted(tree.items(), key=lambda item: item[0].encode()))


def made(folder: Path, pairs: list[tuple[bytes, bytes]], data: bytes = b"", *, header: bytes = HEADER) -> Path:
    """A bundle of these entries, whatever they say."""
    (folder / "x.data-00000-of-00001").write_bytes(data)
    (folder / "x.index").write_bytes(table([(b"", header), *pairs]))
    return folder / "x.index"


# --- what is right ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shards", "blocks", "interval"), [(1, 1, 1), (1, 3, 16), (3, 2, 4), (14, 14, 1)])
def test_every_dtype_layout_and_spread_is_read(shards: int, blocks: int, interval: int, tmp_path: Path) -> None:
    path = bundle(tmp_path / "model.ckpt-1", TREE, shards=shards, blocks=blocks, interval=interval)
    container = open_container(path)
    assert container.kind == "tf-bundle"
    assert len(container.files) == 1 + shards
    assert same(read_all(container.root), ordered(TREE))


def test_a_real_bundle_is_read_to_the_last_byte(test_data: Path) -> None:
    """Written by TensorFlow 1. Oracle: its own checksums, and its data file, which these tensors fill in this order."""
    folder = test_data / "data/weights/tf1_bundle/saved_model/variables"
    root = open_container(folder / "variables.index").root
    assert isinstance(root, dict)
    assert len(root) == 32
    kernels = {"Variable": (5, 5, 1, 6), "Variable_2": (5, 5, 6, 16), "Variable_4": (400, 120)}
    for name, shape in kernels.items():
        for slot in ("", "/Adam", "/Adam_1"):
            assert root[name + slot].shape == shape
    assert root["beta1_power"].shape == ()
    assert (
        b"".join(raw(tensor.read()) for tensor in root.values())
        == (folder / "variables.data-00000-of-00001").read_bytes()
    )


@pytest.mark.parametrize("name", ["", "saved_model.pb", "variables", "variables/variables"])
def test_a_saved_model_is_its_variables(name: str, test_data: Path) -> None:
    folder = test_data / "data/weights/tf1_bundle/saved_model"
    assert open_container(folder / name).path == folder / "variables/variables.index"


def test_our_writer_writes_what_tensorflow_wrote(test_data: Path, tmp_path: Path) -> None:
    """The block of all entries, byte for byte: the index after it has separators that are free to choose."""
    real = test_data / "data/weights/tf1_bundle/saved_model/variables/variables.index"
    tree = read_all(open_container(real).root)
    assert isinstance(tree, dict)
    bundle(tmp_path / "variables", tree, interval=16)
    start, length = handles(real.read_bytes()[-48:])[:2]  # of the block after the entries'
    assert length == 8
    assert (tmp_path / "variables.index").read_bytes()[:start] == real.read_bytes()[:start]
    assert start > 900


def handles(footer: bytes) -> list[int]:
    """The four varints of a footer."""
    out, shift = [0], 0
    for byte in footer[:40]:
        out[-1] |= (byte & 0x7F) << shift
        shift = shift + 7 if byte & 0x80 else 0
        if not shift:
            out.append(0)
    return out[:4]


@pytest.mark.parametrize("name", ["model.ckpt-7.index", "model.ckpt-7.data-00000-of-00001", "model.ckpt-7", ""])
def test_a_checkpoint_is_named_by_index_data_prefix_or_folder(name: str, tmp_path: Path) -> None:
    bundle(tmp_path / "model.ckpt-7", TREE)
    assert open_container(tmp_path / name).path.name == "model.ckpt-7.index"


@pytest.mark.parametrize(
    "latest", ["model.ckpt-7", "/home/somebody/model.ckpt-7", "gs://bucket/a/model.ckpt-7", r"C:\a\model.ckpt-7"]
)
def test_a_folder_s_list_names_the_latest_whatever_the_path_was(latest: str, tmp_path: Path) -> None:
    for step in (5, 7, 9):
        bundle(tmp_path / f"model.ckpt-{step}", {"step": torch.tensor(step)})
    (tmp_path / "checkpoint").write_text(
        f'model_checkpoint_path: "{latest}"\nall_model_checkpoint_paths: "model.ckpt-5"\n'
    )
    root = open_container(tmp_path).root
    assert isinstance(root, dict)
    assert root["step"].read() == 7


@pytest.mark.parametrize("latest", ["../outside", "/etc/passwd", "..", "", "a\x00b", "gone"])
def test_a_folder_s_list_never_leaves_the_folder(latest: str, tmp_path: Path) -> None:
    bundle(tmp_path / "outside", TREE)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "checkpoint").write_text(f'model_checkpoint_path: "{latest}"\n')
    with pytest.raises(UserError, match=r'its file "checkpoint" names ".*", which is not here; name an \.index file'):
        open_container(folder)


def test_a_folder_of_several_checkpoints_asks_for_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        bundle(tmp_path / name, TREE)
    with pytest.raises(UserError, match=r'holds 2 checkpoints \("a\.index", "b\.index"\); name one of them'):
        open_container(tmp_path)


def test_big_endian_numbers_are_turned(tmp_path: Path) -> None:
    values = torch.tensor([1.5, -2.0])
    data = b"".join(struct.pack(">f", value) for value in values.tolist())
    path = made(tmp_path, [(b"w", entry(1, (2,), 0, 0, data))], data, header=field(1, 1) + field(2, 1))
    assert same(read_all(open_container(path).root), {"w": values})


def test_a_text_is_no_tensor(tmp_path: Path) -> None:
    path = made(tmp_path, [(b"text", entry(7, (2,), 0, 0, b"ab"))], b"ab")
    assert open_container(path).root == {"text": None}


def test_opening_reads_nothing_of_the_data(tmp_path: Path) -> None:
    path = bundle(tmp_path / "x", TREE)
    data = tmp_path / "x.data-00000-of-00001"
    size = data.stat().st_size
    data.write_bytes(bytes(size))
    root = open_container(path).root
    assert isinstance(root, dict)
    with pytest.raises(
        UserError, match=r'the bytes of "größer/weights" are not the ones that were written \(CRC-32C\)'
    ):
        root["größer/weights"].read()


# --- what is refused ----------------------------------------------------------------------------------------------

ONE = torch.ones(2, 3)
DATA = raw(ONE)
NOTHING = entry(1, (0,), 0, 0, b"")


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        open_container(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (
            entry(1, (2, 3), 0, 0, DATA, field(7, field(1, b""))),
            '"w" is stored in parts (a partitioned variable), which is not read; restore it in TensorFlow and save it'
            " with tf.compat.v1.train.Saver",
        ),
        (
            entry(1, (2, 4), 0, 0, DATA),
            '"w" of shape [2, 4] should have 32 bytes and has 24; get the file from its authors as plain tensors',
        ),
        (
            entry(1, (2, 3), 0, 8, DATA),
            '"w" ends at byte 32 of a data file of 24; download it again',
        ),
        (
            entry(1, (2, 3), 1, 0, DATA),
            "a tensor lies in file 1 of 1; get the file from its authors as plain tensors",
        ),
        (
            entry(12, (24,), 0, 0, DATA),
            '"w" has TensorFlow\'s type number 12, which is not read; restore it in TensorFlow and save it with'
            " tf.compat.v1.train.Saver",
        ),
        (
            field(1, 1) + field(2, field(2, field(1, (1 << 64) - 1))),
            '"w" has no shape; get the file from its authors as plain tensors',
        ),
        (
            field(1, 1) + field(2, field(3, 1)),
            '"w" has no shape; get the file from its authors as plain tensors',
        ),
        (field(1, 1) + b"\x12\x7f", "a record in it is cut short; download it again"),
        (b"\x0b", "a record in it has a field of the unknown kind 3; download it again"),
        (b"\x08" + b"\xff" * 12, "a number in it is cut short or too long; download it again"),
        (b"\x20" + b"\xff" * 9 + b"\x7f", "a number in it is cut short or too long; download it again"),
    ],
)  # fmt: skip
def test_an_entry_that_cannot_be_is_one_sentence(message: bytes, sentence: str, tmp_path: Path) -> None:
    assert refusal(made(tmp_path, [(b"w", message)], DATA)) == sentence


def test_two_tensors_of_the_same_bytes_are_refused(tmp_path: Path) -> None:
    """Ten thousand of them would ask for ten thousand times the file."""
    pairs = [(f"w{i}".encode(), entry(1, (2, 3), 0, 0, DATA)) for i in range(2)]
    assert refusal(made(tmp_path, pairs, DATA)).startswith('"w1" overlaps the tensor before it')


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        (b"", "the header of its index is damaged"),
        (field(1, 0), "the header of its index is damaged"),
        (field(1, 100_000), "the header of its index is damaged"),
        (field(1, 1) + field(2, 7), "the header of its index is damaged"),
        (field(1, 1) + field(3, field(2, 2)), "it wants a reader of version 2, and 1 is the one there is; restore it"),
        (
            field(1, field(1, b"")),
            "this is a checkpoint of the oldest kind (V1), one file for all, which is not read; restore it",
        ),
    ],
)
def test_a_header_that_cannot_be_is_one_sentence(header: bytes, sentence: str, tmp_path: Path) -> None:
    assert refusal(made(tmp_path, [], header=header)).startswith(sentence)


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    path = bundle(tmp_path / "x", TREE, shards=2)
    (tmp_path / "x.data-00001-of-00002").unlink()
    assert refusal(path) == '"x.data-00001-of-00002" is missing; put it beside the index'
    path.unlink()
    data = tmp_path / "x.data-00000-of-00002"
    assert refusal(data) == 'its index "x.index" is missing; put it beside the data file'


def test_a_data_file_that_is_cut_short_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = bundle(tmp_path / "x", {"w": ONE})
    (tmp_path / "x.data-00000-of-00001").write_bytes(DATA[:-1])
    assert refusal(path) == '"w" ends at byte 24 of a data file of 23; download it again'


def test_an_index_with_a_flipped_bit_is_refused_wherever_it_is(tmp_path: Path) -> None:
    path = bundle(tmp_path / "x", {"w": ONE})
    data = path.read_bytes()
    for place in range(len(data) - 48):
        path.write_bytes(data[:place] + bytes([data[place] ^ 2]) + data[place + 1 :])
        assert "is not what was written (CRC-32C)" in refusal(path), place


def test_packed_blocks_are_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "x.index").write_bytes(table([(b"", HEADER)], kind=1))
    assert refusal(tmp_path / "x.index") == (
        "its index is packed (snappy), which TensorFlow does not do to checkpoints;"
        " restore it in TensorFlow and save it again"
    )


def long_names() -> bytes:
    """One byte each repeats a name of 900: 40,000 entries would be 36 MB of names; of 10,000 letters, 400 MB."""
    out = varint(0) + varint(0) + varint(len(HEADER)) + HEADER
    out += varint(0) + varint(1001) + varint(0) + b"a" * 1001
    return table_of([(out + bytes(4) + struct.pack("<I", 1), b"\xff")])


def one_block_many_times() -> bytes:
    content = block([(b"", HEADER), *((f"w{i:03d}".encode(), NOTHING) for i in range(100))])
    whole = table_of([(content, b"\xff")])
    handle = varint(0) + varint(len(content))
    index = block([(f"{i:05d}".encode(), handle) for i in range(1000)])
    start = len(whole) - 48
    return (
        whole[:start] + index + b"\0" + masked_crc(index + b"\0")
        + (varint(len(content) + 5) + varint(8) + varint(start) + varint(len(index))).ljust(40, b"\0") + whole[-8:]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (long_names(), "a name in its index has 1,001 bytes"),
        (one_block_many_times(), "two blocks of its index overlap"),
        (table([(b"", HEADER), (b"b", NOTHING), (b"a", NOTHING)]), "the names in its index are not in order"),
        (table([(b"", HEADER), (b"a", NOTHING), (b"a", NOTHING)]), "the names in its index are not in order"),
        (table([(b"a", b"")]), "its index does not begin with its header"),
        (table([(b"", HEADER), (b"\xff\xfe", entry(1, (), 0, 0, b"abcd"))]), "a name in its index is not UTF-8"),
        (table([]), "the header of its index is damaged"),
        (table_of([(b"\x05\x01\x00a" + bytes(4) + struct.pack("<I", 1), b"\xff")]), "an entry of its index reaches"),
        (table_of([(struct.pack("<I", 99), b"\xff")]), "a part of its index is damaged"),
        (bytes(40) + bytes.fromhex("57fb808b247547db"), "its index points past its end"),
        (bytes.fromhex("57fb808b247547db"), "it does not end as an index of TensorFlow does: it is cut short"),
    ],
)
def test_a_table_that_cannot_be_is_one_sentence(data: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "x.index").write_bytes(data)
    assert refusal(tmp_path / "x.index").startswith(sentence)


# --- anything at all ----------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 1 << 20), st.integers(0, 2**64 - 1) | st.binary(max_size=300)), max_size=8))
def test_messages_are_read_as_they_were_written(pairs: list[tuple[int, int | bytes]]) -> None:
    assert list(fields(b"".join(field(*pair) for pair in pairs))) == pairs


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.text(min_size=1, max_size=60).filter(lambda name: name.isprintable()),
                    st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=12),
    st.integers(1, 4), st.integers(1, 4), st.integers(1, 5),
)  # fmt: skip
def test_any_variables_come_back(
    tmp_path_factory: pytest.TempPathFactory, shapes: dict[str, list[int]], shards: int, blocks: int, interval: int
) -> None:
    tree = {name: torch.rand(shape) for name, shape in shapes.items()}
    folder = tmp_path_factory.mktemp("any")
    path = bundle(folder / "x", tree, shards=shards, blocks=blocks, interval=interval)
    assert same(read_all(open_container(path).root), ordered(tree))
