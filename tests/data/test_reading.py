from pathlib import Path

import pytest

from sparse_transfer.core.errors import UserError
from sparse_transfer.data.reading import dataset, parse, read
from sparse_transfer.data.specs import find_spec
from support.datasets import lay, lay_flowers, lay_folders

TWO = {"a": 2, "b": 2}


def refusal(word: str) -> str:
    with pytest.raises(UserError) as caught:
        dataset(word)
    return str(caught.value)


def test_a_word_names_a_dataset_and_its_folder() -> None:
    spec, root = parse("SUN:some where/with:colon")
    assert (spec.name, root) == ("SUN", Path("some where/with:colon"))


def test_a_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert parse("pets:~/pets")[1] == Path("/home/someone/pets")


def test_without_a_folder_the_data_root_is_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPARSE_TRANSFER_DATA", str(tmp_path))
    assert parse("sun")[1] == tmp_path / "SUN"


def test_without_a_folder_and_a_data_root_both_ways_out_are_named() -> None:
    with pytest.raises(UserError) as caught:
        parse("pets")
    assert str(caught.value) == "pets: no folder is named; write pets:PATH, or set SPARSE_TRANSFER_DATA"


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("pets:", '"pets:": the folder after the colon is missing; write pets:PATH'),
        ("folder", '"folder": it needs a folder; write folder:PATH'),
        ("digits:data", '"digits:data": digits comes with a package and has no folder; write digits'),
        ("pet:data", 'no dataset is called "pet"; did you mean "pets"?'),
    ],
)
def test_a_word_that_says_too_little_or_too_much_is_refused(word: str, sentence: str) -> None:
    assert refusal(word) == sentence


def test_a_bare_folder_is_told_how_to_be_written(tmp_path: Path) -> None:
    assert refusal(str(tmp_path)) == (
        f'no dataset is called "{tmp_path}"; for the pictures in that folder write folder:{tmp_path}'
    )


def test_the_digits_need_no_folder() -> None:
    splits = dataset("digits")
    assert (splits.dataset, len(splits.train), len(splits.test), splits.partial) == ("digits", 1438, 359, None)


def test_a_folder_that_is_not_there_suggests_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    assert (
        refusal(f"pets:{tmp_path}/pet") == f'{tmp_path}/pet: there is no such folder; did you mean "{tmp_path}/pets"?'
    )
    assert refusal(f"pets:{tmp_path}/x/y") == (
        f"{tmp_path}/x/y: there is no such folder; the folder above is not there either"
    )


def test_an_archive_is_not_a_folder(tmp_path: Path) -> None:
    lay(tmp_path, "pets.tar")
    assert refusal(f"pets:{tmp_path}/pets.tar") == (
        f"{tmp_path}/pets.tar: this is a file, not a folder; unpack it, and give the folder"
    )


def test_a_partial_copy_is_read_and_says_its_exact_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lay_folders(tmp_path, {"train": TWO, "test": {"a": 1, "b": 2}})
    partial = read(find_spec("pets"), tmp_path).partial
    assert partial == (
        "pets: this copy has 2 of 37 classes, 4 of 3,680 training pictures, 3 of 3,669 test pictures; "
        "results do not compare with published ones"
    )
    assert capsys.readouterr() == ("", f"warning: {partial}\n")


def test_listed_pictures_that_are_not_on_disk_are_left_out_and_named(tmp_path: Path) -> None:
    (lay_flowers(tmp_path) / "jpg" / "image_00001.jpg").unlink()
    splits = dataset(f"flowers:{tmp_path}")
    assert len(splits.train) == 3
    assert splits.partial is not None
    assert (
        '3 of 2,040 training pictures, 6 of 6,149 test pictures, and not 1 file of its lists ("jpg/image_00001.jpg")'
        in (splits.partial)
    )


def test_anybodys_pictures_are_never_partial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lay_folders(tmp_path / "cats", {"train": TWO, "test": TWO})
    lay(tmp_path, "cats/train/a/notes.txt")
    splits = dataset(f"folder:{tmp_path}/cats")
    assert (splits.dataset, splits.partial) == ("folder-cats", None)
    assert (
        capsys.readouterr().err
        == f'{tmp_path}/cats: left out 1 file without a picture extension ("train/a/notes.txt")\n'
    )


def test_more_classes_than_the_dataset_has_is_another_dataset(tmp_path: Path) -> None:
    classes = {f"c{index}": 1 for index in range(11)}
    lay_folders(tmp_path, {"train": classes, "test": classes})
    assert refusal(f"cifar10:{tmp_path}") == (
        f"{tmp_path}: 11 classes, and cifar10 has 10; "
        f"give the folder of CIFAR-10, or read your own as folder:{tmp_path}"
    )


def test_a_folder_too_low_or_too_high_names_the_right_one(tmp_path: Path) -> None:
    lay_folders(tmp_path / "sets" / "pets", {"train": TWO, "test": TWO})
    lay_flowers(tmp_path / "sets" / "oxford")
    pets = tmp_path / "sets" / "pets"
    assert refusal(f"pets:{pets}/train") == f'{pets}/train: this is the "train" part of a dataset; give {pets}'
    assert refusal(f"pets:{tmp_path}/sets") == (
        f"{tmp_path}/sets: this is no dataset, one folder below is; give {pets}"
    )
    lay_folders(tmp_path / "sets" / "cars", {"train": TWO, "test": TWO})
    assert refusal(f"pets:{tmp_path}/sets") == (  # and not "one of" the two that lie there
        f"{tmp_path}/sets: this is no dataset, one folder below is; give {pets}"
    )
    jpg = tmp_path / "sets" / "oxford" / "flowers-102" / "jpg"
    assert refusal(f"flowers:{jpg}") == f"{jpg}: this is no dataset, one folder above is; give {jpg.parent}"


def test_a_folder_with_neither_layout_says_what_was_looked_for(tmp_path: Path) -> None:
    lay(tmp_path, "readme.txt")
    assert refusal(f"flowers:{tmp_path}") == (
        f'{tmp_path}: neither setid.mat nor train and test folders, only "readme.txt"; give the folder that holds them'
    )
    assert refusal(f"imagenet:{tmp_path}") == (
        f'{tmp_path}: no train and val folders, only "readme.txt"; give the folder that holds them'
    )
