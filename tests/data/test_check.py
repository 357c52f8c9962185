import hashlib
import json
from pathlib import Path

import pytest

from sparse_transfer.data.check import BadPicture, CheckReport, SplitCount, check
from sparse_transfer.data.reading import parse
from support.datasets import lay, lay_cifar10, lay_flowers, lay_folders, lay_pictures

RED, GREEN, BLUE, GREY = (200, 0, 0), (0, 200, 0), (0, 0, 200), (99, 99, 99)


def check_word(word: str, *, decode: bool = True) -> CheckReport:
    return check(*parse(word), decode=decode)


def four(root: Path) -> Path:
    pictures = {"train/a/0.png": RED, "train/b/0.png": GREEN, "test/a/0.png": BLUE, "test/b/0.png": GREY}
    return lay_pictures(root, pictures)


def test_a_good_folder_is_whole(tmp_path: Path) -> None:
    report = check_word(f"folder:{four(tmp_path)}")
    assert (report.whole, report.problem, report.decoded) == (True, None, True)
    assert report.splits == (SplitCount("train", 2, None, ()), SplitCount("test", 2, None, ()))
    assert (report.corrupt, report.shared, report.absent, report.others) == ((), (), (), ())


@pytest.mark.parametrize("decode", [True, False])
def test_equal_pictures_in_training_and_test_are_found(tmp_path: Path, decode: bool) -> None:
    four(tmp_path)
    copy = (tmp_path / "train/a/0.png").read_bytes()
    for name in ("test/b/copy.png", "test/b/again.png", "train/a/own copy.png"):
        (tmp_path / name).write_bytes(copy)
    report = check_word(f"folder:{tmp_path}", decode=decode)
    assert report.shared == (("train/a/0.png", "test/b/again.png"), ("train/a/own copy.png", "test/b/again.png"))
    assert report.whole


def test_equal_pixels_in_different_files_are_found_by_decoding_alone(tmp_path: Path) -> None:
    four(tmp_path)
    (tmp_path / "test/a/1.png").write_bytes((tmp_path / "train/a/0.png").read_bytes() + b"after the end")
    assert check_word(f"folder:{tmp_path}").shared == (("train/a/0.png", "test/a/1.png"),)
    assert check_word(f"folder:{tmp_path}", decode=False).shared == ()


def test_equal_pixels_in_another_shape_are_another_picture(tmp_path: Path) -> None:
    from PIL import Image

    four(tmp_path)
    Image.new("RGB", (5, 6), RED).save(tmp_path / "test" / "a" / "turned.png")
    assert check_word(f"folder:{tmp_path}").shared == ()


def test_every_corrupt_picture_is_named_with_its_reason(tmp_path: Path) -> None:
    four(tmp_path)
    lay(tmp_path, "train/a/text.jpg")
    (tmp_path / "test" / "b" / "empty.png").touch()
    report = check_word(f"folder:{tmp_path}")
    assert [bad.path for bad in report.corrupt] == ["train/a/text.jpg", "test/b/empty.png"]
    assert report.corrupt[1] == BadPicture("test/b/empty.png", "the file is empty")
    assert not report.whole
    assert check_word(f"folder:{tmp_path}", decode=False).corrupt == ()


def test_two_corrupt_pictures_are_not_equal(tmp_path: Path) -> None:
    four(tmp_path)
    for name in ("train/a/bad.png", "test/a/bad.png"):
        (tmp_path / name).write_bytes(b"no picture")
    assert check_word(f"folder:{tmp_path}").shared == ()


def test_hard_pictures_are_told_apart_by_their_table(test_data: Path, tmp_path: Path) -> None:
    table = json.loads((test_data / "data/hard_images/expectations.json").read_text())
    four(tmp_path)
    names = ["truncated.jpg", "zero_byte.jpg", "html_404.jpg", "rgb_baseline.jpg", "palette.png"]
    for name in names:
        (tmp_path / "train/a" / name).write_bytes((test_data / "data/hard_images" / name).read_bytes())
    assert all(name in json.dumps(table) for name in names)
    bad = {Path(picture.path).name for picture in check_word(f"folder:{tmp_path}").corrupt}
    assert bad == {"truncated.jpg", "zero_byte.jpg", "html_404.jpg"}


def test_counts_stand_against_the_published_ones(tmp_path: Path) -> None:
    (lay_flowers(tmp_path) / "jpg" / "image_00007.jpg").unlink()
    report = check_word(f"flowers:{tmp_path}", decode=False)
    assert [(split.pictures, split.published) for split in report.splits] == [(4, 2040), (5, 6149)]
    assert report.absent == ("jpg/image_00007.jpg",)
    assert len(report.splits[1].empty_classes) == 99
    assert not report.whole
    text = report.render()
    assert text.startswith(f"flowers (Oxford 102 Flowers) in {tmp_path}\n  classes: 102 of 102\n")
    assert "  train pictures: 4 of 2,040\n" in text
    assert '  1 listed file not there: "jpg/image_00007.jpg"\n' in text


def test_what_cannot_be_read_at_all_is_a_report_too(tmp_path: Path) -> None:
    report = check_word(f"cars:{tmp_path}/none")
    assert report.problem == f"{tmp_path}/none: there is no such folder; look at the path"
    assert not report.whole
    assert report.render().splitlines() == [
        f"cars (Stanford Cars) in {tmp_path}/none",
        f"  not readable: {report.problem}",
        "  from https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
        "  licence: non-commercial research",
        "  not to be had there any more: the author's page has been gone since 2023; "
        "ask its authors, or whoever has kept a copy",
    ]


def test_of_anybodys_own_pictures_neither_address_nor_licence_is_told(tmp_path: Path) -> None:
    lines = check_word(f"folder:{four(tmp_path)}").render().splitlines()
    assert lines[0] == f"folder-{tmp_path.name} (your own pictures) in {tmp_path}"
    assert lines[-1] == "  in training and test alike: 0 pictures"


def test_batches_are_compared_picture_by_picture(tmp_path: Path) -> None:
    base = lay_cifar10(tmp_path)
    (base / "test_batch").write_bytes((base / "data_batch_2").read_bytes())
    report = check_word(f"cifar10:{tmp_path}", decode=False)
    assert report.decoded
    assert report.shared == tuple(
        (f"cifar-10-batches-py/data_batch_2#{row}", f"cifar-10-batches-py/test_batch#{row}") for row in range(3)
    )


def test_the_report_is_plain_json(tmp_path: Path) -> None:
    four(tmp_path)
    lay(tmp_path, "train/a/text.jpg", "train/a/notes.txt")
    (tmp_path / "test/a/0.png").write_bytes((tmp_path / "train/a/0.png").read_bytes())
    value = json.loads(json.dumps(check_word(f"folder:{tmp_path}").to_json()))
    assert value["whole"] is False
    assert value["splits"][0] == {"name": "train", "pictures": 3, "published": None, "empty_classes": []}
    assert value["shared"] == [["train/a/0.png", "test/a/0.png"]]
    assert value["corrupt"][0]["path"] == "train/a/text.jpg"
    assert value["others"] == ["train/a/notes.txt"]


def test_a_long_list_is_cut_in_the_text_and_whole_in_the_report(tmp_path: Path) -> None:
    lay_folders(tmp_path, {"train": {"a": 12, "b": 3}, "test": {"a": 1, "b": 1}})
    report = check_word(f"folder:{tmp_path}")
    assert len(report.corrupt) == 17
    lines = report.render(most=4).splitlines()
    assert "  do not decode: 17 pictures" in lines
    assert "    and 13 more" in lines
    assert sum(line.startswith("    t") for line in lines) == 4


def test_a_real_set_is_whole_and_its_parts_are_disjoint(test_data: Path) -> None:
    root = test_data / "data" / "dtd"
    report = check_word(f"folder:{root}")
    files = [hashlib.sha256(path.read_bytes()).digest() for path in root.rglob("*.jpg")]
    assert len(set(files)) == len(files) == 150
    assert (report.whole, report.shared, [split.pictures for split in report.splits]) == (True, (), [90, 60])
