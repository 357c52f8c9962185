"""Protocol Buffers on the wire: field numbers and values of a message, nothing of its schema.

Source: protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Iterator

from sparse_transfer.checkpoints.readers.refusal import Refusal

Value = int | bytes

_FIXED = {1: 8, 5: 4}  # wire type -> bytes


def fields(message: bytes) -> Iterator[tuple[int, Value]]:
    """(field number, value) in the order of the message: bytes for texts and messages inside, else an unsigned int.

    Raises ``Refusal`` where a value reaches past the end, and for groups, which nobody writes.
    """
    place = 0
    while place < len(message):
        tag, place = varint(message, place)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, place = varint(message, place)
            yield number, value
            continue
        if kind == 2:
            length, place = varint(message, place)
        elif kind in _FIXED:
            length = _FIXED[kind]
        else:
            raise Refusal(f"a record in it has a field of the unknown kind {kind}")
        if place + length > len(message):
            raise Refusal("a record in it is cut short")
        piece = message[place : place + length]
        place += length
        yield number, piece if kind == 2 else int.from_bytes(piece, "little")


def varint(data: bytes, place: int) -> tuple[int, int]:
    """The number at ``place`` (7 bits a byte, least significant first, at most 64) and where the next thing begins."""
    number = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if number >> 64:
                break
            return number, place
    raise Refusal("a number in it is cut short or too long")


def signed(number: int) -> int:
    """An int64 as the wire writes it: negative numbers are 2^64 less."""
    return number - (1 << 64) if number >> 63 else number
