"""What every data set's spec and reader have to hold."""

import json
from pathlib import Path

import pytest

from sparse_transfer.core.errors import UserError
from sparse_transfer.data.reading import parse, read
from sparse_transfer.data.specs import CLASS_FOLDERS, datasets, folder_spec
from support.datasets import lay_folders

NAMES = list(datasets)
ON_DISK = [name for name in NAMES if not datasets.get(name).built_in]
IN_CLASS_FOLDERS = [name for name in NAMES if CLASS_FOLDERS in datasets.get(name).layouts]
TWELVE = {
    "aircraft", "birds", "caltech101", "caltech256", "cars", "cifar10", "cifar100", "dtd", "flowers", "food101", "pets",
    "SUN",
}  # fmt: skip


def test_the_twelve_of_the_paper_are_there_in_class_folders_too() -> None:
    assert set(NAMES) >= TWELVE
    assert set(IN_CLASS_FOLDERS) >= TWELVE


def test_the_mean_per_class_is_the_headline_of_exactly_five() -> None:
    # robust-models-transfer, src/main.py: the data sets for which per-class accuracy is allowed.
    measured = {name for name in NAMES if datasets.get(name).metric == "mean_per_class"}
    assert measured == {"aircraft", "caltech101", "caltech256", "flowers", "pets"}
    assert {datasets.get(name).metric for name in NAMES} == {"top1", "mean_per_class"}


@pytest.mark.parametrize("name", NAMES)
def test_the_facts_are_there_and_plain(name: str) -> None:
    spec = datasets.get(name)
    assert spec.name == name
    assert spec.classes is not None
    assert spec.train_size is not None
    assert spec.test_size is not None
    assert 2 <= spec.classes <= min(spec.train_size, spec.test_size)
    assert all((spec.title, spec.licence, spec.layouts))
    assert spec.address.startswith("https://")
    assert all(0 < number < 1 for number in (*spec.mean, *spec.std))
    facts = json.loads(json.dumps(spec.facts()))
    assert facts["classes"] == spec.classes
    assert "reader" not in facts


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_downloaded_says_why(name: str) -> None:
    spec = datasets.get(name)
    if spec.dead:
        assert spec.downloader is None, "a dead address and a downloader contradict each other"
    assert spec.downloader or spec.dead or spec.built_in or "registration" in spec.licence


@pytest.mark.parametrize("name", NAMES)
def test_its_word_leads_to_it_in_any_case_of_letters(name: str, tmp_path: Path) -> None:
    spec = datasets.get(name)
    word = name.upper() if spec.built_in else f"{name.upper()}:{tmp_path}"
    assert parse(word)[0] is spec


@pytest.mark.parametrize("name", ON_DISK)
def test_an_empty_folder_is_refused_with_a_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        datasets.get(name).reader(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert caught.value.do


@pytest.mark.parametrize("name", ON_DISK)
def test_a_folder_that_is_not_there_is_refused_with_a_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read(datasets.get(name), tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in str(caught.value)


@pytest.mark.parametrize("name", IN_CLASS_FOLDERS)
def test_prepared_class_folders_are_read_in_order_and_called_partial(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lay_folders(tmp_path, {"train": {"b": 2, "A": 3}, "test": {"A": 1, "b": 4}})
    splits = read(datasets.get(name), tmp_path)
    assert splits.train.classes == splits.test.classes == ("A", "b")
    assert splits.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert splits.test.labels.tolist() == [0, 1, 1, 1, 1]
    assert splits.train.paths == ("train/A/0.jpg", "train/A/1.jpg", "train/A/2.jpg", "train/b/0.jpg", "train/b/1.jpg")
    assert splits.partial is not None
    assert f"2 of {datasets.get(name).classes:,} classes" in splits.partial
    assert splits.partial in capsys.readouterr().err


def test_imagenet_has_its_validation_pictures_as_test(tmp_path: Path) -> None:
    lay_folders(tmp_path, {"train": {"n01440764": 2, "n01443537": 1}, "val": {"n01440764": 1, "n01443537": 1}})
    splits = read(datasets.get("imagenet"), tmp_path)
    assert (len(splits.train), len(splits.test), splits.val) == (3, 2, None)


@pytest.mark.parametrize("name", [name for name in NAMES if datasets.get(name).built_in])
def test_what_is_built_in_has_its_published_size_and_every_class(name: str) -> None:
    spec = datasets.get(name)
    splits = read(*parse(name))
    assert (len(splits.train), len(splits.test)) == (spec.train_size, spec.test_size)
    assert len(splits.train.classes) == spec.classes
    assert splits.train.counts().min() > 0
    assert splits.partial is None


def test_a_folder_of_anybodys_promises_no_size(tmp_path: Path) -> None:
    lay_folders(tmp_path, {"train": {"a": 1, "b": 1}, "test": {"a": 1, "b": 1}})
    spec = folder_spec(tmp_path)
    assert spec.metric == "top1"
    assert read(spec, tmp_path).partial is None
