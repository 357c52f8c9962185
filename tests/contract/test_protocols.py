"""What every protocol has to hold, and the rules of the two by name."""

import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from sparse_transfer.core import canonical
from sparse_transfer.data.specs import datasets
from sparse_transfer.models import Preprocessing
from sparse_transfer.solvers.lbfgs import LbfgsSettings
from sparse_transfer.solvers.sgd import SgdSettings
from sparse_transfer.transfer.compute import Compute
from sparse_transfer.transfer.linear import linear_transfer
from sparse_transfer.transfer.plan import Plan
from sparse_transfer.transfer.predict import predict
from sparse_transfer.transfer.protocols import PAPER_SEEDS, protocols
from support.pictures import class_folders
from support.tiny import checkpoint_file

NAMES = list(protocols)
COMPUTE = Compute("cpu", threads=1, workers=1)


def test_there_are_protocols() -> None:
    assert {"cvpr2022", "clean"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_protocol_is_frozen_and_goes_by_its_own_name(name: str) -> None:
    protocol = protocols.get(name)
    assert protocol.name == name
    with pytest.raises(FrozenInstanceError):
        protocol.exif = not protocol.exif  # type: ignore[misc]


@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_held_out_exactly_where_something_is_selected_on_them(name: str) -> None:
    protocol = protocols.get(name)
    assert (protocol.selection == "validation") == (protocol.validation_share > 0)
    assert 0 <= protocol.validation_share < 1


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_stores_every_resolved_rule_as_plain_values(name: str) -> None:
    stored = json.loads(canonical.dumps(Plan.of(name).to_json()))
    assert stored["rules"] == json.loads(json.dumps(protocols.get(name).to_json()))
    assert stored["solver"] == protocols.get(name).solver
    fields = SgdSettings if stored["solver"] == "sgd" else LbfgsSettings
    assert set(stored["solver_settings"]) == set(fields.__dataclass_fields__)


@pytest.mark.parametrize("name", NAMES)
def test_interpolation_and_sizes_belong_to_the_checkpoint(name: str) -> None:
    rigl = Preprocessing(resize=300, crop=288, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    used = protocols.get(name).preprocessing(rigl)
    assert (used.resize, used.crop, used.interpolation) == (300, 288, "bicubic")
    assert (used == rigl) == (protocols.get(name).statistics == "checkpoint")


def test_the_paper_s_protocol_resizes_rigl_s_pictures_with_pillow_and_clean_as_rigl_did() -> None:
    rigl = Preprocessing(interpolation="tf1_bicubic", antialias=False)
    assert protocols.get("clean").preprocessing(rigl) == rigl
    assert protocols.get("cvpr2022").preprocessing(rigl) == Preprocessing(interpolation="bicubic")


@pytest.mark.parametrize("name", NAMES)
def test_the_test_pictures_choose_nothing_that_is_the_headline(name: str, tmp_path: Path) -> None:
    pictures = class_folders(tmp_path / "pictures", train=6, test=2)
    network = checkpoint_file(tmp_path / "tiny.safetensors")
    plan, output = Plan.of(name), tmp_path / "out.safetensors"
    run = linear_transfer(
        network, f"folder:{pictures}", plan=plan, seeds=[21], runs=tmp_path / "runs", output=output, compute=COMPUTE
    )[0]
    assert run.result.last.selected_on != "test"
    looked = [event for event in run.events() if any(key.startswith("test_") for key in event)]
    if protocols.get(name).selection == "validation":
        assert looked == []
        assert run.result.best is None
    else:
        assert looked
        assert run.result.best is not None
        assert run.result.best.selected_on == "test"
    assert run.result.identity.protocol == name
    assert all(found.error is None for found in predict(output, [pictures / "test"], compute=COMPUTE))


def test_cvpr2022_has_the_published_rules() -> None:
    # finetune_pre_extracted_features.py and configs/imagenet_transfer_preextract.yaml of sparse-imagenet-transfer.
    assert PAPER_SEEDS == (21, 51, 81, 111, 141)
    protocol, plan = protocols.get("cvpr2022"), Plan.of("cvpr2022")
    assert not protocol.exif
    settings = plan.settings
    assert isinstance(settings, SgdSettings)
    assert (settings.lr, settings.momentum, settings.weight_decay) == (0.01, 0.9, 0.0005)
    assert (settings.batch_size, settings.epochs) == (64, 150)
    rates = [0.01 * settings.decay(epoch) for epoch in range(150)]
    assert rates == pytest.approx([0.01] * 51 + [0.001] * 50 + [0.0001] * 49)
    tf = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), channel_order="bgr")
    assert protocol.preprocessing(tf) == replace(
        tf, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), channel_order="rgb"
    )


def test_clean_chooses_among_many_strengths_on_a_fifth_of_the_training_pictures() -> None:
    protocol, plan = protocols.get("clean"), Plan.of("clean")
    assert (protocol.validation_share, protocol.exif, protocol.statistics) == (0.2, True, "checkpoint")
    assert isinstance(plan.settings, LbfgsSettings)
    assert len(plan.settings.path) == 45
    assert (max(plan.settings.path), min(plan.settings.path)) == pytest.approx((100, 1e-9))
    sgd = Plan.of("clean", solver="sgd").settings
    assert isinstance(sgd, SgdSettings)
    assert sgd.lrs == (0.1, 0.03, 0.01, 0.003, 0.001)


@pytest.mark.parametrize("name", NAMES)
def test_only_augmented_pictures_have_the_data_sets_own_statistics(name: str) -> None:
    from support.tiny import sparse_backbone

    pets, backbone = datasets.get("pets"), sparse_backbone()
    plain = Plan.of(name).transforms(backbone, pets)
    assert plain.train == plain.test
    assert plain.train.preprocessing.mean != pets.mean
    views = Plan.of(name, views=2).transforms(backbone, pets)
    assert views.train.random
    assert not views.test.random
    assert (views.train.preprocessing.mean, views.test.preprocessing.std) == (pets.mean, pets.std)
