"""ImageNet's validation pictures alone, in class folders and as unpacked: torchvision's own class says the labels."""

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import ImageNet, imagenet

from sparse_transfer.checkpoints.file import save
from sparse_transfer.cli.main import run
from sparse_transfer.core.errors import UserError
from sparse_transfer.data.check import SplitCount, check
from sparse_transfer.data.readers.found import Found, make_split
from sparse_transfer.data.reading import dataset, difference, parse, read
from sparse_transfer.data.specs import datasets
from sparse_transfer.data.split import Split
from sparse_transfer.data.transforms import evaluation
from sparse_transfer.models import Head, Network
from sparse_transfer.transfer.compute import Compute
from sparse_transfer.transfer.verify import labelled_pictures
from support.datasets import imagenet_name, lay, lay_folders, lay_imagenet_devkit
from support.pictures import picture
from support.tiny import sparse_backbone

WNIDS = ("n03", "n01", "n02")  # in the order of the devkit's numbers, which is not that of the names
TRUTH = (2, 1, 3, 3, 2, 1, 1, 2)
LABELS = [0, 2, 1, 1, 0, 2, 2, 0]
COMPUTE = Compute("cpu", threads=1, workers=1)


def lay_val(root: Path, place: str = "val", wnids: tuple[str, ...] = WNIDS) -> Path:
    lay_imagenet_devkit(root, wnids, TRUTH)
    return lay(root, *((Path(place) / imagenet_name(number)).as_posix() for number in range(1, len(TRUTH) + 1)))


def found_test(root: Path) -> Split:
    splits = dataset(f"imagenet:{root}")
    assert (len(splits.train), splits.val) == (0, None)
    assert splits.train.classes == splits.test.classes
    return splits.test


def refusal(root: Path, *, to_train: bool = False) -> str:
    with pytest.raises(UserError) as caught:
        read(*parse(f"imagenet:{root}"), to_train=to_train)
    return str(caught.value)


def test_unpacked_pictures_have_the_labels_that_torchvision_gives_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, theirs = lay_val(tmp_path / "ours"), tmp_path / "theirs"
    theirs.mkdir()
    with tarfile.open(theirs / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        archive.add(root / "ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12")
    with tarfile.open(theirs / "ILSVRC2012_img_val.tar", "w") as archive:
        for file in sorted((root / "val").iterdir()):
            archive.add(file, file.name)
    monkeypatch.setattr(imagenet, "_verify_archive", lambda *_: None)  # the archives are not the official ones
    expected = ImageNet(theirs, split="val")
    ours = found_test(root)
    assert ours.classes == tuple(expected.wnids) == tuple(sorted(WNIDS))
    assert dict(zip(ours.paths, ours.labels.tolist(), strict=True)) == {
        f"val/{Path(path).name}": label for path, label in expected.samples
    }
    sorted_by_torchvision = found_test(theirs)
    assert sorted_by_torchvision.paths == tuple(
        Path(path).relative_to(theirs).as_posix() for path, _ in sorted(expected.samples)
    )
    assert sorted_by_torchvision.labels.tolist() == [label for _, label in sorted(expected.samples)]


@pytest.mark.parametrize("place", ["val", "ILSVRC2012_img_val", ""])
def test_unpacked_pictures_may_lie_where_people_unpack_them(tmp_path: Path, place: str) -> None:
    found = found_test(lay_val(tmp_path, place))
    assert found.paths == tuple((Path(place) / imagenet_name(number)).as_posix() for number in range(1, len(TRUTH) + 1))
    assert found.labels.tolist() == LABELS
    if place:  # the pictures' own folder, with the devkit beside it
        inside = found_test(tmp_path / place)
        assert inside.labels.tolist() == LABELS
        assert (inside.fingerprint == found.fingerprint) == (place == "val")
    verified = labelled_pictures(tmp_path)
    assert (verified.paths, verified.labels.tolist()) == (found.paths, LABELS)


def test_class_folders_without_train_have_the_fingerprint_that_they_have_with_it(tmp_path: Path) -> None:
    sizes = {"n00000002": 2, "n00000001": 1, "n00000003": 0}
    lay_folders(tmp_path, {"val": sizes})
    alone = found_test(tmp_path)
    assert alone.classes == ("n00000001", "n00000002", "n00000003")
    assert alone.paths == ("val/n00000001/0.jpg", "val/n00000002/0.jpg", "val/n00000002/1.jpg")
    assert found_test(tmp_path / "val").fingerprint == alone.fingerprint
    lay_folders(tmp_path, {"train": dict.fromkeys(sizes, 1)})
    assert dataset(f"imagenet:{tmp_path}").test.fingerprint == alone.fingerprint
    assert refusal(tmp_path / "val") == f'{tmp_path}/val: this is the "val" part of a dataset; give {tmp_path}'


def test_wnid_folders_themselves_are_taken_unless_they_are_called_train(tmp_path: Path) -> None:
    lay_folders(tmp_path, {"pictures": {"n00000002": 2, "n00000001": 1}, "train": {"n00000001": 1}})
    found = found_test(tmp_path / "pictures")
    assert (found.paths, found.labels.tolist()) == (
        ("n00000001/0.jpg", "n00000002/0.jpg", "n00000002/1.jpg"), [0, 1, 1],
    )  # fmt: skip
    assert "no train and val folders" in refusal(tmp_path / "train")
    lay_folders(tmp_path, {"pictures": {"cats": 1}})
    assert "no train and val folders" in refusal(tmp_path / "pictures")


def test_unpacked_pictures_beside_training_class_folders_are_their_test_part(tmp_path: Path) -> None:
    lay_folders(lay_val(tmp_path), {"train": {"n01": 1, "n02": 2, "n03": 1}})
    splits = read(*parse(f"imagenet:{tmp_path}"), to_train=True)
    assert (splits.train.labels.tolist(), splits.test.labels.tolist()) == ([0, 1, 1, 2], LABELS)


def test_what_is_missing_is_partial_and_what_is_not_needed_is_not(tmp_path: Path) -> None:
    lay_val(tmp_path)
    (tmp_path / "val" / imagenet_name(3)).unlink()
    splits = dataset(f"imagenet:{tmp_path}")
    assert splits.test.labels.tolist() == LABELS[:2] + LABELS[3:]
    assert splits.partial == (
        "imagenet: this copy has 3 of 1,000 classes, 7 of 50,000 test pictures, and not 1 file of its lists"
        f' ("val/{imagenet_name(3)}"); results do not compare with published ones'
    )
    classes = [f"n{label:08d}" for label in range(1000)]
    whole = make_split(
        "test", tmp_path, {f"{at}": 1 for at in range(50_000)}, [at % 1000 for at in range(50_000)], classes
    )
    assert difference(datasets.get("imagenet"), Found(whole.take([], "train"), whole)) is None
    assert difference(datasets.get("imagenet"), Found(whole.take([0], "train"), whole)) is not None


def test_a_check_says_that_nothing_is_there_to_train_on(tmp_path: Path) -> None:
    report = check(*parse(f"imagenet:{lay_val(tmp_path)}"), decode=False)
    assert (report.problem, report.whole) == (None, False)
    assert report.splits == (
        SplitCount("train", 0, 1_281_167, ("n01", "n02", "n03")),
        SplitCount("test", 8, 50_000, ()),
    )
    assert "  train pictures: 0 of 1,281,167\n    enough to evaluate, not to train\n" in report.render()


def test_a_devkit_that_is_missing_or_broken_is_one_sentence(tmp_path: Path) -> None:
    data = lay_val(tmp_path) / "ILSVRC2012_devkit_t12" / "data"
    truth = data / "ILSVRC2012_validation_ground_truth.txt"
    for line in ("4", "n01", "-1"):  # 4 is a parent, and no class
        truth.write_text(f"2\n{line}\n")
        assert refusal(tmp_path) == f'{truth}: line 2 is "{line}", no class of meta.mat; unpack the devkit again'
    truth.unlink()
    assert refusal(tmp_path) == f"{data}: {truth.name} is missing; unpack the dataset's archive again"
    (data / "meta.mat").write_bytes((data / "meta.mat").read_bytes()[:300])
    truth.write_text("1\n")
    assert refusal(tmp_path).startswith(f"{data / 'meta.mat'}: it is no whole Matlab file (")
    data.parent.rename(tmp_path / "elsewhere")
    assert refusal(tmp_path) == (
        f"{tmp_path}/val: the pictures lie in no class folders, and ILSVRC2012_devkit_t12, which has their classes, "
        f"is not there; unpack ILSVRC2012_devkit_t12.tar.gz in {tmp_path}"
    )


# --- the commands -------------------------------------------------------------------------------------------------


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """Real small pictures, each of the kind that its label says."""
    root, rng = lay_val(tmp_path / "imagenet"), np.random.default_rng(0)
    for number, label in enumerate(LABELS, 1):
        picture(label, rng).save(root / "val" / imagenet_name(number), format="JPEG")
    return root


@pytest.fixture
def knowing(unpacked: Path, tmp_path: Path) -> Path:
    """A network that is right: each row of its head points to the mean feature of a class. It knows no class names."""
    backbone = sparse_backbone()
    test = replace(dataset(f"imagenet:{unpacked}").test, labels=np.array(LABELS))
    features = COMPUTE.features(backbone, test, evaluation(backbone.preprocessing))
    means = np.stack([features[test.labels == label].mean(0) for label in range(len(WNIDS))])
    head = Head(torch.from_numpy(means), torch.from_numpy(-0.5 * (means**2).sum(1)))
    save(Network(backbone, head), tmp_path / "knowing.safetensors")
    return tmp_path / "knowing.safetensors"


def test_evaluate_needs_the_validation_pictures_alone(
    unpacked: Path, knowing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = tmp_path / "folders"
    for number, label in enumerate(LABELS, 1):
        place = folders / "val" / sorted(WNIDS)[label]
        place.mkdir(parents=True, exist_ok=True)
        (place / imagenet_name(number)).write_bytes((unpacked / "val" / imagenet_name(number)).read_bytes())
    found = []
    for root in (unpacked, unpacked / "val", folders):
        assert run(["evaluate", str(knowing), f"imagenet:{root}", "--json", "--threads", "1"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert (found[0]["correct"], found[0]["total"]) == (8, 8)
    assert found[0] == found[1]
    assert {**found[2], "cross_entropy": 0, "ece": 0} == {**found[0], "cross_entropy": 0, "ece": 0}  # another order
    assert found[2]["cross_entropy"] == pytest.approx(found[0]["cross_entropy"])


@pytest.mark.parametrize("command", ["linear", "finetune"])
def test_training_says_in_one_sentence_that_the_training_pictures_are_missing(
    unpacked: Path, knowing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run([command, str(knowing), f"imagenet:{unpacked}", "--runs", str(tmp_path / "runs")]) == 2
    assert capsys.readouterr().err == (
        f"error: {unpacked}: only the validation pictures are there, and the training pictures are missing; "
        "add train/CLASS/* beside the folder val, or use `sparse-transfer evaluate`, which needs none\n"
    )
    assert not (tmp_path / "runs").exists()
