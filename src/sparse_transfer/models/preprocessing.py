"""What a backbone expects of a picture: facts that travel with its weights."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Literal, get_args

from sparse_transfer.core.canonical import Json
from sparse_transfer.core.errors import UserError

Interpolation = Literal["bilinear", "bicubic", "tf1_bicubic"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """Shorter side to ``resize`` px, centre square of ``crop`` px, scale to [0, 1], then (x - mean) / std.

    ``mean`` and ``std`` are per channel in the order the network reads them, in units of [0, 1]: a network made
    for 0..255 without a std has std 1/255. ``antialias`` is what Pillow always does when it makes a picture
    smaller, and TensorFlow 1 never did: it goes with ``interpolation``.

    ``tf1_bicubic`` is the other order, of Google's TPU code (RigL, State of Sparsity): the centre square of
    int(crop / resize · shorter side) px is cut first, then TensorFlow 1's bicubic kernel makes ``crop`` px of it.
    """

    resize: int = 256
    crop: int = 224
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    antialias: bool = True
    channel_order: Literal["rgb", "bgr"] = "rgb"

    def __post_init__(self) -> None:
        if self.interpolation not in get_args(Interpolation):
            known = ", ".join(f'"{name}"' for name in get_args(Interpolation))
            raise UserError(f'the interpolation is "{self.interpolation}"', do=f"there are {known}")
        if self.channel_order not in ("rgb", "bgr"):
            raise UserError(f'the channel order is "{self.channel_order}"', do='it is "rgb" or "bgr"')
        if not 1 <= self.crop <= self.resize <= 4096:
            raise UserError(f"a crop of {self.crop} px from {self.resize} px", do="1 <= crop <= resize <= 4096")
        numbers = (*self.mean, *self.std)
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0 or not all(map(isfinite, numbers)):
            raise UserError("mean and std need three finite numbers each, std above 0", where="preprocessing")
        if self.antialias == (self.interpolation == "tf1_bicubic"):
            said = "with" if self.antialias else "without"
            raise UserError(
                f"{self.interpolation} {said} antialias",
                where="preprocessing",
                do="tf1_bicubic has none, the others do",
            )

    def to_json(self) -> dict[str, Json]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Json) -> "Preprocessing":
        """From what ``to_json`` gave; a wrong type or an unknown key is a ``UserError``."""
        from pydantic import TypeAdapter, ValidationError

        unknown = set(value) - set(cls.__dataclass_fields__) if isinstance(value, Mapping) else set[str]()
        if unknown:
            raise UserError(f'the preprocessing has an entry "{min(unknown)}" that this version does not know')
        try:
            return TypeAdapter(cls).validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(f"{first['loc']}: {first['msg']}", where="preprocessing") from None
