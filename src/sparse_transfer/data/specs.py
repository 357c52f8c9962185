"""Facts about datasets, one long table: classes, sizes, metric, statistics, licence, address, and each one's reader."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from sparse_transfer.core.canonical import Json
from sparse_transfer.core.registry import Registry
from sparse_transfer.data.readers import (
    aircraft,
    caltech,
    cars,
    cifar,
    digits,
    dtd,
    flowers,
    folder,
    food101,
    imagenet,
    pets,
    sun,
)
from sparse_transfer.data.readers.found import Found
from sparse_transfer.metrics.confusion import Metric

Triple = tuple[float, float, float]

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
CLASS_FOLDERS = "train/CLASS/* and test/CLASS/*"


@dataclass(frozen=True)
class DatasetSpec:
    """What is known of a dataset before looking at a copy of it.

    classes, train_size, test_size: as published; None for anybody's own pictures. metric: the paper's headline.
    mean, std: of the training pictures, for full finetuning (the original code's ``utils/datasets.py``).
    finetune_lr: the paper's learning rate of full finetuning. layouts: what a copy may look like, in words.
    dead: why the official address gives no copy any more, or None. downloader: name in ``torchvision.datasets``.
    built_in: comes with a package, and has no folder.
    """

    name: str
    title: str
    classes: int | None
    train_size: int | None
    test_size: int | None
    metric: Metric
    licence: str
    address: str
    layouts: tuple[str, ...]
    reader: Callable[[Path], Found]
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    finetune_lr: float = 0.001
    dead: str | None = None
    downloader: str | None = None
    built_in: bool = False

    @property
    def has_own_statistics(self) -> bool:
        """Whether ``mean`` and ``std`` are this data set's, and not ImageNet's for want of any."""
        return self.mean != IMAGENET_MEAN

    def facts(self) -> dict[str, Json]:
        """Everything but the reader, for people and for JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "reader"}


datasets: Registry[DatasetSpec] = Registry("dataset")


def find_spec(name: str) -> DatasetSpec:
    """The spec of that name, in capitals or not (``sun`` is ``SUN``); a ``UserError`` suggests the nearest."""
    known = {candidate.lower(): candidate for candidate in datasets}
    return datasets.get(known.get(name.lower(), name))


def folder_spec(root: Path) -> DatasetSpec:
    """A spec made on the fly for anybody's pictures: ``folder-`` and the folder's name, nothing published."""
    return DatasetSpec(
        name=f"folder-{root.resolve().name}",
        title="your own pictures",
        classes=None,
        train_size=None,
        test_size=None,
        metric="top1",
        licence="not known here",
        address="none",
        layouts=(CLASS_FOLDERS, "train/CLASS/* and val/CLASS/*", "CLASS/*, of which a fifth becomes the test part"),
        reader=folder.read_folder,
    )


def _add(spec: DatasetSpec) -> None:
    datasets.add(spec.name, spec)


# Sizes, metrics, mean and std, layouts: the paper's code (IST-DASLab/sparse-imagenet-transfer, utils/) and its results.
_add(
    DatasetSpec(
        name="aircraft",
        title="FGVC-Aircraft 2013b, variants",
        classes=100,
        train_size=6667,
        test_size=3333,
        metric="mean_per_class",
        licence="non-commercial research only",
        address="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
        layouts=(
            "fgvc-aircraft-2013b/data/{images, images_variant_trainval.txt, images_variant_test.txt}",
            CLASS_FOLDERS,
        ),
        reader=aircraft.read,
        mean=(0.4892, 0.5159, 0.5356),
        std=(0.2275, 0.2200, 0.2476),
        finetune_lr=0.01,
        downloader="FGVCAircraft",
    )
)
_add(
    DatasetSpec(
        name="birds",
        title="Birdsnap, the part and the split of the paper",
        classes=500,
        train_size=32677,
        test_size=8171,
        metric="top1",
        licence="research; the pictures belong to their owners",
        address="https://thomasberg.org/",
        layouts=(CLASS_FOLDERS,),
        reader=folder.read_parts,
        mean=(0.4856, 0.4948, 0.4486),
        std=(0.2233, 0.2213, 0.2586),
        dead="the official release is a list of addresses, many of which are gone; the paper's split was in a copy of "
        "microsoft/robust-models-transfer whose links expired in 2021, so any other copy is another dataset version",
    )
)
_add(
    DatasetSpec(
        name="caltech101",
        title="Caltech-101 without its background class",
        classes=101,
        train_size=3030,
        test_size=5647,
        metric="mean_per_class",
        licence="CC BY 4.0",
        address="https://data.caltech.edu/records/mzrjq-6wc02",
        layouts=("caltech101/101_ObjectCategories/CLASS/image_0001.jpg", CLASS_FOLDERS),
        reader=caltech.read_caltech101,
        mean=(0.5413, 0.5063, 0.4693),
        std=(0.3115, 0.3090, 0.3183),
        downloader="Caltech101",
    )
)
_add(
    DatasetSpec(
        name="caltech256",
        title="Caltech-256 with its clutter class",
        classes=257,
        train_size=15420,
        test_size=15187,
        metric="mean_per_class",
        licence="CC BY 4.0",
        address="https://data.caltech.edu/records/nyy15-4j048",
        layouts=("caltech256/256_ObjectCategories/001.ak47/001_0001.jpg", CLASS_FOLDERS),
        reader=caltech.read_caltech256,
        mean=(0.5438, 0.5141, 0.4821),
        std=(0.3077, 0.3044, 0.3163),
        downloader="Caltech256",
    )
)
_add(
    DatasetSpec(
        name="cars",
        title="Stanford Cars",
        classes=196,
        train_size=8144,
        test_size=8041,
        metric="top1",
        licence="non-commercial research",
        address="https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
        layouts=("stanford_cars/{cars_train, cars_test, devkit, cars_test_annos_withlabels.mat}", CLASS_FOLDERS),
        reader=cars.read,
        mean=(0.4513, 0.4354, 0.4358),
        std=(0.2900, 0.2880, 0.2951),
        finetune_lr=0.01,
        dead="the author's page has been gone since 2023; ask its authors, or whoever has kept a copy",
    )
)
_add(
    DatasetSpec(
        name="cifar10",
        title="CIFAR-10",
        classes=10,
        train_size=50000,
        test_size=10000,
        metric="top1",
        licence="none stated; cite the report",
        address="https://www.cs.toronto.edu/~kriz/cifar.html",
        layouts=("cifar-10-batches-py/{data_batch_1 to 5, test_batch, batches.meta}", CLASS_FOLDERS),
        reader=cifar.read_cifar10,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
        downloader="CIFAR10",
    )
)
_add(
    DatasetSpec(
        name="cifar100",
        title="CIFAR-100",
        classes=100,
        train_size=50000,
        test_size=10000,
        metric="top1",
        licence="none stated; cite the report",
        address="https://www.cs.toronto.edu/~kriz/cifar.html",
        layouts=("cifar-100-python/{train, test, meta}", CLASS_FOLDERS),
        reader=cifar.read_cifar100,
        mean=(0.5071, 0.4867, 0.4408),
        std=(0.2675, 0.2565, 0.2761),
        downloader="CIFAR100",
    )
)
_add(
    DatasetSpec(
        name="dtd",
        title="Describable Textures, partition 1",
        classes=47,
        train_size=3760,
        test_size=1880,
        metric="top1",
        licence="research",
        address="https://www.robots.ox.ac.uk/~vgg/data/dtd/",
        layouts=("dtd/{images/CLASS/*, labels/{train1,val1,test1}.txt}", CLASS_FOLDERS),
        reader=dtd.read,
        mean=(0.5322, 0.4734, 0.4251),
        std=(0.2642, 0.2530, 0.2613),
        downloader="DTD",
    )
)
_add(
    DatasetSpec(
        name="flowers",
        title="Oxford 102 Flowers",
        classes=102,
        train_size=2040,
        test_size=6149,
        metric="mean_per_class",
        licence="none stated; pictures from the web",
        address="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
        layouts=("flowers-102/{jpg/image_00001.jpg, imagelabels.mat, setid.mat}", CLASS_FOLDERS),
        reader=flowers.read,
        mean=(0.5133, 0.4148, 0.3383),
        std=(0.2959, 0.2502, 0.2900),
        downloader="Flowers102",
    )
)
_add(
    DatasetSpec(
        name="food101",
        title="Food-101",
        classes=101,
        train_size=75750,
        test_size=25250,
        metric="top1",
        licence="scientific fair use (Foodspotting pictures)",
        address="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        layouts=(
            "food-101/{images/CLASS/*, meta/{train,test}.txt or .json}",
            "train/CLASS/* and valid/CLASS/*",
            CLASS_FOLDERS,
        ),
        reader=food101.read,
        mean=(0.5566, 0.4378, 0.3193),
        std=(0.2589, 0.2622, 0.2630),
        downloader="Food101",
    )
)
_add(
    DatasetSpec(
        name="pets",
        title="Oxford-IIIT Pets",
        classes=37,
        train_size=3680,
        test_size=3669,
        metric="mean_per_class",
        licence="CC BY-SA 4.0",
        address="https://www.robots.ox.ac.uk/~vgg/data/pets/",
        layouts=("oxford-iiit-pet/{images/*, annotations/{trainval,test}.txt}", CLASS_FOLDERS),
        reader=pets.read,
        mean=(0.4807, 0.4432, 0.3949),
        std=(0.2598, 0.2537, 0.2597),
        downloader="OxfordIIITPet",
    )
)
_add(
    DatasetSpec(
        name="SUN",
        title="SUN397, partition 01",
        classes=397,
        train_size=19850,
        test_size=19850,
        metric="top1",
        licence="academic research",
        address="https://vision.princeton.edu/projects/2010/SUN/",
        layouts=("SUN397/{a/abbey/sun_*.jpg, ClassName.txt, Training_01.txt, Testing_01.txt}", CLASS_FOLDERS),
        reader=sun.read,
        mean=(0.4772, 0.4566, 0.4168),
        std=(0.2556, 0.2520, 0.2720),
        dead="the official archive (37 GB) and its mirrors have been gone since 2025; ask its authors, "
        "or whoever has kept a copy",
    )
)
_add(
    DatasetSpec(
        name="imagenet",
        title="ImageNet, ILSVRC-2012",
        classes=1000,
        train_size=1281167,
        test_size=50000,
        metric="top1",
        licence="non-commercial research, registration",
        address="https://image-net.org",
        layouts=(
            "train/WNID/* and val/WNID/*",
            "val/WNID/*, or WNID/*, alone: enough to evaluate",
            "val/ILSVRC2012_val_00000001.JPEG and so on, with ILSVRC2012_devkit_t12/data/"
            "{ILSVRC2012_validation_ground_truth.txt, meta.mat}; train/WNID/* may be there or not",
        ),
        reader=imagenet.read,
    )
)
_add(
    DatasetSpec(
        name="digits",
        title="scikit-learn's 8×8 digits, a split of our own",
        classes=10,
        train_size=1438,
        test_size=359,
        metric="top1",
        licence="CC BY 4.0 (UCI, Optical Recognition of Handwritten Digits)",
        address="https://archive.ics.uci.edu/dataset/80",
        layouts=("comes with scikit-learn: no folder",),
        reader=digits.read,
        built_in=True,
    )
)
