"""Pictures to what a backbone reads: the same functions for features, finetuning, evaluation and prediction.

Both transforms equal torchvision's on Pillow images bit for bit (tests/data/test_transforms.py), so features equal
those of the paper's code: Resize + CenterCrop, or RandomResizedCrop + RandomHorizontalFlip, then ToTensor, Normalize.
Networks whose preprocessing is ``tf1_bicubic`` get TensorFlow 1's way instead (data/tf_resize.py).

With ``on_device`` the random crop is drawn here and cut there, for a whole batch at once (data/views.py).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sparse_transfer.core.canonical import Json
from sparse_transfer.core.errors import UserError
from sparse_transfer.data.decode import MAX_PIXELS
from sparse_transfer.data.tf_resize import tf_resize
from sparse_transfer.data.views import View, cut
from sparse_transfer.models.preprocessing import Preprocessing

SCALE = (0.08, 1.0)  # share of the picture's area that a random crop covers (torchvision's default, and the paper's)
RATIO = (3 / 4, 4 / 3)  # its width over its height
TRIES = 10  # draws before the centre is taken instead
WHOLE = 2  # times the crop: pictures of that many pixels a side go to the device as they are, larger ones are shrunk

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Still:
    """What chance has no part in, of the work on a picture: the same in every epoch, so worth keeping.

    image: what is left to be looked at.   width, height: of the picture as it was decoded, px.
    """

    image: Image.Image
    width: int
    height: int


@dataclass(frozen=True)
class Transform:
    """One way from a picture to a backbone's input.

    preprocessing: sizes, interpolation, mean and std.   random: crop and flip at random (training).
    exif: the pictures are turned as their EXIF orientation says (``clean``), not left as stored (``cvpr2022``).
    on_device: of a random transform: crop, resize and flip are left to ``cut``.
    """

    preprocessing: Preprocessing
    random: bool = False
    exif: bool = False
    on_device: bool = False

    def __post_init__(self) -> None:
        if self.on_device and self.preprocessing.interpolation not in _RESAMPLING:
            raise UserError(
                f"this network's pictures are resized by {self.preprocessing.interpolation}, on the host alone",
                where="--augment-on device",
                do="leave it out",
            )

    def __call__(self, image: Image.Image, rng: np.random.Generator | None = None) -> NDArray[np.uint8]:
        """An RGB picture of any size -> [crop, crop, 3] uint8. ``rng`` draws crop and flip where ``random``."""
        still = self.still(image)
        return self.cut_one(still, self.drawn(still, rng)) if self.random else np.asarray(still.image)

    def still(self, image: Image.Image) -> Still:
        """All of the work that needs no draw: the evaluation's resize and crop, or the device's share of a picture."""
        facts = self.preprocessing
        if not self.random and facts.interpolation == "tf1_bicubic":
            centre = np.asarray(_tf_centre(image, facts.crop / facts.resize))
            return Still(Image.fromarray(tf_resize(centre, facts.crop)), *image.size)
        if not self.random:
            return Still(_centre(image, facts.resize, facts.crop, _RESAMPLING[facts.interpolation]), *image.size)
        return Still(self._shrunk(image) if self.on_device else image, *image.size)

    def drawn(self, still: Still, rng: np.random.Generator | None) -> View:
        """Draw crop and flip, in pixels of the picture as it was decoded: host and device draw the same."""
        if rng is None:
            raise ValueError("a random transform needs a generator")
        crop = random_crop(still.width, still.height, rng)
        return View(*crop, flipped=bool(rng.random() < 0.5))

    def cut_one(self, still: Still, view: View) -> NDArray[np.uint8]:
        """One view of one picture, by Pillow: [crop, crop, 3]."""
        facts = self.preprocessing
        found = still.image.crop((view.left, view.top, view.left + view.width, view.top + view.height))
        if facts.interpolation == "tf1_bicubic":
            found = Image.fromarray(tf_resize(np.asarray(found), facts.crop))
        else:
            found = found.resize((facts.crop, facts.crop), _RESAMPLING[facts.interpolation])
        return np.asarray(found.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if view.flipped else found)

    def normalise(self, images: Tensor) -> Tensor:
        """[B, H, W, 3] uint8 -> [B, 3, H, W] float32 in channels-last memory on the same device: (x/255 - mean)/std.

        In torchvision's order of operations, so equal to ToTensor + Normalize to the last bit.
        """
        facts = self.preprocessing
        if facts.channel_order == "bgr":
            images = images.flip(-1)
        pixels = images.to(torch.float32).div_(255)
        mean, std = (  # not blocking: else the host would wait for all that CUDA still has to do
            torch.tensor(values, dtype=torch.float32).to(images.device, non_blocking=True)
            for values in (facts.mean, facts.std)
        )
        return pixels.sub_(mean).div_(std).permute(0, 3, 1, 2)

    def inputs(self, images: Tensor, views: Sequence[View] = ()) -> Tensor:
        """What the backbone reads: [B, H, W, 3] uint8 -> [B, 3, crop, crop] float32, on the same device.

        views: one of each picture, where they are still to be cut.
        """
        if self.on_device:
            images = cut(images, views, self.preprocessing.crop, self.preprocessing.interpolation)
        return self.normalise(images)

    def to_json(self) -> dict[str, Json]:
        """What the pixels depend on: part of a feature cache's key, and of a run's identity."""
        told: dict[str, Json] = {
            "preprocessing": self.preprocessing.to_json(), "random": self.random, "exif": self.exif
        }  # fmt: skip
        return {**told, "on_device": WHOLE * self.preprocessing.crop} if self.on_device else told

    def _shrunk(self, image: Image.Image) -> Image.Image:
        """At most ``WHOLE`` times the crop a side, each side alone: what is cut from it has the picture's detail."""
        side = WHOLE * self.preprocessing.crop
        size = (min(image.width, side), min(image.height, side))
        return image if size == image.size else image.resize(size, _RESAMPLING[self.preprocessing.interpolation])


def evaluation(preprocessing: Preprocessing, *, exif: bool = False) -> Transform:
    """Shorter side to ``resize``, centre crop."""
    return Transform(preprocessing, exif=exif)


def training(preprocessing: Preprocessing, *, exif: bool = False, on_device: bool = False) -> Transform:
    """A random crop of 8 to 100 % of the area, ratio 3/4 to 4/3, resized to ``crop``; flipped half of the time."""
    return Transform(preprocessing, random=True, exif=exif, on_device=on_device)


def random_crop(width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw (left, top, width, height) as torchvision's ``RandomResizedCrop.get_params`` does."""
    area = width * height
    for _ in range(TRIES):
        wanted = area * rng.uniform(*SCALE)
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(wanted * ratio)), round(math.sqrt(wanted / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = int(rng.integers(0, height - h + 1))
            left = int(rng.integers(0, width - w + 1))
            return left, top, w, h
    w, h = width, height
    if width / height < RATIO[0]:
        h = round(width / RATIO[0])
    elif width / height > RATIO[1]:
        w = round(height * RATIO[1])
    return (width - w) // 2, (height - h) // 2, w, h


def _centre(image: Image.Image, resize: int, crop: int, resampling: Image.Resampling) -> Image.Image:
    short, long = sorted(image.size)
    longer = int(resize * long / short)  # torchvision truncates here
    if resize * longer > MAX_PIXELS:
        raise UserError(
            f"a picture of {image.width} × {image.height} px would become {resize} × {longer:,} px", do="cut it"
        )
    size = (resize, longer) if image.width <= image.height else (longer, resize)
    if image.size != size:
        image = image.resize(size, resampling)
    left, top = round((size[0] - crop) / 2), round((size[1] - crop) / 2)
    return image.crop((left, top, left + crop, top + crop))


def _tf_centre(image: Image.Image, share: float) -> Image.Image:
    """The centre square of that share of the shorter side, at least 1 px; an odd rest goes before it.

    google-research/google-research, state_of_sparsity/sparse_rn50/resnet_preprocessing.py, _decode_and_center_crop.
    """
    side = max(1, int(np.float32(share) * np.float32(min(image.size))))
    left, top = (image.width - side + 1) // 2, (image.height - side + 1) // 2
    return image.crop((left, top, left + side, top + side))
