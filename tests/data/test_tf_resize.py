"""TensorFlow 1's resizing, against torch's bicubic sampling at the same coordinates, and by hand."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import grid_sample

from sparse_transfer.core.errors import UserError
from sparse_transfer.data.tf_resize import tf_resize
from sparse_transfer.data.transforms import evaluation, random_crop, training
from sparse_transfer.models import Preprocessing

RIGL = Preprocessing(interpolation="tf1_bicubic", antialias=False)


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def sampled(pixels: NDArray[np.uint8], size: int) -> NDArray[np.float64]:
    """Oracle: torch's kernel has the same a = -0.75 and border; its coordinates are said to be o · n_in / n_out."""
    height, width, _ = pixels.shape
    places = [torch.arange(size, dtype=torch.float64) * n / size for n in (height, width)]
    y, x = (2 * place / max(n - 1, 1) - 1 for place, n in zip(places, (height, width), strict=True))
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)[None]
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].double()
    out = grid_sample(images, grid, mode="bicubic", padding_mode="border", align_corners=True)
    return out[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    ("height", "width", "size"), [(90, 64, 64), (64, 90, 64), (17, 33, 32), (200, 200, 64), (5, 3, 16), (512, 300, 128)]
)
def test_it_equals_bicubic_sampling_at_the_upper_left_corner_of_pixels(height: int, width: int, size: int) -> None:
    """At these sizes all fractions are multiples of 1/1024 (of 1/128), so that the table of steps is exact."""
    pixels = picture(height, width)
    expected = sampled(pixels, size).clip(0, 255)
    # Rounding to whole numbers, and float32 in the sums where torch has float64 here.
    assert np.abs(tf_resize(pixels, size) - expected).max() <= 0.5 + 1e-3


def test_the_kernel_s_table_has_1024_steps() -> None:
    """224 from 300 px: fractions between the steps move a pixel by up to 0.2, as TensorFlow's do (research 9.8)."""
    pixels = picture(300, 300)
    difference = np.abs(tf_resize(pixels, 224) - sampled(pixels, 224).clip(0, 255))
    assert difference.max() < 0.5 + 0.25


def test_a_picture_of_that_size_stays_as_it_is_and_a_flat_one_flat() -> None:
    pixels = picture(40, 40)
    assert np.array_equal(tf_resize(pixels, 40), pixels)
    assert (tf_resize(np.full((31, 77, 3), 93, np.uint8), 50) == 93).all()


def test_half_a_pixel_by_hand() -> None:
    """4 → 8: at x.5 the taps weigh -3/32, 19/32, 19/32, -3/32 (a = -0.75); beyond the border its pixel goes on."""
    column = np.array([0, 32, 96, 200], dtype=np.uint8)
    pixels = np.repeat(np.repeat(column[:, None], 4, axis=1)[:, :, None], 3, axis=2)
    found = tf_resize(pixels, 8)[:, 0, 0].tolist()
    by_hand = [
        0,
        (-3 * 0 + 19 * 0 + 19 * 32 - 3 * 96) / 32,
        32,
        (-3 * 0 + 19 * 32 + 19 * 96 - 3 * 200) / 32,
        96,
        (-3 * 32 + 19 * 96 + 19 * 200 - 3 * 200) / 32,
        200,
        (-3 * 96 + 19 * 200 + 19 * 200 - 3 * 200) / 32,
    ]
    assert found == [round(value) for value in by_hand]


def test_it_is_neither_pillow_s_bicubic_nor_close_to_it() -> None:
    pixels = picture(400, 400)
    pillow = np.asarray(Image.fromarray(pixels).resize((224, 224), Image.Resampling.BICUBIC)).astype(float)
    assert np.abs(tf_resize(pixels, 224) - pillow).mean() > 15


@pytest.mark.parametrize(
    ("width", "height", "left", "top", "side"),
    # side = int(0.875 · shorter), offset = (rest + 1) // 2: an odd rest is larger before the square than after it
    [
        (256, 256, 16, 16, 224),
        (500, 375, 86, 24, 328),
        (333, 500, 21, 105, 291),
        (377, 375, 25, 24, 328),
        (9, 8, 1, 1, 7),
        (1, 1, 0, 0, 1),
    ],
)
def test_the_square_is_cut_before_it_is_resized(width: int, height: int, left: int, top: int, side: int) -> None:
    pixels = picture(height, width)
    expected = tf_resize(pixels[top : top + side, left : left + side], 224)
    assert np.array_equal(evaluation(RIGL)(Image.fromarray(pixels)), expected)


def test_a_training_view_is_a_random_crop_resized_the_same_way() -> None:
    pixels = picture(60, 80)
    for seed in range(6):
        found = training(RIGL)(Image.fromarray(pixels), np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        left, top, width, height = random_crop(80, 60, rng)
        expected = tf_resize(pixels[top : top + height, left : left + width], 224)
        assert np.array_equal(found, expected[:, ::-1] if rng.random() < 0.5 else expected)


def test_it_is_kept_and_changes_what_features_are_called() -> None:
    assert Preprocessing.from_json(RIGL.to_json()) == RIGL
    assert evaluation(RIGL).to_json() != evaluation(Preprocessing(interpolation="bicubic")).to_json()


@pytest.mark.parametrize(
    ("interpolation", "antialias", "sentence"),
    [
        ("tf1_bicubic", True, "preprocessing: tf1_bicubic with antialias; tf1_bicubic has none, the others do"),
        ("bilinear", False, "preprocessing: bilinear without antialias; tf1_bicubic has none, the others do"),
        (
            "nearest",
            True,
            'the interpolation is "nearest"; there are "bilinear", "bicubic", "tf1_bicubic"',
        ),
    ],
)
def test_what_cannot_be_done_is_refused(interpolation: str, antialias: bool, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        Preprocessing(interpolation=interpolation, antialias=antialias)  # type: ignore[arg-type]
    assert str(caught.value) == sentence
