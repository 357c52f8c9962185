"""Linear transfer: features once, then a head a seed, then records. The backbone is never changed.

On the test pictures a head is measured as its protocol allows: after every epoch (``cvpr2022``) or once (``clean``).
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sparse_transfer.checkpoints.file import Checkpoint, save
from sparse_transfer.core.progress import note
from sparse_transfer.data.specs import DatasetSpec
from sparse_transfer.data.split import Splits
from sparse_transfer.data.subset import read_to_train
from sparse_transfer.models import Head, Network
from sparse_transfer.runs.finished import FinishedRun
from sparse_transfer.runs.identity import RunIdentity
from sparse_transfer.runs.record import Accuracy, RunRecord, RunResult
from sparse_transfer.runs.store import Run, RunStore
from sparse_transfer.runs.trackers import TrackerFactory, no_trackers
from sparse_transfer.transfer.compute import DEFAULT, Compute
from sparse_transfer.transfer.costing import cost_of
from sparse_transfer.transfer.evaluate import measure
from sparse_transfer.transfer.fitting import Fitted, fit_seeds
from sparse_transfer.transfer.output import require_writable
from sparse_transfer.transfer.plan import Plan
from sparse_transfer.transfer.protocols import PAPER_SEEDS


def linear_transfer(
    checkpoint: Checkpoint | Network | str | Path,
    dataset: str,
    *,
    plan: Plan | None = None,
    seeds: Sequence[int] = PAPER_SEEDS,
    shots: int | None = None,
    fraction: float | None = None,
    runs: str | Path = "runs",
    output: str | Path | None = None,
    force: bool = False,
    wait: bool = True,
    compute: Compute = DEFAULT,
    trackers: TrackerFactory = no_trackers,
) -> list[FinishedRun]:
    """Fit heads on the backbone's features of ``dataset``, one a seed, and leave one run record each.

    checkpoint: a file, or a network in memory.   dataset: ``NAME[:ROOT]``.
    plan: protocol, solver, settings; default ``Plan.of("clean")``.
    shots, fraction: take that part of the training pictures.   runs: folder of the records; a run that is finished
    there is not done again unless ``force``.   output: where to write backbone, head (of the first seed) and class
    names as one checkpoint.

    Raises:
        UserError: anything the user can put right, before the first long step where that is possible.

    Example:
        >>> linear_transfer("missing.safetensors", "digits")
        Traceback (most recent call last):
        sparse_transfer.core.errors.UserError: missing.safetensors: there is no such file
    """
    checkpoint = Checkpoint.of(checkpoint)
    plan = plan or Plan.of()
    spec, splits = read_to_train(dataset, shots=shots, fraction=fraction)
    records = [
        RunRecord.now(
            _identity(checkpoint, spec, splits, plan, seed, compute),
            architecture=str(checkpoint.backbone.architecture),
            command=sys.argv,
        )
        for seed in seeds
    ]
    if output is not None:
        require_writable(Path(output), source=checkpoint.path)
    store = RunStore(Path(runs))
    with store.open_many(records, force=force, wait=wait, trackers=trackers) as opened:
        todo = [run for run in opened if run.finished is None]
        if todo:
            left = [run.record.identity.seed for run in todo]
            fitted = fit_seeds(checkpoint.backbone, spec, splits, plan, compute, left, todo)
            for run, fit in zip(todo, fitted, strict=True):
                _finish(run, fit, checkpoint, spec, splits)
        finished = [run.finished for run in opened if run.finished is not None]
    if output is not None:
        head = finished[0].head()
        if head is None:
            note(f"{finished[0].folder}: this record is older than kept heads, so its head is fitted again")
            head = fit_seeds(checkpoint.backbone, spec, splits, plan, compute, seeds[:1])[0].head
        _write(checkpoint, head, splits.train.classes, plan, spec, Path(output))
    return finished


def _identity(
    checkpoint: Checkpoint, spec: DatasetSpec, splits: Splits, plan: Plan, seed: int, compute: Compute
) -> RunIdentity:
    return RunIdentity(
        transfer="linear",
        dataset=spec.name,
        checkpoint=checkpoint.name,
        checkpoint_digest=checkpoint.digest,
        splits=splits.fingerprints,
        protocol=plan.protocol.name,
        settings={**plan.to_json(), "transforms": plan.transforms(checkpoint.backbone, spec).to_json()},
        seed=seed,
        numerics=compute.numerics,
    )


def _finish(run: Run, fit: Fitted, checkpoint: Checkpoint, spec: DatasetSpec, splits: Splits) -> None:
    """Measure the head on the test features and write the run's last files."""
    began = time.perf_counter()
    warnings = list(fit.warnings)
    head = replace(fit.head, classes=splits.test.classes)
    measured = measure(head, fit.test_features, splits.test)
    run.save_head(head)
    run.save_confusion(measured.confusion, best=fit.best, labels=splits.test.labels, predictions=measured.predictions)
    best = None if fit.best is None else Accuracy.of(fit.best, epoch=fit.best_epoch, selected_on="test")
    run.finish(
        RunResult(
            identity=run.record.identity,
            metric=spec.metric,
            last=replace(measured.accuracy, epoch=fit.epochs),
            best=best,
            cross_entropy=measured.cross_entropy,
            ece=measured.ece,
            knn_top1=fit.knn_top1,
            empty_classes=measured.confusion.empty_classes,
            cost=cost_of(Network(checkpoint.backbone, head), warnings),
            solver=fit.report,
            model=checkpoint.origin.method or "",
            sparsity=checkpoint.origin.sparsity,
            seconds={**fit.seconds, "measure": round(time.perf_counter() - began, 3)},
            warnings=tuple(warnings),
            partial=splits.partial,
        )
    )


def _write(
    checkpoint: Checkpoint, head: Head, classes: tuple[str, ...], plan: Plan, spec: DatasetSpec, path: Path
) -> None:
    """Backbone, head and class names as one file, with the preprocessing that the head was fitted on."""
    facts = plan.transforms(checkpoint.backbone, spec).test.preprocessing
    network = Network(replace(checkpoint.backbone, preprocessing=facts), replace(head, classes=classes))
    save(network, path, origin=checkpoint.origin)
