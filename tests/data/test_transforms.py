"""Both transforms against torchvision's on Pillow images: equal bytes, and floats equal to the last bit."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import ks_2samp
from torch import Tensor
from torchvision import transforms as oracle
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from sparse_transfer.core.errors import UserError
from sparse_transfer.data.transforms import evaluation, random_crop, training
from sparse_transfer.models import Preprocessing

MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng((seed, width, height)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def torchvision_evaluation(facts: Preprocessing) -> oracle.Compose:
    return oracle.Compose([oracle.Resize(facts.resize, MODES[facts.interpolation]), oracle.CenterCrop(facts.crop)])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    "size", [(1, 1), (3, 300), (400, 4), (256, 256), (255, 257), (500, 375), (333, 500), (224, 100)]
)
def test_evaluation_equals_torchvision_byte_for_byte(size: tuple[int, int], interpolation: str) -> None:
    facts = Preprocessing(interpolation=interpolation)
    image = picture(*size)
    assert np.array_equal(evaluation(facts)(image), np.asarray(torchvision_evaluation(facts)(image)))


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    resize=st.integers(1, 70),
    share=st.floats(0.01, 1),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
)
@example(width=7, height=5, resize=33, share=1, interpolation="bilinear")  # 33 * 7 / 5 = 46.2 is cut, not rounded
@example(width=5, height=4, resize=6, share=0.6, interpolation="bicubic")  # (6 - 3) / 2 and (7 - 3) / 2: half to even
def test_any_size_equals_torchvision(width: int, height: int, resize: int, share: float, interpolation: str) -> None:
    facts = Preprocessing(resize=resize, crop=max(1, int(share * resize)), interpolation=interpolation)
    image = picture(width, height)
    assert np.array_equal(evaluation(facts)(image), np.asarray(torchvision_evaluation(facts)(image)))


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_normalise_equals_totensor_and_normalize_to_the_last_bit(order: str) -> None:
    facts = replace(Preprocessing(), channel_order=order, mean=(0.5, 0.4, 0.3), std=(0.21, 0.22, 0.23))
    images = [picture(24, 24, seed) for seed in range(3)]
    batch = torch.stack([torch.from_numpy(np.array(image)) for image in images])
    before = batch.clone()
    expected = torch.stack([F.to_tensor(image) for image in images])
    expected = F.normalize(expected.flip(1) if order == "bgr" else expected, facts.mean, facts.std)
    got = evaluation(facts).normalise(batch)
    assert torch.equal(got, expected)
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch, before)  # a batch may be normalised twice


class SameDraws:
    """Stands in for the ``torch`` of torchvision's transforms: draws come from a NumPy generator instead."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def __getattr__(self, name: str) -> object:
        return getattr(torch, name)

    def empty(self, _: int) -> SimpleNamespace:
        return SimpleNamespace(uniform_=lambda low, high: torch.tensor([self.rng.uniform(float(low), float(high))]))

    def randint(self, low: int, high: int, size: tuple[int]) -> Tensor:
        return torch.tensor(self.rng.integers(low, high, size))


@pytest.mark.parametrize("size", [(500, 375), (60, 90), (1, 1), (400, 4), (3, 300), (17, 17)])
def test_random_crops_equal_torchvisions_given_the_same_draws(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = oracle.transforms
    image = picture(*size)
    differing = 0
    for seed in range(100):
        monkeypatch.setattr(module, "torch", SameDraws(np.random.default_rng(seed)))
        top, left, height, width = oracle.RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3])
        monkeypatch.undo()
        differing += random_crop(*size, np.random.default_rng(seed)) != (left, top, width, height)
    # torchvision draws in float32, so a side may round to the other neighbour: sides of at most 500 px have a relative
    # float32 error of some 1e-7 · 500 = 5e-5 px, so 1 in 10,000 crops would differ; none of these 600 does
    assert differing == 0


def test_random_crops_have_torchvisions_distribution() -> None:
    image, size, draws = picture(300, 200), (300, 200), 2000
    rng = np.random.default_rng(0)
    generator = torch.get_rng_state()
    torch.manual_seed(0)
    theirs = np.array([oracle.RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(draws)])
    torch.set_rng_state(generator)
    ours = np.array([random_crop(*size, rng) for _ in range(draws)])[:, [1, 0, 3, 2]]
    for column in range(4):
        # false alarm 1e-4 for each of four, were the seeds not fixed
        assert ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-4
    # what has to hold for every draw
    assert ((ours[:, 0] + ours[:, 2] <= 200) & (ours[:, 1] + ours[:, 3] <= 300)).all()
    share = ours[:, 2] * ours[:, 3] / (300 * 200)
    assert share.min() > 0.075
    assert 0.85 < share.max() < 0.9  # 4:3 out of 3:2 is 8/9


@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 200), height=st.integers(1, 200), seed=st.integers(0, 2**32), bicubic=st.booleans())
def test_a_training_view_is_a_crop_resized_and_perhaps_flipped(
    width: int, height: int, seed: int, bicubic: bool
) -> None:
    facts = Preprocessing(resize=40, crop=32, interpolation="bicubic" if bicubic else "bilinear")
    image = picture(width, height)
    got = training(facts)(image, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    left, top, w, h = random_crop(width, height, rng)
    expected = F.resized_crop(image, top, left, h, w, [32, 32], MODES[facts.interpolation])
    if rng.random() < 0.5:
        expected = F.hflip(expected)
    assert np.array_equal(got, np.asarray(expected))


def test_half_of_the_views_are_flipped() -> None:
    # One column of red at the left, crops of nearly the whole: red on the right means flipped.
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pixels[:, :4] = 255
    transform = training(Preprocessing(resize=8, crop=8))
    flipped = 0
    for seed in range(400):
        view = transform(Image.fromarray(pixels), np.random.default_rng(seed)).astype(int)
        difference = int(view[:, 0].sum()) - int(view[:, -1].sum())
        flipped += (difference < 0) + 0.5 * (difference == 0)
    assert abs(flipped - 200) < 4 * math.sqrt(400 / 4)  # four standard deviations


def test_a_random_transform_without_a_generator_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a generator"):
        training(Preprocessing())(picture(9, 9))


def test_a_picture_that_would_become_a_strip_of_gigabytes_is_refused() -> None:
    with pytest.raises(UserError, match=r"a picture of 40000 × 1 px would become 256 × 10,240,000 px"):
        evaluation(Preprocessing())(Image.new("RGB", (40000, 1)))


def test_everything_that_changes_pixels_changes_the_json() -> None:
    plain = Preprocessing()
    variants = [
        evaluation(plain),
        training(plain),
        evaluation(plain, exif=True),
        evaluation(replace(plain, resize=232)),
        evaluation(replace(plain, crop=192)),
        evaluation(replace(plain, interpolation="bicubic")),
        evaluation(replace(plain, mean=(0.5, 0.5, 0.5))),
        evaluation(replace(plain, std=(0.5, 0.5, 0.5))),
        evaluation(replace(plain, channel_order="bgr")),
    ]
    texts = {str(transform.to_json()) for transform in variants}
    assert len(texts) == len(variants)
    assert evaluation(plain).to_json() == evaluation(Preprocessing()).to_json()
