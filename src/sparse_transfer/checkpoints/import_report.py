"""What an import found, did and took for granted: for a person to read, and for a program."""

import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from sparse_transfer.core.canonical import Json
from sparse_transfer.models import Preprocessing
from sparse_transfer.sparsity import Share, Sparsities

WIDTH = 100


@dataclass(frozen=True)
class Verified:
    """Accuracy of the imported network on labelled pictures: ``correct`` of ``total`` top-1, [low, high] 95 % of it."""

    pictures: str
    correct: int
    total: int
    low: float
    high: float

    @property
    def top1(self) -> float:
        return self.correct / self.total


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a file was read.

    encoding, family: what was recognised; the two ``_because`` say by what. ``masks`` says what was done about them.
    mapped: canonical name -> key in the file.   dropped: key or entry of the file -> why it was left out.
    stand_ins: classes that the file names and nobody looked up.
    """

    file: str
    sha256: str
    container: str
    place: str = ""
    prefix: str = ""
    encoding: str
    encoding_because: str
    family: str
    family_because: str
    mapped: Mapping[str, str]
    dropped: Mapping[str, str] = field(default_factory=dict[str, str])
    stand_ins: tuple[str, ...] = ()
    masks: str
    notes: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImportReport(Reading):
    """Everything that was decided on the way from a file to a checkpoint: how it was read, and what came of it.

    claimed: the sparsity that its origin states, in [0, 1].   sparsities: what was found, exact.
    method, licence: as its origin has them.   verified: what it reached on labelled pictures, where it was tried.
    """

    architecture: str
    preprocessing: Preprocessing
    classes: int | None
    claimed: float | None
    sparsities: Sparsities
    licence: str | None
    method: str | None
    verified: Verified | None = None

    def to_json(self) -> Json:
        counts = self.sparsities
        return {
            "file": self.file,
            "sha256": self.sha256,
            "container": self.container,
            "place": self.place,
            "prefix": self.prefix,
            "encoding": {"name": self.encoding, "because": self.encoding_because},
            "family": {"name": self.family, "because": self.family_because},
            "architecture": self.architecture,
            "preprocessing": self.preprocessing.to_json(),
            "classes": self.classes,
            "mapped": dict(self.mapped),
            "dropped": dict(self.dropped),
            "stand_ins": list(self.stand_ins),
            "masks": self.masks,
            "sparsity": {"claimed": self.claimed, **shares_to_json(counts)},
            "notes": list(self.notes),
            "assumptions": list(self.assumptions),
            "warnings": list(self.warnings),
            "licence": self.licence,
            "method": self.method,
            "verified": None if self.verified is None else {**asdict(self.verified), "top1": self.verified.top1},
        }

    def render(self) -> str:
        """The report as plain text, at most 100 columns wide."""
        where = f', entry "{self.place}"' if self.place else ""
        prefix = f', prefix "{self.prefix}" taken off' if self.prefix else ""
        rows = [
            ("file", f"{self.file} ({self.container}{where}{prefix})"),
            ("sha256", self.sha256),
            ("network", f"{self.architecture}, names of {self.family} ({self.family_because})"),
            ("sparsity", f"{self.encoding} ({self.encoding_because}); {self.masks}"),
            *(("", line) for line in shares_in_words(self.sparsities, self.claimed)),
            ("head", "none" if self.classes is None else f"{self.classes} classes"),
            ("pictures", preprocessing_in_words(self.preprocessing)),
            *(() if self.method is None else (("method", self.method),)),
            ("licence", self.licence or "not stated"),
            ("tensors", f"{len(self.mapped)} taken, {len(self.dropped)} entries left out"),
            *(("", f"{key}: {why}") for key, why in grouped(self.dropped)),
            *(("classes", f"{name} (named in the file, not looked up)") for name in self.stand_ins),
            *(("note", note) for note in self.notes),
            *(("assumed", assumption) for assumption in self.assumptions),
            *(("warning", warning) for warning in self.warnings),
            *(() if self.verified is None else (("verified", verified_in_words(self.verified)),)),
        ]
        return "\n".join(row(title, text) for title, text in rows)


def verified_in_words(verified: Verified) -> str:
    return (
        f"top-1 {verified.top1:.2%} on {verified.total:,} pictures of {verified.pictures} ({verified.correct:,} right;"
        f" 95 % interval over images {verified.low:.2%} to {verified.high:.2%})"
    )


def row(title: str, text: str) -> str:
    """``title    text``, the text wrapped and indented."""
    indent = " " * 10
    return textwrap.fill(text, WIDTH, initial_indent=f"{title:<10}", subsequent_indent=indent, break_on_hyphens=False)


def grouped(dropped: Mapping[str, str]) -> list[tuple[str, str]]:
    """The reasons, each with how many keys it is for and the first few of them."""
    by_reason: dict[str, list[str]] = {}
    for key, why in dropped.items():
        by_reason.setdefault(why, []).append(key)
    return [
        (", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else ""), why)
        for why, keys in by_reason.items()
    ]


def shares_in_words(counts: Sparsities, claimed: float | None = None) -> list[str]:
    """The three sparsities, each with what it is of."""
    lines = [
        share_in_words(counts.masked, "weights of the layers with a mask"),
        share_in_words(counts.prunable, "prunable weights of the backbone"),
        share_in_words(counts.total, "parameters of the network"),
    ]
    if counts.trained_zeros:
        lines.append(f"{counts.trained_zeros:,} kept weights are 0")
    if claimed is not None:
        lines.append(f"{claimed:.2%} was claimed")
    return lines


def share_in_words(share: Share, of: str) -> str:
    return f"{share.sparsity:7.2%}  {share.zeros:,} of {share.size:,} {of}"


def shares_to_json(counts: Sparsities) -> dict[str, Json]:
    shares = {"masked": counts.masked, "prunable": counts.prunable, "total": counts.total}
    return {
        **{
            name: {"zeros": share.zeros, "size": share.size, "sparsity": share.sparsity}
            for name, share in shares.items()
        },
        "trained_zeros": counts.trained_zeros,
    }


def preprocessing_in_words(wanted: Preprocessing) -> str:
    def numbers(values: tuple[float, float, float]) -> str:
        return ", ".join(f"{value:.4g}" for value in values)

    order = "" if wanted.channel_order == "rgb" else ", channels in the order BGR"
    if wanted.interpolation == "tf1_bicubic":
        sizes = f"centre {wanted.crop}/{wanted.resize} of the shorter side, resized to {wanted.crop} px (tf1_bicubic)"
    else:
        sizes = f"shorter side {wanted.resize} px ({wanted.interpolation}), centre {wanted.crop} px"
    return f"{sizes}, mean {numbers(wanted.mean)}, std {numbers(wanted.std)}{order}"
