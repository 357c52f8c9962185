"""The whole way on small made pictures: records, protocols, what is done once, what the output predicts."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from sparse_transfer.checkpoints.file import Checkpoint, load
from sparse_transfer.core.errors import UserError
from sparse_transfer.data.reading import dataset
from sparse_transfer.models import Backbone, Network
from sparse_transfer.models.preprocessing import IMAGENET_MEAN
from sparse_transfer.runs.finished import FinishedRun
from sparse_transfer.transfer.compute import Compute
from sparse_transfer.transfer.evaluate import evaluate
from sparse_transfer.transfer.linear import linear_transfer
from sparse_transfer.transfer.plan import Plan
from sparse_transfer.transfer.predict import predict
from support.pictures import CLASSES, class_folders
from support.tiny import checkpoint_file

COMPUTE = Compute("cpu", threads=1, workers=1)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("pictures"))


def test_clean_transfer_leaves_records_a_network_and_predictions(network: Path, pictures: Path, tmp_path: Path) -> None:
    word, output = f"folder:{pictures}", tmp_path / "out.safetensors"
    runs = linear_transfer(network, word, seeds=[21, 51], runs=tmp_path / "runs", output=output, compute=COMPUTE)
    assert [run.result.identity.seed for run in runs] == [21, 51]
    assert all(run.result.last.total == 18 for run in runs)
    assert all(run.result.best is None for run in runs), "clean looks at the test pictures once"
    assert runs[0].result.last.top1 > 0.8, "three colours are easy, chance is a third"
    chosen = runs[0].result.solver
    assert chosen is not None
    assert chosen.chosen["l2"] in Plan.of().settings.path  # type: ignore[union-attr]

    written = load(output)
    assert written.head is not None
    assert written.head.classes == CLASSES
    assert written.backbone.digest() == load(network).backbone.digest()
    again = evaluate(output, word, compute=COMPUTE)
    assert again.accuracy.correct == runs[0].result.last.correct
    red = next(iter(predict(output, [pictures / "test" / "red dots" / "00.png"], compute=COMPUTE)))
    assert red.error is None
    assert sum(red.probabilities) == pytest.approx(1, abs=1e-6)


def test_a_finished_run_is_shown_and_not_done_again(
    network: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    word = f"folder:{pictures}"
    first = linear_transfer(network, word, seeds=[21], runs=tmp_path / "runs", compute=COMPUTE)
    monkeypatch.setattr("sparse_transfer.transfer.linear.fit_seeds", None)  # a call would raise
    assert linear_transfer(network, word, seeds=[21], runs=tmp_path / "runs", compute=COMPUTE) == first


def test_the_output_of_a_finished_run_has_the_records_own_head(
    network: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    word, outputs = f"folder:{pictures}", [tmp_path / f"{name}.safetensors" for name in ("first", "again", "second")]
    plan = Plan.of("cvpr2022", epochs=3)  # heads of one batched pass: a seed fitted alone has other last bits

    def transfer(seeds: list[int], output: Path) -> list[FinishedRun]:
        return linear_transfer(
            network, word, plan=plan, seeds=seeds, runs=tmp_path / "runs", output=output, compute=COMPUTE
        )

    runs = transfer([21, 51], outputs[0])
    monkeypatch.setattr("sparse_transfer.transfer.linear.fit_seeds", None)  # a call would raise
    transfer([21, 51], outputs[1])
    transfer([51], outputs[2])
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    for output, run in zip(outputs[1:], runs, strict=True):
        written, kept = load(output).head, run.head()
        assert written is not None
        assert kept is not None
        assert (written.classes, kept.classes) == (CLASSES, CLASSES)
        assert torch.equal(written.weight, kept.weight)
        assert torch.equal(written.bias, kept.bias)


def test_the_head_of_a_record_from_before_heads_were_kept_is_fitted_again_and_that_is_said(
    network: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    word, output = f"folder:{pictures}", tmp_path / "out.safetensors"
    (run,) = linear_transfer(network, word, seeds=[21], runs=tmp_path / "runs", compute=COMPUTE)
    kept = run.head()
    assert kept is not None
    (run.folder / "head.safetensors").unlink()
    capsys.readouterr()
    linear_transfer(network, word, seeds=[21], runs=tmp_path / "runs", output=output, compute=COMPUTE)
    assert capsys.readouterr().err == (
        f"{run.folder}: this record is older than kept heads, so its head is fitted again\n"
    )
    written = load(output).head
    assert written is not None
    assert torch.equal(written.weight, kept.weight)


def test_a_network_in_memory_is_the_same_run_as_its_file(network: Path, pictures: Path, tmp_path: Path) -> None:
    word, read = f"folder:{pictures}", load(network).network
    (from_file,) = linear_transfer(network, word, seeds=[21], runs=tmp_path, compute=COMPUTE)
    (from_memory,) = linear_transfer(read, word, seeds=[21], runs=tmp_path, compute=COMPUTE)
    assert from_memory.result.identity.id == from_file.result.identity.id
    assert from_memory.result.identity.checkpoint == "resnet20"
    assert from_memory.result.last == from_file.result.last
    half = Backbone.create("mobilenet_v1,width=0.5")
    assert Checkpoint.of(Network(half)).name == str(half.architecture)

    with pytest.raises(UserError, match=r"resnet20\.network: this checkpoint has no head"):
        evaluate(read, word, compute=COMPUTE)
    head = from_memory.head()
    assert head is not None
    measured = evaluate(Network(read.backbone, head), word, compute=COMPUTE)
    assert measured.accuracy.correct == from_memory.result.last.correct
    picture = pictures / "test" / "red dots" / "00.png"
    assert next(iter(predict(Network(read.backbone, head), [picture], compute=COMPUTE))).error is None


@pytest.mark.parametrize(
    ("plan", "extractions"),
    [(Plan.of(l2=0.01), 3), (Plan.of(l2=0.01, views=2), 5), (Plan.of("cvpr2022", views=2, epochs=2), 3)],
    ids=["plain", "views", "views without selection"],
)
def test_every_extraction_counts_as_features_and_none_as_fit(
    plan: Plan, extractions: int, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training pictures, validation pictures and test pictures; plain ones beside views, to choose on."""
    root, usual, clock = class_folders(tmp_path / "set", train=4, test=2), Compute.features, [0.0]
    for name in CLASSES:  # a validation part of its own
        shutil.copytree(root / "test" / name, root / "val" / name)

    def slow(*values: object) -> object:
        clock[0] += 1
        return usual(*values)  # type: ignore[arg-type]

    monkeypatch.setattr(Compute, "features", slow)
    monkeypatch.setattr("sparse_transfer.transfer.fitting.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    (run,) = linear_transfer(network, f"folder:{root}", plan=plan, seeds=[21], runs=tmp_path / "r", compute=COMPUTE)
    assert (run.result.seconds["features"], run.result.seconds["fit"]) == (extractions, 0)


def test_the_seconds_of_all_seeds_together_count_each_second_once(
    network: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, clock = Compute.features, [0.0]

    def slow(*values: object) -> object:
        clock[0] += 1
        return usual(*values)  # type: ignore[arg-type]

    monkeypatch.setattr(Compute, "features", slow)
    monkeypatch.setattr("sparse_transfer.transfer.fitting.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    word, runs = f"folder:{pictures}", tmp_path / "runs"
    done = linear_transfer(network, word, plan=Plan.of(l2=0.01), seeds=[1, 2, 3, 4], runs=runs, compute=COMPUTE)
    assert clock == [2]  # of test and training pictures
    assert [run.result.seconds["features"] for run in done] == [0.5] * 4


def test_a_device_that_there_is_none_of_is_refused_at_once() -> None:
    """Not only when something has to be computed: a finished run was shown in spite of ``--device gpu``."""
    with pytest.raises(UserError) as caught:
        Compute("gpu")
    assert str(caught.value) == '--device: "gpu" is no device; it is cpu, cuda or auto'


def test_a_further_seed_fits_only_that_one(network: Path, pictures: Path, tmp_path: Path) -> None:
    word = f"folder:{pictures}"
    first = linear_transfer(network, word, seeds=[21], runs=tmp_path / "runs", compute=COMPUTE)
    both = linear_transfer(network, word, seeds=[21, 51], runs=tmp_path / "runs", compute=COMPUTE)
    assert both[0] == first[0]
    assert both[1].result.identity.seed == 51


def test_force_leaves_the_old_record_beside_the_new(network: Path, pictures: Path, tmp_path: Path) -> None:
    word = f"folder:{pictures}"
    old = linear_transfer(network, word, seeds=[21], runs=tmp_path / "runs", compute=COMPUTE)[0]
    new = linear_transfer(network, word, seeds=[21], runs=tmp_path / "runs", force=True, compute=COMPUTE)[0]
    assert old.folder != new.folder
    assert (old.folder / "result.json").exists()
    assert new.result.last.correct == old.result.last.correct


def test_cvpr2022_watches_the_test_pictures_and_labels_the_best_epoch(
    network: Path, pictures: Path, tmp_path: Path
) -> None:
    plan = Plan.of("cvpr2022", epochs=6)
    runs = linear_transfer(network, f"folder:{pictures}", plan=plan, seeds=[21, 51], runs=tmp_path, compute=COMPUTE)
    for run in runs:
        epochs = [event for event in run.events() if event["event"] == "epoch"]
        assert [event["epoch"] for event in epochs] == [1, 2, 3, 4, 5, 6]
        tops = [event["test_top1"] for event in epochs]
        assert run.result.best is not None
        assert run.result.best.top1 == max(tops)  # type: ignore[type-var]
        assert run.result.best.epoch == 1 + tops.index(max(tops))  # type: ignore[type-var]
        assert run.result.best.selected_on == "test"
        assert run.result.last.top1 == tops[-1]
        assert run.result.last.epoch == 6


def test_150_epochs_have_the_published_boundaries_and_fewer_keep_their_proportion() -> None:
    published = Plan.of("cvpr2022").settings
    rates = [round(published.lrs[0] * published.decay(epoch), 10) for epoch in range(150)]  # type: ignore[union-attr]
    assert [rates.count(rate) for rate in (0.01, 0.001, 0.0001)] == [51, 50, 49]
    assert Plan.of("cvpr2022", epochs=15).settings.boundaries == (5, 10)  # type: ignore[union-attr]
    assert Plan.of("cvpr2022", epochs=1).settings.boundaries == (1,), "the first epoch has the whole rate"  # type: ignore[union-attr]


def test_the_protocols_prepare_pictures_as_they_say(network: Path) -> None:
    checkpoint = load(network)
    spec_free = replace(checkpoint.backbone, preprocessing=replace(checkpoint.backbone.preprocessing, mean=(0.1,) * 3))
    from sparse_transfer.data.specs import find_spec

    pets = find_spec("pets")
    assert Plan.of("cvpr2022").transforms(spec_free, pets).test.preprocessing.mean == IMAGENET_MEAN
    assert Plan.of("clean").transforms(spec_free, pets).test.preprocessing.mean == (0.1,) * 3
    assert Plan.of("cvpr2022", augment=True).transforms(spec_free, pets).test.preprocessing.mean == pets.mean
    assert not Plan.of("cvpr2022").transforms(spec_free, pets).test.exif
    assert Plan.of("clean").transforms(spec_free, pets).test.exif


@pytest.mark.parametrize(
    "plan",
    [Plan.of(augment=True, lr=0.1, epochs=12), Plan.of(views=2), Plan.of(solver="sgd", lr=(1.0, 0.1), epochs=40)],
    ids=["augmented", "views", "sgd"],
)
def test_every_way_of_seeing_the_pictures_learns_them(
    plan: Plan, network: Path, pictures: Path, tmp_path: Path
) -> None:
    runs = linear_transfer(network, f"folder:{pictures}", plan=plan, seeds=[21, 51], runs=tmp_path, compute=COMPUTE)
    assert all(run.result.last.top1 > 0.5 for run in runs)
    assert all(run.result.best is None for run in runs)


def test_the_same_seed_gives_the_same_head_bit_for_bit(network: Path, pictures: Path, tmp_path: Path) -> None:
    outputs = []
    for number in (1, 2):
        outputs.append(tmp_path / f"{number}.safetensors")
        linear_transfer(
            network,
            f"folder:{pictures}",
            plan=Plan.of("cvpr2022", epochs=3),
            seeds=[81],
            runs=tmp_path / f"runs{number}",
            output=outputs[-1],
            compute=replace(COMPUTE, cache=tmp_path / f"cache{number}"),
        )
    assert load(outputs[0]).digest == load(outputs[1]).digest


def test_the_chosen_head_is_scikit_learns_at_the_same_strength(network: Path, pictures: Path, tmp_path: Path) -> None:
    word, output = f"folder:{pictures}", tmp_path / "o.safetensors"
    run = linear_transfer(
        network, word, plan=Plan.of(l2=0.01), seeds=[21], runs=tmp_path / "r", output=output, compute=COMPUTE
    )[0]
    splits = dataset(word)
    plan = Plan.of(l2=0.01)
    backbone = load(network).backbone
    from sparse_transfer.data.specs import folder_spec

    transform = plan.transforms(backbone, folder_spec(pictures)).test
    train = COMPUTE.features(backbone, splits.train, transform)
    test = COMPUTE.features(backbone, splits.test, transform)
    oracle = LogisticRegression(C=1 / (0.01 * len(train)), tol=1e-8, max_iter=10_000).fit(train, splits.train.labels)
    kept = run.predictions()
    assert kept is not None
    margins = np.sort(oracle.decision_function(test), axis=1)
    clear = margins[:, -1] - margins[:, -2] > 1e-3
    assert clear.sum() > 10
    assert (oracle.predict(test)[clear] == kept[1][clear]).all()


def test_shots_are_taken_evenly_and_said(network: Path, pictures: Path, tmp_path: Path) -> None:
    run = linear_transfer(network, f"folder:{pictures}", shots=3, seeds=[21], runs=tmp_path, compute=COMPUTE)[0]
    assert run.result.partial == "9 of 36 training pictures taken, 3 a class, seed 0"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"solver": "lbfsg"}, 'no solver is called "lbfsg"; did you mean "lbfgs"?'),
        ({"solver": "sgd", "l2": 0.1}, "--solver sgd has no --l2; drop it, or use --solver lbfgs"),
        ({"augment": True, "views": 2}, "--augment and --views were given; make views anew each epoch, or cache some"),
        ({"views": 0}, "--views: 0 views; cache 1 or more"),
    ],
)
def test_options_that_exclude_each_other_are_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError) as refusal:
        Plan.of(**options)  # type: ignore[arg-type]
    assert str(refusal.value) == sentence


def test_several_strengths_need_something_to_choose_by() -> None:
    with pytest.raises(UserError, match="nothing to choose by under cvpr2022; give one --l2, or use --protocol clean"):
        Plan.of("cvpr2022", solver="lbfgs")


def test_a_backbone_with_nan_is_refused_before_anything_is_fitted(pictures: Path, tmp_path: Path) -> None:
    checkpoint = load(checkpoint_file(tmp_path / "nan.safetensors"))
    with torch.no_grad():
        checkpoint.backbone.module.get_parameter("bn1.bias").fill_(float("nan"))
    with pytest.raises(UserError, match="its features hold NaN or infinity"):
        linear_transfer(checkpoint, f"folder:{pictures}", seeds=[21], runs=tmp_path / "runs", compute=COMPUTE)
    assert not list((tmp_path / "runs").rglob("result.json"))


def test_a_bad_picture_is_named_and_what_was_finished_is_kept(network: Path, tmp_path: Path) -> None:
    root = class_folders(tmp_path / "pictures", train=3, test=2)
    bad = root / "train" / "red dots" / "01.png"
    bad.write_bytes(bad.read_bytes()[:200])
    with pytest.raises(UserError, match=r"red dots/01\.png: the picture is cut short"):
        linear_transfer(network, f"folder:{root}", seeds=[21], runs=tmp_path / "runs", compute=COMPUTE)


def test_records_hold_the_resolved_rules_and_the_cost(network: Path, pictures: Path, tmp_path: Path) -> None:
    run = linear_transfer(network, f"folder:{pictures}", seeds=[21], runs=tmp_path, compute=COMPUTE)[0]
    written = json.loads((run.folder / "run.json").read_text())
    rules = written["identity"]["settings"]["rules"]
    assert rules["selection"] == "validation"
    assert rules["validation_share"] == 0.2
    cost = run.result.cost
    assert cost is not None
    assert cost.sparsity_prunable == pytest.approx(0.8, abs=1e-3)
    assert cost.macs_dense > 4 * cost.macs_sparse
