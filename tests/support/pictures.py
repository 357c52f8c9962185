"""Small labelled pictures made by code: three classes that a random network can tell apart by colour and pattern."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("blue stripes", "green checks", "red dots")


def picture(label: int, rng: np.random.Generator, side: int = 40) -> Image.Image:
    """One RGB picture of that class, with noise."""
    rows, columns = np.mgrid[0:side, 0:side]
    pattern = ((columns // 4) % 2, (rows // 5 + columns // 5) % 2, ((rows % 8 < 3) & (columns % 8 < 3)).astype(int))[
        label
    ]
    colour = np.array([(30, 60, 220), (40, 200, 60), (220, 40, 40)][label])
    values = pattern[..., None] * colour + rng.normal(60, 25, (side, side, 3))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def class_folders(root: Path, *, train: int = 12, test: int = 6, seed: int = 0) -> Path:
    """``root/{train,test}/CLASS/NN.png``."""
    rng = np.random.default_rng(seed)
    for part, count in (("train", train), ("test", test)):
        for label, name in enumerate(CLASSES):
            folder = root / part / name
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                picture(label, rng).save(folder / f"{index:02d}.png")
    return root
