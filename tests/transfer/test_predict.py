"""Predictions: order, ranks, pictures that cannot be read."""

import json
from pathlib import Path

import pytest

from sparse_transfer.cli.main import run
from sparse_transfer.core.errors import UserError
from sparse_transfer.transfer.compute import Compute
from sparse_transfer.transfer.linear import linear_transfer
from sparse_transfer.transfer.plan import Plan
from sparse_transfer.transfer.predict import predict
from support.pictures import class_folders
from support.tiny import checkpoint_file

COMPUTE = Compute("cpu", threads=1, workers=1, batch=4)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("pictures"), train=4, test=3)


@pytest.fixture
def network(tmp_path: Path, pictures: Path) -> Path:
    output = tmp_path / "net.safetensors"
    backbone = checkpoint_file(tmp_path / "tiny.safetensors")
    linear_transfer(
        backbone,
        f"folder:{pictures}",
        plan=Plan.of(l2=0.1),
        seeds=[21],
        runs=tmp_path / "r",
        output=output,
        compute=COMPUTE,
    )
    return output


def test_pictures_keep_their_order_and_bad_ones_are_passed_over(network: Path, pictures: Path, tmp_path: Path) -> None:
    good = sorted((pictures / "test").rglob("*.png"))
    bad = tmp_path / "page.jpg"
    bad.write_text("<html>not found</html>")
    asked = [good[0], bad, *good[1:]]
    found = list(predict(network, asked, top=2, compute=COMPUTE))
    assert [prediction.path for prediction in found] == asked
    assert [prediction.error is not None for prediction in found] == [False, True] + [False] * (len(good) - 1)
    assert all(len(prediction.classes) == 2 for prediction in found if prediction.error is None)
    assert found[0].probabilities[0] >= found[0].probabilities[1]


def test_a_folder_is_searched_in_the_order_of_its_bytes(network: Path, pictures: Path) -> None:
    found = [str(prediction.path) for prediction in predict(network, [pictures / "test"], compute=COMPUTE)]
    assert found == sorted(map(str, (pictures / "test").rglob("*.png")), key=str.encode)


def test_every_picture_bad_is_no_crash(network: Path, tmp_path: Path) -> None:
    for index in range(6):
        (tmp_path / f"{index}.jpg").write_bytes(b"")
    found = list(predict(network, [tmp_path / f"{index}.jpg" for index in range(6)], compute=COMPUTE))
    assert all("the file is empty" in str(prediction.error) for prediction in found)


def test_what_is_wrong_with_a_picture_is_said_without_advice_for_data_sets(network: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "page.jpg").write_bytes(b"<html>")
    found = predict(network, [tmp_path / "empty.jpg", tmp_path / "page.jpg"], compute=COMPUTE)
    assert [prediction.error for prediction in found] == [
        f"{tmp_path}/empty.jpg: the file is empty",
        f"{tmp_path}/page.jpg: no picture in a format that is read here; it starts with b'<html>'; "
        "JPEG, PNG, WEBP, GIF, BMP, PPM, TIFF are read",
    ]


def test_a_backbone_without_a_head_cannot_predict(tmp_path: Path) -> None:
    bare = checkpoint_file(tmp_path / "bare.safetensors")
    with pytest.raises(UserError, match="this checkpoint has no head; fit one"):
        next(predict(bare, ["x.jpg"]))


def test_json_and_csv_carry_the_same_predictions(
    network: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(network), str(pictures / "test"), "--top", "1", "--threads", "1", "--workers", "0"]
    assert run([*words, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert run([*words, "--csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "path,rank,class,probability,error"
    assert [line.split(",")[2] for line in lines[1:]] == [row["classes"][0]["class"] for row in listed]
