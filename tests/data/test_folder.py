import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from sparse_transfer.core.errors import UserError
from sparse_transfer.core.places import cache_root
from sparse_transfer.data.readers import folder as folder_module
from sparse_transfer.data.readers import found as found_module
from sparse_transfer.data.readers.folder import SPLIT_FILE, read_folder, read_parts
from sparse_transfer.data.readers.found import PICTURE_EXTENSIONS, Found
from sparse_transfer.data.readers.imagenet import read as read_imagenet
from sparse_transfer.data.split import Split
from support.datasets import lay, lay_folders

TWO = {"a": 2, "b": 2}


def refusal(root: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_folder(root)
    return str(caught.value)


def by_path(split: Split) -> dict[str, int]:
    return dict(zip(split.paths, split.labels.tolist(), strict=True))


def test_the_extensions_are_torchvisions() -> None:
    assert frozenset(IMG_EXTENSIONS) == PICTURE_EXTENSIONS


def test_classes_and_labels_are_those_of_image_folder(tmp_path: Path) -> None:
    names = ("ä b/x.JPG", "ä b/deep/er/y.png", "Zebra/1.webp", "Zebra/10.TIF", "Zebra/2.jpeg", "a/ .jpg", "a/q.gif")
    for part in ("train", "test"):
        lay(tmp_path / part, *names)
    found = read_parts(tmp_path)
    for part, split in (("train", found.train), ("test", found.test)):
        oracle = ImageFolder(str(tmp_path / part))
        assert list(split.classes) == oracle.classes
        assert by_path(split) == {os.path.relpath(path, tmp_path): label for path, label in oracle.samples}
    assert found.others == ("train/a/q.gif", "test/a/q.gif")


def test_real_sets_have_the_labels_of_image_folder(test_data: Path) -> None:
    sizes = {"flowers": (192, 96), "pets": (222, 148), "caltech101": (404, 202), "dtd": (90, 60), "birds": (180, 120)}
    for name, (train, test) in {**sizes, "cifar10_folder": (500, 200)}.items():
        found = read_folder(test_data / "data" / name)
        assert (len(found.train), len(found.test)) == (train, test), name
        for part, split in (("train", found.train), ("test", found.test)):
            oracle = ImageFolder(str(split.root / part))
            assert by_path(split) == {os.path.relpath(path, split.root): label for path, label in oracle.samples}
            assert split.sizes.tolist() == [os.path.getsize(split.root / path) for path in split.paths]


def test_the_order_is_that_of_the_bytes_however_the_disk_lists_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(tmp_path, *(f"{part}/{name}" for part in ("train", "test") for name in ("b/2", "b/10", "B/é", "B/z", "é/1")))
    for file in [path for path in tmp_path.rglob("*") if path.is_file()]:
        file.rename(file.with_name(f"{file.name}.png"))
    paths = ["train/B/z.png", "train/B/é.png", "train/b/10.png", "train/b/2.png", "train/é/1.png"]
    assert list(read_parts(tmp_path).train.paths) == paths

    listing = os.scandir

    class Reversed:
        def __init__(self, folder: Path) -> None:
            with listing(folder) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> Iterator[os.DirEntry[str]]:
            return iter(self.entries)

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(found_module.os, "scandir", Reversed)
    assert list(read_parts(tmp_path).train.paths) == paths


def test_hidden_files_and_folders_are_passed_over_without_a_word(tmp_path: Path) -> None:
    lay_folders(tmp_path, {"train": TWO, "test": TWO})
    lay(tmp_path, "train/a/._0.jpg", "train/.cache/x.jpg", "train/a/.thumbs/0.jpg", "test/.DS_Store")
    found = read_parts(tmp_path)
    assert (found.train.classes, len(found.train), found.others) == (("a", "b"), 4, ())


def test_links_are_followed_a_broken_one_is_counted_and_a_circle_ends(tmp_path: Path) -> None:
    lay_folders(tmp_path, {"train": TWO, "test": TWO})
    lay(tmp_path, "elsewhere/far.jpg")
    (tmp_path / "train" / "a" / "far.jpg").symlink_to(tmp_path / "elsewhere" / "far.jpg")
    (tmp_path / "train" / "a" / "deep").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "train" / "a" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "elsewhere")
    found = read_parts(tmp_path)
    extra = set(found.train.paths) - {f"train/{name}/{index}.jpg" for name in "ab" for index in (0, 1)}
    assert extra == {"train/a/far.jpg", "train/a/deep/far.jpg"}
    assert found.others == ("train/a/gone.jpg",)


@pytest.mark.parametrize("name", ["val", "valid", "validation", "test"])
def test_the_second_part_may_have_any_of_four_names(tmp_path: Path, name: str) -> None:
    lay_folders(tmp_path, {"train": TWO, name: TWO})
    found = read_folder(tmp_path)
    assert (found.test.name, found.test.paths[0], found.val) == ("test", f"{name}/a/0.jpg", None)


def test_with_three_parts_the_middle_one_is_the_validation(tmp_path: Path) -> None:
    lay_folders(tmp_path, {"train": TWO, "valid": {"a": 1, "b": 1}, "test": TWO})
    found = read_folder(tmp_path)
    assert found.val is not None
    assert (found.val.name, found.val.paths) == ("val", ("valid/a/0.jpg", "valid/b/0.jpg"))
    assert found.test.paths[0] == "test/a/0.jpg"


def test_imagenet_is_tested_on_val_even_beside_a_test_folder(tmp_path: Path) -> None:
    lay_folders(tmp_path, {"train": TWO, "val": TWO})
    lay(tmp_path, "test/ILSVRC2012_test_00000001.JPEG")
    found = read_imagenet(tmp_path)
    assert (found.test.paths[0], found.val) == ("val/a/0.jpg", None)


def test_classes_that_differ_are_named(tmp_path: Path) -> None:
    lay_folders(tmp_path, {"train": {"a": 1, "b": 1, "c": 1}, "test": {"a": 1, "d e": 1}})
    assert refusal(tmp_path) == (
        f'{tmp_path}: train and test have different class folders: 2 in train only ("b", "c"), 1 in test only ("d e"); '
        "make the class folders equal"
    )


def test_a_class_without_training_pictures_is_refused(tmp_path: Path) -> None:
    lay_folders(tmp_path, {"train": {"a": 1, "b": 0}, "test": TWO})
    assert refusal(tmp_path) == (
        f'{tmp_path}/train: no pictures in 1 of 2 class folders ("b"); '
        "fill them or take them away, from the other parts too"
    )


def test_a_class_without_test_pictures_is_taken(tmp_path: Path) -> None:
    lay_folders(tmp_path, {"train": TWO, "test": {"a": 1, "b": 0}})
    assert read_folder(tmp_path).test.counts().tolist() == [1, 0]


def test_class_folders_with_other_files_alone_say_their_extensions(tmp_path: Path) -> None:
    lay(lay_folders(tmp_path, {"train": TWO}), "test/a/1.gif", "test/b/2.HEIC", "test/b/notes")
    assert refusal(tmp_path) == (
        f"{tmp_path}/test: 2 class folders without one picture; "
        "it has only files ending in (none) .gif .heic, convert them"
    )


def test_folders_that_hold_nothing_to_read_say_what_they_hold(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path}: no class folders, it is empty; give the folder that holds them"
    lay(tmp_path, ".DS_Store", ".hidden/x.jpg")
    assert refusal(tmp_path) == f"{tmp_path}: no class folders, only 2 hidden files; give the folder that holds them"
    lay(tmp_path, "a.txt")
    assert refusal(tmp_path) == f'{tmp_path}: no class folders, only "a.txt"; give the folder that holds them'


def test_one_part_alone_says_which_is_missing(tmp_path: Path) -> None:
    lay_folders(tmp_path / "x", {"train": TWO})
    assert refusal(tmp_path / "x") == (
        f"{tmp_path}/x: train is there, test or val or valid or validation is not; add the test pictures"
    )
    lay_folders(tmp_path / "y", {"valid": TWO})
    assert refusal(tmp_path / "y") == f"{tmp_path}/y: valid is there, train is not; add the training pictures"


def test_a_folder_too_low_or_too_high_names_the_right_one(tmp_path: Path) -> None:
    flat = lay_folders(tmp_path / "flat" / "pictures", {"": TWO})
    assert refusal(tmp_path / "flat") == f"{tmp_path}/flat: this is no dataset, one folder below is; give {flat}"
    assert refusal(flat / "a") == (
        f"{flat}/a: 2 pictures directly in it, without class folders; "
        f"give the folder above, {flat}, or sort them into one folder a class"
    )
    parts = lay_folders(tmp_path / "sets" / "parts", {"train": TWO, "test": TWO})
    assert refusal(parts / "test") == f'{parts}/test: this is the "test" part of a dataset; give {parts}'
    assert refusal(tmp_path / "sets") == f"{tmp_path}/sets: this is no dataset, one folder below is; give {parts}"


# One level of class folders: the cut is ours, so it has to be seen, and to stay.


def cut(found: Found) -> dict[str, str]:
    return {path: split.name for split in (found.train, found.test) for path in split.paths}


def test_one_level_gives_a_fifth_of_each_class_to_the_test(tmp_path: Path) -> None:
    found = read_folder(lay_folders(tmp_path, {"": {"a": 10, "b": 4, "c": 1}}))
    assert found.test.counts().tolist() == [2, 1, 0]
    assert found.train.counts().tolist() == [8, 3, 1]


def test_the_cut_is_written_beside_the_pictures_and_read_again(tmp_path: Path) -> None:
    lay_folders(tmp_path, {"": {"a b": 5, "c": 5}})
    first = cut(read_folder(tmp_path))
    lines = (tmp_path / SPLIT_FILE).read_text().splitlines()
    assert lines == ["path,split", *(f"{path},{first[path]}" for path in sorted(first))]
    swapped = [line.replace(",test", ",train") if line.startswith("c/") else line for line in lines]
    (tmp_path / SPLIT_FILE).write_text("\n".join(swapped))
    assert read_folder(tmp_path).test.counts().tolist() == [1, 0]


def test_a_folder_that_cannot_be_written_keeps_its_cut_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = lay_folders(tmp_path / "pictures", {"": {"a": 5, "b": 5}})
    write = folder_module.atomic_write

    def refuse(path: Path) -> object:
        if path.parent == root:
            raise PermissionError(13, "Permission denied")
        return write(path)

    monkeypatch.setattr(folder_module, "atomic_write", refuse)
    first = cut(read_folder(root))
    assert not (root / SPLIT_FILE).exists()
    (kept,) = (cache_root() / "splits").iterdir()
    kept.write_text("path,split\n" + "".join(f"{path},test\n" for path in first if path != "a/0.jpg"))
    assert read_folder(root).train.paths == ("a/0.jpg",)


@settings(max_examples=15, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(2, 9), min_size=2),
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(10, 14)),
)
def test_the_cut_of_old_pictures_stays_when_others_come(before: dict[str, int], after: dict[str, int]) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        old = cut(read_folder(lay_folders(root, {"": before})))
        assert old == cut(read_folder(root))
        new = cut(read_folder(lay_folders(root, {"": after})))
    assert {path: new[path] for path in old} == old
    joined = {path: part for path, part in new.items() if path not in old}
    assert all(part == "train" for path, part in joined.items() if path[0] in before)
    # a class that is new as a whole is cut like the others: round(n / 5) of 10 to 14 pictures
    for name in after.keys() - before.keys():
        assert sum(part == "test" for path, part in joined.items() if path[0] == name) == round(after[name] / 5)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", None),
        ("a/0.jpg,test\n", 'the first line is not "path,split"; delete the file to cut anew'),
        ("path,split\na/0.jpg,val\n", "line 2 is not a path and train or test; put that line right"),
    ],
)
def test_a_cut_that_somebody_broke_names_the_line(tmp_path: Path, text: str, sentence: str | None) -> None:
    lay_folders(tmp_path, {"": TWO})
    (tmp_path / SPLIT_FILE).write_text(text)
    if sentence is None:
        assert len(read_folder(tmp_path).test) == 2
    else:
        assert refusal(tmp_path) == f"{tmp_path / SPLIT_FILE}: {sentence}"


def test_a_name_that_is_no_text_is_cut_like_any_other(tmp_path: Path) -> None:
    lay_folders(tmp_path, {"": {"a": 4, "b, c": 4}})
    Path(os.fsdecode(os.fsencode(tmp_path / "a") + b"/\xff\xfe.jpg")).write_bytes(b"x")
    first = cut(read_folder(tmp_path))
    assert len(first) == 9
    assert cut(read_folder(tmp_path)) == first


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    lay_folders(tmp_path, {"": {"a": 4}})
    assert refusal(tmp_path) == f'{tmp_path}: "a" is the only class folder; add a second class'


def test_a_cut_without_training_pictures_is_refused(tmp_path: Path) -> None:
    lay_folders(tmp_path, {"": {"a": 1, "b": 1}})
    (tmp_path / SPLIT_FILE).write_text("path,split\na/0.jpg,test\nb/0.jpg,test\n")
    assert refusal(tmp_path) == (
        f"{tmp_path}: every picture is a test picture; delete sparse-transfer-split.csv to cut anew"
    )


def test_one_picture_a_class_cannot_be_cut(tmp_path: Path) -> None:
    lay_folders(tmp_path, {"": {"a": 1, "b": 1}})
    assert refusal(tmp_path) == (
        f"{tmp_path}: no class has the two pictures that a training and a test part take; "
        "add pictures, or make train and test folders"
    )
