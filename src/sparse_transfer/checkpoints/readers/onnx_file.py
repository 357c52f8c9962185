"""ONNX models: a graph of operations and its constants, read from the wire format without the onnx package.

Source: onnx/onnx.proto3 (ModelProto, GraphProto, NodeProto, AttributeProto, TensorProto); methods page, section 8.5.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch

from sparse_transfer.checkpoints.readers.container import Container, LazyTensor, Tree
from sparse_transfer.checkpoints.readers.refusal import ASK_AUTHORS, Refusal, shown
from sparse_transfer.checkpoints.readers.storage import read_bytes, values
from sparse_transfer.checkpoints.readers.wire import Value, fields, signed, varint

FILE_BYTES_MOST = 1 << 31  # a message of Protocol Buffers has no more
FIELDS_MOST = 2_000_000  # of nodes, names and numbers; ResNet-152 has about 6,000
DIMENSIONS_MOST = 64
DTYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}
SEVERAL = {1: 4, 7: 7, 11: 10}  # data type -> the field that may hold its numbers one by one, instead of raw bytes


def read_onnx(path: Path) -> Container:
    """Open ``path``. The root has ``weights``: name -> tensor, ``nodes`` in the order of the graph, ``inputs``,
    ``outputs``. A node is {op, inputs, outputs, attributes}. Raises ``Refusal``.
    """
    if (size := path.stat().st_size) >= FILE_BYTES_MOST:
        raise Refusal(f"an ONNX file of {size:,} bytes, and there are none above {FILE_BYTES_MOST:,}", ASK_AUTHORS)
    reading = _Reading(path)
    graphs = [_message(value) for number, value in reading.fields(_view(path.read_bytes())) if number == 7]
    if len(graphs) != 1:
        raise Refusal(f"it holds {len(graphs)} graphs and not one")
    root = reading.graph(graphs[0])
    files = (path, *sorted(reading.external)) if reading.external else ()
    return Container("onnx", path, root, files=files)


@dataclass
class _Reading:
    path: Path
    left: int = field(default_factory=lambda: FIELDS_MOST)
    external: set[Path] = field(default_factory=set[Path])

    def fields(self, message: bytes) -> Iterator[tuple[int, Value]]:
        for number, value in fields(message):
            self.left -= 1
            if self.left < 0:
                raise Refusal(f"its graph has more than {FIELDS_MOST:,} parts", ASK_AUTHORS)
            yield number, value

    def graph(self, message: bytes) -> Tree:
        weights: dict[str | int, Tree] = {}
        nodes: list[Tree] = []
        ends: dict[int, list[Tree]] = {11: [], 12: []}
        for number, value in self.fields(message):
            if number == 1:
                nodes.append(self.node(_message(value)))
            elif number == 5:
                name, tensor = self.tensor(_message(value))
                if name in weights:
                    raise Refusal(f"its graph says {shown(name)} twice", ASK_AUTHORS)
                weights[name] = tensor
            elif number in ends:
                ends[number] += [_text(inner) for key, inner in self.fields(_message(value)) if key == 1]
            elif number == 15:
                raise Refusal("its weights are sparse tensors, which are not read yet", "save it with dense weights")
        return {"weights": weights, "nodes": nodes, "inputs": ends[11], "outputs": ends[12]}

    def node(self, message: bytes) -> Tree:
        inputs: list[Tree] = []
        outputs: list[Tree] = []
        attributes: dict[str | int, Tree] = {}
        op = ""
        for number, value in self.fields(message):
            if number == 1:
                inputs.append(_text(value))
            elif number == 2:
                outputs.append(_text(value))
            elif number == 4:
                op = _text(value)
            elif number == 5:
                name, attribute = self.attribute(_message(value))
                attributes[name] = attribute
        return {"op": op, "inputs": inputs, "outputs": outputs, "attributes": attributes}

    def attribute(self, message: bytes) -> tuple[str, Tree]:
        """Its name, and its value: a number, a text, a tensor or several numbers. A graph inside is None."""
        name, found = "", cast(Tree, None)
        several: list[Tree] = []
        for number, value in self.fields(message):
            if number == 1:
                name = _text(value)
            elif number == 2 and isinstance(value, int):
                (found,) = struct.unpack("<f", (value & 0xFFFFFFFF).to_bytes(4, "little"))
            elif number == 3 and isinstance(value, int):
                found = signed(value)
            elif number == 4:
                found = _text(value)
            elif number == 5:
                _, found = self.tensor(_message(value))
            elif number == 8:
                several += self.numbers(value)
        return name, several or found

    def numbers(self, value: Value) -> Iterator[int]:
        """Of a repeated int64: one, or packed."""
        if isinstance(value, int):
            yield signed(value)
            return
        place = 0
        while place < len(value):
            self.left -= 1
            if self.left < 0:
                raise Refusal(f"its graph has more than {FIELDS_MOST:,} parts", ASK_AUTHORS)
            number, place = varint(value, place)
            yield signed(number)

    def tensor(self, message: bytes) -> tuple[str, LazyTensor]:
        name, kind, is_outside = "", 0, False
        shape: list[int] = []
        raw: bytes | None = None
        entries: dict[str, str] = {}
        several: list[tuple[int, Value]] = []
        for number, value in self.fields(message):
            if number == 1:
                shape += self.numbers(value)
            elif number == 2 and isinstance(value, int):
                kind = value
            elif number == 8:
                name = _text(value)
            elif number == 9:
                raw = _message(value)
            elif number == 13:
                pair = {key: _text(inner) for key, inner in self.fields(_message(value)) if key in (1, 2)}
                entries[pair.get(1, "")] = pair.get(2, "")
            elif number == 14:
                is_outside = value == 1
            elif number in (4, 5, 7, 10):
                several.append((number, value))
        dtype = DTYPES.get(kind)
        if dtype is None:
            raise Refusal(f"its tensor {shown(name)} has the data type {kind}, which is not read", ASK_AUTHORS)
        if len(shape) > DIMENSIONS_MOST or not all(0 <= length < FILE_BYTES_MOST for length in shape):
            raise Refusal(f"its tensor {shown(name)} has the shape {shape[:8]}", ASK_AUTHORS)
        size = math.prod(shape) * dtype.itemsize
        if is_outside:
            return name, self.outside(name, tuple(shape), dtype, size, entries)
        if raw is None:
            raw = self.one_by_one(name, kind, several)
        if len(raw) != size:
            raise Refusal(f"its tensor {shown(name)} {shape} has {len(raw):,} bytes and not {size:,}")
        data = raw

        def read() -> torch.Tensor:
            if not size:
                return torch.empty(shape, dtype=dtype)
            return values(torch.frombuffer(bytearray(data), dtype=torch.uint8), dtype).reshape(shape)

        return name, LazyTensor(tuple(shape), dtype, read)

    def one_by_one(self, name: str, kind: int, several: list[tuple[int, Value]]) -> bytes:
        """The raw bytes of numbers in a field of their own; floats and doubles lie there as in memory."""
        if any(number != SEVERAL.get(kind) for number, _ in several):
            raise Refusal(f"its tensor {shown(name)} lies in a field that is not read", "save it with raw_data")
        if kind == 7:
            return b"".join(n.to_bytes(8, "little", signed=True) for _, value in several for n in self.numbers(value))
        width = DTYPES[kind].itemsize
        if any(isinstance(value, int) and value >> 8 * width for _, value in several):
            raise Refusal(f"its tensor {shown(name)} has a number of more than {width} bytes")
        return b"".join(value.to_bytes(width, "little") if isinstance(value, int) else value for _, value in several)

    def outside(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype, size: int, entries: dict[str, str]
    ) -> LazyTensor:
        """A tensor in another file, which must lie in the model's folder."""
        location, folder = entries.get("location", "").partition("\0")[0], self.path.parent.resolve()
        place = (folder / location).resolve()
        if not location or not place.is_relative_to(folder):
            raise Refusal(f"its tensor {shown(name)} lies outside its folder, at {shown(location)}", ASK_AUTHORS)
        if not place.is_file():
            raise Refusal(f"{shown(location)} is missing, where its tensor {shown(name)} lies", "fetch both files")
        start, length = entries.get("offset", "0"), entries.get("length", str(size))
        first = int(start) if start.isdecimal() and len(start) < 20 else -1
        if first < 0 or length != str(size) or first + size > place.stat().st_size:
            raise Refusal(f"its tensor {shown(name)} does not lie within {shown(location)}")
        self.external.add(place)

        def read() -> torch.Tensor:
            if not size:
                return torch.empty(shape, dtype=dtype)
            return values(read_bytes(place, first, size), dtype).reshape(shape)

        return LazyTensor(shape, dtype, read)


def _view(data: bytes) -> bytes:
    """The same bytes; pieces of it are not copied. What is done to them here is what both types can."""
    return cast(bytes, memoryview(data))


def _message(value: Value) -> bytes:
    if isinstance(value, int):
        raise Refusal("a number stands where its schema has a message")
    return value


def _text(value: Value) -> str:
    return bytes(_message(value)).decode(errors="replace")
