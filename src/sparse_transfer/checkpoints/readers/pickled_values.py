"""What stands on the interpreter's stack beside plain values, and how all of it becomes a bounded, inert tree."""

from typing import cast

from sparse_transfer.checkpoints.readers.container import LazyTensor, StandIn, Tree
from sparse_transfer.checkpoints.readers.pickled_numpy import NumpyArray, NumpyDtype
from sparse_transfer.checkpoints.readers.refusal import ASK_AUTHORS, Refusal, shown
from sparse_transfer.checkpoints.readers.storage import DTYPES, Storage, tensor_over

DEPTH_MOST = 100  # a ResNet saved whole is about 25 deep
NODES_MOST = (
    2_000_000  # with everything shared counted each time it is seen; a ResNet-50 with Adam has fewer than 10,000
)


class Reference:
    """A global the pickle names: ``module.name``, never looked up."""

    def __init__(self, name: str) -> None:
        self.name = name


class Made:
    """An object of a class that was not looked up, while the pickle fills it."""

    def __init__(self, name: str, arguments: object = ()) -> None:
        self.name = name
        self.arguments = arguments
        self.state: object = None
        self.items: dict[object, object] = {}
        self.elements: list[object] = []

    def content(self) -> object:
        """What the file gave: its state, items, elements or arguments alone, or a dict of those there are."""
        parts = {
            "arguments": self.arguments,
            "state": self.state,
            "items": self.items,
            "elements": self.elements,
        }
        given = {name: part for name, part in parts.items() if part}
        return given if len(given) > 1 else next(iter(given.values()), None)


class Planter:
    """Turns a stack value into a ``Tree``; raises ``Refusal`` on a loop, or on a tree too deep or too large to walk.

    Shared parts stay shared. A pickle of a few bytes can share its way to 2^1000 leaves, so each part carries
    (height, size) as a walk would see them.
    """

    def __init__(self) -> None:
        self._done: dict[int, tuple[Tree, int, int]] = {}
        self._open: set[int] = set()
        self._kept: list[object] = []  # made on the way: alive, so that their ids are not given again

    def plant(self, value: object) -> Tree:
        """The tree of ``value``, which must stay alive and unchanged meanwhile."""
        return self._grown(value, 0)[0]

    def _grown(self, value: object, depth: int) -> tuple[Tree, int, int]:
        leaf = self._leaf(value)
        if leaf is not value or not isinstance(value, (list, tuple, dict, Made)):
            return leaf, 1, 1
        key = id(cast("object", value))
        if key in self._open:
            raise Refusal(
                "the pickle holds a list or object that contains itself, which tensors never need", ASK_AUTHORS
            )
        done = self._done.get(key)
        if done is None:
            if depth > DEPTH_MOST:
                raise _too_deep()
            self._open.add(key)
            done = self._branch(cast("object", value), depth)
            self._open.discard(key)
            self._done[key] = done
        if depth + done[1] > DEPTH_MOST:
            raise _too_deep()
        if done[2] > NODES_MOST:
            raise Refusal(f"the pickle unfolds to more than {NODES_MOST:,} values", ASK_AUTHORS)
        return done

    def _leaf(self, value: object) -> Tree:
        match value:
            case Reference(name=name):
                return name if name in DTYPES else StandIn(name)
            case Storage():
                numel = value.size_bytes // value.dtype.itemsize
                return tensor_over(value, offset=0, shape=(numel,), stride=(1,))
            case NumpyArray(finished=finished):
                return finished
            case NumpyDtype(torch_dtype=dtype):
                return str(dtype)
            case (
                Made()
                | StandIn()
                | None
                | bool()
                | int()
                | float()
                | complex()
                | str()
                | bytes()
                | LazyTensor()
                | list()
                | tuple()
                | dict()
            ):
                return cast("Tree", value)
            case _:
                raise Refusal(f"the pickle leaves {type(value).__name__} where a value was due", ASK_AUTHORS)

    def _branch(self, value: object, depth: int) -> tuple[Tree, int, int]:
        if isinstance(value, Made):
            self._kept.append(value.content())
            content, height, size = self._grown(self._kept[-1], depth + 1)
            return StandIn(value.name, content), height + 1, size + 1
        if isinstance(value, dict):
            items = cast("dict[object, object]", value)
            grown = {key: self._grown(item, depth + 1) for key, item in items.items()}
            names = [_key(key) for key in grown]
            if len(set(names)) != len(names):
                raise Refusal("two keys of a dictionary are the same once written as text", ASK_AUTHORS)
            tree: Tree = {name: part[0] for name, part in zip(names, grown.values(), strict=True)}
            parts = list(grown.values())
        else:
            parts = [self._grown(item, depth + 1) for item in cast("list[object]", value)]
            tree = [part[0] for part in parts]
            tree = tuple(tree) if isinstance(value, tuple) else tree
        return tree, 1 + max((part[1] for part in parts), default=0), 1 + sum(part[2] for part in parts)


def check_key(key: object) -> object:
    """A dictionary key that hashes in no time: a plain value, or a flat tuple of them."""
    if isinstance(key, tuple):
        for part in cast("tuple[object, ...]", key):
            if not isinstance(part, (str, int, float, bytes, type(None))):
                raise Refusal("a dictionary key is a nested tuple or an object", ASK_AUTHORS)
    elif not isinstance(key, (str, int, float, bytes, Reference, Made, type(None))):
        raise Refusal("a dictionary key is a list, a dictionary or a tensor", ASK_AUTHORS)
    return key


def call_refused(name: str) -> Refusal:
    """The refusal of a call that is not on the list."""
    return Refusal(f"the pickle asks for {shown(name)}, which is not data", ASK_AUTHORS)


def _key(key: object) -> str | int:
    """Keys as ``Tree`` has them; others as Python writes them."""
    match key:
        case bool() | float() | tuple() | None:
            return str(key)
        case int() | str():
            return key
        case bytes():
            return key.decode("latin-1")
        case Reference(name=name) | Made(name=name):
            return name
        case _:
            raise Refusal("a dictionary key is not a plain value", ASK_AUTHORS)


def _too_deep() -> Refusal:
    return Refusal(f"the pickle nests more than {DEPTH_MOST} levels deep", ASK_AUTHORS)
