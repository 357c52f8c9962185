"""torch's zip and older files: bit for bit what ``torch.load(weights_only=True)`` gives."""

import argparse
import io
import pathlib
import pickle
import struct
import time
import zipfile
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_transfer.checkpoints.readers.container import LazyTensor, StandIn
from sparse_transfer.checkpoints.readers.opening import open_container
from sparse_transfer.core.errors import UserError
from support.hostile import deflated, legacy_of, text, zip_of
from support.trees import bits, read_all, same

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.bool,
    torch.complex64,
    torch.complex128,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
]
DTYPES_WITHOUT_STORAGE = (torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2)
ZIP = pytest.param(True, id="zip")
LEGACY = pytest.param(False, id="legacy")
both_kinds = pytest.mark.parametrize("is_zip", [ZIP, LEGACY])


def save(tree: object, path: Path, is_zip: bool) -> Path:
    torch.save(tree, path, _use_new_zipfile_serialization=is_zip)
    return path


def made(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    count = int(np.prod(shape)) * dtype.itemsize
    raw = torch.randint(0, 2 if dtype == torch.bool else 120, (count,), generator=torch.Generator().manual_seed(3))
    return raw.to(torch.uint8).view(dtype).reshape(shape)


def opened(path: Path) -> object:
    return read_all(open_container(path).root)


@both_kinds
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_is_read_bit_for_bit(dtype: torch.dtype, is_zip: bool, tmp_path: Path) -> None:
    if dtype in DTYPES_WITHOUT_STORAGE and not is_zip:
        pytest.skip("torch cannot read such a tensor back from its older format")
    path = save(
        {"a": made(dtype, 3, 4, 5), "none": made(dtype, 0, 4), "scalar": made(dtype, 1)[0]}, tmp_path / "x", is_zip
    )
    assert same(opened(path), torch.load(path, weights_only=True))


@both_kinds
def test_views_strides_and_shared_storages_are_read_as_torch_reads_them(is_zip: bool, tmp_path: Path) -> None:
    base = torch.arange(240.0).reshape(4, 3, 4, 5)
    tree = {
        "whole": base,
        "part": base[1:3],
        "column": base[..., 2],
        "turned": base.transpose(0, 3),
        "last": base.contiguous(memory_format=torch.channels_last),
        "wide": torch.ones(3, 1).expand(3, 1000),
        "one": base[3, 2, 3, 4],
        "again": base,
        "empty": base[:, 3:],
        "steps": base.flatten()[::7],
        "parameter": torch.nn.Parameter(torch.randn(3, generator=torch.Generator().manual_seed(0))),
        "inner": base.flatten()[5:9],
    }
    path = save(tree, tmp_path / "x.pth", is_zip)
    assert same(opened(path), torch.load(path, weights_only=True))


@both_kinds
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_strided_view_is_read_as_torch_reads_it(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, is_zip: bool
) -> None:
    shape = data.draw(st.lists(st.integers(0, 4), max_size=4))
    stride = data.draw(st.lists(st.integers(0, 7), min_size=len(shape), max_size=len(shape)))
    offset = data.draw(st.integers(0, 5))
    view = torch.arange(120, dtype=torch.int32).as_strided(shape, stride, offset)
    path = save(view, tmp_path_factory.mktemp("views") / "x", is_zip)
    assert same(opened(path), torch.load(path, weights_only=True))


@both_kinds
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol_is_read(protocol: int, is_zip: bool, tmp_path: Path) -> None:
    tree = {"w": torch.ones(2), "list": [1, -1, 2**40, -(2**70), 0.5, True, None, "é", b"\x00\xff", (1,), {"a": ()}]}
    torch.save(tree, tmp_path / "x", pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
    assert same(opened(tmp_path / "x"), tree)


def test_a_whole_training_state_is_read(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    moments = {
        index: {"step": torch.tensor(1.0), "exp_avg": torch.ones_like(weight), "amsgrad": None}
        for index, weight in enumerate(model.parameters())
    }
    groups = [{"lr": 1e-3, "betas": (0.9, 0.999), "foreach": None, "params": list(moments)}]
    state = {"model": model.state_dict(), "optimiser": {"state": moments, "param_groups": groups}, "epoch": 3}
    for is_zip in (True, False):
        path = save(state, tmp_path / "x", is_zip)
        assert same(opened(path), torch.load(path, weights_only=True))


def test_plain_containers_become_plain_values(tmp_path: Path) -> None:
    torch.save(
        {
            "counter": Counter("aab"),
            "default": defaultdict(list, {"k": [1]}),
            "ordered": OrderedDict([("b", 1), ("a", 2)]),
            "deque": deque([1, 2], maxlen=3),
            "set": {7},
            "frozen": frozenset({8}),
            "size": torch.Size([2, 3]),
            "device": torch.device("cuda", 1),
            "dtype": torch.float16,
            "complex": 1 + 2j,
            "array": bytearray(b"ab"),
            "path": pathlib.PurePosixPath("/data/imagenet"),
            "relative": pathlib.PurePosixPath("a/b"),
            (1, 2): "tuple key",
            None: 0,
        },
        tmp_path / "x",
    )
    assert open_container(tmp_path / "x").root == {
        "counter": {"a": 2, "b": 1},
        "default": {"k": [1]},
        "ordered": {"b": 1, "a": 2},
        "deque": [1, 2],
        "set": [7],
        "frozen": [8],
        "size": (2, 3),
        "device": "cuda:1",
        "dtype": "torch.float16",
        "complex": 1 + 2j,
        "array": b"ab",
        "path": "/data/imagenet",
        "relative": "a/b",
        "(1, 2)": "tuple key",
        "None": 0,
    }


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_numpy_scalars_and_arrays_are_numbers_and_tensors(protocol: int, tmp_path: Path) -> None:
    values = {
        "top1": np.float64(0.1),
        "epoch": np.int32(-7),
        "flag": np.bool_(True),
        "array": np.arange(12, dtype=np.float32).reshape(3, 4),
        "fortran": np.asfortranarray(np.arange(12, dtype=np.int16).reshape(3, 4)),
        "big": np.arange(5, dtype=">f8"),
        "empty": np.zeros((0, 3)),
    }
    torch.save(values | {"words": np.array(["a", "b"])}, tmp_path / "x", pickle_protocol=protocol)
    root = opened(tmp_path / "x")
    assert isinstance(root, dict)
    assert [root[name] for name in ("top1", "epoch", "flag")] == [0.1, -7, True]
    assert type(root["top1"]) is float
    for name in ("array", "fortran", "big", "empty"):
        native = values[name].astype(values[name].dtype.newbyteorder("="))
        assert same(root[name], torch.from_numpy(np.ascontiguousarray(native)))
    assert root["words"] == StandIn("numpy.ndarray")


def test_an_argparse_namespace_is_a_stand_in_with_its_values(tmp_path: Path) -> None:
    torch.save({"args": argparse.Namespace(lr=0.1, arch="resnet50")}, tmp_path / "x")
    container = open_container(tmp_path / "x")
    assert container.root == {"args": StandIn("argparse.Namespace", {"lr": 0.1, "arch": "resnet50"})}
    assert container.stand_ins == ("argparse.Namespace",)


def test_a_namespace_of_protocol_0_is_a_stand_in_too(tmp_path: Path) -> None:
    pickled = b"ccopy_reg\n_reconstructor\n(cargparse\nNamespace\nc__builtin__\nobject\nNtR(dVlr\nF0.5\nsb."
    (tmp_path / "x").write_bytes(zip_of(b"(dVa\n" + pickled[:-1] + b"s."))
    assert open_container(tmp_path / "x").root == {"a": StandIn("argparse.Namespace", {"lr": 0.5})}


def test_a_module_that_is_named_is_never_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "x").write_bytes(zip_of(b"\x80\x02}" + text("type") + b"ctrap\nSGD\ns."))
    assert open_container(tmp_path / "x").root == {"type": StandIn("trap.SGD")}
    assert not (tmp_path / "marker").exists()


def test_a_whole_module_is_refused_with_its_class(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 3), tmp_path / "m.pth")
    with pytest.raises(UserError) as error:
        open_container(tmp_path / "m.pth")
    assert str(error.value) == (
        f'{tmp_path}/m.pth: it holds a whole object of class "torch.nn.modules.linear.Linear" and not its tensors; '
        "ask its authors for the state dict"
    )


@pytest.mark.parametrize(
    ("tensor", "what"),
    [
        (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "quantised tensors are not read yet"),
        (lambda: torch.eye(3).to_sparse(), "tensors in torch's sparse layouts are not read yet"),
        (lambda: torch.eye(3).to_sparse_csr(), "tensors in torch's sparse layouts are not read yet"),
        (lambda: torch.empty(3, device="meta"), "tensors without values (meta device) are not read yet"),
    ],
    ids=["quantised", "sparse", "csr", "meta"],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_of_other_kinds_are_named(tensor: Callable[[], torch.Tensor], what: str, tmp_path: Path) -> None:
    torch.save({"w": tensor()}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="not read yet") as error:
        open_container(tmp_path / "x.pth")
    assert error.value.what == what


def test_big_endian_storages_are_turned_as_torch_turns_them(tmp_path: Path) -> None:
    torch.save({"f": made(torch.float32, 7), "h": made(torch.int16, 3), "c": made(torch.complex64, 2)}, tmp_path / "x")
    with zipfile.ZipFile(tmp_path / "x") as source, zipfile.ZipFile(tmp_path / "big", "w") as target:
        for name in source.namelist():
            target.writestr(name, b"big" if name.endswith("/byteorder") else source.read(name))
    assert same(opened(tmp_path / "big"), torch.load(tmp_path / "big", weights_only=True))


def test_a_zip_repacked_with_deflate_is_read(tmp_path: Path) -> None:
    torch.save({"w": torch.arange(1000.0), "part": torch.arange(50.0)[3:9]}, tmp_path / "x")
    with (
        zipfile.ZipFile(tmp_path / "x") as source,
        zipfile.ZipFile(tmp_path / "d", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert same(opened(tmp_path / "d"), torch.load(tmp_path / "x", weights_only=True))
    (tmp_path / "plain").write_bytes(deflated(b"\x80\x02}."))
    assert open_container(tmp_path / "plain").root == {}


def test_a_zip_with_64_bit_sizes_in_its_entries_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x", "w") as archive, archive.open("a/data.pkl", "w", force_zip64=True) as entry:
        entry.write(b"\x80\x02}" + text("k") + b"K\x05s.")
    assert open_container(tmp_path / "x").root == {"k": 5}


def test_a_flipped_bit_in_a_tensor_of_a_zip_is_found_when_it_is_read(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1000)}, tmp_path / "x")
    raw = bytearray((tmp_path / "x").read_bytes())
    place = raw.index(b"\0" * 4000) + 2000
    raw[place] = 1
    (tmp_path / "x").write_bytes(raw)
    tensor = open_container(tmp_path / "x").root["w"]  # type: ignore[index]
    with pytest.raises(UserError, match=r"\(CRC-32\); download it again"):
        tensor.read()


def tensor_pickle(
    size: list[int], stride: list[int], offset: int = 0, numel: int = 4, kind: str = "FloatStorage"
) -> bytes:
    def number(value: int) -> bytes:
        return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)

    def numbers(values: list[int]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text("0") + text("cpu") + number(numel) + b"tQ"
    view = storage + number(offset) + numbers(size) + numbers(stride)
    return b"\x80\x02}" + text("w") + b"ctorch._utils\n_rebuild_tensor_v2\n(" + view + b"\x89NtRs."


@pytest.mark.parametrize(
    ("pickled", "what"),
    [
        (tensor_pickle([5], [1]), "a tensor reaches to byte 20 of a storage of 16 bytes"),
        (tensor_pickle([4], [1], offset=1), "a tensor reaches to byte 20 of a storage of 16 bytes"),
        (tensor_pickle([2, 2], [4, 1]), "a tensor reaches to byte 24 of a storage of 16 bytes"),
        (tensor_pickle([4], [-1], offset=3), "a tensor has a negative size, stride or offset"),
        (tensor_pickle([-1], [1]), "a tensor has a negative size, stride or offset"),
        (tensor_pickle([1], [1], offset=-1), "a tensor has a negative size, stride or offset"),
        (tensor_pickle([2, 2], [1]), "a tensor has 2 sizes and 1 strides"),
        (tensor_pickle([1] * 65, [1] * 65), "a tensor has 65 sizes and 65 strides"),
        (tensor_pickle([4], [1], numel=5), 'storage "0" should have 5 × 4 bytes and its entry has 16'),
        (tensor_pickle([4], [1], numel=-4), 'storage "0" should have -4 × 4 bytes and its entry has 16'),
        (tensor_pickle([4], [1], kind="DoubleStorage"), 'storage "0" should have 4 × 8 bytes and its entry has 16'),
        (tensor_pickle([4], [1], kind="system"), "the pickle refers to something that is not a storage"),
    ],
)
def test_a_tensor_that_does_not_fit_its_storage_is_refused(pickled: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(zip_of(pickled, {"0": bytes(16)}))
    with pytest.raises(UserError) as error:
        open_container(tmp_path / "x")
    assert error.value.what == what


@pytest.mark.parametrize("sizes", [[10**12], [10**6, 10**6], [2**62, 4], [0, 2**62]])
def test_an_expansion_to_more_than_the_file_can_mean_is_refused(sizes: list[int], tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(zip_of(tensor_pickle(sizes, [0] * len(sizes)), {"0": bytes(16)}))
    with pytest.raises(UserError, match=r"a tensor of [\d,]+ bytes, with those before it, is too much for a file of"):
        open_container(tmp_path / "x")


def test_a_size_of_one_may_have_any_stride(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(zip_of(tensor_pickle([1, 4], [2**60, 1]), {"0": struct.pack("<4f", 1, 2, 3, 4)}))
    assert same(opened(tmp_path / "x"), {"w": torch.tensor([[1.0, 2, 3, 4]])})


def test_a_bool_of_any_other_byte_is_true(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(zip_of(tensor_pickle([4], [1], kind="BoolStorage"), {"0": b"\x00\x01\x02\xff"}))
    assert same(opened(tmp_path / "x"), {"w": torch.tensor([False, True, True, True])})


def legacy_tensor(view: bytes, shape: int) -> bytes:
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("7") + text("cuda:0") + b"K\x04" + view + b"tQ"
    return (
        b"\x80\x02}"
        + text("w")
        + b"ctorch._utils\n_rebuild_tensor\n("
        + storage
        + bytes((75, 0, 75, shape))
        + b"\x85K\x01\x85tRs."
    )


def test_a_view_of_a_legacy_storage_is_its_part(tmp_path: Path) -> None:
    storages = struct.pack("<q4f", 4, 1, 2, 3, 4)
    (tmp_path / "x").write_bytes(legacy_of(legacy_tensor(b"(" + text("8") + b"K\x01K\x02t", 2), ["7"], storages))
    assert same(opened(tmp_path / "x"), {"w": torch.tensor([2.0, 3.0])})


MISMATCH = "the storages in the file are not those the pickle refers to"


@pytest.mark.parametrize(
    ("view", "keys", "storages", "what"),
    [
        (b"N", ["7"], struct.pack("<q4f", 4, 1, 2, 3, 4) + b"x", "1 bytes follow the last tensor"),
        (b"N", ["7"], struct.pack("<q3f", 4, 1, 2, 3), 'the file ends before storage "7" does'),
        (b"N", ["7"], struct.pack("<q4f", 5, 1, 2, 3, 4),
         'storage "7" should have 4 elements and the file says otherwise'),
        (b"N", [], b"", MISMATCH),
        (b"N", ["7", "7"], struct.pack("<q4f", 4, 1, 2, 3, 4) * 2, MISMATCH),
        (b"N", ["7", "8"], struct.pack("<q4f", 4, 1, 2, 3, 4) * 2, MISMATCH),
        (
            b"(" + text("8") + b"K\x02K\x03t",
            ["7"],
            struct.pack("<q4f", 4, 1, 2, 3, 4),
            'the pickle shows a part of storage "7" that it does not have',
        ),
    ],
)  # fmt: skip
def test_legacy_storages_must_be_those_the_pickle_says(
    view: bytes, keys: list[str], storages: bytes, what: str, tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(legacy_of(legacy_tensor(view, 2), keys, storages))
    with pytest.raises(UserError) as error:
        open_container(tmp_path / "x")
    assert error.value.what == what


def test_a_torchscript_archive_is_named(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("data.pkl", "code/__torch__.py", "constants.pkl"):
            archive.writestr(f"m/{name}", b"\x80\x02}.")
    (tmp_path / "m.pt").write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match=r"TorchScript archives are not read yet; open it with torch\.jit\.load"):
        open_container(tmp_path / "m.pt")


def test_a_file_that_shrank_after_it_was_opened_is_said(tmp_path: Path) -> None:
    path = save({"w": torch.ones(1000)}, tmp_path / "x", is_zip=False)
    tensor = open_container(path).root["w"]  # type: ignore[index]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="the file ends 100 bytes before the end of a tensor"):
        tensor.read()
    path.unlink()
    with pytest.raises(UserError, match=r"it cannot be read \(no such file or directory\)"):
        tensor.read()


@both_kinds
def test_opening_reads_no_tensor(is_zip: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save({f"w{index}": torch.zeros(50_000) for index in range(300)}, tmp_path / "x", is_zip)
    counts: list[int] = []
    readers = "sparse_transfer.checkpoints.readers"
    from sparse_transfer.checkpoints.readers.storage import read_bytes

    def counted(file: Path, start: int, count: int) -> torch.Tensor:
        counts.append(count)
        return read_bytes(file, start, count)

    for module in ("torch_zip", "torch_legacy"):
        monkeypatch.setattr(f"{readers}.{module}.read_bytes", counted)
    start = time.perf_counter()
    container = open_container(path)
    assert time.perf_counter() - start < 2  # 60 MB; about 0.03 s on an idle machine
    assert sum(counts) < 100_000
    tensor = container.root["w7"]  # type: ignore[index]
    assert isinstance(tensor, LazyTensor)
    assert bits(tensor.read()) == bits(torch.zeros(50_000))
    assert counts[-1] == 200_000


@pytest.mark.parametrize(
    "name",
    [
        "cifar/resnet20-12fca82f.th",
        "cifar/resnet56-4bfd9763.th",
        "distiller/checkpoint_trained_ch_regularized_dense.pth.tar",
        "woodfisher/resnet20_cifar10.pth.tar",
    ],
)
def test_published_files_are_read_as_torch_reads_them(name: str, test_data: Path) -> None:
    path = test_data / "data/weights" / name
    assert same(opened(path), torch.load(path, map_location="cpu", weights_only=True))


def test_the_woodfisher_file_that_torch_refuses_is_read(test_data: Path) -> None:
    path = test_data / "data/weights/woodfisher/mnist_25_epoch_93.97.ckpt"
    container = open_container(path)
    assert container.stand_ins == ("torch.optim.lr_scheduler.ExponentialLR", "torch.optim.sgd.SGD")
    root = container.root
    assert root["optimizer"]["type"] == StandIn("torch.optim.sgd.SGD")  # type: ignore[index,call-overload]
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        torch.load(path, map_location="cpu", weights_only=True)
    # The oracle: torch itself, once told that the two classes, which it only names, are harmless.
    classes = [torch.optim.SGD, torch.optim.lr_scheduler.ExponentialLR]
    with torch.serialization.safe_globals(classes):
        theirs = torch.load(path, map_location="cpu", weights_only=True)
    assert same(read_all(root["model_state_dict"]), theirs["model_state_dict"])  # type: ignore[index,call-overload]
    assert same(
        read_all(root["optimizer"]["state_dict"]),  # type: ignore[index,call-overload]
        theirs["optimizer"]["state_dict"],
    )
