"""Look into a checkpoint, ours or foreign, without writing anything."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Unpack

from sparse_transfer.checkpoints.file import Origin, is_ours, load
from sparse_transfer.checkpoints.import_report import preprocessing_in_words, row, shares_in_words, shares_to_json
from sparse_transfer.checkpoints.importing import OURS, Hints, import_checkpoint
from sparse_transfer.checkpoints.tables import table
from sparse_transfer.core.canonical import Json
from sparse_transfer.core.errors import UserError
from sparse_transfer.models import Architecture, LayerCost, Network, Preprocessing, cost, head_cost, sparsities
from sparse_transfer.models.network import head_name
from sparse_transfer.sparsity import LayerCount, Sparsities, pattern


@dataclass(frozen=True)
class Layer:
    """One prunable weight. ``trained_zeros`` of its ``kept`` weights are 0; MACs are for one picture.

    pattern: of its mask; None where it has none.   macs_dense, macs_sparse: None where the network cannot be traced.
    """

    name: str
    shape: tuple[int, ...]
    size: int
    kept: int
    trained_zeros: int
    pattern: str | None
    macs_dense: int | None
    macs_sparse: int | None

    @property
    def sparsity(self) -> float:
        return 1 - self.kept / self.size if self.size else 0.0


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint holds. ``format`` is ours, or the encoding and family of names that were recognised.

    classes: the head's class names, () where they are not known.   class_count: None without a head.
    notes: what an import would take for granted or warn of.
    """

    file: str
    format: str
    digest: str
    architecture: Architecture
    preprocessing: Preprocessing
    origin: Origin
    class_count: int | None
    classes: tuple[str, ...]
    sparsities: Sparsities
    layers: tuple[Layer, ...]
    notes: tuple[str, ...]

    @property
    def macs(self) -> tuple[int, int] | None:
        """Multiply-adds of one picture, dense and with kept weights only; None where the network cannot be traced."""
        if any(layer.macs_dense is None for layer in self.layers):
            return None
        return sum(layer.macs_dense or 0 for layer in self.layers), sum(layer.macs_sparse or 0 for layer in self.layers)

    def to_json(self) -> Json:
        macs = self.macs
        return {
            "file": self.file,
            "format": self.format,
            "digest": self.digest,
            "architecture": self.architecture.to_json(),
            "preprocessing": self.preprocessing.to_json(),
            "origin": asdict(self.origin),
            "class_count": self.class_count,
            "classes": list(self.classes),
            "sparsity": shares_to_json(self.sparsities),
            "macs": None if macs is None else {"dense": macs[0], "sparse": macs[1]},
            "layers": [
                {**asdict(layer), "shape": list(layer.shape), "sparsity": layer.sparsity} for layer in self.layers
            ],
            "notes": list(self.notes),
        }

    def render(self) -> str:
        """Plain text, at most 100 columns wide: the facts, then one line a layer."""
        origin = ", ".join(f"{key} {value}" for key, value in asdict(self.origin).items() if value is not None)
        rows = [
            ("file", f"{self.file} ({self.format})"),
            ("digest", self.digest),
            ("network", str(self.architecture)),
            ("pictures", preprocessing_in_words(self.preprocessing)),
            ("origin", origin or "not stated"),
            ("head", self._head_in_words()),
            *(("sparsity" if not number else "", line) for number, line in enumerate(shares_in_words(self.sparsities))),
            *((("MACs", self._macs_in_words()),)),
            *(("note", note) for note in self.notes),
        ]
        return "\n".join([*(row(title, text) for title, text in rows), "", self._table()])

    def _head_in_words(self) -> str:
        if self.class_count is None:
            return "none"
        names = f": {', '.join(self.classes[:3])}{', …' if len(self.classes) > 3 else ''}" if self.classes else ""
        return f"{self.class_count} classes{names or ', not named'}"

    def _macs_in_words(self) -> str:
        if self.macs is None:
            return "not known: the network cannot be traced"
        dense, sparse = self.macs
        return f"{dense:,} for one picture, {sparse:,} with kept weights only ({self.preprocessing.crop} px)"

    def _table(self) -> str:
        return table(
            ("layer", "shape", "weights", "kept", "sparsity", "pattern", "kept zeros", "MMACs"),
            [
                (
                    layer.name.removesuffix(".weight"),
                    "×".join(map(str, layer.shape)),
                    f"{layer.size:,}",
                    f"{layer.kept:,}",
                    f"{layer.sparsity:.2%}",
                    layer.pattern or "no mask",
                    f"{layer.trained_zeros:,}",
                    "" if layer.macs_sparse is None else f"{layer.macs_sparse / 1e6:,.2f}",
                )
                for layer in self.layers
            ],
            left=(0, 1, 5),
        )


def inspect(path: str | Path, **said: Unpack[Hints]) -> Inspection:
    """What the file holds: ours as it is, a foreign one as an import would bring it in. Writes nothing.

    ``said`` as for ``import_checkpoint``: what a foreign file leaves to its reader to say.
    Raises ``UserError`` as reading the file does.
    """
    path = Path(path)
    if is_ours(path) and all(value is None for value in said.values()):
        checkpoint = load(path)
        return _inspection(path.name, OURS, checkpoint.digest, checkpoint.network, checkpoint.origin, ())
    imported = import_checkpoint(path, **said)
    report, network = imported.report, imported.network
    notes = (*report.notes, *report.assumptions, *report.warnings)
    kind = OURS if report.encoding == OURS else imported.origin.format or OURS
    return _inspection(report.file, kind, network.digest(), network, imported.origin, notes)


def _inspection(
    name: str, kind: str, digest: str, network: Network, origin: Origin, notes: tuple[str, ...]
) -> Inspection:
    backbone, head = network.backbone, network.head
    counts, masks = sparsities(network), network.masks()
    costs: dict[str, LayerCost] = {}
    try:
        costs = {f"{layer.name}.weight": layer for layer in cost(backbone, backbone.preprocessing.crop).layers}
        if head is not None:
            costs[f"{head_name(backbone.architecture)}.weight"] = head_cost(head)
    except UserError as error:
        notes = (*notes, f"MACs are not known: {error}")

    def layer(count: LayerCount) -> Layer:
        macs = costs.get(count.name)
        return Layer(
            name=count.name,
            shape=count.shape,
            size=count.pruned.size,
            kept=count.pruned.size - count.pruned.zeros,
            trained_zeros=count.trained_zeros,
            pattern=pattern(masks[count.name]) if count.name in masks else None,
            macs_dense=None if macs is None else macs.macs_dense,
            macs_sparse=None if macs is None else macs.macs_sparse,
        )

    return Inspection(
        file=name,
        format=kind,
        digest=digest,
        architecture=backbone.architecture,
        preprocessing=backbone.preprocessing,
        origin=origin,
        class_count=None if head is None else len(head.weight),
        classes=() if head is None else head.classes,
        sparsities=counts,
        layers=tuple(layer(count) for count in counts.layers),
        notes=notes,
    )
