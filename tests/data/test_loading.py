"""Batches: the same pictures in the same order whatever the workers, and threads that stop."""

import os
import signal
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sparse_transfer.core.errors import UserError
from sparse_transfer.data import loading
from sparse_transfer.data.loading import Batch, batches
from sparse_transfer.data.split import Split
from sparse_transfer.data.transforms import evaluation, training
from sparse_transfer.models import Preprocessing

FACTS = Preprocessing(resize=12, crop=8)


def written(root: Path, count: int) -> Split:
    """``count`` PNG files of noise, one shape in three, labels 0, 1, 2, 0, ..."""
    rng = np.random.default_rng(0)
    paths = []
    for index in range(count):
        shape = [(12, 12, 3), (20, 15, 3), (9, 31, 3)][index % 3]
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(root / f"{index}.png")
        paths.append(f"{index}.png")
    sizes = np.array([(root / path).stat().st_size for path in paths], dtype=np.int64)
    return Split("train", root, tuple(paths), np.arange(count) % 3, sizes, ("a", "b", "c"))


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return written(tmp_path_factory.mktemp("pictures"), 23)


def joined(found: list[Batch]) -> tuple[list[int], torch.Tensor, list[int]]:
    return (
        [int(index) for batch in found for index in batch.indices],
        torch.cat([batch.images for batch in found]),
        [int(label) for batch in found for label in batch.labels],
    )


def decoding_threads() -> int:
    return sum(thread.name.startswith("decode") for thread in threading.enumerate())


def test_batches_hold_every_picture_once_in_order(split: Split) -> None:
    found = list(batches(split, evaluation(FACTS), batch_size=5, workers=2))
    assert [len(batch) for batch in found] == [5, 5, 5, 5, 3]
    indices, images, labels = joined(found)
    assert indices == list(range(23))
    assert labels == [index % 3 for index in range(23)]
    assert images.dtype == torch.uint8
    assert images.shape == (23, 8, 8, 3)
    for index in (0, 7, 22):
        with Image.open(split.root / split.paths[index]) as image:
            assert np.array_equal(images[index], evaluation(FACTS)(image))


@settings(max_examples=15, deadline=None)
@given(
    batch_size=st.integers(1, 30),
    workers=st.sampled_from([0, 1, 3]),
    order=st.permutations(range(23)),
    count=st.integers(1, 23),
)
def test_a_view_depends_on_seed_epoch_and_picture_alone(
    split: Split, batch_size: int, workers: int, order: list[int], count: int
) -> None:
    transform = training(FACTS)
    alone = {
        index: transform(Image.open(split.root / f"{index}.png"), np.random.default_rng((7, 2, index)))
        for index in order[:count]
    }
    loader = batches(split, transform, batch_size=batch_size, workers=workers, indices=order[:count], seed=7, epoch=2)
    indices, images, labels = joined(list(loader))
    assert indices == list(order[:count])
    assert labels == [index % 3 for index in indices]
    for row, index in enumerate(indices):
        assert np.array_equal(images[row], alone[index])


def test_another_seed_and_another_epoch_give_other_views(split: Split) -> None:
    views = [
        joined(list(batches(split, training(FACTS), batch_size=8, seed=seed, epoch=epoch)))[1]
        for seed, epoch in ((0, 0), (1, 0), (0, 1))
    ]
    assert not torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])


def test_a_random_transform_without_a_seed_is_refused(split: Split) -> None:
    with pytest.raises(ValueError, match="needs a seed"):
        next(batches(split, training(FACTS), batch_size=4))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_picture_stops_the_loop_and_names_its_file(tmp_path: Path, workers: int) -> None:
    split = written(tmp_path, 9)
    (tmp_path / "5.png").write_bytes((tmp_path / "5.png").read_bytes()[:100])
    found: list[Batch] = []
    with pytest.raises(UserError, match=rf"^{tmp_path / '5.png'}: the picture is cut short"):
        found.extend(batches(split, evaluation(FACTS), batch_size=2, workers=workers))
    assert joined(found)[0] == [0, 1, 2, 3]
    assert decoding_threads() == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_pictures_can_be_left_out_and_are_listed(tmp_path: Path, workers: int) -> None:
    split = written(tmp_path, 7)
    for name in ("2.png", "3.png", "6.png"):
        (tmp_path / name).write_bytes(b"no")
    found = list(batches(split, evaluation(FACTS), batch_size=2, workers=workers, skip_bad=True))
    assert [batch.indices.tolist() for batch in found] == [[0, 1], [], [4, 5], []]
    assert [batch.labels.tolist() for batch in found] == [[0, 1], [], [1, 2], []]
    assert [len(batch.images) for batch in found] == [2, 0, 2, 0]
    assert [str(error.where) for batch in found for error in batch.bad] == [
        str(tmp_path / name) for name in ("2.png", "3.png", "6.png")
    ]


def test_an_error_of_the_transform_names_the_file_too(tmp_path: Path) -> None:
    Image.new("RGB", (9000, 1)).save(tmp_path / "strip.png")
    split = Split("test", tmp_path, ("strip.png",), np.zeros(1, int), np.zeros(1, int), ("a",))
    with pytest.raises(UserError, match=rf"^{tmp_path / 'strip.png'}: a picture of 9000 × 1 px"):
        next(batches(split, evaluation(Preprocessing(resize=4096, crop=8)), batch_size=1))


def test_no_more_is_decoded_ahead_than_promised(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    decode = loading.load_picture

    def counted(split: Split, index: int, *, exif: bool) -> Image.Image:
        begun.append(index)
        return decode(split, index, exif=exif)

    monkeypatch.setattr(loading, "load_picture", counted)
    with closing(batches(split, evaluation(FACTS), batch_size=2, workers=4)) as loader:
        next(loader)
        time.sleep(0.2)  # enough for all 23, were there no bound
        assert len(begun) <= 2 * (1 + loading.AHEAD)


def test_closing_the_loop_early_stops_the_threads(split: Split) -> None:
    with closing(batches(split, evaluation(FACTS), batch_size=2, workers=3)) as loader:
        next(loader)
        assert decoding_threads() > 0
    assert decoding_threads() == 0


def test_an_interrupt_in_the_loop_stops_the_threads_at_once(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(split: Split, index: int, *, exif: bool) -> Image.Image:
        time.sleep(0.2)
        return Image.new("RGB", (9, 9))

    monkeypatch.setattr(loading, "load_picture", slow)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        started = time.perf_counter()
        with pytest.raises(KeyboardInterrupt):
            list(batches(split, evaluation(FACTS), batch_size=23, workers=1))  # 23 × 0.2 s if it were not stopped
        assert time.perf_counter() - started < 2
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
    assert decoding_threads() == 0


def test_no_pictures_make_no_batch(split: Split) -> None:
    assert list(batches(split, evaluation(FACTS), batch_size=4, indices=[])) == []
