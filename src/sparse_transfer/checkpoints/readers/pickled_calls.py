"""The calls a pickle may make: each is our own few lines over plain values. Nothing is ever found by its name."""

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import cast

import torch

from sparse_transfer.checkpoints.readers.container import LazyTensor
from sparse_transfer.checkpoints.readers.pickled_numpy import NumpyArray, NumpyDtype, array, as_bytes, scalar, sizes
from sparse_transfer.checkpoints.readers.pickled_values import Made, Reference, call_refused, check_key
from sparse_transfer.checkpoints.readers.refusal import ASK_AUTHORS, Refusal, shown
from sparse_transfer.checkpoints.readers.storage import DTYPES, Storage, tensor_over

Arguments = tuple[object, ...]
Spend = Callable[[int], None]
"""Takes a number of elements off the work the file may cause: what one opcode can repeat must be paid for."""

PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
"""Modules that Python 3 renamed; a pickle of protocol 2 or below names the old ones."""


def call(function: object, arguments: object, spend: Spend) -> object:
    """What ``function(*arguments)`` would have given, for the functions listed here; raises ``Refusal`` for others."""
    if not isinstance(function, Reference):
        raise Refusal("the pickle calls something that is not a function", ASK_AUTHORS)
    known = _CALLS.get(function.name)
    if known is None:
        raise call_refused(function.name)
    if not isinstance(arguments, tuple):
        raise _misused(function.name)
    return known(function.name, cast("Arguments", arguments), spend)


def new_object(cls: object, arguments: object, spend: Spend) -> object:
    """``cls.__new__(cls, *arguments)``: a stand-in for an unknown class, our own value for a known one."""
    if not isinstance(cls, Reference) or not isinstance(arguments, tuple):
        raise Refusal("the pickle makes an object of something that is not a class", ASK_AUTHORS)
    if cls.name in _MADE_AS_CALLED:
        return call(cls, cast("Arguments", arguments), spend)
    return Made(cls.name, cast("Arguments", arguments))


def is_known(name: str) -> bool:
    """Whether a global is read by us and not replaced by a stand-in."""
    return name in _CALLS or name in DTYPES or name in {"builtins.object", "numpy.ndarray", "torch.Tensor"}


def _tensor(name: str, arguments: Arguments, spend: Spend) -> object:
    """``torch._utils._rebuild_tensor`` and ``_v2``: (storage, offset, size, stride, …)."""
    match arguments:
        case (Storage() as storage, int() as offset, shape, stride, *_):
            return _view(storage, offset, shape, stride, None, spend)
        case _:
            raise _misused(name)


def _tensor_v3(name: str, arguments: Arguments, spend: Spend) -> object:
    """``torch._utils._rebuild_tensor_v3``: (storage, offset, size, stride, requires_grad, hooks, dtype, …)."""
    match arguments:
        case (Storage() as storage, int() as offset, shape, stride, _, _, Reference(name=dtype), *_) if dtype in DTYPES:
            return _view(storage, offset, shape, stride, DTYPES[dtype], spend)
        case _:
            raise _misused(name)


def _view(
    storage: Storage, offset: int, shape: object, stride: object, dtype: torch.dtype | None, spend: Spend
) -> LazyTensor:
    spend(len(cast("tuple[object, ...]", shape)) if isinstance(shape, (tuple, list)) else 1)
    return tensor_over(storage, offset=offset, shape=sizes(shape), stride=sizes(stride), dtype=dtype)


def _first_tensor(name: str, arguments: Arguments, spend: Spend) -> object:
    """A parameter is its tensor."""
    match arguments:
        case (LazyTensor() as tensor, *_):
            return tensor
        case _:
            raise _misused(name)


def _from_type(name: str, arguments: Arguments, spend: Spend) -> object:
    """``torch._tensor._rebuild_from_type_v2``: (function, class, its arguments, state): class and state are left."""
    match arguments:
        case (Reference(name=inner) as function, Reference(), tuple() as given, *_) if inner in _REBUILDS:
            return call(function, cast("Arguments", given), spend)
        case _:
            raise _misused(name)


def _not_read_yet(what: str) -> "_Call":
    def refuse(name: str, arguments: Arguments, spend: Spend) -> object:
        raise Refusal(f"{what} are not read yet", "ask its authors for plain dense tensors")

    return refuse


def _dictionary(name: str, arguments: Arguments, spend: Spend) -> object:
    match arguments:
        case ():
            return {}
        case (dict() as items,):
            return items
        case (list() | tuple() as pairs,):
            made: dict[object, object] = {}
            spend(len(pairs))
            for pair in cast("list[object]", pairs):
                match pair:
                    case (key, value):
                        made[check_key(key)] = value
                    case _:
                        raise _misused(name)
            return made
        case _:
            raise _misused(name)


def _default_dictionary(name: str, arguments: Arguments, spend: Spend) -> object:
    return _dictionary(name, arguments[1:], spend)


def _sequence(name: str, arguments: Arguments, spend: Spend) -> object:
    """A set, tuple, list, size or deque: the elements in the order of the file."""
    match arguments:
        case ():
            return []
        case (list() | tuple() as elements, *_):
            spend(len(elements))
            return tuple(elements) if name == "torch.Size" else list(cast("list[object]", elements))
        case _:
            raise _misused(name)


def _encoded(name: str, arguments: Arguments, spend: Spend) -> object:
    """``_codecs.encode(text, "latin1")``: how protocol 2 writes bytes."""
    match arguments:
        case (str() as text, "latin1" | "latin-1"):
            spend(len(text))
            try:
                return text.encode("latin-1")
            except UnicodeEncodeError:
                raise _misused(name) from None
        case _:
            raise _misused(name)


def _bytes(name: str, arguments: Arguments, spend: Spend) -> object:
    match arguments:
        case ():
            return b""
        case (bytes() as data,):
            return data
        case (str(), str()):
            return _encoded(name, arguments, spend)
        case _:
            raise _misused(name)


def _complex(name: str, arguments: Arguments, spend: Spend) -> object:
    match arguments:
        case (float() as real, float() as imaginary):
            return complex(real, imaginary)
        case _:
            raise _misused(name)


def _device(name: str, arguments: Arguments, spend: Spend) -> object:
    match arguments:
        case (str() as kind,) if len(kind) < 100:
            return kind
        case (str() as kind, int() as index) if len(kind) < 100:
            return f"{kind}:{index}"
        case _:
            raise _misused(name)


def _path(name: str, arguments: Arguments, spend: Spend) -> object:
    """A path as text, whose parts are joined by "/"."""
    parts = [part for part in arguments if isinstance(part, str)]
    if len(parts) != len(arguments):
        raise _misused(name)
    spend(sum(len(part) for part in parts))
    return str(PurePosixPath(*parts))


def _inert(name: str, arguments: Arguments, spend: Spend) -> object:
    """A class whose instances are data but not needed: dates, namespaces."""
    return Made(name, arguments)


def _reconstructed(name: str, arguments: Arguments, spend: Spend) -> object:
    """``copyreg._reconstructor(cls, base, state)``: how protocols 0 and 1 write any object."""
    match arguments:
        case (Reference() as cls, Reference(name="builtins.object"), None):
            return new_object(cls, (), spend)
        case (Reference(name=made), Reference(name="builtins.dict" | "builtins.list"), dict() | list() as content):
            return Made(made, (content,))
        case _:
            raise _misused(name)


def _new_object(name: str, arguments: Arguments, spend: Spend) -> object:
    """``copyreg.__newobj__(cls, *arguments)``."""
    match arguments:
        case (Reference() as cls, *rest):
            return new_object(cls, tuple(rest), spend)
        case _:
            raise _misused(name)


def _numpy_dtype(name: str, arguments: Arguments, spend: Spend) -> object:
    match arguments:
        case (str() as code, *_):
            return NumpyDtype(code)
        case _:
            raise _misused(name)


def _numpy_scalar(name: str, arguments: Arguments, spend: Spend) -> object:
    match arguments:
        case (NumpyDtype() as dtype, bytes() | str() as data):
            return scalar(dtype, as_bytes(data))
        case (NumpyDtype(torch_dtype=None), _):
            return Made("numpy.generic")
        case _:
            raise _misused(name)


def _numpy_empty(name: str, arguments: Arguments, spend: Spend) -> object:
    match arguments:
        case (Reference(name="numpy.ndarray"), tuple(), _):
            return NumpyArray()
        case _:
            raise _misused(name)


def _numpy_from_buffer(name: str, arguments: Arguments, spend: Spend) -> object:
    """``numpy._core.numeric._frombuffer``: (bytes, dtype, shape, order), protocol 5."""
    match arguments:
        case (bytes() as data, NumpyDtype() as dtype, shape, "C" | "F" as order):
            spend(len(data))
            return array(data, dtype, sizes(shape), is_fortran=order == "F")
        case _:
            raise _misused(name)


def _misused(name: str) -> Refusal:
    return Refusal(f"the pickle calls {shown(name)} with arguments that nobody writes", ASK_AUTHORS)


_Call = Callable[[str, Arguments, Spend], object]

_PARAMETERS = ("torch.nn.parameter.Parameter", "torch.nn.Parameter", "torch.nn.parameter.Buffer")
_REBUILDS = {f"torch._utils._rebuild_{name}" for name in ("tensor", "tensor_v2", "tensor_v3", "parameter", "qtensor")}
_SPARSE = ("torch._utils._rebuild_sparse_tensor", "torch.serialization._get_layout")
_PATHS = ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath", "Path")

_CALLS: dict[str, _Call] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _first_tensor,
    "torch._utils._rebuild_parameter_with_state": _first_tensor,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch._utils._rebuild_qtensor": _not_read_yet("quantised tensors"),
    **dict.fromkeys(_SPARSE, _not_read_yet("tensors in torch's sparse layouts")),
    "torch._utils._rebuild_nested_tensor": _not_read_yet("nested tensors"),
    "torch._utils._rebuild_wrapper_subclass": _not_read_yet("wrapped tensors"),
    "torch._utils._rebuild_meta_tensor_no_storage": _not_read_yet("tensors without values (meta device)"),
    "torch.Size": _sequence,
    "torch.device": _device,
    "collections.OrderedDict": _dictionary,
    "collections.Counter": _dictionary,
    "collections.defaultdict": _default_dictionary,
    "collections.deque": _sequence,
    "builtins.dict": _dictionary,
    "builtins.set": _sequence,
    "builtins.frozenset": _sequence,
    "builtins.list": _sequence,
    "builtins.tuple": _sequence,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytes,
    "builtins.complex": _complex,
    "_codecs.encode": _encoded,
    "copyreg._reconstructor": _reconstructed,
    "copyreg.__newobj__": _new_object,
    "types.SimpleNamespace": _inert,
    "numpy.dtype": _numpy_dtype,
    **{f"datetime.{name}": _inert for name in ("date", "datetime", "time", "timedelta", "timezone")},
    **{f"{module}.{name}": _path for module in ("pathlib", "pathlib._local") for name in _PATHS},
    **dict.fromkeys(_PARAMETERS, _first_tensor),
    **{f"numpy.{core}.multiarray.scalar": _numpy_scalar for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray._reconstruct": _numpy_empty for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _numpy_from_buffer for core in ("core", "_core")},
}

_MADE_AS_CALLED = {*_PARAMETERS, "collections.OrderedDict", "collections.defaultdict", "builtins.dict", "torch.Size"}
