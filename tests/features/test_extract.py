"""Features: equal to the backbone by hand, cached under what they depend on, resumed where they stopped."""

import errno
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sparse_transfer.core.errors import UserError
from sparse_transfer.data.split import Split
from sparse_transfer.data.transforms import evaluation, training
from sparse_transfer.features import View, cache, features, writer
from sparse_transfer.features.writer import Writer
from sparse_transfer.sparsity import Mask
from support import extraction
from support.extraction import BATCH, CHUNK, FACTS, Watched, extracted, pictures, small_backbone

COUNT = 11  # two whole chunks and one of three


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "CHUNK_ROWS", CHUNK)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return pictures(tmp_path_factory.mktemp("pictures"), COUNT)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache root"


class Stopped(Exception):
    pass


def stopping_at(call: int) -> Watched:
    def before(number: int) -> None:
        if number == call:
            raise Stopped

    return Watched(before)


def entry(root: Path) -> cache.Entry:
    """The only one there is."""
    (found,) = cache.entries(root)
    return found


def assert_cached(split: Split, root: Path) -> None:
    engine = Watched()
    extracted(split, root, engine)
    assert engine.calls == []


def by_hand(split: Split) -> np.ndarray:
    """The backbone on each picture, through nothing but Pillow and torch."""
    backbone, rows = small_backbone(), []
    transform = evaluation(FACTS)
    for path in split.paths:
        pixels = torch.from_numpy(transform(Image.open(split.root / path)).copy())
        with torch.no_grad():
            rows.append(backbone.module(transform.normalise(pixels[None])).numpy()[0])
    return np.stack(rows)


def test_features_are_the_backbones_in_the_splits_order(split: Split, root: Path) -> None:
    found = extracted(split, root)
    assert found.shape == (COUNT, 6)
    assert found.dtype == np.float32
    assert np.allclose(found, by_hand(split), rtol=1e-5, atol=1e-6)
    assert np.load(entry(root).folder / "labels.npy").tolist() == split.labels.tolist()


def test_features_are_mapped_from_the_file_and_read_only(split: Split, root: Path) -> None:
    found = extracted(split, root)
    assert isinstance(found, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = 1


def test_the_second_time_nothing_is_computed(split: Split, root: Path) -> None:
    first = extracted(split, root)
    engine = Watched()
    second = extracted(split, root, engine)
    assert engine.calls == []
    assert np.array_equal(first, second)


def test_about_says_where_the_features_come_from(split: Split, root: Path) -> None:
    extracted(split, root)
    about = entry(root).about
    assert about is not None
    assert about.backbone == small_backbone().digest()
    assert about.fingerprint == split.fingerprint
    assert (about.split, about.images, about.dim) == ("train", COUNT, 6)
    assert (about.engine, about.numerics, about.view) == ("torch", "fp32", None)
    assert about.transform["preprocessing"]["crop"] == 8
    assert about.seconds > 0
    assert about.created.endswith("+00:00")
    assert set(about.versions) == {"torch", "numpy", "pillow"}


def test_everything_that_changes_the_features_has_a_key_of_its_own(split: Split, root: Path) -> None:
    backbone = small_backbone()
    masked = small_backbone()
    masked.module.conv.weight.data[0, 0] = 0
    zeros, nothing = masked, replace(masked, mask=Mask.from_zeros(masked.module))
    relabelled = replace(split, labels=1 - split.labels)

    def extract(**changes: object) -> None:
        arguments = {
            "backbone": backbone,
            "split": split,
            "transform": evaluation(FACTS),
            "engine": Watched(),
            "view": None,
            "numerics": "fp32",
        } | changes
        features(**arguments, batch=BATCH, workers=1, threads=1, cache_root=root)

    changes = [
        {},
        {"backbone": small_backbone(1)},
        {"backbone": zeros},
        {"backbone": nothing},
        {"split": relabelled},
        {"split": split.take(range(10))},
        {"transform": evaluation(FACTS, exif=True)},
        {"transform": evaluation(replace(FACTS, interpolation="bicubic"))},
        {"transform": training(FACTS), "view": View(0)},
        {"transform": training(FACTS), "view": View(0, 1)},
        {"transform": training(FACTS), "view": View(1)},
        {"numerics": "bf16"},
    ]
    for number, change in enumerate(changes, 1):
        extract(**change)
        assert len(cache.entries(root)) == number
    extract()
    assert len(cache.entries(root)) == len(changes)


def test_what_does_not_change_the_features_does_not_change_the_key(split: Split, root: Path) -> None:
    extracted(split, root)
    moved, engine = replace(split, root=Path("elsewhere"), name="other"), Watched()
    features(small_backbone(), moved, evaluation(FACTS), engine, batch=7, workers=3, threads=2, cache_root=root)
    extracted(split, root, engine, batch=3)
    assert engine.calls == []
    assert len(cache.entries(root)) == 1


def test_views_are_the_random_crops_of_seed_index_and_picture(split: Split, root: Path) -> None:
    transform, backbone = training(FACTS), small_backbone()
    found = features(backbone, split, transform, Watched(), batch=3, workers=2, cache_root=root, view=View(5, 2))
    for index in (0, 10):
        pixels = transform(Image.open(split.root / split.paths[index]), np.random.default_rng((5, 2, index)))
        with torch.no_grad():
            expected = backbone.module(transform.normalise(torch.from_numpy(pixels.copy())[None]))[0]
        assert np.allclose(found[index], expected, rtol=1e-5, atol=1e-6)


def test_a_random_transform_needs_a_view_and_no_other_takes_one(split: Split, root: Path) -> None:
    for transform, view in ((training(FACTS), None), (evaluation(FACTS), View(0))):
        with pytest.raises(ValueError, match="needs a view"):
            features(small_backbone(), split, transform, Watched(), batch=BATCH, cache_root=root, view=view)
    assert cache.entries(root) == []


@pytest.mark.parametrize("call", range(6))
def test_an_extraction_that_stopped_goes_on_at_its_chunk_and_ends_with_the_same_bytes(
    split: Split, root: Path, tmp_path: Path, call: int
) -> None:
    unbroken = extracted(split, tmp_path / "unbroken")
    with pytest.raises(Stopped):
        extracted(split, root, stopping_at(call))
    (partial,) = cache.entries(root)
    assert partial.about is None
    engine = Watched()
    resumed = extracted(split, root, engine)
    done = (call * BATCH) // CHUNK * CHUNK  # whole chunks before the call that stopped it
    assert engine.rows == COUNT - done
    assert resumed.tobytes() == unbroken.tobytes()
    assert entry(root).key == partial.key


@settings(max_examples=12, deadline=None)
@given(batch=st.integers(1, 13), stops=st.lists(st.integers(0, 6), max_size=3), workers=st.integers(0, 2))
def test_any_batch_and_any_stops_give_the_features(
    split: Split, tmp_path_factory: pytest.TempPathFactory, batch: int, stops: list[int], workers: int
) -> None:
    root = tmp_path_factory.mktemp("cache")
    arguments = {"batch": batch, "workers": workers, "threads": 1, "cache_root": root}
    for call in stops:
        try:
            features(small_backbone(), split, evaluation(FACTS), stopping_at(call), **arguments)
        except Stopped:
            continue
    found = features(small_backbone(), split, evaluation(FACTS), Watched(), **arguments)
    assert np.allclose(found, by_hand(split), rtol=1e-5, atol=1e-6)


def run(split: Split, root: Path, call: int, what: str) -> subprocess.Popen[str]:
    command = [sys.executable, extraction.__file__, str(split.root), str(root), str(call), what]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill_and_resume(split: Split, root: Path, call: int) -> None:
    process = run(split, root, call, "kill")
    assert process.communicate(timeout=60)[0] == ""
    assert process.returncode == -9
    engine = Watched()
    resumed = extracted(split, root, engine)
    assert engine.rows == COUNT - (call * BATCH) // CHUNK * CHUNK
    assert np.allclose(resumed, by_hand(split), rtol=1e-5, atol=1e-6)
    assert [verdict for _, verdict in cache.verify(root)] == [None]


def test_a_killed_extraction_goes_on_at_its_chunk(split: Split, root: Path) -> None:
    kill_and_resume(split, root, 3)


@pytest.mark.long
@pytest.mark.parametrize("call", range(6))
def test_a_kill_at_any_call_costs_one_chunk_at_most(split: Split, root: Path, call: int) -> None:
    kill_and_resume(split, root, call)


def test_of_two_processes_one_works_and_the_other_waits_and_reads(split: Split, root: Path) -> None:
    root.mkdir()
    first = run(split, root, 1, "wait")
    deadline = time.monotonic() + 60
    while not (root / "at work").exists():
        assert time.monotonic() < deadline
        assert first.poll() is None, first.communicate()
        time.sleep(0.02)
    engine = Watched()
    extracted(split, root, engine)
    out, _ = first.communicate(timeout=60)
    assert out == "6\n"
    assert engine.calls == []


def test_who_waits_says_so(split: Split, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import threading

    entered, release = threading.Event(), threading.Event()
    folder = cache.folder_of(root, "a" * 64)

    def holds() -> None:
        with cache.only_one(folder, "features of test"):
            entered.set()
            release.wait(10)

    thread = threading.Thread(target=holds)
    thread.start()
    entered.wait(10)
    threading.Timer(0.1, release.set).start()
    with cache.only_one(folder, "features of test"):
        pass
    thread.join()
    assert capsys.readouterr().err == "features of test: another process is extracting them, waiting for it\n"


def test_a_damaged_entry_is_found_said_and_made_anew_in_its_chunk(
    split: Split, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = extracted(split, root).tobytes()
    path = entry(root).folder / "features.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    engine = Watched()
    again = extracted(split, root, engine)
    assert engine.rows == 3  # the last chunk alone
    assert again.tobytes() == whole
    assert capsys.readouterr().err == (
        f"warning: {path.parent}: 1 of 3 chunks of features.npy have another checksum than when they were written;"
        " what is damaged is made anew\n"
    )


@pytest.mark.parametrize("name", ["features.npy", "labels.npy", "about.json", "chunks.jsonl"])
@pytest.mark.parametrize("how", ["absent", "empty", "cut", "noise"])
def test_whatever_happens_to_a_file_of_an_entry_the_features_come_back(
    split: Split, root: Path, name: str, how: str
) -> None:
    whole = extracted(split, root).tobytes()
    path = entry(root).folder / name
    data = path.read_bytes()
    path.unlink()
    if how != "absent":
        path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "noise": b"\x80" * len(data)}[how])
    assert extracted(split, root).tobytes() == whole
    assert np.array_equal(np.load(entry(root).folder / "labels.npy"), split.labels)
    assert_cached(split, root)
    assert [verdict for _, verdict in cache.verify(root)] == [None]


def test_a_finished_entry_is_checked_once_in_a_process(
    split: Split, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extracted(split, root)
    checks: list[int] = []
    missing = Writer.missing

    def counted(self: Writer) -> list[int]:
        checks.append(1)
        return missing(self)

    monkeypatch.setattr(Writer, "missing", counted)
    for _ in range(3):
        assert_cached(split, root)
    assert len(checks) == 1


def test_a_bad_picture_stops_and_names_its_file_and_what_was_done_stays(tmp_path: Path, root: Path) -> None:
    split = pictures(tmp_path / "pictures", COUNT)
    bad = tmp_path / "pictures" / "009.png"
    good = bad.read_bytes()
    bad.write_bytes(good[:60])
    with pytest.raises(UserError, match=rf"^{bad}: the picture is cut short .*sparse-transfer data check"):
        extracted(split, root)
    bad.write_bytes(good)
    engine = Watched()
    extracted(split, root, engine)
    assert engine.rows == COUNT - 8


def test_features_that_are_not_finite_name_the_first_picture(split: Split, root: Path) -> None:
    backbone = small_backbone()
    backbone.module.conv.bias.data[2] = float("nan")
    with pytest.raises(UserError) as caught:
        extracted(split, root, backbone=backbone)
    assert str(caught.value) == (
        f"{split.root / '000.png'}: its features hold NaN or infinity;"
        " look at the backbone's weights, and use fp32 if this was bf16"
    )


def test_an_empty_split_is_refused(split: Split, root: Path) -> None:
    with pytest.raises(UserError, match="the split has no pictures"):
        extracted(split.take([]), root)


def test_a_full_disk_shows_before_the_first_picture_is_decoded(
    split: Split, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    engine = Watched()
    with pytest.raises(OSError, match="the disk is full") as caught:
        extracted(split, root, engine)
    assert engine.calls == []
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(root)
    assert "need 264 bytes" in str(caught.value)  # 11 × 6 × 4
    assert "--cache" in str(caught.value)


def test_a_disk_that_fills_on_the_way_keeps_the_chunks_that_are_done(
    split: Split, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Writer.write

    def filling(self: Writer, chunk: int, rows: np.ndarray, seconds: float) -> None:
        if chunk == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, chunk, rows, seconds)

    monkeypatch.setattr(Writer, "write", filling)
    with pytest.raises(OSError, match="what is done is kept"):
        extracted(split, root)
    monkeypatch.undo()
    monkeypatch.setattr(writer, "CHUNK_ROWS", CHUNK)
    engine = Watched()
    extracted(split, root, engine)
    assert engine.rows == 3


def test_a_cache_that_cannot_be_written_says_what_to_do(split: Split, root: Path) -> None:
    root.write_text("a file where the folder should be")
    with pytest.raises(UserError) as caught:
        extracted(split, root)
    assert str(caught.value).startswith(f"{root}: the cache cannot be written (")
    assert str(caught.value).endswith("); name another place with --cache")
