"""Files of every container, changed at random: each must be read or refused in one sentence, soon and in little memory.

Half of the changes are to bytes; the other half know the container, so that checksums and lengths stay honest and the
change gets past them. ``fuzz`` works in a process of its own, whose memory and time for each file are limited.
"""

import gzip
import io
import json
import os
import pickletools
import random
import resource
import signal
import struct
import tempfile
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save

from sparse_transfer.checkpoints.readers.archives import unpacked
from sparse_transfer.checkpoints.readers.opening import open_container
from sparse_transfer.core.errors import UserError
from support import foreign_onnx
from support.archives import END, member, pax, tar_of, with_checksum
from support.foreign_tf import HEADER, block, bundle, entry, raw, table, table_of, tfjs
from support.hostile import deflated, legacy_of, text, zip_of
from support.trees import read_all, same

TENSOR = torch.arange(6.0).reshape(2, 3)
TREE = {"w": TENSOR, "b": torch.arange(4), "epoch": 3, "args": [0.5, "adam", None]}
TENSORS = {"b": TREE["b"], "w": TENSOR}

SECONDS_MOST = 10  # of processor time for one file, all but the slowest of which take milliseconds
MEMORY_MOST = 256 << 20  # bytes, beside 4 times the file
MEMORY = Path("/dev/shm")  # a file system in memory, on Linux
Maker = Callable[[random.Random], bytes]


@dataclass(frozen=True)
class Case:
    """A container to be attacked.

    place: where its file belongs, beside others of it that stay as they are.   data: the honest file.
    make: what changes it with the container in mind.
    under_checksums: what is read is what was written, where bytes alone were changed; None where nobody can tell.
    """

    place: Path
    data: bytes
    make: tuple[Maker, ...]
    under_checksums: object = None


@dataclass(frozen=True)
class Fuzzed:
    """What came of it. ``memory_bytes``: the most that the process had beyond what it had before, of address space."""

    inputs: int
    read: int
    seconds: float
    slowest_s: float
    memory_bytes: int
    file_bytes: int


def outcome(place: Path, data: bytes) -> object:
    """What is read, or None where the file is refused; any other exception is the failure looked for."""
    place.write_bytes(data)
    try:
        with unpacked(place) as file:
            return read_all(open_container(file).root)
    except UserError as error:
        if not str(error).isprintable():
            raise
        return None


def attack(case: Case, seed: int) -> bool:
    """Whether the file of that seed was read."""
    draw = random.Random(seed)
    if seed % 2:
        return outcome(case.place, draw.choice(case.make)(draw)) is not None
    result = outcome(case.place, mutated(case.data, draw))
    if result is not None and case.under_checksums is not None:
        assert same(result, case.under_checksums), f"seed {seed} was read otherwise than it was written"
    return result is not None


def fuzz(kind: str, seeds: range) -> Fuzzed:
    """Attack ``kind`` with those seeds. Raises ``AssertionError`` that names the seed whose file ended the process."""
    # In memory: on a disk a file of 2 KB takes 3 ms to replace, which is seven times what reading it takes.
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as place:
        folder = Path(place)
        result, note = folder / "result.json", folder / "seed"
        note.write_text("none yet")
        child = os.fork()
        if child == 0:
            try:
                result.write_text(json.dumps(asdict(_attack_all(kind, folder, seeds, note))))
            except BaseException as error:
                result.write_text(json.dumps(f"{type(error).__name__}: {error}"))
            finally:
                os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        seed = note.read_text()
        assert status == 0, f"{kind}, seed {seed}: the process ended with {status}"
        said = json.loads(result.read_text())
        assert isinstance(said, dict), f"{kind}, seed {seed}: {said}"
        return Fuzzed(**said)


def _attack_all(kind: str, folder: Path, seeds: range, note: Path) -> Fuzzed:
    temporary, files = folder / "temporary", folder / "files"
    temporary.mkdir()
    files.mkdir()
    tempfile.tempdir = str(temporary)
    case = CASES[kind](files)
    assert outcome(case.place, case.data) is not None  # everything that is imported when first needed is here now
    before = _memory("VmSize")
    limit = before + MEMORY_MOST + 4 * len(case.data)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    read, slowest, began = 0, 0.0, time.perf_counter()
    with note.open("w") as file:
        for seed in seeds:
            file.seek(0)
            file.write(f"{seed:<9}")
            file.flush()
            signal.setitimer(signal.ITIMER_PROF, SECONDS_MOST)  # ends the process, in C code too
            start = time.process_time()
            read += attack(case, seed)
            slowest = max(slowest, time.process_time() - start)
    signal.setitimer(signal.ITIMER_PROF, 0)
    assert list(temporary.iterdir()) == []
    seconds = time.perf_counter() - began
    return Fuzzed(len(seeds), read, seconds, slowest, _memory("VmPeak") - before, len(case.data))


def _memory(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


# --- bytes --------------------------------------------------------------------------------------------------------

NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1)


def mutated(data: bytes, draw: random.Random) -> bytes:
    """Bits flipped, bytes set, taken out, put in, moved, cut off; lengths that are too large."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8))):
        place = draw.randrange(len(changed) + 1)
        match draw.randrange(7):
            case 0:
                changed[place : place + 1] = bytes([draw.randrange(256)])
            case 1:
                changed[place : place + 1] = bytes(byte ^ 1 << draw.randrange(8) for byte in changed[place : place + 1])
            case 2:
                del changed[place : place + draw.randrange(1, 9)]
            case 3:
                changed[place:place] = draw.randbytes(draw.randrange(1, 9))
            case 4:
                width = draw.choice((1, 2, 4, 8))
                number = draw.choice(NUMBERS) % (1 << 8 * width)
                changed[place : place + width] = number.to_bytes(width, draw.choice(("little", "big")))
            case 5:
                start = draw.randrange(len(changed) + 1)
                changed[place : place + draw.choice((0, 8))] = changed[start : start + draw.randrange(1, 64)]
            case _:
                if draw.random() < 0.2:
                    del changed[place:]
    return bytes(changed)


# --- pickles ------------------------------------------------------------------------------------------------------

WORDS = [bytes((code,)) for code in range(256)] + [
    text("a"), b"K\x01", b"q\x00", b"h\x00", b"cm\nC\n", b"ccollections\nOrderedDict\n", b")R", b")\x81",
]  # fmt: skip


def opcodes(draw: random.Random) -> bytes:
    return b"\x80\x02" + b"".join(draw.choice(WORDS) for _ in range(draw.randrange(1, 40))) + b"."


def torch_zip(folder: Path) -> Case:
    torch.save(TREE, folder / "x.pth")
    with zipfile.ZipFile(folder / "x.pth") as archive:
        pickled = archive.read("x/data.pkl")
        storages = {name.rpartition("/")[2]: archive.read(name) for name in archive.namelist() if "/data/" in name}
    return Case(
        folder / "x.pth",
        (folder / "x.pth").read_bytes(),
        (
            lambda draw: zip_of(mutated(pickled, draw), storages),
            lambda draw: zip_of(pickled, {key: mutated(data, draw) for key, data in storages.items()}),
            lambda draw: deflated(mutated(pickled, draw)),
            lambda draw: zip_of(opcodes(draw)),
        ),
        under_checksums=TREE,
    )


def torch_legacy(folder: Path) -> Case:
    torch.save(TREE, folder / "x.pth", _use_new_zipfile_serialization=False)
    data = (folder / "x.pth").read_bytes()
    stream, ends = io.BytesIO(data), [0]
    for _ in range(5):
        for _ in pickletools.genops(stream):
            pass
        ends.append(stream.tell())
    pickled, keys, storages = data[ends[3] : ends[4]], data[ends[4] : ends[5]], data[ends[5] :]
    before = data[: ends[3]]
    return Case(
        folder / "x.pth",
        data,
        (
            lambda draw: before + mutated(pickled, draw) + keys + storages,
            lambda draw: before + pickled + mutated(keys, draw) + storages,
            lambda draw: legacy_of(opcodes(draw)),
        ),
    )


# --- JSON ---------------------------------------------------------------------------------------------------------

STRANGE = (
    None, True, -1, 0, 3, 2**70, 1e300, "", "x", "../x", "float16", "int32", "F8_E4M3", [], [2], [[1]], {},
    {"dtype": "uint8"},
)  # fmt: skip


def changed_json(value: object, draw: random.Random) -> object:
    """Something in it replaced, taken out or doubled, at any depth."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(list(value))
        if draw.random() < 0.1:
            return {name: item for name, item in value.items() if name != key}
        return {**value, key: changed_json(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.9:
        place = draw.randrange(len(value))
        if draw.random() < 0.1:
            return value[:place] + value[place:] * 2
        return [*value[:place], changed_json(value[place], draw), *value[place + 1 :]]
    return draw.choice(STRANGE)


def safetensors(folder: Path) -> Case:
    data = save({**TENSORS, "f": torch.zeros(3, dtype=torch.bool)}, {"format": "pt"})
    length = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]

    def rebuilt(draw: random.Random) -> bytes:
        made = json.dumps(changed_json(header, draw)).encode()
        return struct.pack("<Q", len(made)) + made + rest

    return Case(folder / "x.safetensors", data, (rebuilt,))


def tensorflow_js(folder: Path) -> Case:
    tree = {
        "conv1/kernel": torch.randn(3, 3, 3, 8, generator=torch.Generator().manual_seed(0)),
        "count": torch.tensor([3, -4], dtype=torch.int32),
        "flag": torch.tensor([True, False, True]),
        "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(2.5),
    }
    path = tfjs(folder, tree, groups=2, shard_bytes=400)
    model = json.loads(path.read_text())
    plain = json.dumps(model).encode()
    quantised = json.loads(plain)
    for weight in quantised["weightsManifest"][1]["weights"]:
        weight["quantization"] = {"dtype": "float16", "original_dtype": "float32"}
    return Case(
        path,
        plain,
        tuple(
            lambda draw, manifest=manifest: json.dumps(changed_json(manifest, draw)).encode()
            for manifest in (model, quantised)
        ),
    )


# --- TensorFlow ---------------------------------------------------------------------------------------------------


def tf_bundle(folder: Path) -> Case:
    data = raw(TENSOR)
    place = bundle(folder / "x", {f"w{i}": TENSOR + i for i in range(4)})
    honest = [(b"", HEADER), *((f"layer/w{i}".encode(), entry(1, (2, 3), 0, 24 * i, data)) for i in range(4))]

    def entries(draw: random.Random) -> bytes:
        pairs = [(key, bytearray(value)) for key, value in honest]
        for _ in range(draw.choice((1, 1, 2, 6))):
            value = draw.choice(pairs)[1]
            at = draw.randrange(len(value) + 1)
            match draw.randrange(3):
                case 0:
                    value[at : at + 1] = bytes([draw.choice((0, 1, 7, 8, 127, 128, 255, draw.randrange(256)))])
                case 1:
                    del value[at : at + draw.randrange(1, 4)]
                case _:
                    value[at:at] = draw.randbytes(draw.randrange(1, 12))
        return table([(key, bytes(value)) for key, value in pairs])

    def blocks(draw: random.Random) -> bytes:
        content = bytearray(block(honest, interval=draw.choice((1, 2, 16))))
        for _ in range(draw.choice((1, 1, 2, 6))):
            content[draw.randrange(len(content))] = draw.choice((0, 1, 2, 127, 128, 255, draw.randrange(256)))
        return table_of([(bytes(content), b"\xff")])

    tree = {f"w{i}": TENSOR + i for i in range(4)}
    return Case(place, place.read_bytes(), (entries, blocks), under_checksums=tree)


# --- ONNX ---------------------------------------------------------------------------------------------------------


def onnx(folder: Path) -> Case:
    made = foreign_onnx.model(
        [
            foreign_onnx.node("Conv", ["x", "w", "b"], ["y"], pads=[1, 1, 1, 1], group=1, value=2.5),
            foreign_onnx.node("Constant", [], ["c"], value=foreign_onnx.tensor("", torch.arange(3))),
        ],
        [
            foreign_onnx.tensor("w", torch.randn(2, 3, 1, 1, generator=torch.Generator().manual_seed(0))),
            foreign_onnx.tensor("b", TENSOR[0], raw=False),
            foreign_onnx.tensor("n", torch.arange(5), raw=False),
            foreign_onnx.outside("o", TENSOR, location="beside.bin", offset="0", length="24"),
        ],
    )
    (folder / "beside.bin").write_bytes(raw(TENSOR))
    return Case(folder / "x.onnx", made, (lambda draw: _changed_message(made, draw),))


def _changed_message(message: bytes, draw: random.Random) -> bytes:
    """One field at some depth changed, taken out or doubled; the lengths of the messages around it stay honest."""
    pieces = _fields(message)
    if not pieces or draw.random() < 0.2:
        return mutated(message, draw)
    place = draw.randrange(len(pieces))
    tag, inside = pieces[place]
    match draw.randrange(8):
        case 0:
            pieces[place : place + 1] = []
        case 1:
            pieces.insert(place, pieces[place])
        case 2:
            pieces[place] = (foreign_onnx.varint(draw.randrange(256)), inside)
        case _ if inside is not None:
            pieces[place] = (tag, _changed_message(inside, draw))
        case _:
            pieces[place] = (mutated(tag, draw), None)
    return b"".join(
        tag if inside is None else tag + foreign_onnx.varint(len(inside)) + inside for tag, inside in pieces
    )


def _fields(message: bytes) -> list[tuple[bytes, bytes | None]]:
    """Each field as its tag and its content, or as one piece where it is a number; [] where it is no message."""
    pieces: list[tuple[bytes, bytes | None]] = []
    place = 0

    def varint(place: int) -> tuple[int, int]:
        number = 0
        for shift in range(0, 70, 7):
            number |= (message[place] & 0x7F) << shift
            place += 1
            if message[place - 1] < 0x80:
                break
        return number, place

    with suppress(IndexError):
        while place < len(message):
            start = place
            tag, place = varint(place)
            if tag & 7 == 2:
                head = message[start:place]
                length, place = varint(place)
                pieces.append((head, message[place : place + length]))
                place += length
            else:
                place = varint(place)[1] if tag & 7 == 0 else place + (4 if tag & 7 == 5 else 8)
                pieces.append((message[start:place], None))
    return pieces if place == len(message) else []


# --- archives -----------------------------------------------------------------------------------------------------


def _bundled(folder: Path) -> dict[str, bytes]:
    """A bundle whose every byte is under a checksum of its own, as the files of an archive."""
    made = folder / "made"
    made.mkdir()
    bundle(made / "model.ckpt-7", TENSORS)
    return {f"./s80/{path.name}": path.read_bytes() for path in sorted(made.iterdir())}


def _changed_members(files: dict[str, bytes], draw: random.Random) -> bytes:
    """Headers with something changed and an honest checksum, names that a member before gives, another order."""
    members: list[bytes] = []
    for name, data in files.items():
        made = member(name, data, magic=draw.choice((b"ustar\x0000", b"ustar  \0")))
        if draw.random() < 0.5:
            header = bytearray(made[:512])
            field, width = draw.choice(((0, 100), (124, 12), (156, 1), (257, 8), (345, 155)))
            header[field : field + width] = mutated(bytes(header[field : field + width]), draw)[:width].ljust(
                width, b"\0"
            )
            made = with_checksum(bytes(header[:512])) + made[512:]
        if draw.random() < 0.3:
            before = draw.choice(
                (pax(path=name), pax(size=str(len(data))), member("L", name.encode() + b"\0", kind=b"L"))
            )
            made = with_checksum(before[:512]) + mutated(before[512:], draw).ljust(512, b"\0")[:512] + made
        members.append(made)
    draw.shuffle(members)
    return b"".join(members) + draw.choice((END, END, bytes(9216), b"", bytes(512)))


def tar(folder: Path) -> Case:
    files = _bundled(folder)
    return Case(
        folder / "x.tar",
        tar_of(files)[:-7168],
        (lambda draw: _changed_members(files, draw),),
        under_checksums=TENSORS,
    )


def gzipped(folder: Path) -> Case:
    files = _bundled(folder)
    data = tar_of(files)
    return Case(
        folder / "x.tar.gz",
        gzip.compress(data, mtime=0),
        (
            lambda draw: gzip.compress(_changed_members(files, draw), 1, mtime=0),
            lambda draw: gzip.compress(mutated(data, draw), 1, mtime=0),
            lambda draw: gzip.compress(mutated(gzip.compress(data, 1, mtime=0), draw), 1, mtime=0),
        ),
        under_checksums=TENSORS,
    )


CASES: dict[str, Callable[[Path], Case]] = {
    "torch-zip": torch_zip,
    "torch-legacy": torch_legacy,
    "safetensors": safetensors,
    "tf-bundle": tf_bundle,
    "tfjs": tensorflow_js,
    "onnx": onnx,
    "tar": tar,
    "gzip": gzipped,
}
"""By the container's kind; every reader has one."""
