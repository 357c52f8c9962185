"""Where two checkpoints differ: what they are, which weights they keep, and the weights themselves."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Unpack

import torch
from torch import Tensor

from sparse_transfer.checkpoints.file import is_ours, load
from sparse_transfer.checkpoints.import_report import row
from sparse_transfer.checkpoints.importing import Hints, import_checkpoint
from sparse_transfer.checkpoints.tables import table
from sparse_transfer.core.canonical import Json
from sparse_transfer.core.errors import listed
from sparse_transfer.models import Network


@dataclass(frozen=True)
class TensorDifference:
    """One tensor that both networks have in one shape; a tensor without a mask keeps everything.

    kept_in_both, only_a, only_b: exact counts of kept elements.   largest: max |a - b|, pruned elements as 0.
    """

    name: str
    shape: tuple[int, ...]
    is_masked: bool
    kept_in_both: int
    only_a: int
    only_b: int
    largest: float

    @property
    def iou(self) -> float:
        """Kept in both / kept in one at least; 1 where neither keeps anything."""
        either = self.kept_in_both + self.only_a + self.only_b
        return self.kept_in_both / either if either else 1.0


@dataclass(frozen=True)
class Difference:
    """Two networks side by side.

    facts: what differs of architecture, preprocessing, class names: name -> (in a, in b), as text.
    tensors: one row a tensor that both have, in the order of a.   only_a, only_b: tensors of one alone, or of another
        shape in the other.
    """

    a: str
    b: str
    digests: tuple[str, str]
    facts: Mapping[str, tuple[str, str]]
    tensors: tuple[TensorDifference, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]

    @property
    def is_same(self) -> bool:
        """Nothing differs: the digest does not cover preprocessing and class names, this does."""
        return self.digests[0] == self.digests[1] and not self.facts

    @property
    def iou(self) -> float:
        """Kept in both / kept in one at least, over all tensors with a mask in one of the two; 1 without any."""
        masked = [tensor for tensor in self.tensors if tensor.is_masked]
        both = sum(tensor.kept_in_both for tensor in masked)
        either = both + sum(tensor.only_a + tensor.only_b for tensor in masked)
        return both / either if either else 1.0

    def to_json(self) -> Json:
        return {
            "a": self.a,
            "b": self.b,
            "digests": list(self.digests),
            "is_same": self.is_same,
            "facts": {name: list(pair) for name, pair in self.facts.items()},
            "iou": self.iou,
            "tensors": [{**asdict(tensor), "shape": list(tensor.shape), "iou": tensor.iou} for tensor in self.tensors],
            "only_a": list(self.only_a),
            "only_b": list(self.only_b),
        }

    def render(self) -> str:
        """Plain text, at most 100 columns wide; only weights that differ have a line."""
        rows = [("a", f"{self.a}, digest {self.digests[0][:12]}…"), ("b", f"{self.b}, digest {self.digests[1][:12]}…")]
        if self.is_same:
            return "\n".join(row(*pair) for pair in (*rows, ("", "they are the same")))
        for name, (first, second) in self.facts.items():
            rows += [(name, f"a: {first}"), ("", f"b: {second}")]
        for side, names in (("a", self.only_a), ("b", self.only_b)):
            if names:
                rows.append((f"only {side}", f"{len(names)} tensors: {listed(list(names))}"))
        changed = [tensor for tensor in self.tensors if tensor.largest > 0 or tensor.only_a or tensor.only_b]
        rows.append(("tensors", f"{len(changed)} of {len(self.tensors)} differ"))
        if any(tensor.is_masked for tensor in self.tensors):
            rows.append(("masks", f"{self.iou:.2%} of what one of the two keeps under a mask is kept in both"))
        text = "\n".join(row(*pair) for pair in rows)
        weights = [tensor for tensor in changed if len(tensor.shape) >= 2]
        return f"{text}\n\n{self._table(weights)}" if weights else text

    def _table(self, changed: list[TensorDifference]) -> str:
        return table(
            ("tensor", "kept in both", "only a", "only b", "both / either", "largest |a - b|"),
            [
                (
                    tensor.name,
                    f"{tensor.kept_in_both:,}",
                    f"{tensor.only_a:,}",
                    f"{tensor.only_b:,}",
                    f"{tensor.iou:.2%}",
                    f"{tensor.largest:.3g}",
                )
                for tensor in changed
            ],
            left=(0,),
        )


def diff(a: str | Path, b: str | Path, **said: Unpack[Hints]) -> Difference:
    """Compare two files, ours or foreign. Raises ``UserError`` as reading them does.

    ``said`` as for ``import_checkpoint``, about the foreign ones among the two; ours say all of it themselves.
    """
    first, second = read(Path(a), **said), read(Path(b), **said)
    ours, theirs = first.tensors(), second.tensors()
    shared = [name for name in ours if name in theirs and ours[name].shape == theirs[name].shape]
    masks, other_masks = first.masks(), second.masks()
    return Difference(
        a=Path(a).name,
        b=Path(b).name,
        digests=(first.digest(), second.digest()),
        facts=_facts(first, second),
        tensors=tuple(
            _tensor(name, ours[name], theirs[name], masks.get(name), other_masks.get(name)) for name in shared
        ),
        only_a=tuple(name for name in ours if name not in shared),
        only_b=tuple(name for name in theirs if name not in shared),
    )


def read(path: Path, **said: Unpack[Hints]) -> Network:
    """The network in a file of ours, or in a foreign one as an import would bring it in."""
    return load(path).network if is_ours(path) else import_checkpoint(path, **said).network


def _facts(first: Network, second: Network) -> dict[str, tuple[str, str]]:
    def facts(network: Network) -> dict[str, str]:
        wanted = network.backbone.preprocessing.to_json()
        classes = () if network.head is None else network.head.classes
        return {
            "network": str(network.backbone.architecture),
            **{name: str(value) for name, value in wanted.items()},
            "head": "none" if network.head is None else f"{len(network.head.weight)} classes",
            "classes": ", ".join(classes) if classes else "not named",
        }

    ours, theirs = facts(first), facts(second)
    return {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]}


def _tensor(name: str, a: Tensor, b: Tensor, kept_a: Tensor | None, kept_b: Tensor | None) -> TensorDifference:
    everything = torch.ones(a.shape, dtype=torch.bool)
    first = everything if kept_a is None else kept_a
    second = everything if kept_b is None else kept_b
    apart = (a.detach().double() - b.detach().double()).abs()
    return TensorDifference(
        name=name,
        shape=tuple(a.shape),
        is_masked=kept_a is not None or kept_b is not None,
        kept_in_both=int((first & second).sum()),
        only_a=int((first & ~second).sum()),
        only_b=int((~first & second).sum()),
        largest=float(apart.max()) if apart.numel() else 0.0,
    )
