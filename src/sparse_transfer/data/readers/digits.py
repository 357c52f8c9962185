"""scikit-learn's 8×8 digits: 1,797 small pictures that come with the package, for trying things out offline."""

from pathlib import Path

import numpy as np

from sparse_transfer.data.readers.found import Found
from sparse_transfer.data.split import Split, stratified_part

PICTURE_BYTES = 64  # 8 × 8, one byte each
TEST_SHARE = 0.2  # ours: the set has no official test part
SEED = 0


def read(root: Path) -> Found:
    """The digits in scikit-learn's order, cut 80/20 within each class with seed 0; ``root`` is not looked at."""
    from sklearn.datasets import load_digits

    labels = np.asarray(load_digits(return_X_y=True)[1], dtype=np.int64)
    whole = Split(
        name="train",
        root=root,
        paths=tuple(f"digits#{index}" for index in range(len(labels))),
        labels=labels,
        sizes=np.full(len(labels), PICTURE_BYTES, dtype=np.int64),
        classes=tuple("0123456789"),
        storage="digits",
    )
    return Found(*stratified_part(whole, TEST_SHARE, SEED, name="test"))
