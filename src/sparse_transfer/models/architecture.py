"""The name of a network as plain JSON, and the only way a module is made from it."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import nn

from sparse_transfer.core.canonical import Json
from sparse_transfer.core.errors import UserError
from sparse_transfer.core.registry import Registry, suggestion
from sparse_transfer.models.preprocessing import Preprocessing

Argument = bool | int | float | str


def imagenet_defaults(_: Mapping[str, Argument]) -> Preprocessing:
    """What most ImageNet networks expect, whatever their arguments."""
    return Preprocessing()


@dataclass(frozen=True)
class Family:
    """How one architecture name is built.

    ``build(**args)`` gives the backbone's module: images [N, 3, H, W] -> features [N, D], with an int attribute
    ``feature_dim`` (= D) and parameter names as in torchvision. ``head`` is the layer of a complete network that
    turns features into logits (``fc``), so ``{head}.weight`` and ``{head}.bias`` are its tensors in a state dict.
    ``preprocessing(args)`` is what a network of those arguments expects when nothing better is known.
    """

    build: Callable[..., nn.Module]
    head: str = "fc"
    preprocessing: Callable[[Mapping[str, Argument]], Preprocessing] = imagenet_defaults


families: Registry[Family] = Registry("architecture")


@dataclass(frozen=True)
class Architecture:
    """A name and the arguments that differ from its defaults, e.g. ``resnet50,stride=v1``.

    Equal networks are equal architectures: an argument given at its default value is dropped.
    """

    name: str
    args: Mapping[str, Argument] = field(default_factory=dict[str, Argument])

    @classmethod
    def parse(cls, text: str) -> "Architecture":
        """Read ``name,key=value,...`` as typed on a command line; values get the type of the default."""
        name, *pairs = [part.strip() for part in text.split(",")]
        args: dict[str, Argument] = {}
        for pair in pairs:
            key, equals, value = pair.partition("=")
            if not equals:
                raise UserError(f'"{pair}" is not key=value', where=f'architecture "{text}"')
            args[key.strip()] = value.strip()
        return cls.checked(name, args)

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "Architecture":
        name, args = value.get("name"), value.get("args", {})
        if not isinstance(name, str) or not isinstance(args, Mapping) or set(value) - {"name", "args"}:
            raise UserError(f"{dict(value)!r} is not an architecture", do='it needs "name" and "args"')
        return cls.checked(name, cast(Mapping[str, Argument], args))

    @classmethod
    def checked(cls, name: str, args: Mapping[str, Argument]) -> "Architecture":
        """Check names and types of ``args`` against the family, and drop what is at its default."""
        if name == "module":
            return cls(name, dict(args))
        if name.startswith("timm:"):  # by name alone, so that reading a checkpoint's facts needs no timm
            if args:
                raise UserError(
                    f'{name} has no argument "{min(args)}"', where="architecture", do="a timm name has none"
                )
            return cls(name)
        defaults = {
            key: parameter.default for key, parameter in inspect.signature(families.get(name).build).parameters.items()
        }
        typed: dict[str, Argument] = {}
        for key, value in args.items():
            if key not in defaults:
                known = suggestion(key, list(defaults)) if defaults else "it has none"
                raise UserError(f'{name} has no argument "{key}"', where="architecture", do=known)
            typed[key] = _typed(value, defaults[key], where=f"architecture {name}, {key}")
        return cls(name, {key: value for key, value in sorted(typed.items()) if value != defaults[key]})

    def to_json(self) -> Json:
        return {"name": self.name, "args": dict(self.args)}

    def __str__(self) -> str:
        return ",".join([self.name, *(f"{key}={value}" for key, value in sorted(self.args.items()))])

    @property
    def family(self) -> Family:
        if self.name.startswith("timm:"):
            from sparse_transfer.models.timm import timm_family

            return timm_family(self.name.removeprefix("timm:"))
        if self.name == "module":
            raise UserError(
                "this checkpoint holds a module of your own, which no name builds",
                do="give it: load(path, module=your_module)",
            )
        return families.get(self.name)

    @property
    def preprocessing(self) -> Preprocessing:
        """What this architecture expects when nothing better is known."""
        return self.family.preprocessing(self.args)


def build(architecture: Architecture, *, device: str = "cpu") -> nn.Module:
    """Make the backbone's module, in eval mode; ``device="meta"`` allocates nothing and draws no weights."""
    with torch.device(device):
        return architecture.family.build(**architecture.args).eval()


def _typed(value: Argument, default: Argument, *, where: str) -> Argument:
    if isinstance(value, str) and not isinstance(default, str):
        try:
            if isinstance(default, bool):
                return {"true": True, "false": False}[value.lower()]
            return type(default)(value)
        except (KeyError, ValueError):
            raise UserError(f'"{value}" is no {type(default).__name__}', where=where) from None
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(default):
        raise UserError(f"{value!r} is no {type(default).__name__}", where=where)
    return value
