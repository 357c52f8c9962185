"""TensorFlow's networks and files, written from their descriptions: graphs that name their variables, bundles, tfjs.

A graph makes a variable when it first runs past it, as TensorFlow 1 does, so that numbers of BatchNorms follow from
the order of the layers. Kernels stay in TensorFlow's layout.
"""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_transfer.checkpoints.readers.crc32c import crc32c
from support.foreign import MOBILENET, Sample

Variables = Mapping[str, Tensor]


# --- networks -----------------------------------------------------------------------------------------------------


class Graph(nn.Module):
    """Variables by TensorFlow's names, made at random by a first run; ``effective`` has what counts instead of some."""

    epsilon = 1e-5
    size = 33  # of a picture, in px

    def __init__(self, classes: int = 7, seed: int = 0) -> None:
        super().__init__()
        self.classes = classes
        self.variables: dict[str, Tensor] = {}
        self.effective: dict[str, Tensor] = {}
        self.generator = torch.Generator().manual_seed(seed)
        self(torch.zeros(1, 3, self.size, self.size))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.batchnorms = 0
        with torch.no_grad():
            return self.graph(x)

    def graph(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    @property
    def kernels(self) -> list[str]:
        """Variables that can be pruned."""
        return [name for name, value in self.variables.items() if value.ndim >= 2]

    def variable(self, name: str, *shape: int, low: float = -1.0, high: float = 1.0) -> Tensor:
        if name not in self.variables:
            self.variables[name] = torch.rand(shape, generator=self.generator) * (high - low) + low
        return self.effective.get(name, self.variables[name])

    def conv(
        self, x: Tensor, name: str, kernel: int, outputs: int, stride: int = 1, padding: int | None = None
    ) -> Tensor:
        inputs = x.shape[1]
        bound = (3 / (inputs * kernel**2)) ** 0.5  # keeps variances
        hwio = self.variable(name, kernel, kernel, inputs, outputs, low=-bound, high=bound)
        return F.conv2d(x, hwio.permute(3, 2, 0, 1), stride=stride, padding=kernel // 2 if padding is None else padding)

    def depthwise(self, x: Tensor, name: str, stride: int, padding: int = 1) -> Tensor:
        hwcm = self.variable(name, 3, 3, x.shape[1], 1, low=-0.6, high=0.6)
        return F.conv2d(x, hwcm.permute(2, 3, 0, 1), stride=stride, padding=padding, groups=x.shape[1])

    def bn(self, x: Tensor, scope: str | None = None, root: str = "resnet_model/") -> Tensor:
        """Without a scope: tf.layers' own name, numbered in the order in which the graph is made."""
        if scope is None:
            scope = root + "batch_normalization" + (f"_{self.batchnorms}" if self.batchnorms else "")
            self.batchnorms += 1
        width = x.shape[1]
        gamma = self.variable(f"{scope}/gamma", width, low=0.5, high=1.5)
        beta = self.variable(f"{scope}/beta", width, low=-0.2, high=0.2)
        mean = self.variable(f"{scope}/moving_mean", width, low=-0.2, high=0.2)
        variance = self.variable(f"{scope}/moving_variance", width, low=0.5, high=1.5)
        factor = gamma / (variance + self.epsilon).sqrt()
        return x * factor[:, None, None] + (beta - mean * factor)[:, None, None]


def same_max_pool(x: Tensor) -> Tensor:
    """3×3, stride 2, padding SAME: as many outputs as half the inputs, the odd one of the padding at the end."""
    for dim in (3, 2):
        size = x.shape[dim]
        total = max((-(-size // 2) - 1) * 2 + 3 - size, 0)
        before, after = total // 2, total - total // 2
        x = F.pad(x, (before, after) if dim == 3 else (0, 0, before, after), value=-torch.inf)
    return F.max_pool2d(x, 3, 2)


class RiglResNet50(Graph):
    """rigl/imagenet_resnet/resnet_model.py, and State of Sparsity's: all layers masked, so no scope is doubled."""

    size = 40

    def graph(self, x: Tensor) -> Tensor:
        root = "resnet_model"
        x = self.bn(self.conv(x, f"{root}/initial_conv/weights", 7, 64, 2)).relu()
        x = same_max_pool(x)
        for group, (width, blocks, stride) in enumerate(((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)), start=1):
            end = f"block_group_projection_block_group{group}"
            shortcut = self.bn(self.conv(x, f"{root}/bottleneck_projection_{end}/weights", 1, 4 * width, stride))
            for block in range(blocks):
                if block:
                    shortcut, stride, end = x, 1, f"block_group{group}_{block}_1"
                y = self.bn(self.conv(x, f"{root}/bottleneck_1_{end}/weights", 1, width)).relu()
                y = self.bn(self.conv(y, f"{root}/bottleneck_2_{end}/weights", 3, width, stride)).relu()
                y = self.bn(self.conv(y, f"{root}/bottleneck_3_{end}/weights", 1, 4 * width))
                x = (y + shortcut).relu()
        x = x.mean((2, 3))
        weights = self.variable(f"{root}/final_dense/weights", x.shape[1], self.classes, low=-0.04, high=0.04)
        return x @ weights + self.variable(f"{root}/final_dense/biases", self.classes)


class RiglMobileNet(Graph):
    """rigl/imagenet_resnet/mobilenetv1_model.py at a quarter of its width: padding on both sides, ReLU."""

    def graph(self, x: Tensor) -> Tensor:
        root = "resnet_model"
        x = self.bn(self.conv(x, f"{root}/initial_conv/kernel", 3, 8, 2)).relu()
        for block, (outputs, stride) in enumerate(MOBILENET):
            x = self.bn(self.depthwise(x, f"{root}/depthwise_nxn_{block}/depthwise_weights", stride)).relu()
            x = self.bn(self.conv(x, f"{root}/contraction_1x1_{block}/weights", 1, outputs // 4)).relu()
        x = x.mean((2, 3))
        weights = self.variable(f"{root}/final_dense/weights", x.shape[1], self.classes, low=-0.1, high=0.1)
        return x @ weights + self.variable(f"{root}/final_dense/biases", self.classes)


class KerasMobileNet(Graph):
    """keras_applications/mobilenet.py at a quarter of its width: 0 before and 1 after, ReLU6, a convolution as head."""

    epsilon = 1e-3
    size = 32
    stem, depth, point, head = "conv1/kernel", "conv_dw_{}/depthwise_kernel", "conv_pw_{}/kernel", "conv_preds/kernel"
    head_bias = "conv_preds/bias"
    norms = ("conv1_bn", "conv_dw_{}_bn", "conv_pw_{}_bn")

    def graph(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(F.pad(x, (0, 1, 0, 1)), self.stem, 3, 8, 2, 0), self.norms[0]).clamp(0, 6)
        for block, (outputs, stride) in enumerate(MOBILENET, start=1):
            x = F.pad(x, (0, 1, 0, 1)) if stride == 2 else F.pad(x, (1, 1, 1, 1))
            x = self.bn(self.depthwise(x, self.depth.format(block), stride, 0), self.norms[1].format(block)).clamp(0, 6)
            x = self.bn(self.conv(x, self.point.format(block), 1, outputs // 4), self.norms[2].format(block)).clamp(
                0, 6
            )
        x = self.conv(x.mean((2, 3), keepdim=True), self.head, 1, self.classes)
        return x[:, :, 0, 0] + self.variable(self.head_bias, self.classes)


class SlimMobileNet(KerasMobileNet):
    """research/slim/nets/mobilenet_v1.py: the same network under other names, with a background class before all."""

    scope = "MobilenetV1/Conv2d_"
    stem, depth, point = f"{scope}0/weights", scope + "{}_depthwise/depthwise_weights", scope + "{}_pointwise/weights"
    head, head_bias = "MobilenetV1/Logits/Conv2d_1c_1x1/weights", "MobilenetV1/Logits/Conv2d_1c_1x1/biases"
    norms = (f"{scope}0/BatchNorm", scope + "{}_depthwise/BatchNorm", scope + "{}_pointwise/BatchNorm")

    def __init__(self, classes: int = 1000, seed: int = 0) -> None:
        super().__init__(classes + 1, seed)

    def graph(self, x: Tensor) -> Tensor:
        return super().graph(x)[:, 1:]


@dataclass(frozen=True)
class Family:
    """A graph and what its import should find."""

    make: Callable[..., Graph]
    architecture: str
    interpolation: str


FAMILIES = {
    "resnet_tf": Family(RiglResNet50, "resnet50,pool=same", "tf1_bicubic"),
    "mobilenet_rigl": Family(RiglMobileNet, "mobilenet_v1,width=0.25", "tf1_bicubic"),
    "mobilenet_keras": Family(KerasMobileNet, "mobilenet_v1,flavour=tf,width=0.25", "bilinear"),
    "mobilenet_slim": Family(SlimMobileNet, "mobilenet_v1,flavour=tf,width=0.25", "bilinear"),
}


# --- sparsity -----------------------------------------------------------------------------------------------------


def random_masks(graph: Graph, density: float = 0.4, names: list[str] | None = None) -> dict[str, Tensor]:
    """bool masks of those kernels (all without ``names``; RigL never masks a depthwise one), in TensorFlow's layout."""
    generator = torch.Generator().manual_seed(1)
    names = [name for name in graph.kernels if "depthwise" not in name] if names is None else names
    return {name: torch.rand(graph.variables[name].shape, generator=generator) < density for name in names}


def with_masks(graph: Graph, masks: Variables) -> dict[str, Tensor]:
    """The variables of contrib.model_pruning: weights as they are, whatever the mask, which multiplies in the graph."""
    graph.effective = {name: graph.variables[name] * kept for name, kept in masks.items()}
    out = dict(graph.variables)
    for name, kept in masks.items():
        scope = name.rpartition("/")[0]
        out |= {f"{scope}/mask": kept.float(), f"{scope}/threshold": torch.tensor(0.01)}
    return out


def with_log_sigma2(graph: Graph, names: list[str]) -> tuple[dict[str, Tensor], int]:
    """Variational dropout as ``conv2d_eval`` has it, at the threshold of 0.5; and how many weights do not count."""
    out, pruned = dict(graph.variables), 0
    generator = torch.Generator().manual_seed(2)
    for name in names:
        theta = graph.variables[name]
        log_sigma2 = torch.rand(theta.shape, generator=generator) * 12 - 10
        log_alpha = log_sigma2 - torch.log(theta**2 + 1e-8)
        mask = (log_alpha < 0.5).float()
        graph.effective[name] = theta * mask
        pruned += int((mask == 0).sum())
        out[f"{name.rpartition('/')[0]}/log_sigma2"] = log_sigma2
    return out, pruned


def with_log_alpha(graph: Graph, names: list[str]) -> tuple[dict[str, Tensor], int]:
    """L0 as ``conv2d_eval`` has it: θ times the hard concrete mean, β = 2/3, γ = -0.1, ζ = 1.1."""
    out, pruned = dict(graph.variables), 0
    generator = torch.Generator().manual_seed(2)
    for name in names:
        log_alpha = torch.rand(graph.variables[name].shape, generator=generator) * 10 - 5
        stretched = torch.sigmoid(log_alpha) * (1.1 - -0.1) + -0.1
        graph.effective[name] = graph.variables[name] * stretched.clip(0, 1)
        pruned += int((stretched <= 0).sum())
        out[f"{name.rpartition('/')[0]}/log_alpha"] = log_alpha
    return out, pruned


def doubled(variables: Variables, *scopes: str) -> dict[str, Tensor]:
    """As RigL's layers without a mask are called: their scope stands twice."""
    out = {}
    for name, value in variables.items():
        scope, _, last = name.rpartition("/")
        out[f"{scope}/{scope.rpartition('/')[2]}/{last}" if scope in scopes else name] = value
    return out


def trained(variables: Variables) -> dict[str, Tensor]:
    """With what else a training leaves in its checkpoints."""
    slots = {
        f"{name}/Momentum": torch.zeros_like(value)
        for name, value in variables.items()
        if name.endswith(("weights", "kernel", "gamma", "biases"))
    }
    averages = {f"{name}/ExponentialMovingAverage": value / 2 for name, value in variables.items() if value.ndim == 4}
    counters = {
        "global_step": torch.tensor(32000),
        "last_mask_update_step": torch.tensor(25000),
        "is_snipped": torch.tensor(True),
    }
    return {**variables, **slots, **averages, **counters}


# --- bundles ------------------------------------------------------------------------------------------------------

# tensorflow/core/framework/types.proto
NUMBERS = {
    torch.float32: 1,
    torch.float64: 2,
    torch.int32: 3,
    torch.uint8: 4,
    torch.int16: 5,
    torch.int8: 6,
    torch.complex64: 8,
    torch.int64: 9,
    torch.bool: 10,
    torch.bfloat16: 14,
    torch.float16: 19,
}
MAGIC = 0xDB4775248B80FB57
HEADER = bytes.fromhex("0801 1a02 0801")  # one shard, little endian, producer 1


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, value: int | bytes) -> bytes:
    """One of a message's fields: a varint, or a length and bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def masked_crc(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def block(pairs: list[tuple[bytes, bytes]], *, interval: int = 1) -> bytes:
    """Sorted keys, each less what it shares with the one before; every ``interval``-th is whole and listed last."""
    out, restarts, previous = b"", [], b""
    for index, (key, value) in enumerate(pairs):
        shared = 0
        if index % interval == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(previous)) and key[shared] == previous[shared]:
                shared += 1
        rest = key[shared:]
        out += varint(shared) + varint(len(rest)) + varint(len(value)) + rest + value
        previous = key
    restarts = restarts or [0]
    return out + b"".join(struct.pack("<I", start) for start in (*restarts, len(restarts)))


def table(pairs: list[tuple[bytes, bytes]], *, blocks: int = 1, interval: int = 1, kind: int = 0) -> bytes:
    """A LevelDB table of these pairs in order, spread over so many blocks."""
    return table_of(
        [
            (block(pairs[first:last], interval=interval), pairs[last - 1][0] + b"\xff")
            for first, last in pairwise(len(pairs) * i // blocks for i in range(blocks + 1))
            if last > first
        ],
        kind=kind,
    )


def table_of(contents: list[tuple[bytes, bytes]], *, kind: int = 0) -> bytes:
    """A table of ready blocks, each with a key that is not below any of its own."""
    out, index = b"", []
    for content, above in contents:
        index.append((above, varint(len(out)) + varint(len(content))))
        out += stored(content, kind)
    metaindex = varint(len(out)) + varint(len(block([])))
    out += stored(block([]), 0)
    content = block(index)
    handles = metaindex + varint(len(out)) + varint(len(content))
    return out + stored(content, 0) + handles.ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def stored(content: bytes, kind: int) -> bytes:
    return content + bytes([kind]) + masked_crc(content + bytes([kind]))


def raw(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def entry(dtype: int, shape: tuple[int, ...], shard: int, start: int, data: bytes, more: bytes = b"") -> bytes:
    """A BundleEntryProto; what has its default value is left out, as Protocol Buffers do."""
    dims = b"".join(field(2, field(1, size) if size else b"") for size in shape)
    numbers = [(1, dtype), (2, dims), (3, shard), (4, start), (5, len(data))]
    message = b"".join(field(number, value) for number, value in numbers if value or number == 2)
    return message + varint(6 << 3 | 5) + masked_crc(data) + more


def bundle(
    prefix: Path, variables: Mapping[str, Tensor], *, shards: int = 1, blocks: int = 1, interval: int = 1
) -> Path:
    """What ``tf.compat.v1.train.Saver`` writes; the variables take turns among the shards."""
    header = field(1, shards) + field(3, field(1, 1))
    pairs, datas = [(b"", header)], [bytearray() for _ in range(shards)]
    for index, (name, tensor) in enumerate(sorted(variables.items(), key=lambda item: item[0].encode())):
        data, content = datas[index % shards], raw(tensor)
        message = entry(NUMBERS[tensor.dtype], tuple(tensor.shape), index % shards, len(data), content)
        pairs.append((name.encode(), message))
        data += content
    for index, data in enumerate(datas):
        prefix.with_name(f"{prefix.name}.data-{index:05d}-of-{shards:05d}").write_bytes(data)
    path = prefix.with_name(f"{prefix.name}.index")
    path.write_bytes(table(pairs, blocks=blocks, interval=interval))
    return path


# --- TensorFlow.js ------------------------------------------------------------------------------------------------


def tfjs(folder: Path, variables: Mapping[str, Tensor], *, groups: int = 2, shard_bytes: int = 4 << 20) -> Path:
    """What tensorflowjs_converter writes: groups of weights, each cut into shards of 4 MB, wherever that falls."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = []
    names = list(variables)
    for index in range(groups):
        part = names[len(names) * index // groups : len(names) * (index + 1) // groups]
        data = b"".join(raw(variables[name]) for name in part)
        pieces = [data[start : start + shard_bytes] for start in range(0, len(data), shard_bytes)]
        paths = [f"group{index + 1}-shard{i + 1}of{len(pieces)}.bin" for i in range(len(pieces))]
        for path, piece in zip(paths, pieces, strict=True):
            (folder / path).write_bytes(piece)
        weights = [
            {
                "name": name,
                "shape": list(variables[name].shape),
                "dtype": str(variables[name].dtype).removeprefix("torch."),
            }
            for name in part
        ]
        manifest.append({"paths": paths, "weights": weights})
    path = folder / "model.json"
    path.write_text(json.dumps({"format": "layers-model", "modelTopology": {}, "weightsManifest": manifest}))
    return path


# --- one file of every encoding -----------------------------------------------------------------------------------


def mask_sample(folder: Path) -> Sample:
    graph = RiglMobileNet()
    masks = random_masks(graph, names=[name for name in graph.kernels if name.endswith("/weights")])
    path = bundle(folder / "model.ckpt-32000", trained(with_masks(graph, masks)), shards=2, blocks=3, interval=16)
    return Sample(path, graph, sum(int((~kept).sum()) for kept in masks.values()), graph.size)


def variational_sample(folder: Path) -> Sample:
    graph = RiglMobileNet()
    variables, pruned = with_log_sigma2(graph, [name for name in graph.kernels if name.endswith("/weights")])
    return Sample(bundle(folder / "model.ckpt-128000", trained(variables)), graph, pruned, graph.size)


def l0_sample(folder: Path) -> Sample:
    graph = RiglMobileNet()
    variables, pruned = with_log_alpha(graph, [name for name in graph.kernels if name.endswith("/weights")])
    return Sample(bundle(folder / "model.ckpt-128000", trained(variables)), graph, pruned, graph.size)


def plain_sample(folder: Path) -> Sample:
    graph = KerasMobileNet()
    masks = random_masks(graph, names=[name for name in graph.kernels if "conv_pw" in name])
    graph.variables |= {name: graph.variables[name] * kept for name, kept in masks.items()}
    return Sample(
        tfjs(folder / "web", graph.variables), graph, sum(int((~m).sum()) for m in masks.values()), graph.size
    )


SAMPLES: Mapping[str, Callable[[Path], Sample]] = {
    "tf_mask": mask_sample,
    "tf_variational": variational_sample,
    "tf_l0": l0_sample,
    "tf_plain": plain_sample,
}
