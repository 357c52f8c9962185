"""Cache folders: the file layout, listing, verifying, pruning."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_transfer.data.split import Split
from sparse_transfer.features import cache
from sparse_transfer.features import writer as writer_module
from sparse_transfer.features.cache import entries, prune, verify
from sparse_transfer.features.writer import About, Writer
from support.extraction import CHUNK, extracted, pictures, small_backbone


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "CHUNK_ROWS", CHUNK)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return pictures(tmp_path_factory.mktemp("pictures"), 6)


def filled(split: Split, root: Path, count: int) -> list[str]:
    """``count`` entries, used 1, 2, ... hours after the epoch; their keys in that order."""
    keys = []
    for seed in range(count):
        extracted(split, root, backbone=small_backbone(seed))
        (key,) = {entry.key for entry in entries(root)} - {*keys}
        os.utime(root / "features" / key / "about.json", (3600 * (seed + 1),) * 2)
        keys.append(key)
    return keys


def about(images: int, dim: int, key: str = "k") -> About:
    return About(key, "b", "a", "test", "f", {}, None, "fp32", "torch", images, dim)


@settings(max_examples=40, deadline=None)
@given(images=st.integers(1, 23), dim=st.integers(1, 5), order=st.randoms(use_true_random=False))
def test_chunks_written_in_any_order_make_the_file_that_numpy_writes(
    tmp_path_factory: pytest.TempPathFactory, images: int, dim: int, order: object
) -> None:
    folder = tmp_path_factory.mktemp("cache") / "k.partial"
    values = np.random.default_rng(images).normal(size=(images, dim)).astype(np.float32)
    writer = Writer(folder, images, dim)
    chunks = writer.missing()
    assert chunks == list(range(-(-images // CHUNK)))
    order.shuffle(chunks)  # type: ignore[attr-defined]
    with writer.writing():
        for number, chunk in enumerate(chunks):
            writer.write(chunk, values[list(writer.rows(chunk))], 0.5)
            assert writer.missing() == sorted(chunks[number + 1 :])
    whole = writer.finish(np.zeros(images, np.int64), about(images, dim))
    assert sorted(path.name for path in whole.iterdir()) == ["about.json", "chunks.jsonl", "features.npy", "labels.npy"]
    reference = folder.parent / "reference.npy"
    np.save(reference, values)
    assert (whole / "features.npy").read_bytes() == reference.read_bytes()
    assert Writer(whole, images, dim).seconds() == 0.5 * len(chunks)


def test_a_torn_journal_line_is_no_line_and_harms_no_other(tmp_path: Path) -> None:
    values = np.ones((3 * CHUNK, 2), np.float32)
    writer = Writer(tmp_path / "k.partial", 3 * CHUNK, 2)
    with writer.writing():
        writer.write(0, values[:CHUNK], 0)
        writer.write(1, values[:CHUNK], 0)
    journal = tmp_path / "k.partial" / "chunks.jsonl"
    journal.write_bytes(journal.read_bytes()[:-9])
    assert writer.missing() == [1, 2]
    with writer.writing():
        writer.write(2, values[:CHUNK], 0)
    assert writer.missing() == [1]


def test_rows_of_another_width_are_all_missing(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "k.partial", CHUNK, 2)
    with writer.writing():
        writer.write(0, np.ones((CHUNK, 2), np.float32), 0)
    assert writer.missing() == []
    assert Writer(tmp_path / "k.partial", CHUNK, 3).missing() == [0]
    assert Writer(tmp_path / "k.partial", CHUNK + 1, 2).missing() == [0, 1]


def test_about_of_a_newer_version_is_read_and_nonsense_is_not(tmp_path: Path) -> None:
    path = tmp_path / "about.json"
    value = {name: getattr(about(3, 2), name) for name in About.__dataclass_fields__}
    path.write_text(json.dumps(value | {"invented_later": [1]}))
    assert About.read(path) == about(3, 2)
    for text in ("", "[]", "3", "{}", json.dumps(value | {"images": "many"}), "{" * 9):
        path.write_text(text)
        with pytest.raises(ValueError):  # noqa: PT011 - json and pydantic word it
            About.read(path)


def test_entries_are_listed_last_used_first_with_their_size(split: Split, tmp_path: Path) -> None:
    keys = filled(split, tmp_path, 3)
    listed = entries(tmp_path)
    assert [entry.key for entry in listed] == keys[::-1]
    assert [entry.last_used for entry in listed] == [10800, 7200, 3600]
    for entry in listed:
        assert entry.about is not None
        assert entry.about.images == 6
        assert entry.size_bytes == sum(path.stat().st_size for path in entry.folder.iterdir())
    extracted(split, tmp_path, backbone=small_backbone(0))  # using it makes it the newest
    assert [entry.key for entry in entries(tmp_path)] == [keys[0], keys[2], keys[1]]


def test_an_absent_cache_is_an_empty_one(tmp_path: Path) -> None:
    assert entries(tmp_path / "no") == []
    assert verify(tmp_path / "no") == []
    assert prune(tmp_path / "no", 0) == []


def test_prune_removes_what_was_used_longest_ago_until_it_fits(split: Split, tmp_path: Path) -> None:
    keys = filled(split, tmp_path, 4)
    size = entries(tmp_path)[0].size_bytes
    total = sum(entry.size_bytes for entry in entries(tmp_path))
    assert prune(tmp_path, total) == []
    assert [entry.key for entry in prune(tmp_path, total - 1)] == keys[:1]
    assert [entry.key for entry in prune(tmp_path, 2 * size + 50)] == keys[1:2]
    assert [entry.key for entry in prune(tmp_path, 0)] == keys[2:]
    assert entries(tmp_path) == []
    assert [path for path in (tmp_path / "features").iterdir() if path.is_dir()] == []


def test_prune_leaves_an_entry_that_is_in_work(split: Split, tmp_path: Path) -> None:
    keys = filled(split, tmp_path, 2)
    with FileLock(f"{cache.folder_of(tmp_path, keys[0])}.lock"):
        assert [entry.key for entry in prune(tmp_path, 0)] == keys[1:]
    assert [entry.key for entry in entries(tmp_path)] == keys[:1]


def test_prune_counts_and_removes_partial_entries(split: Split, tmp_path: Path) -> None:
    (key,) = filled(split, tmp_path, 1)
    cache.demote(cache.folder_of(tmp_path, key))
    (entry,) = entries(tmp_path)
    assert (entry.key, entry.folder.name) == (key, f"{key}.partial")
    assert prune(tmp_path, 0) == [entry]
    assert entries(tmp_path) == []


def test_features_that_are_open_survive_a_prune(split: Split, tmp_path: Path) -> None:
    found = extracted(split, tmp_path)
    before = np.array(found)
    prune(tmp_path, 0)
    assert np.array_equal(found, before)


def test_verify_reads_every_byte(split: Split, tmp_path: Path) -> None:
    keys = filled(split, tmp_path, 3)
    assert [problem for _, problem in verify(tmp_path)] == [None, None, None]
    path = tmp_path / "features" / keys[0] / "features.npy"
    data = bytearray(path.read_bytes())
    data[128 + 5 * 6 * 4] ^= 0x40  # row 5 lies in the second chunk
    path.write_bytes(data)
    (tmp_path / "features" / keys[1] / "about.json").write_text("no")
    assert {entry.key: problem for entry, problem in verify(tmp_path)} == {
        keys[0]: "1 of 2 chunks are damaged",
        keys[1]: "about.json is missing or unreadable",
        keys[2]: None,
    }


def test_reserve_gives_a_file_its_blocks(tmp_path: Path) -> None:
    with writer_module.open_for_update(tmp_path / "file") as file:
        file.write(b"begin")
        writer_module.reserve(file, 1 << 20)
    state = (tmp_path / "file").stat()
    assert state.st_size == 1 << 20
    assert not hasattr(os, "posix_fallocate") or state.st_blocks * 512 >= 1 << 20
    assert (tmp_path / "file").read_bytes()[:6] == b"begin\0"
