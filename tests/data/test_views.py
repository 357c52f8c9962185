"""Views cut on the device against Pillow's own crop and resize, one picture at a time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from sparse_transfer.core.errors import UserError
from sparse_transfer.data import loading
from sparse_transfer.data.loading import Batch, PictureCache, batches
from sparse_transfer.data.split import Split
from sparse_transfer.data.transforms import WHOLE, evaluation, training
from sparse_transfer.data.views import View, cut
from sparse_transfer.models import Preprocessing

FACTS = Preprocessing(resize=20, crop=16)
# Pillow rounds to grey levels between its two passes, whose order goes by the size in Pillow 13; ours is
# fixed. Each is within half a level, times the sum of a filter's |weights| (1 bilinear, at most 1.25 bicubic), of the
# exact sum: apart by 1.25 before the last rounding and by 2 after it. Bicubic overshoots, and what is clipped between
# the passes depends on their order: so its pictures here keep away from black and white.
LEVELS = 2
RANGE = {"bilinear": (0, 256), "bicubic": (64, 192)}


def picture(width: int, height: int, seed: int = 0, levels: tuple[int, int] = (0, 256)) -> Image.Image:
    values = np.random.default_rng((seed, width, height)).integers(*levels, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def difference(one: torch.Tensor, other: torch.Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


@settings(max_examples=80, deadline=None)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    crop=st.integers(1, 40),
    seed=st.integers(0, 2**32),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
)
@example(width=80, height=80, crop=7, seed=0, interpolation="bicubic")
def test_a_view_is_pillows_to_two_grey_levels(
    width: int, height: int, crop: int, seed: int, interpolation: str
) -> None:
    transform = training(Preprocessing(resize=crop, crop=crop, interpolation=interpolation))
    still = transform.still(picture(width, height, seed % 97, RANGE[interpolation]))
    view = transform.drawn(still, np.random.default_rng(seed))
    got = cut(torch.from_numpy(np.array(still.image))[None], [view], crop, interpolation)[0]
    expected = torch.from_numpy(transform.cut_one(still, view).copy())
    assert difference(got, expected) <= LEVELS


def written(root: Path, sizes: list[tuple[int, int]]) -> Split:
    """One PNG of noise of each (width, height)."""
    for index, size in enumerate(sizes):
        picture(*size, index).save(root / f"{index}.png")
    paths = tuple(f"{index}.png" for index in range(len(sizes)))
    lengths = np.array([(root / path).stat().st_size for path in paths], dtype=np.int64)
    return Split("train", root, paths, np.arange(len(sizes)) % 2, lengths, ("a", "b"))


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Pictures of at most twice the crop a side: nothing is shrunk on the way."""
    side = WHOLE * FACTS.crop
    sizes = [(side, side), (1, 1), (side, 9), (20, side), (16, 16), (31, 17), (8, 30)]
    return written(tmp_path_factory.mktemp("pictures"), sizes)


def seen(split: Split, epoch: int, *, on_device: bool, **how: object) -> torch.Tensor:
    """All views of an epoch, before they are normalised: [N, crop, crop, 3] uint8."""
    transform = training(FACTS, on_device=on_device)
    size = 3 if on_device else 4
    found: list[Batch] = list(batches(split, transform, batch_size=size, seed=7, epoch=epoch, **how))  # type: ignore[arg-type]
    if not on_device:
        return torch.cat([batch.images for batch in found])
    return torch.cat([cut(batch.images, batch.views, FACTS.crop, FACTS.interpolation) for batch in found])


@pytest.mark.parametrize("epoch", range(8))
def test_host_and_device_draw_the_same_crops_and_flips(split: Split, epoch: int) -> None:
    """Noise: a crop moved by one pixel, or another flip, would differ by hundreds of levels."""
    assert difference(seen(split, epoch, on_device=True), seen(split, epoch, on_device=False)) <= LEVELS


def test_workers_and_the_cache_change_no_view(split: Split) -> None:
    expected = seen(split, 3, on_device=True, workers=0)
    cache = PictureCache(10**6)
    for how in ({"workers": 3}, {"workers": 2, "cache": cache}, {"workers": 0, "cache": cache}):
        assert torch.equal(seen(split, 3, on_device=True, **how), expected)


def test_pictures_of_one_batch_lie_in_the_smallest_frame_that_holds_them(split: Split) -> None:
    transform = training(FACTS, on_device=True)
    (batch,) = batches(split, transform, batch_size=3, indices=[4, 6, 5], seed=1)
    assert batch.images.shape == (3, 30, 31, 3)
    assert transform.inputs(batch.images, batch.views).shape == (3, 3, 16, 16)
    framed = batch.images.clone()
    framed[0, 16:] = 255
    framed[1, :, 8:] = 255
    cuts = [cut(images, batch.views, 16, "bilinear") for images in (batch.images, framed)]
    assert torch.equal(*cuts), "what lies around a picture has no weight"


def test_larger_pictures_are_shrunk_first_and_smooth_ones_stay_as_they_are(tmp_path: Path) -> None:
    """A slope of at most 2 levels a pixel of the view: half a pixel's difference is a level, and a rounding more."""
    rows, columns = np.mgrid[0:90, 0:120]
    smooth = np.stack([2 * columns, 2 * rows, rows + columns], axis=2).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "0.png")
    split = Split("train", tmp_path, ("0.png",), np.zeros(1, int), np.zeros(1, int), ("a",))
    (batch,) = batches(split, training(FACTS, on_device=True), batch_size=1, seed=0)
    assert batch.images.shape == (1, 32, 32, 3)
    for epoch in range(20):
        host, device = (seen(split, epoch, on_device=on_device) for on_device in (False, True))
        # One pixel of the shrunk picture is 3.75 of the whole, each of 2 levels: its mean is exact but at the crop's
        # edges, where Pillow's crop stops and a shrunk pixel reaches over it by up to one pixel: 3.75 · 2 levels.
        assert difference(host, device) <= 8
        assert difference(host[:, 3:-3, 3:-3], device[:, 3:-3, 3:-3]) <= 4


@pytest.mark.parametrize("size", [(9000, 1), (1, 9000), (9000, 700), (33, 2)])
def test_a_strip_of_one_colour_stays_that_colour(size: tuple[int, int]) -> None:
    transform = training(FACTS, on_device=True)
    still = transform.still(Image.new("RGB", size, (10, 200, 255)))
    for seed in range(30):
        view = transform.drawn(still, np.random.default_rng(seed)).shrunk(size, still.image.size)
        got = cut(torch.from_numpy(np.array(still.image))[None], [view], 16, "bicubic")
        assert (got == torch.tensor([10, 200, 255])).all()


def test_a_view_of_a_shrunk_picture_has_at_least_one_pixel_of_it() -> None:
    assert View(500, 0, 2, 1, True).shrunk((1000, 1), (10, 1)) == View(5, 0, 1.0, 1.0, True)
    assert View(998, 0, 2, 1, True).shrunk((1000, 1), (10, 1)) == View(9, 0, 1.0, 1.0, True)
    assert View(500, 10, 200, 40, False).shrunk((1000, 50), (100, 50)) == View(50, 10, 20, 40, False)


def test_where_a_crop_is_made_is_part_of_what_pixels_depend_on() -> None:
    assert training(FACTS).to_json() != training(FACTS, on_device=True).to_json()
    assert "on_device" not in training(FACTS).to_json()


def test_tensorflows_way_is_the_hosts_alone() -> None:
    facts = replace(FACTS, interpolation="tf1_bicubic", antialias=False)
    with pytest.raises(UserError) as error:
        training(facts, on_device=True)
    assert str(error.value) == (
        "--augment-on device: this network's pictures are resized by tf1_bicubic, on the host alone; leave it out"
    )


@pytest.mark.parametrize("transform", [evaluation(FACTS), training(FACTS), training(FACTS, on_device=True)])
def test_the_cache_keeps_what_fits_and_decodes_it_once(
    split: Split, transform: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    decode = loading.load_picture

    def counted(split: Split, index: int, *, exif: bool) -> Image.Image:
        decoded.append(index)
        return decode(split, index, exif=exif)

    monkeypatch.setattr(loading, "load_picture", counted)
    whole, small = PictureCache(10**6), PictureCache(3 * 16 * 16)
    for epoch in range(3):
        list(batches(split, transform, batch_size=4, workers=0, seed=1, epoch=epoch, cache=whole))  # type: ignore[arg-type]
    assert sorted(decoded) == list(range(7))
    decoded.clear()
    for epoch in range(3):
        list(batches(split, transform, batch_size=4, workers=0, seed=1, epoch=epoch, cache=small))  # type: ignore[arg-type]
    assert len(decoded) == 7 + 2 * 6 if transform == evaluation(FACTS) else 7 < len(decoded) < 21
    assert 0 < small.bytes <= small.limit


def test_an_evaluation_keeps_its_crop_not_the_whole_picture(split: Split) -> None:
    cache = PictureCache(10**6)
    list(batches(split, evaluation(FACTS), batch_size=4, cache=cache))
    assert cache.bytes == 7 * 3 * 16 * 16
