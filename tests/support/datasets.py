"""Builders of tiny datasets in every layout that the readers take. A picture here is a file of a few bytes."""

import json
import pickle
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat


def lay(root: Path, *names: str) -> Path:
    """Files of those names below ``root``, each holding its own name."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def lay_folders(root: Path, parts: Mapping[str, Mapping[str, int]]) -> Path:
    """``root/PART/CLASS/0.jpg`` and so on; part "" for class folders without parts."""
    for part, classes in parts.items():
        for name, count in classes.items():
            (root / part / name).mkdir(parents=True, exist_ok=True)
            lay(root, *((Path(part) / name / f"{index}.jpg").as_posix() for index in range(count)))
    return root


def lay_pictures(root: Path, colours: Mapping[str, tuple[int, int, int]]) -> Path:
    """Real PNG files of one colour each."""
    for name, colour in colours.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 5), colour).save(root / name, format="PNG")
    return root


def write_lines(path: Path, lines: Iterable[str], *, last_break: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + ("\n" if last_break else ""), encoding="utf-8")
    return path


def lay_flowers(root: Path) -> Path:
    """Ten pictures of three classes: 1-2 train, 3-4 valid, 5-10 test."""
    base = root / "flowers-102"
    lay(base, *(f"jpg/image_{number:05d}.jpg" for number in range(1, 11)))
    savemat(base / "imagelabels.mat", {"labels": np.array([[1, 2, 3, 1, 2, 3, 1, 2, 3, 1]], dtype=np.uint8)})
    savemat(
        base / "setid.mat",
        {"trnid": np.array([[2, 1]]), "valid": np.array([[3, 4]]), "tstid": np.array([range(5, 11)])},
    )
    return base


PETS_TRAIN = ("Abyssinian_10 1 1 1", "american_bulldog_3 2 2 1", "Abyssinian_9 1 1 1")
PETS_TEST = ("yorkshire_terrier_1 3 2 2", "american_bulldog_1 2 2 1", "Abyssinian_2 1 1 1", "yorkshire_terrier_2 3 2 2")


def lay_pets(root: Path, train: Sequence[str] = PETS_TRAIN, test: Sequence[str] = PETS_TEST) -> Path:
    base = root / "oxford-iiit-pet"
    write_lines(base / "annotations" / "trainval.txt", ("# name class species breed", *train))
    write_lines(base / "annotations" / "test.txt", test)
    lay(base, *(f"images/{line.split()[0]}.jpg" for line in (*train, *test)))
    return base


def lay_dtd(root: Path) -> Path:
    base = root / "dtd" / "dtd"
    parts = {
        "train": ("zigzagged/z_2.jpg", "banded/b_1.jpg"),
        "val": ("banded/b_2.jpg", "zigzagged/z_1.jpg"),
        "test": ("zigzagged/z_3.jpg", "banded/b_3.jpg"),
    }
    for name, lines in parts.items():
        write_lines(base / "labels" / f"{name}1.txt", lines)
        lay(base, *(f"images/{line}" for line in lines))
    return base


AIRCRAFT_TRAIN = ("0200002 F/A-18", "0200001 Cessna 172", "0200003 An-12")
AIRCRAFT_TEST = ("0300001 An-12", "0300002 F/A-18", "0300003 Cessna 172")


def lay_aircraft(root: Path, *, last_break: bool = True) -> Path:
    base = root / "fgvc-aircraft-2013b"
    write_lines(base / "data" / "variants.txt", ("An-12", "Cessna 172", "F/A-18"))
    for name, lines in (("trainval", AIRCRAFT_TRAIN), ("test", AIRCRAFT_TEST)):
        write_lines(base / "data" / f"images_variant_{name}.txt", lines, last_break=last_break)
        lay(base, *(f"data/images/{line.split()[0]}.jpg" for line in lines))
    return base


FOOD = {
    "train": {"waffles": ["waffles/12", "waffles/3"], "apple_pie": ["apple_pie/7"]},
    "test": {"apple_pie": ["apple_pie/1"], "waffles": ["waffles/1"]},
}


def lay_food101(root: Path, *, text: bool = False) -> Path:
    base = root / "food-101"
    for part, by_class in FOOD.items():
        names = [name for group in by_class.values() for name in group]
        lay(base, *(f"images/{name}.jpg" for name in names))
        (base / "meta").mkdir(exist_ok=True)
        if text:
            write_lines(base / "meta" / f"{part}.txt", names)
        else:
            (base / "meta" / f"{part}.json").write_text(json.dumps(by_class))
    return base


SUN_CLASSES = ("/a/abbey", "/a/apartment_building/outdoor", "/b/bakery/shop")


def lay_sun(root: Path) -> Path:
    base = root / "SUN397"
    write_lines(base / "ClassName.txt", SUN_CLASSES)
    for name, stem in (("Training_01.txt", "sun_q"), ("Testing_01.txt", "sun_a")):
        lines = [f"{place}/{stem}{index}.jpg" for index in (1, 0) for place in SUN_CLASSES]
        write_lines(base / name, lines)
        lay(base, *(line.lstrip("/") for line in lines))
    return base


def save_annotations(path: Path, names: Sequence[str], classes: Sequence[int] | None) -> None:
    """A struct array ``annotations`` as in the Stanford Cars devkit; without ``classes`` there is no such field."""
    fields = ["bbox_x1", "fname"] if classes is None else ["bbox_x1", "class", "fname"]
    records = np.zeros((1, len(names)), dtype=[(field, object) for field in fields])
    for index, name in enumerate(names):
        records[0, index]["bbox_x1"] = 1.0
        records[0, index]["fname"] = name
        if classes is not None:
            records[0, index]["class"] = float(classes[index])
    savemat(path, {"annotations": records})


def lay_cars(root: Path) -> Path:
    base = root / "stanford_cars"
    lay(base, *(f"cars_{part}/0000{number}.jpg" for part in ("train", "test") for number in (1, 2, 3)))
    (base / "devkit").mkdir()
    names = [f"0000{number}.jpg" for number in (1, 2, 3)]
    meta = np.array([["AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012"]], dtype=object)
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": meta})
    save_annotations(base / "devkit" / "cars_train_annos.mat", names, (2, 1, 2))
    save_annotations(base / "devkit" / "cars_test_annos.mat", names, None)
    save_annotations(base / "cars_test_annos_withlabels.mat", names, (1, 1, 2))
    return base


def lay_caltech(root: Path, counts: Mapping[str, int], *, clutter: bool = False) -> Path:
    """``101_ObjectCategories/CLASS/image_*.jpg``, or with ``clutter`` ``256_ObjectCategories/001.ak47/001_*.jpg``."""
    base = root / ("256_ObjectCategories" if clutter else "101_ObjectCategories")
    for name, count in counts.items():
        (base / name).mkdir(parents=True)
        prefix = name[:3] if clutter else "image"
        for number in range(1, count + 1):
            (base / name / f"{prefix}_{number:04d}.jpg").touch()
    return base


def cifar_pixels(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def lay_cifar10(root: Path, *, per_batch: int = 3) -> Path:
    """``cifar-10-batches-py`` as Python 2 wrote it: each picture of the six batches different, labels 0, 1, 2, ..."""
    base = root / "cifar-10-batches-py"
    base.mkdir(parents=True)
    names = [f"name{index}" for index in range(10)]
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": names, "num_vis": 3072}, protocol=2))
    for index, name in enumerate([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]):
        labels = [(index * per_batch + row) % 10 for row in range(per_batch)]
        (base / name).write_bytes(python2_batch(cifar_pixels(per_batch, index), {"labels": labels}))
    return base


def lay_cifar100(root: Path) -> Path:
    base = root / "cifar-100-python"
    base.mkdir(parents=True)
    meta = {"fine_label_names": [f"fine{index}" for index in range(100)], "coarse_label_names": ["coarse"]}
    (base / "meta").write_bytes(pickle.dumps(meta, protocol=2))
    for seed, name in enumerate(("train", "test")):
        labels = {"coarse_labels": [0, 0], "fine_labels": [99 - seed, seed]}
        (base / name).write_bytes(python2_batch(cifar_pixels(2, seed), labels))
    return base


def python2_batch(pixels: NDArray[np.uint8], lists: Mapping[str, Sequence[int]]) -> bytes:
    """The pickle that Python 2 and its NumPy made of ``{"data": pixels, **lists}``, written out by opcode."""

    def string(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    raw = pixels.tobytes()
    empty_array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + string(b"b") + b"\x87R"
    )
    dtype = b"cnumpy\ndtype\n" + string(b"u1") + number(0) + number(1) + b"\x87R"
    dtype += b"(" + number(3) + string(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    shape = b"".join(number(length) for length in pixels.shape) + b"\x86"
    state = b"(" + number(1) + shape + dtype + b"\x89" + b"T" + struct.pack("<i", len(raw)) + raw + b"tb"
    items = string(b"data") + empty_array + state
    for key, values in lists.items():
        items += string(key.encode()) + b"](" + b"".join(number(value) for value in values) + b"e"
    return b"\x80\x02}(" + items + b"u."


SYNSET = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height", "num_train_images")


def lay_imagenet_devkit(root: Path, wnids: Sequence[str], truth: Sequence[int]) -> Path:
    """The devkit's two files: number n is ``wnids[n - 1]``; two numbers more are parents, which are no classes."""
    data = root / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    rows = [(wnid, 0.0, np.zeros((1, 0))) for wnid in wnids]
    rows += [(f"n0000000{parent}", 2.0, np.array([[1.0, 2.0]])) for parent in (1, 2)]
    synsets = np.zeros((len(rows), 1), dtype=[(field, object) for field in SYNSET])
    for number, (wnid, count, children) in enumerate(rows, 1):
        synsets[number - 1, 0] = (float(number), wnid, "one word, another", "a gloss", count, children, 0.0, 1300.0)
    savemat(data / "meta.mat", {"synsets": synsets})
    write_lines(data / "ILSVRC2012_validation_ground_truth.txt", map(str, truth))
    return data


def imagenet_name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"
