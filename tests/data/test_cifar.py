import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets import cifar as torchvision_cifar

from sparse_transfer.core.errors import UserError
from sparse_transfer.data.readers.cifar import cifar_batch, read_cifar10, read_cifar100
from sparse_transfer.data.readers.found import Found
from sparse_transfer.data.split import Split
from support.datasets import cifar_pixels, lay_cifar10, lay_cifar100, python2_batch


@pytest.fixture
def no_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision checks the MD5 of the real archives; these are not they."""
    monkeypatch.setattr(torchvision_cifar, "check_integrity", lambda *_: True)


def pixels(split: Split) -> np.ndarray:
    rows = [path.rpartition("#") for path in split.paths]
    return np.stack([cifar_batch(split.root / file)[0][int(row)] for file, _, row in rows])


def compare(found: Found, oracle: type[CIFAR10], root: Path) -> None:
    for train, split in ((True, found.train), (False, found.test)):
        wanted = oracle(root, train=train)
        assert split.labels.tolist() == wanted.targets
        assert list(split.classes) == wanted.classes
        np.testing.assert_array_equal(pixels(split), wanted.data)


@pytest.mark.usefixtures("no_digests")
def test_cifar10_has_torchvisions_pixels_labels_and_order(tmp_path: Path) -> None:
    lay_cifar10(tmp_path, per_batch=12)
    found = read_cifar10(tmp_path)
    compare(found, CIFAR10, tmp_path)
    assert found.train.paths[11:13] == ("cifar-10-batches-py/data_batch_1#11", "cifar-10-batches-py/data_batch_2#0")
    assert (found.test.storage, set(found.test.sizes.tolist())) == ("cifar", {3072})


@pytest.mark.usefixtures("no_digests")
def test_cifar100_has_torchvisions_pixels_and_fine_labels(tmp_path: Path) -> None:
    lay_cifar100(tmp_path)
    compare(read_cifar100(tmp_path), CIFAR100, tmp_path)


def test_the_batches_may_lie_in_a_folder_of_another_name(tmp_path: Path) -> None:
    lay_cifar10(tmp_path).rename(tmp_path / "mine")
    found = read_cifar10(tmp_path / "mine")
    assert found.train.paths[0] == "mine/data_batch_1#0"
    assert pixels(found.train).shape == (15, 32, 32, 3)


def test_a_relative_folder_is_good_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lay_cifar10(tmp_path))
    assert read_cifar10(Path()).train.paths[0] == "cifar-10-batches-py/data_batch_1#0"


def test_a_missing_batch_makes_a_partial_copy(tmp_path: Path) -> None:
    (lay_cifar10(tmp_path) / "data_batch_4").unlink()
    found = read_cifar10(tmp_path)
    assert (len(found.train), found.absent) == (12, ("cifar-10-batches-py/data_batch_4",))


def test_the_written_out_pickle_is_one_to_python_itself() -> None:
    data = python2_batch(cifar_pixels(2), {"labels": [3, 4]})
    loaded = pickle.loads(data, encoding="latin1")
    np.testing.assert_array_equal(loaded["data"], cifar_pixels(2))
    assert loaded["labels"] == [3, 4]


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_batch_that_python_3_wrote_is_read_too(tmp_path: Path, protocol: int) -> None:
    """Protocol 2 spells bytes as ``_codecs.encode``; NumPy 2 names its module ``numpy._core``."""
    (tmp_path / "b").write_bytes(pickle.dumps({"data": cifar_pixels(3), "labels": [1, 2, 3]}, protocol=protocol))
    images, labels = cifar_batch(tmp_path / "b")
    np.testing.assert_array_equal(images, cifar_pixels(3).reshape(3, 3, 32, 32).transpose(0, 2, 3, 1))
    assert (images.dtype, labels.dtype, labels.tolist()) == (np.uint8, np.int64, [1, 2, 3])


def test_the_real_meta_file_of_python_2_is_read(tmp_path: Path, test_data: Path) -> None:
    base = lay_cifar10(tmp_path)
    (base / "batches.meta").write_bytes((test_data / "data/index_files/cifar10/batches.meta").read_bytes())
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    assert " ".join(read_cifar10(tmp_path).train.classes) == names


class Evil:
    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize(
    ("function", "said"),
    [(os.mkdir, "posix.mkdir"), (eval, "__builtin__.eval"), (np.load, "numpy.load"), (getattr, "__builtin__.getattr")],
)
def test_a_batch_that_asks_for_code_is_refused_by_name_and_nothing_runs(
    tmp_path: Path, function: object, said: str
) -> None:
    path = tmp_path / "data_batch_1"
    target = tmp_path / "made"
    path.write_bytes(pickle.dumps({"data": Evil(function, str(target)), "labels": [0]}, protocol=2))
    with pytest.raises(UserError) as caught:
        cifar_batch(path)
    assert caught.value.what == f'it is no whole CIFAR batch (it asks for "{said}", which is not data)'
    assert not target.exists()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 3072), dtype=np.int16),
        np.asfortranarray(cifar_pixels(2)),
        np.array([object(), None]),
        np.zeros((2, 3072), dtype=[("a", "u1")]),
    ],
    ids=["int16", "column-major", "objects", "records"],
)
def test_an_array_that_is_not_of_bytes_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    (tmp_path / "b").write_bytes(pickle.dumps({"data": array, "labels": [0, 1]}, protocol=2))
    with pytest.raises(UserError, match="no whole CIFAR batch"):
        cifar_batch(tmp_path / "b")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ([1, 2], "it is no CIFAR batch"),
        ({"labels": [1]}, 'no "data" and "labels" in it'),
        ({"data": cifar_pixels(1)}, 'no "data" and "labels" in it'),
        (
            {"data": cifar_pixels(3), "labels": [1]},
            "pictures of shape (3, 3072) with 1 labels, and 3,072 numbers each expected",
        ),
        (
            {"data": cifar_pixels(1), "labels": ["cat"]},
            "pictures of shape (1, 3072) with 1 labels, and 3,072 numbers each expected",
        ),
    ],
)
def test_a_pickle_of_something_else_is_refused(tmp_path: Path, content: object, what: str) -> None:
    (tmp_path / "b").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(UserError) as caught:
        cifar_batch(tmp_path / "b")
    assert str(caught.value).startswith(f"{tmp_path / 'b'}: {what}; fetch the ")


def test_a_label_without_a_class_is_refused(tmp_path: Path) -> None:
    base = lay_cifar10(tmp_path)
    (base / "test_batch").write_bytes(python2_batch(cifar_pixels(2), {"labels": [0, 10]}))
    with pytest.raises(UserError) as caught:
        read_cifar10(tmp_path)
    assert str(caught.value) == f"{base / 'test_batch'}: labels outside 0 to 9; fetch the archive again"


def test_a_batch_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = python2_batch(cifar_pixels(1), {"labels": [7]})
    path = tmp_path / "data_batch_1"
    for length in (*range(200), *range(200, len(whole) - 40, 311), *range(len(whole) - 40, len(whole))):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError):
            cifar_batch(path)
    path.write_bytes(whole)
    assert cifar_batch(path)[1].tolist() == [7]
