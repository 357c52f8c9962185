"""From a module to its Graph, operation by operation: one method for each kind of function that ``tracing`` records."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import cast

from torch import Tensor, fx, nn
from torch._ops import OpOverload

from sparse_transfer.core.errors import UserError
from sparse_transfer.models.graph import IMAGES, Graph, Node, Op
from sparse_transfer.models.tracing import (
    BATCH,
    Arguments,
    bound,
    full_shape,
    function_name,
    ints,
    pair,
    shape_of,
    trace,
    triple,
)


def graph_of(module: nn.Module, input_size: int, *, where: str) -> Graph:
    """Trace ``module`` in eval mode for pictures of ``input_size`` px; it is not touched.

    where: what messages call the network.

    Raises:
        UserError: an operation that is not in ``Node``'s list (named, with its place), or a module whose course
            depends on the values of its input.
    """
    traced, names = trace(module, input_size, where=where)
    return Translation(names, where).graph(traced, input_size)


class Translation:
    """Turns an aten graph into ours, node by node, leaving out what does nothing at inference."""

    def __init__(self, names: Sequence[str], where: str) -> None:
        self.names = names
        self.where = where
        self.nodes: list[Node] = []
        self.produced: dict[fx.Node, str] = {}  # fx node -> our node that holds its value
        self.state: dict[fx.Node, str] = {}  # placeholder -> parameter or buffer name
        self.shapes: dict[str, tuple[int, ...]] = {}  # of our nodes, the images included
        self.readers: dict[str, Callable[[fx.Node, Arguments], str]] = {
            "conv2d": self.conv,
            "batch_norm": self.batchnorm,
            "relu": lambda node, args: self.plain(node, args, "relu"),
            "relu_": lambda node, args: self.plain(node, args, "relu"),
            "relu6": lambda node, args: self.plain(node, args, "relu6"),
            "relu6_": lambda node, args: self.plain(node, args, "relu6"),
            "hardtanh": self.hardtanh,
            "hardtanh_": self.hardtanh,
            "max_pool2d": self.max_pool,
            "avg_pool2d": self.avg_pool,
            "adaptive_avg_pool2d": self.adaptive_pool,
            "mean": self.mean,
            "pad": self.pad,
            "constant_pad_nd": self.pad,
            "slice": self.slice,
            "add": self.add,
            "add_": self.add,
            "cat": self.concat,
            "concat": self.concat,
            "linear": self.linear,
            **dict.fromkeys(("flatten", "view", "reshape", "squeeze", "_unsafe_view", "unsqueeze"), self.reshape),
            **dict.fromkeys(
                ("dropout", "dropout_", "feature_dropout", "alias", "clone", "contiguous", "detach"), self.dropped
            ),
        }

    def graph(self, traced: fx.Graph, input_size: int) -> Graph:
        placeholders = [node for node in traced.nodes if node.op == "placeholder"]
        self.state = dict(zip(placeholders, self.names, strict=False))
        self.produced[placeholders[len(self.names)]] = IMAGES
        self.shapes[IMAGES] = (3, input_size, input_size)
        for node in traced.nodes:
            if node.op == "call_function":
                self.produced[node] = self.read(node)
        results = next(node for node in traced.nodes if node.op == "output").args[0]
        result = results[0] if isinstance(results, Sequence) and len(results) == 1 else results
        if not isinstance(result, fx.Node) or len(shape_of(result)) != 1:
            raise UserError("its output is not one tensor of features [N, D]", where=self.where)
        return Graph(tuple(self.nodes), (3, input_size, input_size), self.produced[result])

    def read(self, node: fx.Node) -> str:
        reader = self.reader_of(node)
        if reader is None or not isinstance(node.target, OpOverload):
            raise self.unknown(node, function_name(node))
        return reader(node, bound(node, node.target))

    def reader_of(self, node: fx.Node) -> Callable[[fx.Node, Arguments], str] | None:
        return self.readers.get(function_name(node))

    def unknown(self, node: fx.Node, what: str) -> UserError:
        """The error for something that is not in our list; the last layer with a weight says where it stands."""
        named = [each.name for each in self.nodes if each.weight is not None]
        place = f'after "{named[-1]}"' if named else "at the start"
        shape = list(shape_of(node)) if isinstance(node.meta.get("val"), Tensor) else "several tensors"
        return UserError(
            f"it computes {what} -> {shape} {place}, which the graph has no operation for",
            where=self.where,
            do="everything but the cost works without the graph",
        )

    # ------------------------------------------------------------------------------------------ pieces

    def emit(
        self, op: Op, shape: tuple[int, ...], inputs: Sequence[str], layer: str | None = None, /, **fields: object
    ) -> str:
        """Append a node that gives ``shape`` and return its name; ``layer`` is one of its parameters."""
        base = op if layer is None else layer.rpartition(".")[0] or layer
        name, number = (f"{op}_1", 2) if layer is None else (base, 1)
        while name in self.shapes:
            name, number = f"{base}_{number}", number + 1
        self.nodes.append(replace(Node(name, op, tuple(inputs), shape), **fields))
        self.shapes[name] = shape
        return name

    def value(self, node: fx.Node, argument: object) -> str:
        """The name of the node that computes ``argument``."""
        if isinstance(argument, fx.Node) and argument in self.produced:
            return self.produced[argument]
        raise self.unknown(node, f"{node.target} of a constant or parameter")

    def parameter(self, node: fx.Node, argument: object) -> str | None:
        """The name of a parameter or buffer, or None."""
        if argument is None:
            return None
        if isinstance(argument, fx.Node) and argument in self.state:
            return self.state[argument]
        raise self.unknown(node, f"{node.target} with a computed weight")

    # ------------------------------------------------------------------------------------------ operations

    def plain(self, node: fx.Node, args: Arguments, op: Op) -> str:
        return self.emit(op, shape_of(node), [self.value(node, args["self"])])

    def dropped(self, node: fx.Node, args: Arguments) -> str:
        if args.get("train"):
            raise self.unknown(node, "dropout that stays on in eval mode")
        return self.value(node, args["input"] if "input" in args else args["self"])

    def conv(self, node: fx.Node, args: Arguments) -> str:
        weight = self.parameter(node, args["weight"])
        _, _, *kernel = full_shape(args["weight"])
        dilation = pair(args["dilation"])
        if isinstance(args["padding"], str):
            reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
            if args["padding"] == "same" and any(each % 2 for each in reach):
                raise self.unknown(node, "conv2d with an uneven padding")
            padding = (reach[0] // 2, reach[1] // 2) if args["padding"] == "same" else (0, 0)
        else:
            padding = pair(args["padding"])
        return self.emit("conv", shape_of(node), [self.value(node, args["input"])], weight,
            weight=weight, bias=self.parameter(node, args["bias"]), kernel=pair(kernel), stride=pair(args["stride"]),
            padding=padding, dilation=dilation, groups=args["groups"],
        )  # fmt: skip

    def batchnorm(self, node: fx.Node, args: Arguments) -> str:
        weight, bias, mean, variance = (
            self.parameter(node, args[key]) for key in ("weight", "bias", "running_mean", "running_var")
        )
        if args["training"] or mean is None or variance is None:
            raise self.unknown(node, "batch_norm with the batch's own statistics")
        return self.emit("batchnorm", shape_of(node), [self.value(node, args["input"])], weight or mean,
            weight=weight, bias=bias, mean=mean, variance=variance, eps=args["eps"],
        )  # fmt: skip

    def linear(self, node: fx.Node, args: Arguments) -> str:
        if len(shape_of(node)) != 1:
            raise self.unknown(node, "linear on more than [N, D]")
        weight = self.parameter(node, args["weight"])
        return self.emit(
            "linear",
            shape_of(node),
            [self.value(node, args["input"])],
            weight,
            weight=weight,
            bias=self.parameter(node, args["bias"]),
        )

    def hardtanh(self, node: fx.Node, args: Arguments) -> str:
        if (args["min_val"], args["max_val"]) != (0, 6):
            raise self.unknown(node, f"hardtanh from {args['min_val']} to {args['max_val']}")
        return self.plain(node, args, "relu6")

    def max_pool(self, node: fx.Node, args: Arguments) -> str:
        if pair(args["dilation"]) != (1, 1):
            raise self.unknown(node, "a dilated max_pool2d")
        return self.emit("maxpool", shape_of(node), [self.value(node, args["self"])], **window(args))

    def avg_pool(self, node: fx.Node, args: Arguments) -> str:
        if args["divisor_override"] is not None:
            raise self.unknown(node, "avg_pool2d with a divisor of its own")
        fields = window(args)
        if fields["kernel"] == full_shape(args["self"])[2:] and fields["padding"] == (0, 0):
            return self.emit("globalavgpool", shape_of(node), [self.value(node, args["self"])])
        return self.emit(
            "avgpool",
            shape_of(node),
            [self.value(node, args["self"])],
            counts_padding=args["count_include_pad"],
            **fields,
        )

    def adaptive_pool(self, node: fx.Node, args: Arguments) -> str:
        height, width = full_shape(args["self"])[2:]
        rows, columns = pair(args["output_size"])
        if (rows, columns) == (height, width) != (1, 1):
            return self.value(node, args["self"])
        if (rows, columns) == (1, 1):
            return self.emit("globalavgpool", shape_of(node), [self.value(node, args["self"])])
        if height % rows or width % columns:
            raise self.unknown(node, "adaptive_avg_pool2d with uneven windows")
        kernel = (height // rows, width // columns)
        return self.emit("avgpool", shape_of(node), [self.value(node, args["self"])], kernel=kernel, stride=kernel)

    def mean(self, node: fx.Node, args: Arguments) -> str:
        before = full_shape(args["self"])
        axes = {axis % len(before) for axis in ints(args.get("dim"))}
        if len(before) != 4 or axes != {2, 3} or args.get("dtype") is not None:
            raise self.unknown(node, f"mean over axes {sorted(axes)}")
        source = self.value(node, args["self"])
        pooled = self.emit("globalavgpool", (before[1], 1, 1), [source])
        return pooled if args["keepdim"] else self.emit("flatten", shape_of(node), [pooled])

    def reshape(self, node: fx.Node, args: Arguments) -> str:
        """[C, H, W] -> [C·H·W], or nothing. In between, as in two squeezes, any shape may come and go."""
        source = self.value(node, args["self"])
        before, after = self.shapes[source], shape_of(node)
        if full_shape(node)[0] == BATCH and before == after:
            return source
        if full_shape(node)[0] == BATCH and after == (prod(before),):
            return self.emit("flatten", after, [source])
        if node.users and all(self.reader_of(user) == self.reshape for user in node.users):
            return source
        raise self.unknown(node, f"a reshape of {list(before)}")

    def add(self, node: fx.Node, args: Arguments) -> str:
        terms = [args["self"], args["other"]]
        if args["alpha"] != 1 or any(not isinstance(t, fx.Node) or shape_of(t) != shape_of(node) for t in terms):
            raise self.unknown(node, "add of a number or of unequal shapes")
        return self.emit("add", shape_of(node), [self.value(node, term) for term in terms])

    def concat(self, node: fx.Node, args: Arguments) -> str:
        parts = cast("Sequence[object]", args["tensors"])
        if args["dim"] not in (1, 1 - len(full_shape(node))):
            raise self.unknown(node, f"cat along axis {args['dim']}")
        return self.emit("concat", shape_of(node), [self.value(node, part) for part in parts])

    def pad(self, node: fx.Node, args: Arguments) -> str:
        sides = ints(args["pad"])  # (left, right, top, bottom, ...): the last axis first
        pairs = [(sides[i], sides[i + 1]) for i in range(0, len(sides), 2)][::-1]
        axes = [(0, 0)] * (len(full_shape(node)) - len(pairs)) + pairs
        if args.get("mode", "constant") != "constant" or len(axes) != 4 or axes[0] != (0, 0):
            raise self.unknown(node, f"pad of mode {args.get('mode', 'constant')}")
        if not any(sides):
            return self.value(node, args["self"])
        before, after = zip(*axes[1:], strict=True)
        return self.emit(
            "pad",
            shape_of(node),
            [self.value(node, args["self"])],
            before=before,
            after=after,
            value=float(cast("float", args["value"] or 0.0)),
        )

    def slice(self, node: fx.Node, args: Arguments) -> str:
        source, step = args["self"], cast("int", args["step"])
        before = full_shape(source)
        axis = cast("int", args["dim"]) % len(before)
        first, *_ = range(before[axis])[cast("int | None", args["start"]) : cast("int | None", args["end"]) : step]
        if full_shape(node) == before:
            return self.value(node, source)
        if axis == 0 or len(before) != 4:
            raise self.unknown(node, f"a slice along axis {axis} of {len(before)}")
        start, steps = [0, 0, 0], [1, 1, 1]
        start[axis - 1], steps[axis - 1] = first, step
        assert isinstance(source, fx.Node)
        # x[:, :, ::2, ::2] comes as one slice an axis: make it one node again, where nothing else reads the first.
        last = self.nodes[-1] if self.nodes else None
        if last and last.op == "slice" and self.produced[source] == last.name and len(source.users) == 1:
            start = [a + b * s for a, b, s in zip(last.start, start, last.step, strict=True)]
            steps = [a * b for a, b in zip(last.step, steps, strict=True)]
            shape = self.shapes[last.name] = shape_of(node)
            self.nodes[-1] = replace(last, start=triple(start), step=triple(steps), output_shape=shape)
            return last.name
        return self.emit("slice", shape_of(node), [self.value(node, source)], start=triple(start), step=triple(steps))


def window(args: Arguments) -> dict[str, object]:
    """The fields that both poolings share; no stride means the kernel's."""
    kernel = pair(args["kernel_size"])
    return {
        "kernel": kernel,
        "stride": pair(args["stride"]) if ints(args["stride"]) else kernel,
        "padding": pair(args["padding"]),
        "is_ceil": bool(args["ceil_mode"]),
    }
