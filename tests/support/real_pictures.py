"""Real pictures as batches, through torchvision's transforms and no code of ours."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

Transform = Callable[[Image.Image], Tensor]


def evaluation(resize: int, crop: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Transform:
    """Shorter side bilinear, centre crop, scaled to [0, 1] and normalised."""
    return v2.Compose(
        [
            v2.Resize(resize, interpolation=v2.InterpolationMode.BILINEAR),
            v2.CenterCrop(crop),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean, std),
        ]
    )


def imagenet_pictures(data: Path) -> list[tuple[int, str, Path]]:
    """(class index, wnid, file) of the 500 pictures whose class is odd: no sparse network was calibrated on them."""
    folder = data / "data" / "imagenet_sample"
    rows = [line.split("\t") for line in (folder / "labels.txt").read_text().splitlines()]
    return [(int(index), wnid, folder / file) for index, wnid, _, file in rows if int(index) % 2]


def topk(
    network: Callable[[Tensor], Tensor], pictures: list[tuple[int, Path]], transform: Transform, k: int = 5
) -> tuple[float, float]:
    """(top-1, top-k) as shares, in batches of 20."""
    first = any_ = 0
    with torch.no_grad():
        for start in range(0, len(pictures), 20):
            part = pictures[start : start + 20]
            images = torch.stack([transform(Image.open(path).convert("RGB")) for _, path in part])
            labels = torch.tensor([label for label, _ in part])
            hits = network(images).topk(k).indices == labels[:, None]
            first += int(hits[:, 0].sum())
            any_ += int(hits.sum())
    return first / len(pictures), any_ / len(pictures)


def cifar10(data: Path, mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """The 250 test pictures in their original pixels: images [250, 3, 32, 32] normalised, labels [250]."""
    with np.load(data / "data" / "cifar10_small.npz", allow_pickle=False) as file:
        images = torch.from_numpy(file["x_test"]).permute(0, 3, 1, 2).float() / 255
        labels = torch.from_numpy(file["y_test"])
    return v2.functional.normalize(images, list(mean), list(std)), labels
