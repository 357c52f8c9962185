"""The results table: one row a run, the published columns first. Every report is made of it."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby

from sparse_transfer.core.canonical import Json
from sparse_transfer.core.errors import listed
from sparse_transfer.metrics.intervals import over_seeds
from sparse_transfer.runs.finished import FinishedRun
from sparse_transfer.runs.record import Metric
from sparse_transfer.runs.tolerant import encode

SEPARATOR = " | "  # between the warnings of one row of CSV; "; " stands inside a sentence


@dataclass(frozen=True)
class Row:
    """One run. ``dset, model, sparsity, seed, val_acc`` are the columns of the published result files.

    sparsity: claimed by the checkpoint, else measured over its prunable weights.   seed: ``seed_<n>``.
    val_acc: the headline accuracy (``metric``) on the test images, a share; ``low``, ``high``: its interval over
    images.   digest: the checkpoint's.   best: the best epoch's, *selected on test*.   macs: of the sparse network.
    settings: equal for runs that differ in the seed alone.   differs: of the settings, what tells them from those of
    the other runs that are alike in all columns but these two.   run: the folder's name.
    """

    dset: str
    model: str
    sparsity: float | None
    seed: str
    val_acc: float
    checkpoint: str
    digest: str
    transfer: str
    protocol: str
    solver: str
    metric: Metric
    n: int
    low: float
    high: float
    top1: float
    mean_per_class: float
    best: float | None
    cross_entropy: float | None
    ece: float | None
    macs: int | None
    macs_dense: int | None
    seconds: float
    warnings: tuple[str, ...]
    partial: str
    settings: str
    differs: str
    run: str


@dataclass(frozen=True)
class Summary:
    """Runs that differ in the seed alone. ``low``, ``high`` are over ``over``: of one seed the interval over images.
    ``image_low``, ``image_high``: over test images, the mean of the seeds' bounds: what other pictures would change.

    val_acc: mean over the seeds.   std: sample standard deviation (n - 1); None of one seed.   seeds: how many.
    n: test images.   seconds: of all seeds together.
    """

    dset: str
    model: str
    sparsity: float | None
    seeds: int
    val_acc: float
    std: float | None
    low: float
    high: float
    over: str
    image_low: float
    image_high: float
    checkpoint: str
    digest: str
    transfer: str
    protocol: str
    solver: str
    metric: Metric
    n: int
    top1: float
    mean_per_class: float
    macs: int | None
    macs_dense: int | None
    seconds: float
    warnings: tuple[str, ...]
    partial: str
    settings: str
    differs: str


def rows(runs: Iterable[FinishedRun]) -> list[Row]:
    """One row for each run, in an order that depends on nothing but what the rows hold."""
    found = list(runs)
    return sorted((_row(run, told) for run, told in zip(found, _differences(found), strict=True)), key=_order)


def summarise(table: Iterable[Row]) -> list[Summary]:
    """One line for each (data set, checkpoint, transfer, protocol, solver, settings), over its seeds.

    A run that was done again counts once: the newest.
    """
    newest: dict[tuple[str, str], Row] = {}
    for row in sorted(table, key=_order):  # seed21-ID before seed21-ID.2
        newest[row.settings, row.seed] = row
    chosen = sorted(newest.values(), key=_order)
    return [_summary(list(group)) for _, group in groupby(chosen, key=_group)]


def to_csv(table: Sequence[Row] | Sequence[Summary]) -> str:
    """CSV with a header, LF line ends, full precision; what is not known is empty."""
    if not table:
        return ""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(table[0])])
    for line in table:
        cells = [getattr(line, field.name) for field in fields(line)]
        writer.writerow([SEPARATOR.join(cell) if isinstance(cell, tuple) else cell for cell in cells])
    return text.getvalue()


def to_json(table: Sequence[Row] | Sequence[Summary]) -> str:
    """A JSON list of objects, one for each line."""
    lines: list[Json] = [encode(line) for line in table]
    return json.dumps(lines, indent=2, ensure_ascii=False, allow_nan=False)


def _differences(runs: Sequence[FinishedRun]) -> list[str]:
    """``epochs=6, lr=0.1``: those settings of each run in which the runs of its kind are not all equal."""
    kinds: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for run in runs:
        kinds.setdefault(_kind(run), []).append(_settings(run))
    varying = {
        kind: sorted(key for key in set().union(*group) if len({settings.get(key) for settings in group}) > 1)
        for kind, group in kinds.items()
    }
    return [
        ", ".join(f"{key.rpartition('.')[2]}={settings[key]}" for key in varying[_kind(run)] if key in settings)
        for run, settings in ((run, _settings(run)) for run in runs)
    ]


def _kind(run: FinishedRun) -> tuple[str, ...]:
    identity, solver = run.result.identity, run.result.solver
    names = (identity.dataset, identity.transfer, identity.protocol, solver.name if solver else "")
    return (*names, identity.checkpoint, identity.checkpoint_digest)


def _settings(run: FinishedRun) -> dict[str, str]:
    """Every setting by its dotted path, as text, and the pictures. Without transforms: they follow from the others."""
    identity = run.result.identity
    flat = {"numerics": identity.numerics}
    flat |= {f"fingerprint of {part}": fingerprint[:8] for part, fingerprint in identity.splits.items()}
    pending: list[tuple[str, Json]] = [(key, value) for key, value in identity.settings.items() if key != "transforms"]
    for path, value in pending:
        if isinstance(value, Mapping):
            pending += [(f"{path}.{key}", item) for key, item in value.items()]
        elif isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 5:
            flat[path] = f"{len(value)} values"
        else:
            flat[path] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _row(run: FinishedRun, differs: str) -> Row:
    result, identity = run.result, run.result.identity
    sparsity = result.sparsity
    if sparsity is None and result.cost is not None:
        sparsity = result.cost.sparsity_prunable
    return Row(
        dset=identity.dataset,
        model=result.model or identity.checkpoint,
        sparsity=sparsity,
        seed=f"seed_{identity.seed}",
        val_acc=result.value,
        checkpoint=identity.checkpoint,
        digest=identity.checkpoint_digest,
        transfer=identity.transfer,
        protocol=identity.protocol,
        solver=result.solver.name if result.solver else "",
        metric=result.metric,
        n=result.n_test,
        low=result.interval.low,
        high=result.interval.high,
        top1=result.last.top1,
        mean_per_class=result.last.mean_per_class,
        best=result.best.value(result.metric) if result.best else None,
        cross_entropy=result.cross_entropy,
        ece=result.ece,
        macs=result.cost.macs_sparse if result.cost else None,
        macs_dense=result.cost.macs_dense if result.cost else None,
        seconds=sum(result.seconds.values()),
        warnings=(*result.warnings, *_left_out(result.empty_classes)),
        partial=result.partial or "",
        settings=identity.group,
        differs=differs,
        run=run.folder.name,
    )


def _left_out(classes: tuple[str, ...]) -> list[str]:
    return [f"no test picture of {listed([*classes])}: left out of the mean per class"] if classes else []


def _group(row: Row) -> tuple[str | float, ...]:
    sparsity = -1.0 if row.sparsity is None else row.sparsity
    return (
        *(row.dset.lower(), row.dset, row.model, sparsity, row.checkpoint, row.digest),
        *(row.transfer, row.protocol, row.solver, row.metric, row.settings),
    )


def _order(row: Row) -> tuple[tuple[str | float, ...], int, int, str]:
    attempt = row.run.rpartition(".")[2]
    return _group(row), int(row.seed.removeprefix("seed_")), int(attempt) if attempt.isdigit() else 1, row.run


def _summary(group: list[Row]) -> Summary:
    first = group[0]
    seeds = over_seeds([row.val_acc for row in group])
    low, high = (seeds.interval.low, seeds.interval.high) if seeds.interval else (first.low, first.high)
    low, high = max(low, 0.0), min(high, 1.0)  # Student's t knows nothing of the ends of a share
    return Summary(
        dset=first.dset,
        model=first.model,
        sparsity=first.sparsity,
        seeds=seeds.n,
        val_acc=seeds.mean,
        std=seeds.std,
        low=low,
        high=high,
        over="seeds" if seeds.interval else "images",
        image_low=over_seeds([row.low for row in group]).mean,
        image_high=over_seeds([row.high for row in group]).mean,
        checkpoint=first.checkpoint,
        digest=first.digest,
        transfer=first.transfer,
        protocol=first.protocol,
        solver=first.solver,
        metric=first.metric,
        n=first.n,
        top1=over_seeds([row.top1 for row in group]).mean,
        mean_per_class=over_seeds([row.mean_per_class for row in group]).mean,
        macs=first.macs,
        macs_dense=first.macs_dense,
        seconds=sum(row.seconds for row in group),
        warnings=tuple(dict.fromkeys(warning for row in group for warning in row.warnings)),
        partial=SEPARATOR.join(dict.fromkeys(row.partial for row in group if row.partial)),
        settings=first.settings,
        differs=first.differs,
    )
