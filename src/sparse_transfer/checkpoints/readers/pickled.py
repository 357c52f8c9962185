"""A small interpreter of pickles that can only make data: no import, no lookup by name, no call but our own few.

A pickle is a program for a stack machine, and Python's machine runs whatever function the file names. This one knows
the opcodes (``pickletools`` reads them) and does to its stack what CPython's ``pickle._Unpickler`` does, except:

- a global is a name (``Reference``), never an object;
- a call (REDUCE, INST, OBJ) of anything but the functions of ``pickled_calls`` refuses the file;
- making an object (NEWOBJ, ``copyreg``) of an unknown class gives a stand-in that keeps the state;
- extension codes and out-of-band buffers refuse the file; steps, depth, integers and names are bounded.
"""

import pickletools
from collections.abc import Callable
from io import BytesIO
from typing import IO, cast

from sparse_transfer.checkpoints.readers.container import LazyTensor, Tree
from sparse_transfer.checkpoints.readers.pickled_calls import PYTHON_2, call, is_known, new_object
from sparse_transfer.checkpoints.readers.pickled_numpy import NumpyArray, NumpyDtype
from sparse_transfer.checkpoints.readers.pickled_values import Made, Planter, Reference, call_refused, check_key
from sparse_transfer.checkpoints.readers.refusal import ASK_AUTHORS, Refusal
from sparse_transfer.checkpoints.readers.storage import STORAGE_DTYPES

STEPS_MOST = 5_000_000  # a ResNet-50 with Adam takes 26,151
WORK_MOST = 1_000_000  # elements that calls may copy, beside two for each byte of the pickle
INTEGER_BITS_MOST = 512
NAME_MOST = 500

Persistent = Callable[[object], object]
"""Gives the value of a persistent id, or raises ``Refusal``."""


def read_pickle(stream: BytesIO | IO[bytes], persistent: Persistent, *, size: int) -> tuple[Tree, list[str]]:
    """The next pickle of ``stream`` as a tree, and the names it mentions that became stand-ins, sorted.

    ``stream`` is left behind the pickle. ``size`` is the most bytes there can be. Raises ``Refusal``.
    """
    machine = _Machine(persistent, work=WORK_MOST + 2 * size)
    result = machine.run(stream)
    return Planter().plant(result), sorted(machine.unknown)


def no_persistent_ids(_: object) -> object:
    """For pickles that hold no storages."""
    raise Refusal("the pickle refers to a storage where none can be", ASK_AUTHORS)


class _Machine:
    def __init__(self, persistent: Persistent, *, work: int) -> None:
        self.stack: list[object] = []
        self.below: list[list[object]] = []  # the stacks under each open mark
        self.memo: dict[int, object] = {}
        self.persistent = persistent
        self.unknown: set[str] = set()
        self.work = work
        self.steps = STEPS_MOST

    def run(self, stream: BytesIO | IO[bytes]) -> object:
        try:
            for opcode, argument, _ in pickletools.genops(cast("IO[bytes]", stream)):
                self.steps -= 1
                if self.steps < 0:
                    raise Refusal(f"the pickle has more than {STEPS_MOST:,} instructions", ASK_AUTHORS)
                name = opcode.name
                if name in _CONSTANTS:
                    self.stack.append(_constant(argument))
                elif name == "STOP":
                    return self.pop()
                else:
                    _HANDLERS[name](self, argument)
        except (ValueError, IndexError, OverflowError, KeyError, Warning):  # pickletools'; a stack or memo run dry
            raise Refusal("the pickle inside is cut short or damaged") from None
        raise Refusal("the pickle inside is cut short or damaged")  # genops ends at STOP, or raises

    def spend(self, elements: int) -> None:
        self.work -= elements
        if self.work < 0:
            raise Refusal("the pickle repeats itself without end", ASK_AUTHORS)

    def pop(self) -> object:
        return self.stack.pop()

    def pop_to_mark(self) -> list[object]:
        items = self.stack
        self.stack = self.below.pop()
        return items

    def reference(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Refusal("the pickle names a class with something that is not text", ASK_AUTHORS)
        if len(module) + len(name) > NAME_MOST:
            raise Refusal(f"the pickle names a class in {len(module) + len(name):,} letters", ASK_AUTHORS)
        full = f"{PYTHON_2.get(module, module)}.{name}"
        if not is_known(full) and full not in STORAGE_DTYPES:
            self.unknown.add(full)
        self.stack.append(Reference(full))

    def set_items(self, target: object, flat: list[object]) -> None:
        items = target.items if isinstance(target, Made) else target
        if not isinstance(items, dict) or len(flat) % 2:
            raise Refusal("the pickle sets items of something that is not a dictionary", ASK_AUTHORS)
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            items[check_key(key)] = value

    def append_all(self, target: object, values: list[object]) -> None:
        elements = target.elements if isinstance(target, Made) else target
        if not isinstance(elements, list):
            raise Refusal("the pickle appends to something that is not a list", ASK_AUTHORS)
        elements.extend(values)

    def build(self) -> None:
        state = self.pop()
        match self.stack[-1]:
            case Made() as made:
                made.state = state
            case NumpyArray() | NumpyDtype() as made:
                self.spend(_length(state))
                made.set_state(state)
            case dict() | list() | LazyTensor():
                pass  # attributes of an OrderedDict (torch's _metadata) or of a parameter
            case Reference(name=name):
                raise call_refused(name)
            case _:
                raise Refusal("the pickle gives a state to a plain value", ASK_AUTHORS)


_CONSTANTS = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
    | {"SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)


def _constant(argument: object) -> object:
    match argument:
        case int() if argument.bit_length() > INTEGER_BITS_MOST:
            raise Refusal(f"the pickle holds an integer of {argument.bit_length():,} bits", ASK_AUTHORS)
        case str() if not argument.isascii():
            argument.encode()  # a lone surrogate is a ValueError here, and not later where it is printed
        case bytearray():
            return bytes(argument)
        case _:
            pass
    return argument


def _length(state: object) -> int:
    """Bytes and letters in a state, and one for each of its parts."""
    parts = cast("tuple[object, ...]", state) if isinstance(state, tuple) else ()
    return sum(len(part) if isinstance(part, (bytes, str)) else 1 for part in parts)


def _old_string(machine: _Machine, argument: object) -> None:
    """Python 2's str: text where it is UTF-8, else bytes. ``pickletools`` has decoded it as Latin-1."""
    raw = cast("str", argument).encode("latin-1")
    try:
        machine.stack.append(raw.decode())
    except UnicodeDecodeError:
        machine.stack.append(raw)


def _mark(machine: _Machine) -> None:
    machine.below.append(machine.stack)
    machine.stack = []


def _drop(machine: _Machine) -> None:
    """POP takes the top value, or an open mark where there is none above it."""
    if machine.stack:
        machine.pop()
    else:
        machine.pop_to_mark()


def _tuple_of(machine: _Machine, count: int) -> None:
    items = machine.stack[-count:]
    if len(items) < count:
        raise IndexError
    machine.stack[-count:] = [tuple(items)]


def _push_marked(machine: _Machine, kind: Callable[[list[object]], object]) -> None:
    items = machine.pop_to_mark()
    machine.stack.append(kind(items))


def _push_marked_dict(machine: _Machine) -> None:
    flat = machine.pop_to_mark()
    made: dict[object, object] = {}
    machine.set_items(made, flat)
    machine.stack.append(made)


def _set_item(machine: _Machine) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items(machine.stack[-1], [key, value])


def _set_marked_items(machine: _Machine) -> None:
    flat = machine.pop_to_mark()
    machine.set_items(machine.stack[-1], flat)


def _append(machine: _Machine) -> None:
    value = machine.pop()
    machine.append_all(machine.stack[-1], [value])


def _append_marked(machine: _Machine) -> None:
    values = machine.pop_to_mark()
    machine.append_all(machine.stack[-1], values)


def _put(machine: _Machine, argument: object) -> None:
    place = cast("int", argument)
    if place < 0:
        raise ValueError
    machine.memo[place] = machine.stack[-1]


def _memoize(machine: _Machine) -> None:
    # The next place is the number of places in use, as in CPython; a scanner that counts otherwise can be misled.
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _global(machine: _Machine, argument: object) -> None:
    module, _, name = cast("str", argument).partition(" ")
    machine.reference(module, name)


def _stack_global(machine: _Machine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.reference(module, name)


def _reduce(machine: _Machine) -> None:
    arguments, function = machine.pop(), machine.pop()
    machine.stack.append(call(function, arguments, machine.spend))


def _new_object(machine: _Machine) -> None:
    arguments, cls = machine.pop(), machine.pop()
    machine.stack.append(new_object(cls, arguments, machine.spend))


def _new_object_by_keywords(machine: _Machine) -> None:
    keywords, arguments, cls = machine.pop(), machine.pop(), machine.pop()
    machine.stack.append(new_object(cls, (arguments, keywords) if keywords else arguments, machine.spend))


def _instance(machine: _Machine, argument: object) -> None:
    arguments = machine.pop_to_mark()
    _global(machine, argument)
    machine.stack.append(call(machine.pop(), tuple(arguments), machine.spend))


def _object(machine: _Machine) -> None:
    cls, *arguments = machine.pop_to_mark()
    machine.stack.append(call(cls, tuple(arguments), machine.spend))


def _refuse(what: str) -> Callable[[_Machine, object], None]:
    def handler(machine: _Machine, argument: object) -> None:
        raise Refusal(f"the pickle uses {what}, which tensors never need", ASK_AUTHORS)

    return handler


_HANDLERS: dict[str, Callable[[_Machine, object], None]] = {
    "PROTO": lambda m, _: None,
    "FRAME": lambda m, _: None,
    "NONE": lambda m, _: m.stack.append(None),
    "NEWTRUE": lambda m, _: m.stack.append(True),
    "NEWFALSE": lambda m, _: m.stack.append(False),
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), _old_string),
    "MARK": lambda m, _: _mark(m),
    "POP": lambda m, _: _drop(m),
    "POP_MARK": lambda m, _: m.pop_to_mark().clear(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "TUPLE1": lambda m, _: _tuple_of(m, 1),
    "TUPLE2": lambda m, _: _tuple_of(m, 2),
    "TUPLE3": lambda m, _: _tuple_of(m, 3),
    "TUPLE": lambda m, _: _push_marked(m, tuple),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "LIST": lambda m, _: _push_marked(m, list),
    "APPEND": lambda m, _: _append(m),
    "APPENDS": lambda m, _: _append_marked(m),
    "EMPTY_SET": lambda m, _: m.stack.append([]),
    "ADDITEMS": lambda m, _: _append_marked(m),
    "FROZENSET": lambda m, _: _push_marked(m, tuple),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "DICT": lambda m, _: _push_marked_dict(m),
    "SETITEM": lambda m, _: _set_item(m),
    "SETITEMS": lambda m, _: _set_marked_items(m),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _put),
    "MEMOIZE": lambda m, _: _memoize(m),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, a: m.stack.append(m.memo[cast("int", a)])),
    "GLOBAL": _global,
    "STACK_GLOBAL": lambda m, _: _stack_global(m),
    "REDUCE": lambda m, _: _reduce(m),
    "NEWOBJ": lambda m, _: _new_object(m),
    "NEWOBJ_EX": lambda m, _: _new_object_by_keywords(m),
    "INST": _instance,
    "OBJ": lambda m, _: _object(m),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.stack.append(m.persistent(m.pop())),
    "PERSID": lambda m, a: m.stack.append(m.persistent(a)),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _refuse("an extension code")),
    **dict.fromkeys(("NEXT_BUFFER", "READONLY_BUFFER"), _refuse("a buffer outside itself")),
}
