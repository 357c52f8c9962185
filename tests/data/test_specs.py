from pathlib import Path

import pytest

from sparse_transfer.core.errors import UserError
from sparse_transfer.data.specs import datasets, find_spec, folder_spec

# Classes, training and test pictures, by the papers of the datasets and the split files of their archives.
PUBLISHED = {
    "aircraft": (100, 6667, 3333),
    "birds": (500, 32677, 8171),
    "caltech101": (101, 3030, 5647),
    "caltech256": (257, 15420, 15187),
    "cars": (196, 8144, 8041),
    "cifar10": (10, 50000, 10000),
    "cifar100": (100, 50000, 10000),
    "dtd": (47, 47 * 80, 47 * 40),
    "flowers": (102, 102 * 20, 6149),
    "food101": (101, 101 * 750, 101 * 250),
    "pets": (37, 3680, 3669),
    "SUN": (397, 397 * 50, 397 * 50),
    "imagenet": (1000, 1281167, 50 * 1000),
    "digits": (10, 1438, 359),
}


def test_the_twelve_datasets_of_the_paper_and_two_more_are_known_with_their_sizes() -> None:
    known = {name: datasets.get(name) for name in datasets}
    assert {name: (spec.classes, spec.train_size, spec.test_size) for name, spec in known.items()} == PUBLISHED


def test_five_datasets_are_measured_by_the_mean_per_class() -> None:
    measured = {name for name in datasets if datasets.get(name).metric == "mean_per_class"}
    assert measured == {"aircraft", "caltech101", "caltech256", "flowers", "pets"}


def test_two_datasets_are_finetuned_at_a_higher_rate() -> None:
    rates = {name: datasets.get(name).finetune_lr for name in datasets}
    assert {name for name, rate in rates.items() if rate == 0.01} == {"aircraft", "cars"}
    assert set(rates.values()) == {0.01, 0.001}


@pytest.mark.parametrize("name", list(datasets))
def test_every_spec_says_where_it_comes_from_and_what_it_looks_like(name: str) -> None:
    spec = datasets.get(name)
    assert spec.name == name
    assert spec.address.startswith("https://")
    assert spec.licence
    assert spec.layouts
    assert all(0 < value < 1 for value in (*spec.mean, *spec.std))


@pytest.mark.parametrize("name", [name for name in datasets if datasets.get(name).downloader])
def test_a_downloader_is_a_class_of_torchvision(name: str) -> None:
    import torchvision.datasets

    assert isinstance(getattr(torchvision.datasets, datasets.get(name).downloader or ""), type)


def test_capitals_do_not_matter() -> None:
    assert find_spec("sun") is datasets.get("SUN")
    assert find_spec("CIFAR10") is datasets.get("cifar10")


@pytest.mark.parametrize(
    ("typed", "meant"), [("flower", "flowers"), ("sun397", "SUN"), ("food", "food101"), ("cifar-10", "cifar10")]
)
def test_a_near_miss_suggests_the_name(typed: str, meant: str) -> None:
    with pytest.raises(UserError) as caught:
        find_spec(typed)
    assert str(caught.value) == f'no dataset is called "{typed}"; did you mean "{meant}"?'


def test_a_folder_has_its_own_name_and_nothing_published(tmp_path: Path) -> None:
    spec = folder_spec(tmp_path / "my pictures" / ".." / "cats")
    assert spec.name == "folder-cats"
    assert (spec.classes, spec.train_size, spec.test_size, spec.metric) == (None, None, None, "top1")
