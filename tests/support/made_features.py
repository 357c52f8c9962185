"""Features made by code: non-negative and correlated, as pooled ReLU features are, with classes that overlap."""

import numpy as np
from numpy.typing import NDArray

MEAN_SQUARE = 0.5  # of a feature; a ResNet-50's have 0.3 to 1.1


def made_features(
    images: int, width: int, classes: int, *, seed: int = 0, spread: float = 1.0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """[N, D] float32 and [N] int64: ReLU of a random map of latent class means plus noise of ``spread``."""
    random = np.random.default_rng(seed)
    latent = max(4, width // 2)
    scales = (1 + np.arange(latent)) ** -0.6
    labels = np.arange(images, dtype=np.int64) % classes
    random.shuffle(labels)
    codes = (
        random.standard_normal((classes, latent))[labels] + spread * random.standard_normal((images, latent))
    ) * scales
    mixed = (
        codes @ random.standard_normal((latent, width)) / np.sqrt((scales**2).sum()) + random.standard_normal(width) / 2
    )
    features = np.maximum(mixed, 0)
    features *= np.sqrt(MEAN_SQUARE / np.mean(features**2))
    return features.astype(np.float32), labels
