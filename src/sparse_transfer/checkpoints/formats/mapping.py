"""From a file's tensors to the network's: every key, shape and value checked, all that is wrong said at once."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from sparse_transfer.checkpoints.formats.contract import Decoded, KeyFamily
from sparse_transfer.checkpoints.readers.container import LazyTensor
from sparse_transfer.core.errors import UserError, listed
from sparse_transfer.models import Architecture
from sparse_transfer.models.network import dtype_name
from sparse_transfer.sparsity import prunable_weights

COUNTER = "num_batches_tracked"  # torch < 0.4.1 did not have it; it decides nothing in evaluation


@dataclass(frozen=True)
class Mapped:
    """The network's tensors under canonical names, all of them, float32 and finite.

    masks: name of a prunable weight -> bool tensor of its shape, as the file has them, all-ones masks too.
    keys: canonical name -> key in the file.   notes: what was done to them on the way.
    """

    tensors: dict[str, Tensor]
    masks: dict[str, Tensor]
    keys: dict[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """A tensor of the file with the name it gets. ``shape`` is what it has then."""

    plain: str
    tensor: LazyTensor
    op: Callable[[Tensor], Tensor] | None
    shape: tuple[int, ...]


def map_tensors(decoded: Decoded, family: KeyFamily, architecture: Architecture, skeleton: nn.Module) -> Mapped:
    """Name, reshape and read the tensors of ``decoded`` for a network of that architecture.

    ``skeleton`` is its backbone, on the meta device if need be: only names, shapes and dtypes are looked at.

    Raises:
        UserError: keys, shapes or values that do not fit, all in one message.
    """
    head = architecture.family.head
    places, problems = _places(decoded, family)
    expected: dict[str, Tensor] = dict(skeleton.state_dict())
    expected |= _expected_head(places, head, family, cast(int, skeleton.feature_dim))
    bare = _bare_batchnorms(places, expected)
    masked = {name: place for name, place in places.items() if place.plain in decoded.masks and name in expected}
    maskable = {*prunable_weights(skeleton), f"{head}.weight"}
    problems += _misfits(
        places, {name: like for name, like in expected.items() if name not in bare}, architecture, decoded
    )
    problems += _odd_masks(decoded, masked, maskable)
    if problems := [*decoded.problems, *problems]:
        raise UserError(" and ".join(problems), do="name another architecture with --arch, or fetch the file again")
    reading = _Reading(decoded, places)
    tensors = {name: reading.tensor(name, like) for name, like in expected.items() if name in places}
    masks = {name: reading.mask(name) for name in masked if name in maskable}
    if reading.problems:
        raise UserError(" and ".join(reading.problems), do="fetch the file again")
    notes = [*reading.notes()]
    if counters := [name for name in expected if name.endswith(COUNTER) and name not in places]:
        tensors |= {name: torch.zeros((), dtype=torch.int64) for name in counters}
        notes.append(f"{len(counters)} BatchNorm counters ({COUNTER}) are not in the file: 0")
    if bare:
        tensors |= {name: torch.full(expected[name].shape, value) for name, value in bare.items()}
        notes.append(f"{len(bare) // 2} BatchNorms have no weight and bias: 1 and 0, which is exactly the same")
    if f"{head}.weight" in places and f"{head}.bias" not in places:
        tensors[f"{head}.bias"] = torch.zeros(len(tensors[f"{head}.weight"]))
        notes.append("the classifier has no bias: zeros, which is exactly the same")
    return Mapped(tensors, masks, {name: decoded.keys[place.plain] for name, place in places.items()}, tuple(notes))


def _places(decoded: Decoded, family: KeyFamily) -> tuple[dict[str, Place], list[str]]:
    places: dict[str, Place] = {}
    problems: list[str] = []
    for plain, tensor in decoded.weights.items():
        name, op = family.renamed(plain)
        if name in places:
            problems.append(f'"{decoded.keys[places[name].plain]}" and "{decoded.keys[plain]}" are both {name}')
            continue
        places[name] = Place(plain, tensor, op, _shape(tensor.shape, op))
    return places, problems


def _shape(shape: tuple[int, ...], op: Callable[[Tensor], Tensor] | None) -> tuple[int, ...]:
    """The shape after ``op``; a shape that ``op`` cannot take stays, and is found not to fit."""
    if op is None:
        return shape
    try:
        return tuple(op(torch.empty(shape, device="meta")).shape)
    except (RuntimeError, IndexError):
        return shape


def _expected_head(places: Mapping[str, Place], head: str, family: KeyFamily, width: int) -> dict[str, Tensor]:
    """The head's tensors as they should be, for as many classes as the file has; {} where it has no head."""
    weight = places.get(f"{head}.weight")
    if weight is None:
        return {}
    classes = weight.shape[0] if weight.shape else 0
    expected = {f"{head}.weight": torch.empty(classes, width, device="meta")}
    if family.head_bias or f"{head}.bias" in places:
        expected[f"{head}.bias"] = torch.empty(classes, device="meta")
    return expected


def _bare_batchnorms(places: Mapping[str, Place], expected: Mapping[str, Tensor]) -> dict[str, float]:
    """Weights and biases that BatchNorms do without (``affine=False``), with their values; {} where one has its own."""
    norms = [name.removesuffix(".running_mean") for name in expected if name.endswith(".running_mean")]
    own = [f"{norm}.{part}" for norm in norms for part in ("weight", "bias") if f"{norm}.{part}" in places]
    if own or not any(f"{norm}.running_mean" in places for norm in norms):
        return {}
    return {f"{norm}.{part}": value for norm in norms for part, value in (("weight", 1.0), ("bias", 0.0))}


def _misfits(
    places: Mapping[str, Place],
    expected: Mapping[str, Tensor],
    architecture: Architecture,
    decoded: Decoded,
) -> list[str]:
    problems: list[str] = []
    missing = [name for name in expected if name not in places and not name.endswith(COUNTER)]
    if missing:
        problems.append(f"{len(missing)} tensors of {architecture} are missing ({listed(missing)})")
    if strangers := [decoded.keys[place.plain] for name, place in places.items() if name not in expected]:
        problems.append(f"{len(strangers)} tensors fit no layer of {architecture} ({listed(strangers)})")
    misshapen = [name for name in expected if name in places and places[name].shape != tuple(expected[name].shape)]
    if misshapen:
        first = misshapen[0]
        problems.append(
            f'{len(misshapen)} tensors have another shape than in {architecture} (first: "'
            f'{decoded.keys[places[first].plain]}" is {list(places[first].tensor.shape)}, not'
            f" {list(expected[first].shape)})"
        )
    return problems


def _odd_masks(decoded: Decoded, masked: Mapping[str, Place], maskable: Collection[str]) -> list[str]:
    """Masks of another shape than their weight, and those that prune what is no weight of a layer.

    Where a mask of a bias, a BatchNorm or a table of positions keeps everything, it says nothing, and is left out.
    """
    keys = [place.plain for place in masked.values()]
    others = [place.plain for name, place in masked.items() if name not in maskable]
    problems: list[str] = []
    if odd := [decoded.mask_keys[key] for key in keys if decoded.masks[key].shape != decoded.weights[key].shape]:
        problems.append(f"{len(odd)} masks have another shape than their weight ({listed(odd)})")
    if pruning := [decoded.mask_keys[key] for key in others if not bool((decoded.masks[key].read() == 1).all())]:
        problems.append(f"{len(pruning)} masks are for what is no convolution or linear layer ({listed(pruning)})")
    return problems


class _Reading:
    """Reads values, and keeps what is wrong with them and what was converted."""

    def __init__(self, decoded: Decoded, places: Mapping[str, Place]) -> None:
        self.decoded = decoded
        self.places = places
        self.strange: list[str] = []
        self.whole: dict[torch.dtype, list[str]] = {}
        self.infinite: dict[str, int] = {}
        self.converted: dict[torch.dtype, list[str]] = {}

    def tensor(self, name: str, like: Tensor) -> Tensor:
        place = self.places[name]
        key = self.decoded.keys[place.plain]
        value = place.tensor.read()
        if place.op is not None:
            value = place.op(value)
        if not like.dtype.is_floating_point:
            return self._whole(key, value, like.dtype)
        if not value.dtype.is_floating_point:
            self.whole.setdefault(value.dtype, []).append(key)
            return value
        if value.dtype != torch.float32:
            self.converted.setdefault(value.dtype, []).append(key)
        value = value.to(torch.float32).contiguous()
        if bad := int((~torch.isfinite(value)).sum()):
            self.infinite[key] = bad
        return value

    def _whole(self, key: str, value: Tensor, dtype: torch.dtype) -> Tensor:
        whole = value.to(dtype)
        if not torch.equal(whole.to(value.dtype), value):
            self.strange.append(f'"{key}" is not whole numbers')
        return whole

    def mask(self, name: str) -> Tensor:
        """bool, ``True`` = kept; any value but 0 and 1 is a problem."""
        place = self.places[name]
        mask = self.decoded.masks[place.plain].read()
        kept = mask == 1
        if strange := int((~kept & (mask != 0)).sum()):
            self.strange.append(
                f'the mask "{self.decoded.mask_keys[place.plain]}" has {strange:,} values that are neither 0 nor 1'
            )
        return (kept if place.op is None else place.op(kept)).contiguous()

    @property
    def problems(self) -> list[str]:
        """A clause each, whatever the number of tensors that it is about."""
        found = [
            f"{_are(keys)} stored as {dtype_name(dtype)}: quantised weights are not read yet"
            for dtype, keys in self.whole.items()
        ]
        if self.infinite:
            who = f"{len(self.infinite)} tensors ({listed(list(self.infinite))}) have"
            one = f'"{next(iter(self.infinite))}" has'
            count = sum(self.infinite.values())
            found.append(f"{one if len(self.infinite) == 1 else who} {count:,} values that are NaN or infinite")
        return found + self.strange

    def notes(self) -> list[str]:
        small = (torch.float16, torch.bfloat16)
        return [
            f"{len(keys)} tensors are stored as {dtype_name(dtype)} and become float32"
            + ("; a zero among them may be a small weight that was rounded to 0" if dtype in small else "")
            for dtype, keys in self.converted.items()
        ]


def _are(keys: list[str]) -> str:
    return f'"{keys[0]}" is' if len(keys) == 1 else f"{len(keys)} tensors ({listed(keys)}) are"
