"""Our checkpoint file: bytes worked out by hand, files of old, and whatever can happen to a file on its way."""

import gzip
import hashlib
import json
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from sparse_transfer.checkpoints.file import Origin, is_ours, load, save
from sparse_transfer.checkpoints.importing import import_checkpoint
from sparse_transfer.checkpoints.packing import gather, pack, scatter, unpack
from sparse_transfer.core.errors import UserError
from sparse_transfer.models import Architecture, Backbone, Head, Network, Preprocessing
from sparse_transfer.sparsity import Mask, MaskViolation, prunable_weights
from support.foreign_onnx import model
from support.golden import golden_network

GOLDEN = Path(__file__).parent / "golden"
DIGEST = "242fef6a1f4824676100e92f0fad4234fb85f1c75dc2a1e0fddbea59ae9000d1"
ORIGIN = Origin(method="by hand", sparsity=0.75, licence="Apache-2.0")


# --- packing ------------------------------------------------------------------------------------------------------


def test_mask_bits_are_least_significant_first() -> None:
    kept = np.array([1, 0, 1, 1, 0, 0, 0, 0, 0, 1], dtype=bool)  # 1 + 4 + 8 = 13;  2
    assert pack(kept).tobytes() == b"\x0d\x02"
    assert unpack(np.frombuffer(b"\x0d\x02", np.uint8), (2, 5)).ravel().tolist() == kept.tolist()


def test_set_padding_bits_are_refused() -> None:  # else two files hold one mask, and digests lie
    with pytest.raises(UserError, match="6 padding bits of the mask of fc are not all 0"):
        unpack(np.frombuffer(b"\x0d\x06", np.uint8), (10,), "fc")


@pytest.mark.parametrize("packed", [b"", b"\x01", b"\x01\x00\x00"])
def test_a_mask_of_another_length_is_refused(packed: bytes) -> None:
    with pytest.raises(UserError, match=f"has {8 * len(packed)} bits and the weight has 10 elements"):
        unpack(np.frombuffer(packed, np.uint8), (10,))


def test_a_shape_whose_product_overflows_is_refused() -> None:
    with pytest.raises(UserError, match="bits and the weight has"):
        unpack(np.zeros(0, np.uint8), (1 << 32, 1 << 32))  # 0 in 64 bits


@given(st.lists(st.booleans(), max_size=70))
def test_unpack_is_the_inverse_of_pack(bits: list[bool]) -> None:
    kept = np.array(bits, dtype=bool)
    packed = pack(kept)
    assert len(packed) == -(-len(bits) // 8)
    assert unpack(packed, (len(bits),)).tolist() == bits


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8])
def test_scatter_is_the_inverse_of_gather_bit_for_bit(dtype: torch.dtype) -> None:
    weight = torch.tensor([[1.0, 0.0, -2.0], [0.0, 3.5, 0.0]]).to(dtype)
    kept = weight != 0
    kept[1, 2] = True  # a kept zero
    values = gather(weight, kept)
    assert values.tolist() == weight[kept].tolist()
    assert scatter(values, kept.numpy()).dtype == dtype
    assert torch.equal(scatter(values, kept.numpy()), weight)


def test_gather_reads_a_weight_that_is_not_contiguous_in_row_major_order() -> None:
    weight = torch.arange(6.0).reshape(2, 3).T
    assert gather(weight, torch.ones(3, 2, dtype=torch.bool)).tolist() == [0, 3, 1, 4, 2, 5]


# --- golden files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["packed", "dense"])
def test_a_file_of_layout_version_1_is_readable_for_ever(encoding: str) -> None:
    checkpoint = load(GOLDEN / f"v1-{encoding}.safetensors")
    made = golden_network()
    assert checkpoint.digest == checkpoint.network.digest() == made.digest() == DIGEST
    assert checkpoint.origin == ORIGIN
    assert checkpoint.backbone.preprocessing == Preprocessing(resize=32, crop=32)
    assert str(checkpoint.backbone.architecture) == "resnet20,shortcut=B,width=0.125"
    assert checkpoint.head is not None
    assert checkpoint.head.classes == ("cat", "dog", "größer als")
    tensors = checkpoint.network.tensors()
    assert tensors.keys() == made.tensors().keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in made.tensors().items())
    assert all(torch.equal(checkpoint.network.masks()[name], kept) for name, kept in made.masks().items())


def test_one_network_is_the_same_bytes_whenever_it_is_written(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.safetensors" for number in range(8)]
    for path in paths:  # the library's hash map has another order in one of two calls
        save(golden_network(), path, origin=ORIGIN)
    assert len({path.read_bytes() for path in paths}) == 1


@pytest.mark.parametrize("is_new", [False, True], ids=["golden", "written now"])
@pytest.mark.parametrize("encoding", ["packed", "dense"])
def test_the_layout_page_is_enough_to_write_a_reader(tmp_path: Path, encoding: str, is_new: bool) -> None:
    """A reader from docs/reference/checkpoint.md alone: struct, json, hashlib and loops."""
    path = GOLDEN / f"v1-{encoding}.safetensors"
    if is_new:
        path = tmp_path / "now.safetensors"
        save(golden_network(), path, encoding=encoding)  # type: ignore[arg-type]
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header, payload = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    about = json.loads(header.pop("__metadata__")["sparse_transfer"])
    assert about["version"] == 1

    def stored(name: str) -> bytes:
        start, end = header[name]["data_offsets"]
        return payload[start:end]

    sizes = {"float32": 4, "int64": 8}
    canonical = json.dumps(about["architecture"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    sha = hashlib.sha256(canonical.encode())
    pruned = 0
    for name in sorted(about["tensors"]):
        facts = about["tensors"][name]
        elements = int(np.prod(facts["shape"], dtype=int))
        size, mask = sizes[facts["dtype"]], stored(f"{name}.mask") if f"{name}.mask" in header else None
        bits = None if mask is None else [mask[i // 8] >> (i % 8) & 1 for i in range(elements)]
        if facts["encoding"] == "packed":
            assert bits is not None
            kept, position, values = stored(f"{name}.kept"), 0, b""
            for bit in bits:
                values += kept[position : position + size] if bit else bytes(size)
                position += size * bit
        else:
            values = stored(name)
        sha.update(f"\0{name}\0{facts['dtype']}\0{facts['shape']}\0".encode() + values)
        if bits is not None:
            sha.update(b"\0mask\0" + bytes(bits))
            pruned += bits.count(0)
    assert sha.hexdigest() == about["digest"] == DIGEST
    assert pruned == sum(int((~kept).sum()) for kept in golden_network().masks().values())


def test_the_dense_encoding_is_a_state_dict_that_others_load() -> None:
    """Oracle: safetensors' own loader. Less the masks, it is the network's state dict."""
    tensors = load_file(GOLDEN / "v1-dense.safetensors")
    made = golden_network().tensors()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in made.items())
    assert all(name.endswith(".mask") for name in set(tensors) - set(made))


# --- what may happen to a file ------------------------------------------------------------------------------------


def test_one_changed_byte_of_a_weight_is_found_by_the_digest(tmp_path: Path) -> None:
    raw = bytearray((GOLDEN / "v1-packed.safetensors").read_bytes())
    length = struct.unpack("<Q", raw[:8])[0]
    raw[8 + length + json.loads(raw[8 : 8 + length])["layer1.0.conv1.weight.kept"]["data_offsets"][0]] ^= 1
    path = tmp_path / "changed.safetensors"
    path.write_bytes(raw)
    with pytest.raises(UserError) as caught:
        load(path)
    assert str(caught.value) == (
        f"{path}: the weights do not have the digest 242fef6a1f48… that the file states;"
        " it was changed after it was written, fetch it again"
    )
    assert load(path, verify=False).digest == DIGEST


def test_a_file_cut_short_is_a_sentence_at_every_length(tmp_path: Path) -> None:
    raw = (GOLDEN / "v1-packed.safetensors").read_bytes()
    path = tmp_path / "cut.safetensors"
    for length in [*range(64), *range(64, len(raw), 397), len(raw) - 1]:
        path.write_bytes(raw[:length])
        with pytest.raises(UserError, match=r"cut\.safetensors: "):
            load(path)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["packed", "dense"]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
    st.booleans(),
)
def test_changed_bytes_give_a_sentence_or_the_same_network(
    tmp_path_factory: pytest.TempPathFactory, encoding: str, changes: list[tuple[float, int]], is_header: bool
) -> None:
    """Never another exception, and never another network: half of the changes fall into the header."""
    raw = bytearray((GOLDEN / f"v1-{encoding}.safetensors").read_bytes())
    reach = 8 + struct.unpack("<Q", raw[:8])[0] if is_header else len(raw)
    for place, value in changes:
        raw[int(place * reach)] = value
    path = tmp_path_factory.mktemp("mutated") / "net.safetensors"
    path.write_bytes(raw)
    with suppress(UserError):
        assert load(path).network.digest() == DIGEST


def rewritten(change: Callable[[dict, dict], None], path: Path, encoding: str = "packed") -> Path:  # type: ignore[type-arg]
    """The golden file with ``change(about, header)`` made to its metadata entry and its header."""
    raw = (GOLDEN / f"v1-{encoding}.safetensors").read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    about = json.loads(header["__metadata__"]["sparse_transfer"])
    change(about, header)
    header["__metadata__"]["sparse_transfer"] = json.dumps(about)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda a, h: a.update(version=2),
            "layout version 2, and this program reads version 1; update sparse-transfer",
        ),
        (lambda a, h: a.update(version=None), "layout version None"),
        (lambda a, h: a.pop("digest"), "do not have the digest None"),
        (lambda a, h: a.pop("architecture"), 'the entry "architecture" is missing'),
        (lambda a, h: a.update(tensors=[]), 'the entry "tensors" is missing'),
        (lambda a, h: a["architecture"].update(name="resnet21"), 'no architecture is called "resnet21"; did you mean'),
        (lambda a, h: a["architecture"]["args"].update(width=1e308), "no network can be made of resnet20"),
        (
            lambda a, h: a["architecture"]["args"].update(width=0.25),
            "bn1.bias has shape [2] and resnet20,shortcut=B,width=0.25 needs [4]",
        ),
        (lambda a, h: a["architecture"]["args"].pop("shortcut"), "12 tensors fit no layer of resnet20,width=0.125 ("),
        (lambda a, h: a["preprocessing"].update(crop=-1), "a crop of -1 px"),
        (lambda a, h: a["architecture"]["args"].update(shortcut=["B"]), "shortcut: ['B'] is no str"),
        (lambda a, h: a["origin"].update(sparsity="much"), "the claimed sparsity is 'much', no share in [0, 1]"),
        (lambda a, h: a["origin"].update(sparsity=80), "the claimed sparsity is 80, no share in [0, 1]"),
        (lambda a, h: a["origin"].update(method=3), 'the origin\'s "method" is no text'),
        (lambda a, h: a.update(classes=["a", "b"]), "2 class names for a head of 3 classes"),
        (lambda a, h: a.update(classes=[1, 2, 3]), 'the entry "classes" is no list of names'),
        (lambda a, h: a["tensors"].pop("bn1.bias"), '1 tensors are not described: "bn1.bias"'),
        (lambda a, h: a["tensors"].pop("fc.bias"), "1 tensors are not described"),
        (
            lambda a, h: a["tensors"]["bn1.bias"].update(shape=[3]),
            "bn1.bias is float32 [2] and described as float32 [3]",
        ),
        (lambda a, h: a["tensors"]["bn1.bias"].update(dtype="int32"), "bn1.bias is float32 [2] and described as int32"),
        (lambda a, h: a["tensors"]["bn1.bias"].update(shape=[-2]), "the shape of bn1.bias is [-2]"),
        (lambda a, h: a["tensors"]["bn1.bias"].update(encoding="zip"), "the encoding of bn1.bias is 'zip'; it is"),
        (lambda a, h: a["tensors"]["fc.weight"].update(shape=[3, 9]), "has 24 bits and the weight has 27 elements"),
        (lambda a, h: a["tensors"].update(more={"shape": [1], "encoding": "dense"}), 'the tensor "more" is missing'),
        (lambda a, h: h["fc.weight.mask"].update(dtype="BOOL"), "the mask of fc.weight is bool, not uint8"),
        (lambda a, h: h["bn1.bias"].update(dtype="I32"), "described as float32"),
        (
            lambda a, h: (h["bn1.bias"].update(dtype="I32"), a["tensors"]["bn1.bias"].update(dtype="int32")),
            "bn1.bias is int32 and resnet20,shortcut=B,width=0.125 needs float32",
        ),
    ],
)
def test_a_file_that_contradicts_itself_is_a_sentence(
    tmp_path: Path, change: Callable[[Mapping[str, object], Mapping[str, object]], None], words: str
) -> None:
    path = rewritten(change, tmp_path / "odd.safetensors")
    with pytest.raises(UserError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)


def test_a_nan_in_the_metadata_is_refused(tmp_path: Path) -> None:
    path = rewritten(lambda about, _: about["preprocessing"].update(std=[float("nan")] * 3), tmp_path / "x.safetensors")
    with pytest.raises(UserError, match='the entry "sparse_transfer" is no JSON'):
        load(path)


def test_a_weight_that_is_not_zero_where_it_is_pruned_is_refused_on_load(tmp_path: Path) -> None:
    raw = bytearray((GOLDEN / "v1-dense.safetensors").read_bytes())
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    start = 8 + length + header["fc.weight"]["data_offsets"][0]
    kept = golden_network().masks()["fc.weight"].view(-1).tolist()
    place = start + 4 * kept.index(False)
    raw[place : place + 4] = struct.pack("<f", 0.25)
    path = tmp_path / "leak.safetensors"
    path.write_bytes(raw)
    with pytest.raises(UserError, match=r"fc\.weight: 1 of \d+ pruned weights are non-zero \(largest \|w\| = 0\.25\)"):
        load(path, verify=False)


def test_what_is_no_checkpoint_of_ours_says_so(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(UserError, match=r"^nowhere\.safetensors: there is no such file$"):
        load("nowhere.safetensors")
    with pytest.raises(UserError, match="this is a folder, not a checkpoint"):
        load(tmp_path)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"x": torch.zeros(1)}, foreign)
    assert refusal(foreign) == BRING_IT_IN


BRING_IT_IN = "this is a foreign checkpoint; bring it in first: sparse-transfer import FILE -o OUT.safetensors"


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as seen:
        load(path)
    return str(seen.value).removeprefix(f"{path}: ")


def test_a_foreign_checkpoint_is_said_with_the_command_that_brings_it_in(tmp_path: Path) -> None:
    state = {"x": torch.zeros(1)}
    torch.save(state, tmp_path / "net.pth")
    torch.save(state, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(tmp_path / "net.zip", "w") as archive:
        archive.write(tmp_path / "net.pth")
    with tarfile.open(tmp_path / "net.tar", "w") as archive:
        archive.add(tmp_path / "net.pth")
    (tmp_path / "net.pth.gz").write_bytes(gzip.compress((tmp_path / "net.pth").read_bytes()))
    (tmp_path / "net.onnx").write_bytes(model([], []))
    (tmp_path / "model.json").write_text('{"weightsManifest": []}')
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    assert len(files) == 7
    for path in files:
        assert refusal(path) == BRING_IT_IN, path.name


def test_what_no_import_reads_is_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    for content, what in (
        (b"<!DOCTYPE html><html>no such file</html>", "this is an HTML page, not a checkpoint; download it again"),
        (b"\x93NUMPY\x01\x00 and so on", "NumPy files (.npy) are not read yet; "),
        (bytes(range(20)), "no format that is known begins with the bytes 00 01 02"),
    ):
        path.write_bytes(content)
        assert refusal(path).startswith(what)


@pytest.mark.parametrize("length", [0, 5, 8, 9, 200, -1])
def test_a_checkpoint_of_ours_that_is_cut_short_says_so(tmp_path: Path, length: int) -> None:
    path = tmp_path / "ours.safetensors"
    save(golden_network(), path)
    path.write_bytes(path.read_bytes()[:length])
    assert refusal(path).startswith("it is damaged or cut short (")
    assert refusal(path).endswith("); fetch it again")


# --- saving -------------------------------------------------------------------------------------------------------


def small(density: float = 0.3, *, head: bool = True) -> Network:
    generator = torch.Generator().manual_seed(3)
    dense = Backbone.create("resnet20,width=0.125")
    weights = prunable_weights(dense.module)
    mask = Mask({n: torch.rand(w.shape, generator=generator) < density for n, w in weights.items()}, dense.module)
    mask.apply_(dense.module)
    made = Head(torch.randn(5, 8, generator=generator), torch.zeros(5)) if head else None
    return Network(replace(dense, mask=mask), made)


def test_both_encodings_have_one_digest_and_packed_is_smaller(tmp_path: Path) -> None:
    network = small()
    packed, dense = tmp_path / "p.safetensors", tmp_path / "d.safetensors"
    assert save(network, packed, encoding="packed") == save(network, dense, encoding="dense") == network.digest()
    first, second = load(packed), load(dense)
    assert first.digest == second.digest
    assert first.network.backbone.mask == second.network.backbone.mask == network.backbone.mask
    assert packed.stat().st_size < dense.stat().st_size


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_a_mask_that_keeps_nothing_or_everything_survives(tmp_path: Path, density: float) -> None:
    network = small(density)
    path = tmp_path / "x.safetensors"
    digest = save(network, path)
    assert load(path).network.backbone.mask == network.backbone.mask
    assert load(path).digest == digest


def test_negative_zeros_under_the_mask_are_no_other_network(tmp_path: Path) -> None:
    network = small()
    name, kept = next(iter(network.backbone.mask.items()))
    digest = network.digest()
    with torch.no_grad():
        network.backbone.module.get_parameter(name).masked_fill_(~kept, -0.0)
    for encoding in ("packed", "dense"):
        path = tmp_path / f"{encoding}.safetensors"
        assert save(network, path, encoding=encoding) == digest  # type: ignore[arg-type]
        weight = load(path).backbone.module.get_parameter(name)
        assert not bool(torch.signbit(weight[~kept]).any())


def test_a_trained_zero_and_a_negative_one_stay_kept(tmp_path: Path) -> None:
    network = small()
    name, kept = next(iter(network.backbone.mask.items()))
    weight = network.backbone.module.get_parameter(name)
    places = kept.nonzero()[:2]
    with torch.no_grad():
        weight[tuple(places[0])], weight[tuple(places[1])] = 0.0, -0.0
    path = tmp_path / "x.safetensors"
    digest = save(network, path)
    again = load(path).backbone
    assert torch.equal(again.mask[name], kept)
    assert bool(torch.signbit(again.module.get_parameter(name)[tuple(places[1])]))
    assert load(path).digest == digest


@pytest.mark.parametrize("where", ["backbone", "head"])
def test_a_weight_that_grew_outside_its_mask_is_not_saved(tmp_path: Path, where: str) -> None:
    network = golden_network()
    assert network.head is not None
    assert network.head.kept is not None
    if where == "head":
        with torch.no_grad():
            network.head.weight[~network.head.kept] = 1.0
    else:
        name, kept = next(iter(network.backbone.mask.items()))
        with torch.no_grad():
            network.backbone.module.get_parameter(name)[~kept] = float("nan")
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"what was there before")
    with pytest.raises(MaskViolation, match="pruned weights are non-zero"):
        save(network, path)
    assert path.read_bytes() == b"what was there before"
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_backbone_alone_has_no_head(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save(small(head=False).backbone, path)
    checkpoint = load(path)
    assert checkpoint.head is None
    assert checkpoint.name == "x"


def test_a_head_that_does_not_fit_its_backbone_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save(Network(small().backbone, Head(torch.zeros(5, 9), torch.zeros(5))), path)
    with pytest.raises(UserError, match=r"the head reads 9 features and resnet20,width=0\.125 gives 8"):
        load(path)


def test_the_variant_is_part_of_the_digest_though_tensors_are_the_same(tmp_path: Path) -> None:
    backbone = Backbone.create("resnet18")
    other = replace(backbone, architecture=Architecture.parse("resnet18,stem=s1"))
    assert Network(backbone).digest() != Network(other).digest()


def test_a_module_of_your_own_comes_back_into_a_copy(tmp_path: Path) -> None:
    class Tiny(nn.Module):
        feature_dim = 4

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).mean((2, 3))

    module = Tiny()
    path = tmp_path / "own.safetensors"
    backbone = Backbone(module, Architecture("module", {"name": "tiny"}), Preprocessing())
    digest = save(Network(backbone, Head(torch.randn(2, 4), torch.zeros(2))), path)
    with pytest.raises(UserError, match=r"a module of your own, which no name builds; give it: load\(path, module="):
        load(path)
    fresh = Tiny()
    before = fresh.conv.weight.clone()
    checkpoint = load(path, module=fresh)
    assert checkpoint.network.digest() == digest
    assert torch.equal(fresh.conv.weight, before)


def test_the_metadata_is_canonical_json_that_says_what_the_file_is(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    digest = save(golden_network(), path, origin=ORIGIN)
    with safe_open(path, framework="np") as file:
        text = file.metadata()["sparse_transfer"]
    about = json.loads(text)
    assert json.dumps(about, sort_keys=True, separators=(",", ":"), ensure_ascii=False) == text
    assert about["digest"] == digest
    assert about["tensors"]["fc.weight"] == {"dtype": "float32", "encoding": "packed", "shape": [3, 8]}


def test_a_file_whose_name_is_no_utf8_is_read_as_any_other(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.safetensors")
    digest = save(golden_network(), path, origin=ORIGIN)
    assert is_ours(path)
    assert load(path).digest == digest
    assert import_checkpoint(path).network.digest() == digest, "tensors are read after the file was opened"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="it is damaged or cut short"):
        load(path)
    assert not is_ours(path.with_name(os.fsdecode(b"no\xe9.safetensors")))


def test_a_95_per_cent_resnet50_takes_less_than_12_megabytes(tmp_path: Path) -> None:
    """All prunable weights, head included: 25.5 M at one bit and 1.28 M at four bytes, 8.3 MB, and BatchNorm."""
    generator = torch.Generator().manual_seed(0)
    dense = Backbone.create("resnet50")
    mask = Mask(
        {n: torch.rand(w.shape, generator=generator) < 0.05 for n, w in prunable_weights(dense.module).items()},
        dense.module,
    )
    mask.apply_(dense.module)
    kept = torch.rand(1000, 2048, generator=generator) < 0.05
    network = Network(replace(dense, mask=mask), Head(torch.randn(1000, 2048) * kept, torch.zeros(1000), (), kept))
    path = tmp_path / "r50.safetensors"
    digest = save(network, path)
    assert path.stat().st_size <= 12_000_000
    assert load(path).digest == digest
