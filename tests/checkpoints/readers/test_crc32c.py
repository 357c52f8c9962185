"""CRC-32C against published values and against the plain loop over bits."""

import random
import time

import pytest

from sparse_transfer.checkpoints.readers.crc32c import BLOCK_BYTES, crc32c, masked


def bit_by_bit(data: bytes) -> int:
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),  # the check value of every catalogue of CRCs
        (bytes(32), 0x8A9136AA),  # RFC 3720, B.4
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
    ],
)
def test_published_checksums(data: bytes, crc: int) -> None:
    assert crc32c(data) == crc


def test_masking_by_hand() -> None:
    # (0x00000001 >> 15 | 1 << 17) + 0xa282ead8
    assert masked(1) == 0x20000 + 0xA282EAD8
    assert masked(0xFFFFFFFF) == (0xFFFFFFFF + 0xA282EAD8) & 0xFFFFFFFF


def test_every_length_around_words_and_blocks_equals_the_plain_loop() -> None:
    data = random.Random(0).randbytes(5000)
    for length in [*range(40), 255, 256, 257, 1023, 1024, 1025, 4095, 5000]:
        assert crc32c(data[:length]) == bit_by_bit(data[:length]), length


@pytest.mark.parametrize("more", [-5, -1, 0, 1, 4, 7])
def test_lengths_around_a_block_equal_the_plain_loop(more: int) -> None:
    data = random.Random(more).randbytes(BLOCK_BYTES + more)
    assert crc32c(memoryview(data)) == bit_by_bit(data)


def test_a_flipped_bit_changes_it() -> None:
    data = bytearray(random.Random(1).randbytes(100_000))
    before = crc32c(data)
    for place in (0, 3, 4, 50_001, 99_999):
        data[place] ^= 16
        assert crc32c(data) != before
        data[place] ^= 16
    assert crc32c(data) == before


def test_a_hundred_megabytes_take_less_than_two_seconds() -> None:
    data = bytes(100 << 20)
    crc32c(data[: 1 << 20])  # its tables
    start = time.perf_counter()
    crc32c(data)
    assert time.perf_counter() - start < 2
