"""The Graph says all there is to say: a small interpreter that reads it alone repeats the module."""

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_transfer.core.errors import UserError
from sparse_transfer.models import Architecture, Backbone, Graph, Node, Preprocessing, families
from support.graph_interpreter import interpret
from support.random_state import randomise_

VARIANTS = [
    "resnet50,stride=v1", "resnet18,pool=same", "resnet18,stem=s1", "resnet50,width=2", "resnet20,shortcut=B",
    "resnet20,width=0.3", "wideresnet,depth=10,width=1", "mobilenet_v1,flavour=tf", "mobilenet_v1,profile=amc-0.5flops",
]  # fmt: skip
TIMM = ["timm:resnet50d", "timm:mobilenetv1_100", "timm:efficientnet_es", "timm:mobilenetv2_100", "timm:regnetx_002"]


def backbone_of(module: nn.Module) -> Backbone:
    return Backbone(module, Architecture("module", {"name": "test"}), Preprocessing())


def assert_repeats(backbone: Backbone, size: int) -> Graph:
    """Graph and module give the same features of pictures of ``size`` px."""
    randomise_(backbone.module)
    graph = backbone.graph(size)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = backbone(images)
        actual = interpret(graph, backbone.module.state_dict(), images)
    # BatchNorm and means are computed in another order than torch's: a few ulp a layer, some fifty layers.
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    return graph


@pytest.mark.parametrize("architecture", [*families, *VARIANTS])
def test_every_family_and_variant_is_repeated_by_its_graph(architecture: str):
    assert len(families) >= 11
    backbone = Backbone.create(architecture)
    graph = assert_repeats(backbone, 40)
    state = backbone.module.state_dict()
    read = {n for node in graph for n in (node.weight, node.bias, node.mean, node.variance) if n is not None}
    assert read == {name for name in state if not name.endswith("num_batches_tracked")}
    assert len({node.name for node in graph}) == len(graph)
    assert graph.input_shape == (3, 40, 40)


@pytest.mark.parametrize("name", TIMM)
def test_timm_s_convolutional_networks_are_repeated_by_their_graph(name: str):
    pytest.importorskip("timm")
    assert_repeats(Backbone.create(name), 64)


@pytest.mark.parametrize(
    ("module", "head", "size"),
    [
        (torchvision.models.googlenet(num_classes=5, init_weights=False, aux_logits=False), "fc", 64),
        (torchvision.models.densenet121(num_classes=5), "classifier", 64),
        (torchvision.models.mobilenet_v2(num_classes=5), "classifier.1", 64),
        (torchvision.models.shufflenet_v2_x0_5(num_classes=5).train(), "fc", 64),
    ],
)
def test_a_module_of_the_user_is_repeated_or_refused(module: nn.Module, head: str, size: int):
    backbone = Backbone.from_module(randomise_(module), head=head, input_size=size).backbone
    if isinstance(module, torchvision.models.ShuffleNetV2):
        with pytest.raises(UserError, match=r"module,.*: it computes .* which the graph has no operation for"):
            backbone.graph(size)
    else:
        assert_repeats(backbone, size)


class Everything(nn.Module):
    """Each operation, with each of its attributes, in the spellings that people use."""

    feature_dim = 6

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2))
        self.same = nn.Conv2d(8, 8, 3, padding="same", groups=4)
        self.bn = nn.BatchNorm2d(8, affine=False, eps=1e-2)
        self.bn1d = nn.BatchNorm1d(49)
        self.last = nn.Linear(49, 6, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(self.bn(self.conv(x)).contiguous(), 0.5, self.training)
        x = x + F.relu6(self.same(x))
        x = F.pad(F.relu_(x), (1, 2, 0, 3), value=-1.5)[:, 1:, ::2, 1::3]  # [7, 10, 10]
        pooled = F.max_pool2d(x, 3, 2, 1, ceil_mode=True)
        mean = F.avg_pool2d(x, (3, 2), (2, 2), (1, 0), ceil_mode=True, count_include_pad=False)
        counted = F.avg_pool2d(x, 3, 2, 1)
        corner = F.adaptive_avg_pool2d(counted, counted.shape[-2:])[:, :, :4, :4]
        smaller = F.avg_pool2d(F.adaptive_avg_pool2d(corner, 2), 2)
        parts = [pooled.mean((2, 3)), mean.mean((-1, -2), True).squeeze(-1).squeeze(-1), smaller.view(len(x), -1)]
        flat = torch.cat([*parts, corner[:, :, 1:3, 1:3].reshape(-1, 28)], dim=-1)
        return self.last(self.bn1d(F.relu(flat)))


def test_every_operation_with_every_attribute_is_repeated():
    graph = assert_repeats(backbone_of(Everything()), 32)
    ops = {node.op for node in graph}
    assert ops == {
        "conv", "batchnorm", "relu", "relu6", "maxpool", "avgpool", "globalavgpool",
        "pad", "slice", "add", "concat", "flatten", "linear",
    }  # fmt: skip
    convolution = next(iter(graph))
    assert convolution == Node(
        "conv", "conv", ("images",), (8, 16, 28),
        weight="conv.weight", bias="conv.bias", kernel=(3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2),
    )  # fmt: skip


def test_option_a_is_one_slice_and_one_pad():
    nodes = {node.name: node for node in Backbone.create("resnet20").graph(32)}
    assert [(n.output_shape, n.start, n.step) for n in nodes.values() if n.op == "slice"] == [
        ((16, 16, 16), (0, 0, 0), (1, 2, 2)),
        ((32, 8, 8), (0, 0, 0), (1, 2, 2)),
    ]
    assert [(n.before, n.after, n.value) for n in nodes.values() if n.op == "pad"] == [
        ((8, 0, 0), (8, 0, 0), 0.0),
        ((16, 0, 0), (16, 0, 0), 0.0),
    ]


def test_a_slice_that_two_read_is_kept_apart_from_the_next():
    class Twice(nn.Module):
        feature_dim = 3

        def forward(self, x: Tensor) -> Tensor:
            half = x[:, :, ::2]
            return half[:, :, :, ::2].mean((2, 3)) + half.mean((2, 3))

    graph = assert_repeats(backbone_of(Twice()), 8)
    assert [node.step for node in graph if node.op == "slice"] == [(1, 2, 1), (1, 1, 2)]


def test_an_operation_in_place_is_seen_by_later_readers():
    class InPlace(nn.Module):
        feature_dim = 3

        def forward(self, x: Tensor) -> Tensor:
            y = x + x
            F.relu_(y)
            return y.mean((2, 3))

    assert_repeats(backbone_of(InPlace()), 8)


def test_a_weight_used_twice_is_two_nodes_of_one_weight():
    class Shared(nn.Module):
        feature_dim = 3

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.conv(x)).mean((2, 3))

    graph = assert_repeats(backbone_of(Shared()), 8)
    assert [(n.name, n.weight) for n in graph if n.op == "conv"] == [("conv", "conv.weight"), ("conv_1", "conv.weight")]


def test_tracing_leaves_the_module_as_it_was():
    backbone = Backbone.create("resnet20")
    backbone.module.train()
    before = backbone.digest()
    backbone.graph(32)
    assert backbone.module.training
    assert backbone.digest() == before
    assert not any(p.is_meta for p in backbone.module.parameters())


def spelled(compute: object) -> Backbone:
    class Made(nn.Module):
        feature_dim = 3

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.shift = nn.Parameter(torch.zeros(3, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return compute(self.conv(x), self)  # type: ignore[operator]

    return backbone_of(Made())


DO = "which the graph has no operation for; everything but the cost works without the graph"


@pytest.mark.parametrize(
    ("compute", "what"),
    [
        (lambda x, _: F.silu(x).mean((2, 3)), "silu -> [3, 8, 8]"),
        (lambda x, _: (x * 2).mean((2, 3)), "mul -> [3, 8, 8]"),
        (lambda x, _: (x + 1).mean((2, 3)), "add of a number or of unequal shapes -> [3, 8, 8]"),
        (lambda x, m: (x + m.shift).mean((2, 3)), "add of a number or of unequal shapes -> [3, 8, 8]"),
        (lambda x, _: torch.add(x, x, alpha=2).mean((2, 3)), "add of a number or of unequal shapes -> [3, 8, 8]"),
        (lambda x, _: F.hardtanh(x).mean((2, 3)), "hardtanh from -1.0 to 1.0 -> [3, 8, 8]"),
        (lambda x, _: F.max_pool2d(x, 2, dilation=2).mean((2, 3)), "a dilated max_pool2d -> [3, 3, 3]"),
        (lambda x, _: F.avg_pool2d(x, 2, divisor_override=3).mean((2, 3)), "avg_pool2d with a divisor of its own"),
        (lambda x, _: F.adaptive_avg_pool2d(x, 3).mean((2, 3)), "adaptive_avg_pool2d with uneven windows"),
        (lambda x, _: F.pad(x, (1, 1, 1, 1), mode="reflect").mean((2, 3)), "pad of mode reflect -> [3, 10, 10]"),
        (lambda x, _: F.batch_norm(x, None, None, training=True).mean((2, 3)), "batch_norm with the batch's own"),
        (lambda x, _: x.mean(2).mean(2), "mean over axes [2] -> [3, 8]"),
        (lambda x, _: x.flatten(2).mean(2), "a reshape of [3, 8, 8] -> [3, 64]"),
        (lambda x, _: torch.cat([x, x], 2).mean((2, 3)), "cat along axis 2 -> [3, 16, 8]"),
        (lambda x, m: F.conv2d(x, m.conv.weight * 1).mean((2, 3)), "mul -> [3, 1, 1]"),
        (lambda x, _: F.conv2d(x, torch.ones(3, 3, 1, 1, device=x.device)).mean((2, 3)), "ones -> [3, 1, 1]"),
        (lambda x, _: F.dropout(x).mean((2, 3)), "dropout that stays on in eval mode -> [3, 8, 8]"),
        (lambda x, _: torch.split(x, 4, 2)[0].mean((2, 3)), "split -> several tensors"),
    ],
)
def test_an_operation_that_the_graph_has_not_is_named_with_its_place(compute: object, what: str):
    with pytest.raises(UserError) as seen:
        spelled(compute).graph(8)
    assert str(seen.value).startswith(f"module,name=test: it computes {what}")
    assert str(seen.value).endswith(f'after "conv", {DO}')


def test_a_course_that_depends_on_the_picture_is_refused():
    with pytest.raises(UserError, match=r"^module,name=test: it cannot be traced at 8 px \(.*must not depend on"):
        spelled(lambda x, _: (x if x.sum() > 0 else -x).mean((2, 3))).graph(8)


def test_an_output_that_is_no_feature_vector_is_refused():
    for compute in (lambda x, _: x, lambda x, _: (x.mean((2, 3)), x.mean((2, 3)))):
        with pytest.raises(UserError, match=r"its output is not one tensor of features \[N, D\]$"):
            spelled(compute).graph(8)


def test_a_vision_transformer_has_no_graph_and_says_so():
    pytest.importorskip("timm")
    with pytest.raises(UserError, match=r'^timm:vit_tiny_patch16_224: it computes .* after "patch_embed.proj"'):
        Backbone.create("timm:vit_tiny_patch16_224").graph(224)


def test_a_node_prints_what_is_set_and_nothing_else():
    node = Node("relu_1", "relu", ("conv",), (3, 8, 8))
    assert repr(node) == "Node(name='relu_1', op='relu', inputs=('conv',), output_shape=(3, 8, 8))"
