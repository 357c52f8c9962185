"""What a format is made of. Two things are asked of a file separately, and every pair of answers can be imported.

How its sparsity is written (``Encoding``): masks of its own, or zeros. Whose names its tensors bear (``KeyFamily``):
torchvision's, RigL's, ... Each is one record in a small file here; ``formats/__init__.py`` has one line for each file,
in the order in which they are asked.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from sparse_transfer.checkpoints.formats.source import Source
from sparse_transfer.checkpoints.readers.container import LazyTensor
from sparse_transfer.core.registry import Registry
from sparse_transfer.models import Architecture, Preprocessing

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class KeyTable:
    """How an encoding spells its keys; ``translate`` applies it.

    rename: (pattern, replacement) applied with ``re.sub``, in order, to every key that is no mask and not ``ones``.
    mask: pattern of a whole key; group 1 is the module whose ``weight`` it masks.
    ones: pattern of a whole key whose values say nothing as long as they are all 1 (the mask of a bias).
    """

    rename: tuple[tuple[str, str], ...]
    mask: str
    ones: str | None = None


@dataclass(frozen=True)
class Translated:
    """Every key of the file exactly once: key in the file -> plain key, or the plain key of the weight it masks."""

    weights: Mapping[str, str]
    masks: Mapping[str, str]
    ones: tuple[str, ...]


def translate(table: KeyTable, keys: Iterable[str]) -> Translated:
    """Sort the keys of a file by what they are; no key is lost, none is counted twice."""
    weights: dict[str, str] = {}
    masks: dict[str, str] = {}
    ones: list[str] = []
    for key in keys:
        if table.ones is not None and re.fullmatch(table.ones, key):
            ones.append(key)
        elif match := re.fullmatch(table.mask, key):
            masks[key] = f"{match[1]}.weight"
        else:
            plain = key
            for pattern, replacement in table.rename:
                plain = re.sub(pattern, replacement, plain)
            weights[key] = plain
    return Translated(weights, masks, tuple(ones))


@dataclass(frozen=True)
class Decoded:
    """A file's tensors as those of the plain network, whatever way its sparsity was written.

    weights: plain key -> tensor, as stored or computed by the encoding's formula when it is read.
    masks: plain key of a weight -> its mask, of the weight's shape, values 0 and 1. Empty: zeros will be looked at.
    keys: plain key -> key in the file.   mask_keys: the same for masks.
    dropped: key in the file -> why it is not part of the network.
    read_beside: the entries beside the tensors that were read too, so that they are not said to be left out.
    problems: why the file cannot be imported, one clause each; they are shown together with those found later.
    warnings, notes, assumptions: sentences for the report.   masks_are: how it calls the masks.
    architecture: the network, where more than its tensors says which it is.   contradicts: networks that it is not.
    """

    weights: Mapping[str, LazyTensor]
    keys: Mapping[str, str]
    masks: Mapping[str, LazyTensor] = field(default_factory=dict[str, LazyTensor])
    mask_keys: Mapping[str, str] = field(default_factory=dict[str, str])
    dropped: Mapping[str, str] = field(default_factory=dict[str, str])
    read_beside: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    masks_are: str = "masks of the file"
    architecture: Architecture | None = None
    contradicts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Encoding:
    """One way to write down which weights are pruned.

    recognise: a clause for the report that says by what it was recognised, or None.
    decode: the plain network's tensors and masks, lazily.   cite: paper, or repository and file.
    """

    cite: str
    recognise: Callable[[Source], str | None]
    decode: Callable[[Source], Decoded]


@dataclass(frozen=True)
class Evidence:
    """By what a family was recognised, and which network it is; None where the keys fit no network of that family.

    choices: networks of which the keys are alike and the caller, or the file, has to name one.
    """

    because: str
    architecture: Architecture | None
    choices: tuple[Architecture, ...] = ()


@dataclass(frozen=True)
class Rule:
    """Keys that match ``pattern`` as a whole are named ``to``; ``op`` brings tensor and mask into canonical shape."""

    pattern: str
    to: str
    op: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class KeyFamily:
    """One way to name the tensors of a network.

    recognise: from the plain keys and their shapes; None where the file is not of this family.
    rename: the first rule that matches names a tensor as its architecture does; a key that none matches stays.
    declared: names that files of this family state for their network -> the architecture each means. Its arguments
        are facts that tensors cannot tell.
    preprocessing: where it is not the architecture's own.
    head_bias: False where the origin's classifier has none; a bias of zeros is exactly the same.
    assumptions: what the keys cannot tell about the network and is taken for granted, for the report.
    pictures: the same about the preprocessing.
    """

    cite: str
    recognise: Callable[[Shapes], Evidence | None]
    rename: tuple[Rule, ...] = ()
    declared: Mapping[str, Architecture] = field(default_factory=dict[str, Architecture])
    preprocessing: Preprocessing | None = None
    head_bias: bool = True
    assumptions: Callable[[Architecture], tuple[str, ...]] = lambda architecture: ()
    pictures: str | None = None

    def renamed(self, key: str) -> tuple[str, Callable[[Tensor], Tensor] | None]:
        """The canonical name of a plain key, and what to do with its tensor."""
        for rule in self.rename:
            if match := re.fullmatch(rule.pattern, key):
                return match.expand(rule.to), rule.op
        return key, None


encodings: Registry[Encoding] = Registry("encoding")
key_families: Registry[KeyFamily] = Registry("family of names")


def flatten_kernel(weight: Tensor) -> Tensor:
    """A 1×1 convolution [O, I, 1, 1] that classifies is the linear layer [O, I]."""
    return weight.flatten(1)


def block_counts(shapes: Shapes, pattern: str) -> tuple[int, ...]:
    """How many blocks each stage has: ``pattern`` matches a whole key, group 1 the stage, group 2 the block."""
    found = {(int(match[1]), int(match[2])) for key in shapes if (match := re.fullmatch(pattern, key))}
    stages = sorted({stage for stage, _ in found})
    return tuple(sum(stage == other for other, _ in found) for stage in stages)


def in_words(counts: tuple[int, ...]) -> str:
    return ", ".join(map(str, counts))
