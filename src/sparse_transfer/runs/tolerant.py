"""Dataclasses to JSON and back: what is unknown is kept, what is missing or of the wrong type is said.

Ours because pydantic cannot read the recursive ``Json`` type, and drops unknown keys of inner objects.
"""

import dataclasses
import math
import types
from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar, Union, cast, get_args, get_origin

from sparse_transfer.core.canonical import Json

T = TypeVar("T")


class Damaged(ValueError):
    """A record that does not hold what its type needs."""


def decode(kind: type[T], value: Json) -> T:
    """A dataclass from JSON. Unknown keys, inner ones by their dotted path, go to its field ``extra`` if it has one.

    Raises:
        Damaged: a field without a default is missing, or a value is not of its field's type.
    """
    extra: dict[str, Json] = {}
    decoded = _decode_dataclass(kind, value, "", extra)
    if extra and "extra" in _fields(kind):
        changed = dataclasses.replace(decoded, extra={**decoded.extra, **extra})  # type: ignore[type-var, attr-defined]
        return cast(T, changed)
    return cast(T, decoded)


def encode(value: object) -> Json:
    """JSON of a dataclass or of what one holds; an object with ``to_json`` says it itself."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _encode_item(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _encode_item(item) for key, item in cast(Mapping[object, object], value).items()}
    if isinstance(value, list | tuple):
        return [_encode_item(item) for item in cast(Sequence[object], value)]
    return cast(Json, value)


def finite(value: Json) -> tuple[Json, dict[str, Json]]:
    """``value`` with null for each NaN or infinity, which JSON does not have, and what stood there: path -> text."""
    lost: dict[str, Json] = {}
    return _finite(value, "", lost), lost


def _encode_item(value: object) -> Json:
    to_json = getattr(value, "to_json", None)
    return cast(Json, to_json()) if callable(to_json) else encode(value)


def _decode(kind: object, value: Json, path: str, extra: dict[str, Json]) -> object:
    if kind == Json:
        return value
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, path, extra)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and types.NoneType in arguments:
            return None
        (inner,) = [argument for argument in arguments if argument is not types.NoneType]
        return _decode(inner, value, path, extra)
    if origin is Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list):
        return tuple(_decode(arguments[0], item, f"{path}[{index}]", extra) for index, item in enumerate(value))
    if origin is Mapping and isinstance(value, Mapping):
        return {key: _decode(arguments[1], item, _join(path, key), extra) for key, item in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is kind:
        return value
    name = kind.__name__ if isinstance(kind, type) else str(kind)
    raise Damaged(f'"{path}" is {_shown(value)}, not {name}')


def _decode_dataclass(kind: type, value: Json, path: str, extra: dict[str, Json]) -> object:
    if not isinstance(value, Mapping):
        raise Damaged(
            f'"{path}" is {_shown(value)}, not an object' if path else f"it is {_shown(value)}, not an object"
        )
    known = _fields(kind)
    given: dict[str, object] = {}
    for key, item in value.items():
        if key in known:
            given[key] = _decode(known[key].type, item, _join(path, key), extra)
        elif not isinstance(
            getattr(kind, key, None), property
        ):  # what the type derives itself, e.g. an identity's id, is no news
            extra[_join(path, key)] = item
    missing = [
        name
        for name, field in known.items()
        if name not in given and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise Damaged(f'"{_join(path, missing[0])}" is missing')
    return kind(**given)


def _fields(kind: type) -> dict[str, dataclasses.Field[object]]:
    return {field.name: field for field in dataclasses.fields(kind)}


def _finite(value: Json, path: str, lost: dict[str, Json]) -> Json:
    if isinstance(value, float) and not math.isfinite(value):
        lost[path] = str(value)
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item, _join(path, key), lost) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item, f"{path}[{index}]", lost) for index, item in enumerate(value)]
    return value


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _shown(value: Json) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
