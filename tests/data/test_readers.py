"""Every reader: torchvision's own datasets say the labels, the real index files the sizes, both layouts are taken."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from scipy.io import loadmat
from torchvision import datasets as torchvision_datasets

from sparse_transfer.core.errors import UserError
from sparse_transfer.data.readers import caltech, digits
from sparse_transfer.data.readers import found as found_module
from sparse_transfer.data.readers.found import Found
from sparse_transfer.data.specs import datasets
from sparse_transfer.data.split import Split
from support.datasets import (
    AIRCRAFT_TEST,
    AIRCRAFT_TRAIN,
    FOOD,
    lay,
    lay_aircraft,
    lay_caltech,
    lay_cars,
    lay_cifar10,
    lay_cifar100,
    lay_dtd,
    lay_flowers,
    lay_folders,
    lay_food101,
    lay_pets,
    lay_sun,
    save_annotations,
    write_lines,
)

CALTECH = {"Faces": 33, "Zebra": 31, "accordion": 32, "BACKGROUND_Google": 3}
BUILDERS: dict[str, Callable[[Path], Path]] = {
    "aircraft": lay_aircraft,
    "caltech101": lambda root: lay_caltech(root / "caltech101", CALTECH),
    "caltech256": lambda root: lay_caltech(root / "caltech256", {"001.ak47": 62, "257.clutter": 61}, clutter=True),
    "cars": lay_cars,
    "cifar10": lay_cifar10,
    "cifar100": lay_cifar100,
    "dtd": lay_dtd,
    "flowers": lay_flowers,
    "food101": lay_food101,
    "pets": lay_pets,
    "SUN": lay_sun,
}


def read(name: str, root: Path) -> Found:
    return datasets.get(name).reader(root)


def refusal(name: str, root: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(name, root)
    return str(caught.value)


def absolute(split: Split) -> dict[str, int]:
    return {str(split.root / path): label for path, label in zip(split.paths, split.labels.tolist(), strict=True)}


def samples(files: list[str | Path], labels: list[int]) -> dict[str, int]:
    return {str(file): int(label) for file, label in zip(files, labels, strict=True)}


# Labels: torchvision is the oracle.


def test_flowers_are_labelled_as_torchvision_labels_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision_datasets.Flowers102, "_check_integrity", lambda _: True)
    lay_flowers(tmp_path)
    found = read("flowers", tmp_path)
    parts = {name: torchvision_datasets.Flowers102(tmp_path, name) for name in ("train", "val", "test")}
    oracle = {name: samples(part._image_files, part._labels) for name, part in parts.items()}
    assert absolute(found.train) == {**oracle["train"], **oracle["val"]}
    assert absolute(found.test) == oracle["test"]
    assert found.train.labels.tolist() == [0, 1, 2, 0]
    assert found.train.classes[:2] == ("pink primrose", "hard-leaved pocket orchid")


def test_pets_are_labelled_as_torchvision_labels_them(tmp_path: Path) -> None:
    base = lay_pets(tmp_path)
    write_lines(
        base / "annotations" / "trainval.txt", (base / "annotations" / "trainval.txt").read_text().splitlines()[1:]
    )
    lines = (base / "annotations" / "trainval.txt").read_text() + "yorkshire_terrier_7 3 2 2\n"
    (base / "annotations" / "trainval.txt").write_text(lines)
    lay(base, "images/yorkshire_terrier_7.jpg")
    found = read("pets", tmp_path)
    for name, split in (("trainval", found.train), ("test", found.test)):
        oracle = torchvision_datasets.OxfordIIITPet(tmp_path, name)
        assert absolute(split) == samples(oracle._images, oracle._labels)
    assert found.train.classes == ("Abyssinian", "american_bulldog", "yorkshire_terrier")


def test_textures_are_labelled_as_torchvision_labels_them(tmp_path: Path) -> None:
    lay_dtd(tmp_path)
    found = read("dtd", tmp_path)
    parts = {name: torchvision_datasets.DTD(tmp_path, name) for name in ("train", "val", "test")}
    oracle = {name: samples(part._image_files, part._labels) for name, part in parts.items()}
    assert absolute(found.train) == {**oracle["train"], **oracle["val"]}
    assert absolute(found.test) == oracle["test"]


@pytest.mark.parametrize("last_break", [True, False])
def test_aircraft_are_labelled_as_torchvision_labels_them(tmp_path: Path, last_break: bool) -> None:
    lay_aircraft(tmp_path, last_break=last_break)
    found = read("aircraft", tmp_path)
    for name, split in (("trainval", found.train), ("test", found.test)):
        oracle = torchvision_datasets.FGVCAircraft(tmp_path, name)
        assert absolute(split) == samples(oracle._image_files, oracle._labels)
        assert list(split.classes) == oracle.classes
    assert found.train.classes == ("An-12", "Cessna 172", "F/A-18")
    assert (len(found.train), len(found.test)) == (len(AIRCRAFT_TRAIN), len(AIRCRAFT_TEST))


@pytest.mark.parametrize("text", [False, True])
def test_food_is_labelled_as_torchvision_labels_it(tmp_path: Path, text: bool) -> None:
    lay_food101(tmp_path, text=text)
    found = read("food101", tmp_path)
    if text:  # torchvision reads the JSON alone
        lay_food101(tmp_path)
    for name, split in (("train", found.train), ("test", found.test)):
        oracle = torchvision_datasets.Food101(tmp_path, name)
        assert absolute(split) == samples(oracle._image_files, oracle._labels)
        assert list(split.classes) == oracle.classes == sorted(FOOD[name])


def test_cars_are_labelled_as_torchvision_labels_them(tmp_path: Path) -> None:
    lay_cars(tmp_path)
    found = read("cars", tmp_path)
    for name, split in (("train", found.train), ("test", found.test)):
        oracle = torchvision_datasets.StanfordCars(tmp_path, name)
        assert absolute(split) == {path: int(label) for path, label in oracle._samples}
        assert list(split.classes) == oracle.classes
    assert found.train.labels.tolist() == [1, 0, 1]


def test_places_are_labelled_as_torchvision_labels_them(tmp_path: Path) -> None:
    lay_sun(tmp_path)
    found = read("SUN", tmp_path)
    oracle = torchvision_datasets.SUN397(tmp_path)
    assert {**absolute(found.train), **absolute(found.test)} == samples(oracle._image_files, oracle._labels)
    assert list(found.train.classes) == oracle.classes == ["abbey", "apartment_building/outdoor", "bakery/shop"]
    assert all("/sun_q" in path for path in found.train.paths)
    assert all("/sun_a" in path for path in found.test.paths)


def test_caltech101_is_labelled_as_torchvision_labels_it(tmp_path: Path) -> None:
    base = BUILDERS["caltech101"](tmp_path)
    found = read("caltech101", tmp_path)
    oracle = torchvision_datasets.Caltech101(tmp_path)
    names = [oracle.categories[label] for label in oracle.y]
    files = [base / name / f"image_{number:04d}.jpg" for name, number in zip(names, oracle.index, strict=True)]
    assert {**absolute(found.train), **absolute(found.test)} == samples([*files], oracle.y)
    assert found.train.counts().tolist() == [30, 30, 30]
    assert found.test.paths == (
        *(f"101_ObjectCategories/Faces/image_{number:04d}.jpg" for number in (31, 32, 33)),
        "101_ObjectCategories/Zebra/image_0031.jpg",
        *(f"101_ObjectCategories/accordion/image_{number:04d}.jpg" for number in (31, 32)),
    )


def test_caltech256_is_labelled_as_torchvision_labels_it(tmp_path: Path) -> None:
    counts = {"001.ak47": 62, "002.american-flag": 60, "003.clutter": 61}
    base = lay_caltech(tmp_path / "caltech256", counts, clutter=True)
    (base / "002.american-flag" / "greg").mkdir()
    lay(base, "002.american-flag/RENAME2", ".DS_Store")
    found = read("caltech256", tmp_path)
    (base / ".DS_Store").unlink()  # torchvision would take it for a class
    oracle = torchvision_datasets.Caltech256(str(tmp_path))
    files = [
        base / oracle.categories[label] / f"{label + 1:03d}_{number:04d}.jpg"
        for label, number in zip(oracle.y, oracle.index, strict=True)
    ]
    assert {**absolute(found.train), **absolute(found.test)} == samples([*files], oracle.y)
    assert (found.train.counts().tolist(), found.test.counts().tolist()) == ([60, 60, 60], [2, 0, 1])
    assert found.others == (
        "256_ObjectCategories/002.american-flag/RENAME2",
        "256_ObjectCategories/002.american-flag/greg",
    )


# Sizes: the real index files, with every listed picture taken to be there.


@pytest.fixture
def every_listed_picture_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found_module, "_size", lambda path: 1)


def unzip(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    data = source.read_bytes()
    target.write_bytes(gzip.decompress(data) if source.suffix == ".gz" else data)


@pytest.mark.usefixtures("every_listed_picture_is_there")
def test_the_real_flower_lists_give_2040_and_6149(tmp_path: Path, test_data: Path) -> None:
    for name in ("imagelabels.mat", "setid.mat"):
        unzip(test_data / "data" / "index_files" / "flowers102" / name, tmp_path / "flowers-102" / name)
    found = read("flowers", tmp_path)
    assert (len(found.train), len(found.test)) == (2040, 6149)
    assert found.train.counts().tolist() == [20] * 102
    # the files are byte-exact originals, so torchvision's own integrity check accepts them but for the pictures
    oracle = loadmat(tmp_path / "flowers-102" / "imagelabels.mat")["labels"][0]
    assert absolute(found.test) == {
        str(tmp_path / "flowers-102" / path): int(oracle[int(path[10:15]) - 1]) - 1 for path in found.test.paths
    }


@pytest.mark.usefixtures("every_listed_picture_is_there")
def test_the_real_car_lists_give_8144_and_say_that_the_8041_have_no_labels(tmp_path: Path, test_data: Path) -> None:
    source = test_data / "data" / "index_files" / "cars"
    for name in ("cars_meta.mat", "cars_train_annos.mat", "cars_test_annos.mat"):
        unzip(source / name, tmp_path / "devkit" / name)
    assert refusal("cars", tmp_path) == (
        f"{tmp_path}: cars_test_annos_withlabels.mat is missing, and devkit/cars_test_annos.mat names the 8,041 test "
        'pictures without their classes; put it there; "sparse-transfer data list" says where the dataset came from'
    )
    names = [str(name) for name in loadmat(source / "cars_test_annos.mat", squeeze_me=True)["annotations"]["fname"]]
    save_annotations(tmp_path / "cars_test_annos_withlabels.mat", names, [1 + index % 196 for index in range(8041)])
    found = read("cars", tmp_path)
    assert (len(found.train), len(found.test), len(found.train.classes)) == (8144, 8041, 196)
    assert "Ram C/V Cargo Van Minivan 2012" in found.train.classes


@pytest.mark.usefixtures("every_listed_picture_is_there")
def test_the_real_food_lists_give_75750_and_25250(tmp_path: Path, test_data: Path) -> None:
    for name in ("train", "test"):
        unzip(test_data / "data" / "index_files" / "food101" / f"{name}.txt.gz", tmp_path / "meta" / f"{name}.txt")
    found = read("food101", tmp_path)
    assert found.train.counts().tolist() == [750] * 101
    assert found.test.counts().tolist() == [250] * 101
    # the archive's own list puts cheesecake before cheese_plate; ImageFolder and torchvision go by the bytes
    assert list(found.train.classes) == sorted((test_data / "data/index_files/food101/classes.txt").read_text().split())


@pytest.mark.usefixtures("every_listed_picture_is_there")
def test_the_real_place_lists_give_19850_twice(tmp_path: Path, test_data: Path) -> None:
    source = test_data / "data" / "index_files" / "sun397"
    unzip(source / "ClassName.txt", tmp_path / "ClassName.txt")
    for name in ("Training_01.txt", "Testing_01.txt"):
        unzip(source / f"{name}.gz", tmp_path / "Partitions" / name)
    found = read("SUN", tmp_path)
    assert found.train.counts().tolist() == found.test.counts().tolist() == [50] * 397
    assert not set(found.train.paths) & set(found.test.paths)


@pytest.mark.usefixtures("every_listed_picture_is_there")
def test_the_real_pets_excerpt_gives_300_and_298_of_three_breeds(tmp_path: Path, test_data: Path) -> None:
    for name in ("trainval.txt", "test.txt"):
        unzip(test_data / "data" / "index_files" / "pets_3class_excerpt" / name, tmp_path / "annotations" / name)
    found = read("pets", tmp_path)
    assert (len(found.train), len(found.test)) == (300, 298)
    assert found.train.classes == ("Abyssinian", "american_bulldog", "Bengal")
    assert all(
        path.startswith(f"images/{found.test.classes[label]}_")
        for path, label in zip(found.test.paths, found.test.labels.tolist(), strict=True)
    )


@pytest.mark.long
def test_the_real_names_of_caltech101_give_3030_and_5647(tmp_path: Path, test_data: Path) -> None:
    source = test_data / "data" / "index_files" / "caltech101"
    lines = gzip.decompress((source / "two_thirds_train.txt.gz").read_bytes()).decode().split()
    lines += (source / "two_thirds_test.txt").read_text().split()
    for name in sorted({line.split("/")[0] for line in lines}):
        (tmp_path / "101_ObjectCategories" / name).mkdir(parents=True)
    for line in lines:
        (tmp_path / "101_ObjectCategories" / line).touch()
    found = read("caltech101", tmp_path)
    assert (len(found.train), len(found.test), len(found.train.classes)) == (3030, 5647, 101)
    assert found.train.classes[:5] == ("Faces", "Faces_easy", "Leopards", "Motorbikes", "accordion")
    assert found.test.counts().min() == 1


@pytest.mark.long
def test_caltech256_at_its_true_size_gives_15420_and_15187(tmp_path: Path) -> None:
    counts = {f"{number:03d}.c{number}": 119 for number in range(1, 257)} | {"257.clutter": 30607 - 256 * 119}
    lay_caltech(tmp_path, counts, clutter=True)
    found = read("caltech256", tmp_path)
    assert (len(found.train), len(found.test), len(found.train.classes)) == (15420, 15187, 257)


# Places and layouts: one contract for every reader.


@pytest.mark.parametrize("name", BUILDERS)
def test_the_archives_own_folder_and_the_one_above_give_the_same_fingerprint(tmp_path: Path, name: str) -> None:
    base = BUILDERS[name](tmp_path)
    above, inside = read(name, tmp_path), read(name, base)
    assert above.train.fingerprint == inside.train.fingerprint
    assert above.test.fingerprint == inside.test.fingerprint
    assert above.train.root.samefile(inside.train.root)


@pytest.mark.parametrize("name", [name for name in datasets if not datasets.get(name).built_in])
def test_every_dataset_is_read_from_prepared_class_folders(tmp_path: Path, name: str) -> None:
    test_name = "val" if name == "imagenet" else "test"
    lay_folders(tmp_path, {"train": {"10": 2, "2": 1, "1": 1}, test_name: {"10": 1, "2": 1, "1": 1}})
    found = read(name, tmp_path)
    assert found.train.classes == ("1", "10", "2")  # bytes, not numbers: the paper's label order
    assert found.train.paths == ("train/1/0.jpg", "train/10/0.jpg", "train/10/1.jpg", "train/2/0.jpg")
    assert (found.test.name, len(found.test), found.val) == ("test", 3, None)


def test_food_may_call_its_test_part_valid(tmp_path: Path) -> None:
    lay_folders(tmp_path, {"train": {"a": 1, "b": 1}, "valid": {"a": 1, "b": 1}})
    assert read("food101", tmp_path).test.paths == ("valid/a/0.jpg", "valid/b/0.jpg")


@pytest.mark.parametrize("name", BUILDERS)
def test_every_split_is_sorted_and_says_the_sizes_on_disk(tmp_path: Path, name: str) -> None:
    BUILDERS[name](tmp_path)
    found = read(name, tmp_path)
    assert (found.train.name, found.test.name) == ("train", "test")
    for split in (found.train, found.test):
        assert len(split) > 0
        if split.storage == "files":
            assert list(split.paths) == sorted(split.paths, key=str.encode)
            assert split.sizes.tolist() == [(split.root / path).stat().st_size for path in split.paths]


@pytest.mark.parametrize(
    "name", [name for name in BUILDERS if name.startswith(("air", "car", "d", "fl", "fo", "p", "S"))]
)
def test_a_listed_picture_that_is_gone_is_named_and_all_gone_is_refused(tmp_path: Path, name: str) -> None:
    base = BUILDERS[name](tmp_path)
    whole = read(name, tmp_path)
    gone = whole.train.paths[-1]
    (whole.train.root / gone).unlink()
    found = read(name, tmp_path)
    assert found.absent == (gone,)
    assert found.train.paths == whole.train.paths[:-1]
    assert found.train.classes == whole.train.classes
    for path in found.train.paths:
        (found.train.root / path).unlink()
    count = len(whole.train)
    assert f"none of the {count} train pictures that its lists name is there" in refusal(name, base)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("aircraft", "data/images_variant_test.txt"),
        ("cars", "devkit/cars_meta.mat"),
        ("cars", "devkit/cars_train_annos.mat"),
        ("dtd", "labels/val1.txt"),
        ("flowers", "imagelabels.mat"),
        ("pets", "annotations/test.txt"),
        ("SUN", "Testing_01.txt"),
        ("food101", "meta/test.json"),
        ("cifar10", "batches.meta"),
        ("cifar10", "test_batch"),
    ],
)
def test_a_missing_list_is_named(tmp_path: Path, name: str, file: str) -> None:
    (BUILDERS[name](tmp_path) / file).unlink()
    assert Path(file).stem in refusal(name, tmp_path)
    assert " is missing; " in refusal(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "text", "sentence"),
    [
        ("aircraft", "data/images_variant_test.txt", "1 A380\n2\n", 'line 2 is not "NUMBER VARIANT"; fetch it again'),
        ("pets", "annotations/test.txt", "a_1 x 1 1\n", 'line 1 is not "NAME CLASS SPECIES BREED"; fetch it again'),
        ("SUN", "Testing_01.txt", "/z/zoo/s.jpg\n", '1 class not in ClassName.txt ("/z/zoo"); fetch it again'),
        ("dtd", "labels/classes.txt", "banded\n", '1 class of the lists not in it ("zigzagged"); remove it'),
        ("food101", "meta/test.json", "[1]", "it is not lists of names by class; unpack the archive again"),
    ],
)
def test_a_list_that_is_not_one_names_the_line(tmp_path: Path, name: str, file: str, text: str, sentence: str) -> None:
    base = BUILDERS[name](tmp_path)
    (base / file).write_text(text)
    assert refusal(name, tmp_path) == f"{base / file}: {sentence}"


@pytest.mark.parametrize("content", [b"", b"not a mat file", b"MATLAB 5.0 MAT-file" + bytes(200)])
def test_a_broken_matlab_file_names_itself(tmp_path: Path, content: bytes) -> None:
    base = lay_flowers(tmp_path)
    (base / "setid.mat").write_bytes(content)
    assert refusal("flowers", tmp_path).startswith(f"{base / 'setid.mat'}: ")


# Single rules.


def test_the_order_of_textures_is_that_of_a_classes_file(tmp_path: Path) -> None:
    base = lay_dtd(tmp_path)
    write_lines(base / "labels" / "classes.txt", ("zigzagged", "banded"))
    found = read("dtd", tmp_path)
    assert found.train.classes == ("zigzagged", "banded")
    assert dict(zip(found.test.paths, found.test.labels.tolist(), strict=True)) == {
        "images/banded/b_3.jpg": 1,
        "images/zigzagged/z_3.jpg": 0,
    }


def test_a_caltech_class_too_small_for_its_training_part_is_refused(tmp_path: Path) -> None:
    base = lay_caltech(tmp_path, {"a": 30, "b": 29})
    assert refusal("caltech101", tmp_path) == (
        f"{base}/b: 29 pictures, and the split takes the first 30 for training; "
        "unpack the archive again, or give folder:PATH for a split of your own"
    )


def test_a_hole_in_caltechs_numbers_is_said(tmp_path: Path) -> None:
    base = lay_caltech(tmp_path, {"a": 35})
    (base / "a" / "image_0017.jpg").unlink()
    assert refusal("caltech101", tmp_path) == (
        f"{base}/a: 34 pictures numbered up to 35, and number 17 is not there; "
        "unpack the archive again: the split goes by the numbers"
    )


def test_a_caltech256_class_that_is_missing_does_not_shift_the_file_names_of_others(tmp_path: Path) -> None:
    lay_caltech(tmp_path, {"001.ak47": 61, "003.backpack": 61}, clutter=True)
    assert read("caltech256", tmp_path).test.paths == (
        "256_ObjectCategories/001.ak47/001_0061.jpg",
        "256_ObjectCategories/003.backpack/003_0061.jpg",
    )


def test_caltech_rules_are_30_and_60() -> None:
    assert (caltech.CALTECH101.train_per_class, caltech.CALTECH256.train_per_class) == (30, 60)


def test_the_digits_are_cut_into_fifths_that_do_not_change() -> None:
    from sklearn.datasets import load_digits

    found = digits.read(Path())
    target = load_digits().target
    for split in (found.train, found.test):
        indices = [int(path.removeprefix("digits#")) for path in split.paths]
        assert indices == sorted(indices)
        assert split.labels.tolist() == target[indices].tolist()
        assert (split.storage, set(split.sizes.tolist())) == ("digits", {64})
    assert not set(found.train.paths) & set(found.test.paths)
    assert (len(found.train), len(found.test)) == (1438, 359)
    # 178 zeros, 182 ones, ...: a fifth of each class, rounded
    assert found.test.counts().tolist() == [round(0.2 * int((target == digit).sum())) for digit in range(10)]
    # a snapshot of our own, against change alone: runs are compared over years by this cut
    assert found.test.fingerprint == "767c95f7b00de89c1f4769b61a26ff7c216cbcd02ce5d50532ba7672f915b552"
