"""Full transfer, the whole way: records, networks that keep their mask, what is done once, what a kill leaves."""

import csv
import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sparse_transfer.checkpoints.file import load, save
from sparse_transfer.core.errors import UserError
from sparse_transfer.data.reading import parse, read
from sparse_transfer.data.split import stratified_indices
from sparse_transfer.models import Head, Network
from sparse_transfer.runs.finished import FinishedRun, records
from sparse_transfer.runs.trackers import WandbTracker
from sparse_transfer.solvers import lbfgs
from sparse_transfer.solvers.lbfgs import LbfgsSettings
from sparse_transfer.training.settings import Execution
from sparse_transfer.transfer.compute import Compute
from sparse_transfer.transfer.evaluate import evaluate
from sparse_transfer.transfer.full import finetune
from sparse_transfer.transfer.full_plan import FullPlan
from sparse_transfer.transfer.linear import linear_transfer
from sparse_transfer.transfer.linear_start import linear_start
from sparse_transfer.transfer.plan import Plan
from support.pictures import CLASSES, class_folders
from support.processes import ended, start, wait_for

CPU = Execution(threads=1, workers=1)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("pictures"))


def quick(protocol: str = "clean", **how: object) -> FullPlan:
    return FullPlan.of(protocol, **{"epochs": 2, "batch_size": 12, "lr": 0.05, **how})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def finished(network: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """One clean run of four epochs, for the tests that only look."""
    place = tmp_path_factory.mktemp("finished")
    (run,) = finetune(
        network, f"folder:{pictures}", plan=quick(epochs=4), seeds=[21], runs=place / "runs",
        output=place / "out.safetensors", execution=CPU,
    )  # fmt: skip
    return run


def test_the_network_has_exactly_its_mask_and_learns(network: Path, finished: FinishedRun, pictures: Path) -> None:
    before, after = load(network), load(finished.folder / "network.safetensors")
    assert after.backbone.mask == before.backbone.mask
    assert after.digest != before.digest
    assert after.head is not None
    assert after.head.classes == CLASSES
    assert finished.result.last.top1 > 0.6, "three colours are easy, chance is a third"
    again = evaluate(finished.folder / "network.safetensors", f"folder:{pictures}", compute=Compute("cpu", threads=1))
    assert again.accuracy.correct == finished.result.last.correct
    assert load(finished.folder.parents[4] / "out.safetensors").digest == after.digest


def test_a_clean_run_looks_at_the_test_pictures_once(finished: FinishedRun) -> None:
    result = finished.result
    assert result.best is None
    assert result.last.selected_on == "validation"
    assert result.solver is not None
    assert result.solver.chosen["epoch"] == result.last.epoch
    epochs = [event for event in finished.events() if event["event"] == "epoch"]
    assert len(epochs) == 4
    assert not [key for event in epochs for key in event if key.startswith("test")]
    best = min(range(4), key=lambda epoch: epochs[epoch]["val_loss"])  # type: ignore[arg-type, return-value]
    assert result.last.epoch == best + 1


def test_the_run_folder_holds_what_people_look_at(finished: FinishedRun) -> None:
    names = {path.name for path in finished.folder.iterdir()}
    assert {"run.json", "metrics.jsonl", "result.json", "confusion.npz", "network.safetensors"} <= names
    assert not [name for name in names if name.startswith("state-")], "states go when the run is finished"
    table = list(csv.DictReader((finished.folder / "per_class.csv").read_text().splitlines()))
    assert [row["class"] for row in table] == list(CLASSES)
    assert sum(int(row["correct"]) for row in table) == finished.result.last.correct
    worst = json.loads((finished.folder / "hardest.json").read_text())
    assert len(worst) == 18
    losses = [picture["loss"] for picture in worst]
    assert losses == sorted(losses, reverse=True)
    wrong = sum(picture["class"] != picture["predicted"] for picture in worst)
    assert wrong == 18 - finished.result.last.correct
    assert np.mean(losses) == pytest.approx(finished.result.cross_entropy, abs=1e-5)


def test_cvpr2022_normalises_by_the_data_set_and_reports_last_and_best(network: Path, tmp_path: Path) -> None:
    (run,) = finetune(
        network, "digits", plan=quick("cvpr2022", batch_size=64), seeds=[21], fraction=0.05,
        runs=tmp_path, execution=CPU,
    )  # fmt: skip
    assert run.result.last.epoch == 2
    assert run.result.last.selected_on is None
    assert run.result.best is not None
    assert run.result.best.selected_on == "test"
    assert run.result.best.top1 >= run.result.last.top1
    epochs = [event for event in run.events() if event["event"] == "epoch"]
    assert epochs[-1]["test_top1"] == run.result.last.top1
    assert run.result.partial is None or "training" in run.result.partial


def test_published_settings_are_the_papers() -> None:
    """Research protocol 1.3: SGD 0.9, 5e-4 on all, batch 64, 150 epochs, 51/50/49; 0.01 for aircraft and cars."""
    from sparse_transfer.data.specs import datasets, find_spec
    from sparse_transfer.models import Preprocessing

    plan = FullPlan.of("cvpr2022")
    settings = plan.for_dataset(find_spec("pets"))
    assert (settings.epochs, settings.batch_size, settings.accumulate) == (150, 64, 1)
    assert (settings.optimiser.name, settings.optimiser.momentum, settings.optimiser.weight_decay) == ("sgd", 0.9, 5e-4)
    assert (settings.schedule.kind, settings.schedule.boundaries, settings.schedule.gamma) == ("step", (51, 101), 0.1)
    assert (settings.objective.label_smoothing, settings.objective.mixup, settings.average, settings.clip) == (
        0, 0, None, None,
    )  # fmt: skip
    rates = {name: plan.for_dataset(datasets.get(name)).optimiser.lr for name in datasets}
    assert {name for name, rate in rates.items() if rate == 0.01} == {"aircraft", "cars"}
    assert set(rates.values()) == {0.01, 0.001}
    transforms = plan.transforms(Preprocessing(interpolation="bicubic"), find_spec("pets"))
    assert transforms.train.random
    assert not transforms.test.random
    assert transforms.test.preprocessing.mean == (0.4807, 0.4432, 0.3949)
    assert transforms.train.preprocessing.interpolation == "bicubic", "it belongs to the checkpoint"
    assert not transforms.train.exif
    tensorflows = Preprocessing(interpolation="tf1_bicubic", antialias=False)
    assert plan.transforms(tensorflows, find_spec("pets")).test.preprocessing.interpolation == "bicubic"
    clean = FullPlan.of("clean").transforms(Preprocessing(mean=(0.1, 0.2, 0.3)), find_spec("pets"))
    assert clean.test.preprocessing.mean == (0.1, 0.2, 0.3)


def test_a_finished_run_is_shown_and_its_network_copied(
    network: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go(**how: object) -> list[FinishedRun]:
        return finetune(network, f"folder:{pictures}", plan=quick(epochs=1), seeds=[21], runs=tmp_path / "runs",
                        execution=CPU, **how)  # type: ignore[arg-type]  # fmt: skip

    (first,) = go()
    with monkeypatch.context() as patch:
        patch.setattr("sparse_transfer.transfer.full.train", lambda *given: pytest.fail("it is finished"))
        (again,) = go(output=tmp_path / "copy.safetensors")
    assert again.result == first.result
    assert load(tmp_path / "copy.safetensors").digest == load(first.folder / "network.safetensors").digest
    own = (first.folder / "network.safetensors").read_bytes()
    (first.folder / "network.safetensors").write_bytes(network.read_bytes())
    with pytest.raises(UserError, match=r"network\.safetensors: the file was changed after the run"):
        go(output=tmp_path / "other.safetensors")
    (first.folder / "network.safetensors").unlink()
    with pytest.raises(UserError, match="the run's network is gone; run it again with --force"):
        go(output=tmp_path / "other.safetensors")
    assert not (tmp_path / "other.safetensors").exists()
    (first.folder / "network.safetensors").write_bytes(own)
    (forced,) = go(force=True)
    assert forced.folder.name == f"{first.folder.name}.2"
    assert load(forced.folder / "network.safetensors").digest == load(first.folder / "network.safetensors").digest


def test_a_test_picture_that_cannot_be_read_is_named_before_the_training(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``clean`` looks at them once, after hours."""
    bad = class_folders(tmp_path / "pictures") / "test" / CLASSES[1] / "03.png"
    bad.write_bytes(b"no picture")
    monkeypatch.setattr("sparse_transfer.transfer.full.train", lambda *given: pytest.fail("it trains"))
    with pytest.raises(UserError) as error:
        finetune(network, f"folder:{tmp_path / 'pictures'}", plan=quick(), runs=tmp_path / "runs", execution=CPU)
    assert error.value.where == str(bad)


def test_a_head_may_be_kept_and_a_teacher_taught_by(finished: FinishedRun, pictures: Path, tmp_path: Path) -> None:
    trained = finished.folder / "network.safetensors"
    gently = quick(epochs=1, lr=1e-6, head="keep", freeze_bn=True)
    (kept,) = finetune(trained, f"folder:{pictures}", plan=gently, seeds=[21], runs=tmp_path, execution=CPU)
    assert kept.result.last.correct == finished.result.last.correct, "it begins where the other ended"
    assert any("may know the validation pictures" in warning for warning in kept.result.warnings)
    assert not any("may know the validation pictures" in warning for warning in finished.result.warnings)
    (taught,) = finetune(
        trained, f"folder:{pictures}", plan=quick(teacher=load(trained), distil_weight=0.9), seeds=[21],
        runs=tmp_path, execution=CPU,
    )  # fmt: skip
    assert taught.result.identity.settings["teacher"] == load(trained).digest


def test_a_full_transfer_may_begin_with_the_linear_one(network: Path, pictures: Path, tmp_path: Path) -> None:
    """With a rate of next to nothing it ends where ``linear`` does, of the same protocol and seed."""
    word, still = f"folder:{pictures}", {"epochs": 1, "lr": 1e-12, "freeze_bn": True, "head": "linear"}
    (linear,) = linear_transfer(
        network, word, plan=Plan.of("cvpr2022"), seeds=[51], runs=tmp_path, compute=Compute("cpu", threads=1)
    )
    (full,) = finetune(network, word, plan=quick("cvpr2022", **still), seeds=[51], runs=tmp_path, execution=CPU)
    head, begun_with = linear.head(), load(full.folder / "network.safetensors").head
    assert head is not None
    assert begun_with is not None
    assert torch.allclose(begun_with.weight, head.weight, atol=1e-7)
    assert torch.allclose(begun_with.bias, head.bias, atol=1e-7)
    assert full.result.last.correct == linear.result.last.correct


def test_the_linear_head_to_begin_with_has_not_seen_the_validation_pictures(
    network: Path, pictures: Path, tmp_path: Path
) -> None:
    """Whatever those show, it is a head of the other pictures alone."""
    spec, root = parse(f"folder:{pictures}")
    splits, backbone, compute = read(spec, root), load(network).backbone, Compute("cpu", threads=1)
    transform = Plan.of("clean").transforms(backbone, spec).test
    begun_with = linear_start(backbone, splits, transform, "clean", 21, compute)
    rest, _ = stratified_indices(splits.train.labels, 0.2, 21)
    features, labels = compute.features(backbone, splits.train, transform), splits.train.labels
    path = lbfgs.fit(features[rest], labels[rest], len(CLASSES), LbfgsSettings(), [21])
    assert any(torch.equal(begun_with.weight, fitted.head.weight) for fitted in path)


def test_a_pruned_head_that_is_kept_stays_pruned(finished: FinishedRun, pictures: Path, tmp_path: Path) -> None:
    """Its classes stand in another order in the checkpoint: each row's mask goes with the row."""
    known = load(finished.folder / "network.safetensors")
    assert known.head is not None
    kept = torch.rand(known.head.weight.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    head = Head(known.head.weight * kept, known.head.bias, known.head.classes, kept)
    turned = Head(head.weight.flip(0), head.bias.flip(0), head.classes[::-1], kept.flip(0))
    save(Network(known.backbone, turned), tmp_path / "pruned.safetensors", origin=known.origin)
    (run,) = finetune(
        tmp_path / "pruned.safetensors", f"folder:{pictures}",
        plan=quick(head="keep", average=0.9, augment_on="device"), seeds=[21], runs=tmp_path, execution=CPU,
    )  # fmt: skip
    after = load(run.folder / "network.safetensors").head
    assert after is not None
    assert after.classes == CLASSES
    assert after.kept is not None
    assert torch.equal(after.kept, kept)
    assert not after.weight[~kept].any()
    assert not torch.equal(after.weight, head.weight), "what is kept was trained"
    (fresh,) = finetune(tmp_path / "pruned.safetensors", f"folder:{pictures}", plan=quick(epochs=1), seeds=[21],
                        runs=tmp_path, execution=CPU)  # fmt: skip
    new = load(fresh.folder / "network.safetensors").head
    assert new is not None
    assert new.kept is None


def test_weights_and_biases_gets_the_published_names(
    network: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module of the same name stands in for wandb and notes what it is given."""
    begun: list[dict[str, object]] = []
    logged: list[dict[str, object]] = []
    run = SimpleNamespace(log=logged.append, summary={}, finish=lambda exit_code: None)
    fake = SimpleNamespace(init=lambda **given: begun.append(given) or run, Settings=lambda **given: given)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    finetune(network, f"folder:{pictures}", plan=quick("cvpr2022"), seeds=[21], runs=tmp_path, execution=CPU,
             trackers=lambda: [WandbTracker()])  # fmt: skip
    assert begun[0]["project"] == "sparse-imagenet-transfer-fullnetwork"
    assert begun[0]["name"] == "seed_21"
    epochs = [given for given in logged if "train loss" in given]
    assert [set(given) for given in epochs] == [
        {
            "epoch", "lr", "train loss", "train acc", "val loss", "val acc", "val avg class acc",
            "(overall sparsity)", "busy", "pictures_per_s",
        }
    ] * 2  # fmt: skip
    mask = load(network).backbone.mask
    pruned = sum(int((~kept).sum()) for kept in mask.values()) / sum(kept.numel() for kept in mask.values())
    assert [given["(overall sparsity)"] for given in epochs] == pytest.approx([pruned] * 2)
    assert [given["lr"] for given in epochs] == pytest.approx([0.05, 0.005])


def test_where_the_pictures_are_cropped_is_part_of_the_run() -> None:
    from sparse_transfer.data.specs import find_spec
    from sparse_transfer.models import Preprocessing

    host, device = (
        FullPlan.of(augment_on=place).transforms(Preprocessing(), find_spec("pets"))  # type: ignore[arg-type]
        for place in ("host", "device")
    )
    assert host.train.to_json() != device.train.to_json()
    assert host.test.to_json() == device.test.to_json()


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"protocol": "cvpr2022", "patience": 3}, "would choose by them"),
        ({"distil_weight": 0.5}, "need a teacher"),
        ({"schedule": "cosine", "milestones": (5,)}, "has no milestones"),
        ({"schedule": "constant", "gamma": 0.5}, "does not fall by steps; leave --decay-rate out"),
        ({"optimiser": "adamw", "momentum": 0.5}, "has no momentum of that kind"),
        ({"average": 1.0}, "--model-ema-decay: a decay of 1.0; it lies in"),
        ({"warmup": 10, "epochs": 10}, "a warm-up of 10 epochs"),
        ({"protocol": "cvpr"}, 'no protocol is called "cvpr"'),
    ],
)
def test_options_that_exclude_each_other_are_refused(how: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        FullPlan.of(**how)  # type: ignore[arg-type]


def test_without_a_gpu_cuda_is_refused_in_a_sentence(
    network: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sparse_transfer.cli.main import run

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = ["finetune", str(network), f"folder:{pictures}", "--device", "cuda", "--runs", str(tmp_path / "runs")]
    assert run(words) == 2
    assert capsys.readouterr() == ("", "error: --device cuda: PyTorch finds no CUDA device; use --device cpu\n")
    assert not (tmp_path / "runs").exists()


def test_mixup_makes_the_number_of_processes_part_of_the_run(network: Path, pictures: Path) -> None:
    """Each process mixes its own pictures: two of them learn something else than one, frozen BatchNorm or not."""
    from sparse_transfer.checkpoints.file import Checkpoint
    from sparse_transfer.data.reading import parse, read
    from sparse_transfer.training.distributed import Group
    from sparse_transfer.transfer.full import Job, _identity

    spec, root = parse(f"folder:{pictures}")
    splits = read(spec, root)

    def identity(processes: int, **how: object) -> str:
        job = Job(Checkpoint.of(network), spec, splits, quick(**how), CPU, Group(0, processes))
        return _identity(job, 21).id

    assert identity(1, freeze_bn=True) == identity(2, freeze_bn=True)
    assert identity(1, freeze_bn=True, mixup=0.2) != identity(2, freeze_bn=True, mixup=0.2)
    assert identity(1) != identity(2)
    everything = tuple(name for name, _ in Checkpoint.of(network).backbone.module.named_children())
    assert identity(1, frozen=everything) == identity(2, frozen=everything), "no BatchNorm learns"


def test_a_checkpoint_without_a_head_has_none_to_keep(network: Path, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no head to keep"):
        finetune(network, f"folder:{pictures}", plan=quick(head="keep"), runs=tmp_path, execution=CPU)


def outcome(place: Path) -> tuple[str, str, bytes]:
    (found,) = records([place])
    predictions = found.predictions()
    assert predictions is not None
    return load(found.folder / "network.safetensors").digest, str(found.result.last), predictions[1].tobytes()


def test_a_run_killed_in_the_middle_ends_bit_identical(network: Path, pictures: Path, tmp_path: Path) -> None:
    """SIGKILL in a real process, after a state of the middle of an epoch was written."""

    def words(place: Path) -> list[str]:
        return [
            "finetune", str(network), f"folder:{pictures}", "--epochs", "3", "--batch-size", "4", "--lr", "0.05",
            "--seeds", "21,", "--threads", "1", "--workers", "1", "--save-minutes", "0", "--runs", str(place),
        ]  # fmt: skip

    whole = ended(start(*words(tmp_path / "whole")))
    assert whole.status == 0, whole.err
    process = start(*words(tmp_path / "killed"))
    wait_for(lambda: list((tmp_path / "killed").rglob("state-00000001*.safetensors")) or None, process)
    os.kill(process.pid, signal.SIGKILL)
    assert ended(process).status == -signal.SIGKILL
    assert not records([tmp_path / "killed"])
    again = ended(start(*words(tmp_path / "killed")))
    assert again.status == 0, again.err
    assert "the run was stopped before; it goes on in epoch " in again.err
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
    events = records([tmp_path / "killed"])[0].events()
    assert [event for event in events if event["event"] == "resume"]


def test_a_config_file_sets_what_the_command_line_does_not(
    network: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sparse_transfer.cli.main import run

    config = tmp_path / "recipe.toml"
    config.write_text(
        'protocol = "cvpr2022"\nepochs = 5\nbatch-size = 12\nsched = "step"\ndecay_milestones = [1, 2]\n'
        'freeze = ["conv1"]\nfreeze-bn = true\nseeds = "21,"\nlr = 0.02\n'
    )
    words = ["finetune", str(network), f"folder:{pictures}", "-c", str(config), "--epochs", "1", "--threads", "1",
             "--runs", str(tmp_path / "runs"), "--json"]  # fmt: skip
    assert run(words) == 0
    settings = json.loads(capsys.readouterr().out)[0]["identity"]["settings"]["training"]
    assert settings["epochs"] == 1, "what is typed goes first"
    assert settings["frozen"] == ["conv1"]
    assert settings["freeze_bn"]
    assert settings["schedule"]["boundaries"] == [1, 2]
    assert settings["optimiser"]["lr"] == 0.02
    config.write_text("epoch = 5\n")
    assert run(words) == 2
    assert 'no option is called "epoch"; did you mean "epochs"' in capsys.readouterr().err


def test_torchrun_gives_one_record(network: Path, pictures: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    from support.processes import SOURCE

    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
         "sparse_transfer", "finetune", str(network), f"folder:{pictures}", "--epochs", "1", "--batch-size", "12",
         "--threads", "1", "--workers", "1", "--freeze-bn", "--runs", str(tmp_path / "two"), "--json"],
        env=os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)
    (alone,) = finetune(network, f"folder:{pictures}", plan=FullPlan.of(epochs=1, batch_size=12, freeze_bn=True),
                        seeds=[21], runs=tmp_path / "one", execution=CPU)  # fmt: skip
    assert result["identity"]["id"] == alone.result.identity.id, "the number of processes changes nothing here"
    assert result["cross_entropy"] == pytest.approx(alone.result.cross_entropy, rel=1e-4)
    ours, theirs = (
        load(next((tmp_path / name).rglob("network.safetensors"))).network.tensors() for name in ("two", "one")
    )
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-5)


def test_the_papers_downstream_models_evaluate(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``{dataset}/{method}/{sparsity}/seed_N.pth``: wrapped, and normalised by the data set's statistics."""
    from torch import nn

    from sparse_transfer.cli.main import run
    from support import foreign

    origin = foreign.randomised(foreign.ORIGINS["resnet_cifar_akamaster"].make(3))
    state = dict(origin.state_dict())
    masks = foreign.random_masks(state, 0.5)
    path = tmp_path / "pets" / "AC-DC" / "0.8" / "seed_21.pth"
    path.parent.mkdir(parents=True)
    torch.save(foreign.ist(foreign.wrapped(foreign.pruned(state, masks), masks), "resnet20", "pets"), path)
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    out = str(tmp_path / "in.safetensors")
    words = ["import", str(path), "-o", out, "--classes", str(tmp_path / "names.txt")]
    assert run(words) == 0
    assert 'trained on "pets"' in capsys.readouterr().out
    assert run([*words, "--statistics", "pets"]) == 0
    found = load(out)
    assert found.backbone.preprocessing.mean == (0.4807, 0.4432, 0.3949)
    assert run(["evaluate", out, f"folder:{pictures}", "--json", "--threads", "1"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])

    from torchvision.datasets import ImageFolder
    from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

    facts = found.backbone.preprocessing
    oracle = ImageFolder(
        pictures / "test",
        Compose([Resize(facts.resize), CenterCrop(facts.crop), ToTensor(), Normalize(facts.mean, facts.std)]),
    )
    assert isinstance(origin, nn.Module)
    origin.load_state_dict(foreign.pruned(state, masks))
    with torch.no_grad():
        right = sum(int(origin.eval()(image[None]).argmax()) == label for image, label in oracle)
    assert told["correct"] == right
