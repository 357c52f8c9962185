"""Full transfer: all weights are trained, the mask is held, and each run can be stopped and goes on where it was."""

import copy
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sparse_transfer.checkpoints.file import Checkpoint, load, save
from sparse_transfer.core.canonical import Json
from sparse_transfer.core.errors import UserError
from sparse_transfer.core.progress import note, progress, set_quiet
from sparse_transfer.data.loading import batches
from sparse_transfer.data.specs import DatasetSpec
from sparse_transfer.data.split import Splits, stratified_indices
from sparse_transfer.data.subset import read_to_train
from sparse_transfer.inference import engines
from sparse_transfer.models import Head, Network
from sparse_transfer.runs.events import Event
from sparse_transfer.runs.finished import FinishedRun
from sparse_transfer.runs.identity import RunIdentity
from sparse_transfer.runs.record import Accuracy, RunRecord, RunResult, SolverReport
from sparse_transfer.runs.store import Run, RunStore
from sparse_transfer.runs.trackers import TrackerFactory, no_trackers
from sparse_transfer.training.distributed import Group
from sparse_transfer.training.learner import Learner
from sparse_transfer.training.looking import logits_of
from sparse_transfer.training.loop import Task, Trained, train
from sparse_transfer.training.model import Trainable, has_moving_statistics, network_of, new_head
from sparse_transfer.training.settings import Execution
from sparse_transfer.training.state import States
from sparse_transfer.training.teacher import Renormalised
from sparse_transfer.transfer.compute import Compute
from sparse_transfer.transfer.costing import cost_of
from sparse_transfer.transfer.evaluate import aligned, measure_logits
from sparse_transfer.transfer.full_plan import FullPlan
from sparse_transfer.transfer.linear_start import linear_start
from sparse_transfer.transfer.outcome import write_outcome
from sparse_transfer.transfer.output import require_writable
from sparse_transfer.transfer.protocols import PAPER_SEEDS

DEFAULT = Execution()


@dataclass(frozen=True)
class Job:
    """What all seeds of a transfer share."""

    checkpoint: Checkpoint
    spec: DatasetSpec
    splits: Splits
    plan: FullPlan
    execution: Execution
    group: Group


def finetune(
    checkpoint: Checkpoint | Network | str | Path,
    dataset: str,
    *,
    plan: FullPlan | None = None,
    seeds: Sequence[int] = PAPER_SEEDS[:1],
    shots: int | None = None,
    fraction: float | None = None,
    runs: str | Path = "runs",
    output: str | Path | None = None,
    force: bool = False,
    wait: bool = True,
    execution: Execution = DEFAULT,
    trackers: TrackerFactory = no_trackers,
) -> list[FinishedRun]:
    """Train all weights of the checkpoint on ``dataset`` under its mask, once a seed, and leave one record each.

    checkpoint: a file, or a network in memory.   dataset: ``NAME[:ROOT]``.
    plan: protocol and settings; default ``FullPlan.of("clean")``.   shots, fraction: take that part of the training
    pictures.   runs: folder of the records; a run that is finished there is shown, one that was stopped goes on.
    output: where to write the first seed's network too.
    Started by ``torchrun``, the processes train together; records and messages come from the first alone.

    Raises:
        UserError: anything the user can put right, before the first long step where that is possible.
        MaskViolation: a pruned weight, gradient, momentum or average is not zero: the run stops before it is saved.

    Example:
        >>> finetune("missing.safetensors", "digits")
        Traceback (most recent call last):
        sparse_transfer.core.errors.UserError: missing.safetensors: there is no such file
    """
    if execution.device == "cuda":
        engines.get("torch-cuda").available().require("--device cuda")
    checkpoint = Checkpoint.of(checkpoint)
    plan = plan or FullPlan.of()
    spec, splits = read_to_train(dataset, shots=shots, fraction=fraction)
    if output is not None:
        require_writable(Path(output), source=checkpoint.path)
    torch.set_num_threads(execution.cores)
    torch.backends.cudnn.benchmark = execution.device == "cuda"  # every update has the same shapes, but the last
    with Group.joined(execution.device) as group:
        if not group.is_first:
            set_quiet(True)
        job = Job(checkpoint, spec, splits, plan, execution, group)
        store = RunStore(Path(runs))
        finished: list[FinishedRun] = []
        for seed in seeds:
            with _opened(store, job, seed, force=force, wait=wait, trackers=trackers) as (run, folder, done):
                finished.append(done if done is not None else _run(job, run, folder, seed))
        if output is not None and group.is_first:
            _copy(finished[0], Path(output))
    return finished


@contextmanager
def _opened(
    store: RunStore, job: Job, seed: int, *, force: bool, wait: bool, trackers: TrackerFactory
) -> Generator[tuple[Run | None, Path, FinishedRun | None]]:
    """The run, opened by the first process alone; the others are told its folder, and whether it is finished."""
    record = RunRecord.now(
        _identity(job, seed), architecture=str(job.checkpoint.backbone.architecture), command=sys.argv
    )
    if not job.group.is_first:
        told: tuple[Path, FinishedRun | None] = job.group.agreed(None)
        yield None, *told
        return
    with store.open(record, force=force, wait=wait, trackers=trackers) as run:
        job.group.agreed((run.folder, run.finished))
        yield run, run.folder, run.finished


def _identity(job: Job, seed: int) -> RunIdentity:
    checkpoint, spec, plan = job.checkpoint, job.spec, job.plan
    settings: dict[str, Json] = {
        **plan.to_json(spec),
        "transforms": plan.transforms(checkpoint.backbone.preprocessing, spec).to_json(),
    }
    asked = plan.settings
    still = not has_moving_statistics(checkpoint.backbone.module, asked.frozen, asked.freeze_bn)
    if job.group.size > 1 and not (still and asked.objective.mixup == 0):  # else their number changes nothing
        settings["processes"] = job.group.size  # mixup mixes the pictures of one process
    if job.group.size > 1 and not still:
        settings["batch_norm"] = "synchronised" if job.execution.sync_bn else "statistics of each process"
    return RunIdentity(
        transfer="full",
        dataset=spec.name,
        checkpoint=checkpoint.name,
        checkpoint_digest=checkpoint.digest,
        splits=job.splits.fingerprints,
        protocol=plan.protocol.name,
        settings=settings,
        seed=seed,
        numerics=job.execution.numerics,
    )


def _run(job: Job, run: Run | None, folder: Path, seed: int) -> FinishedRun:
    """One seed: train, measure, write."""
    task = _task(job, seed)
    learner = _learner(job, seed)
    states = States(folder, _identity(job, seed).id, minutes=job.execution.save_minutes)
    if task.selects and states.is_empty:
        _require_readable(job, task)

    def log(event: Event) -> None:
        if run is None:
            return
        run.log(event)
        if event["event"] == "epoch":
            note(_line(event, learner.settings.epochs))
        elif event["event"] == "resume":
            note(f"the run was stopped before; it goes on in epoch {event['epoch']}/{learner.settings.epochs}")

    trained = train(learner, task, states, seed, log)
    finished = None if run is None else _finish(job, run, task, learner, trained)
    if run is None and task.selects:
        _test_logits(job, learner, trained)
    return job.group.agreed(finished)


def _task(job: Job, seed: int) -> Task:
    """``clean`` holds pictures back to choose the epoch by; ``cvpr2022`` looks at the test pictures, as published."""
    splits, rules = job.splits, job.plan.protocol
    transforms = job.plan.transforms(job.checkpoint.backbone.preprocessing, job.spec)
    if rules.selection == "none":
        return Task(splits.train, transforms.train, splits.test, transforms.test, selects=False)
    if splits.val is not None:
        return Task(splits.train, transforms.train, splits.val, transforms.test, selects=True)
    rest, held = stratified_indices(splits.train.labels, rules.validation_share, seed)
    if not len(held):
        raise UserError(
            "no class has a second training picture, so there is nothing to choose the epoch by",
            do="use --protocol cvpr2022, or more pictures",
        )
    train_part, val = splits.train.take(rest, "train"), splits.train.take(held, "val")
    return Task(train_part, transforms.train, val, transforms.test, selects=True)


def _require_readable(job: Job, task: Task) -> None:
    """Decode the test pictures, which ``clean`` needs after hours of training: a bad one is better named before."""
    mine = job.group.share(np.arange(len(job.splits.test)))
    loader = batches(
        job.splits.test, task.watched_transform, batch_size=64, workers=job.execution.workers, indices=mine
    )
    with closing(loader), progress("check test", len(mine), unit="pictures") as advance:
        for batch in loader:
            advance(len(batch))


def _learner(job: Job, seed: int) -> Learner:
    checkpoint, plan, settings = job.checkpoint, job.plan, job.plan.for_dataset(job.spec)
    module = copy.deepcopy(checkpoint.backbone.module)
    if job.execution.sync_bn and job.group.size > 1:
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    head, kept = _head(job, seed)
    model = Trainable(module, head, frozen=settings.frozen, freeze_bn=settings.freeze_bn, head_kept=kept)
    teacher = None if plan.teacher is None else _teacher(job, plan.teacher)
    return Learner(model, checkpoint.backbone.mask, settings, job.execution, job.group, teacher)


def _head(job: Job, seed: int) -> tuple[nn.Linear, Tensor | None]:
    """The head to begin with; of one that is kept and pruned, its mask too."""
    classes, width = job.splits.train.classes, job.checkpoint.backbone.feature_dim
    head = new_head(width, len(classes), seed)
    if job.plan.head == "new":
        return head, None
    if job.plan.head == "linear":
        _fill(head, _linear_head(job, seed))
        return head, None
    known = job.checkpoint.head
    if known is None:
        raise UserError("this checkpoint has no head to keep", where=job.checkpoint.path, do="leave --head keep out")
    known = aligned(known, job.splits.train, job.checkpoint.path, do="leave --head keep out")
    _fill(head, known)
    return head, known.kept


def _linear_head(job: Job, seed: int) -> Head:
    """Fitted first. Every process fits it; of the features one makes them all, and the others wait and read."""
    backbone, execution = job.checkpoint.backbone, job.execution
    compute = Compute(execution.device, threads=execution.threads, workers=execution.workers)
    transform = job.plan.transforms(backbone.preprocessing, job.spec).test
    return linear_start(backbone, job.splits, transform, job.plan.protocol.name, seed, compute)


def _teacher(job: Job, teacher: Checkpoint) -> nn.Module:
    """The teacher as one module for our pictures, its rows in the order of the data set's classes."""
    if teacher.head is None:
        raise UserError("the teacher has no head", where=teacher.path, do="finetune it on this data set first")
    ours = job.plan.transforms(job.checkpoint.backbone.preprocessing, job.spec).test.preprocessing
    theirs = teacher.backbone.preprocessing
    if ours.crop != theirs.crop:
        raise UserError(
            f"the teacher reads pictures of {theirs.crop} px and the network of {ours.crop}",
            where=teacher.path,
            do="use a teacher for the same size",
        )
    known = aligned(teacher.head, job.splits.train, teacher.path, do="finetune the teacher on this data set first")
    head = nn.Linear(teacher.backbone.feature_dim, len(known.weight))
    _fill(head, known)
    return Renormalised(Trainable(teacher.backbone.module, head), ours, theirs).requires_grad_(False)


def _fill(layer: nn.Linear, head: Head) -> None:
    with torch.no_grad():
        layer.weight.copy_(head.weight)
        layer.bias.copy_(head.bias)


def _test_logits(job: Job, learner: Learner, trained: Trained) -> NDArray[np.float32]:
    """Logits of the test pictures by the network that is kept. All processes take part."""
    learner.model.load_state_dict(dict(trained.tensors))
    transform = job.plan.transforms(job.checkpoint.backbone.preprocessing, job.spec).test
    return logits_of(learner.model, job.splits.test, transform, job.group, workers=job.execution.workers)


def _finish(job: Job, run: Run, task: Task, learner: Learner, trained: Trained) -> FinishedRun:
    """Measure the kept network on the test pictures and write the run's last files."""
    began = time.perf_counter()
    test, position, warnings = job.splits.test, trained.position, []
    logits = _test_logits(job, learner, trained) if task.selects else trained.logits
    measured = measure_logits(logits, test)
    facts = task.watched_transform.preprocessing
    backbone = replace(
        job.checkpoint.backbone, module=copy.deepcopy(job.checkpoint.backbone.module), preprocessing=facts
    )
    network = network_of(backbone, dict(trained.tensors), test.classes, learner.model.head_kept)
    save(network, run.network_path, origin=job.checkpoint.origin)
    best = None if task.selects else trained.best
    run.save_confusion(measured.confusion, best=best, labels=test.labels, predictions=measured.predictions)
    digests = write_outcome(run.folder, logits, test, measured.confusion)
    settings = learner.settings
    ended = position.ended or f"all {settings.epochs} epochs"
    if position.restarts:
        warnings.append(f"{position.restarts} restarts at a lower learning rate after a loss that was not finite")
    if job.plan.head == "keep" and task.selects and job.splits.val is None:
        warnings.append("the kept head may know the validation pictures, which chose the epoch: --head linear does not")
    if trained.best_epoch == position.epoch == settings.epochs and task.selects:
        warnings.append("the last epoch was the best: more epochs may be better")
    chosen: dict[str, Json] = {"epoch": trained.epoch, "lr": settings.optimiser.lr}
    return run.finish(
        RunResult(
            identity=run.record.identity,
            metric=job.spec.metric,
            last=replace(measured.accuracy, epoch=trained.epoch, selected_on="validation" if task.selects else None),
            best=None if best is None else Accuracy.of(best, epoch=trained.best_epoch, selected_on="test"),
            cross_entropy=measured.cross_entropy,
            ece=measured.ece,
            empty_classes=measured.confusion.empty_classes,
            cost=cost_of(network, warnings),
            solver=SolverReport(settings.optimiser.name, ended, chosen=chosen),
            model=job.checkpoint.origin.method or "",
            sparsity=job.checkpoint.origin.sparsity,
            seconds={
                **{phase: round(seconds, 3) for phase, seconds in position.seconds.items()},
                "measure": round(time.perf_counter() - began, 3),
            },
            warnings=tuple(warnings),
            partial=job.splits.partial,
            digests=digests,
        )
    )


def _line(event: Event, epochs: int) -> str:
    """One line for people at the end of an epoch."""
    watched = "val" if "val_top1" in event else "test"
    shown = {key: value for key, value in event.items() if isinstance(value, int | float)}
    sparsity = f"  sparsity {shown['sparsity']:.2%}" if "sparsity" in shown else ""
    speed = f"  {shown['pictures_per_s']:.3g} img/s  busy {shown['busy']:.0%}" if "busy" in shown else ""
    return (
        f"epoch {shown['epoch']}/{epochs}  lr {shown['lr']:.2g}  loss {shown['train_loss']:.4f}"
        f"  train {shown['train_top1']:.2%}  {watched} {shown[f'{watched}_top1']:.2%}{sparsity}{speed}"
    )


def _copy(run: FinishedRun, output: Path) -> None:
    """The network of a finished run, the one that it wrote, at ``output``."""
    path = run.network()
    if path is None:
        raise UserError("the run's network is gone", where=run.folder, do="run it again with --force")
    found = load(path)
    save(found.network, output, origin=found.origin)
