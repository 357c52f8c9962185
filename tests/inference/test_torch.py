"""The torch engine: folding against the plain forward pass, numerics, threads."""

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sparse_transfer.core.errors import UserError
from sparse_transfer.inference import engine, engines
from sparse_transfer.inference.engine import TOLERANCE
from sparse_transfer.inference.torch import exact_float32, folded
from sparse_transfer.models import Architecture, Backbone, Preprocessing


def shaken(module: nn.Module) -> nn.Module:
    """BatchNorm statistics and weights away from 0 and 1, eval mode."""
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None:
            layer.running_mean.normal_(0, 0.3, generator=generator)
            layer.running_var.uniform_(0.3, 3, generator=generator)
            if layer.affine:
                layer.weight.data.uniform_(0.5, 1.5, generator=generator)
                layer.bias.data.normal_(generator=generator)
    return module.eval()


def used_norms(module: nn.Module) -> int:
    """BatchNorm layers that a traced module still calls."""
    assert isinstance(module, torch.fx.GraphModule)
    layers = dict(module.named_modules())
    return sum(isinstance(layers.get(str(node.target)), nn.BatchNorm2d) for node in module.graph.nodes)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_every_batchnorm_of_a_resnet_is_folded_and_the_features_stay(name: str) -> None:
    torch.manual_seed(0)
    backbone = Backbone.create(name)
    shaken(backbone.module)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = backbone.module(images)
        module = folded(backbone.module)
        got = module(images)
    assert used_norms(module) == 0
    assert float((got - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


class Awkward(nn.Module):
    """What must not be folded: a shared convolution, a shared norm, a convolution that is read twice, norm first."""

    feature_dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm2d(3)
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.shared = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.one, self.two = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.left, self.right = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, groups=2)
        self.both = nn.BatchNorm2d(4)
        self.read_twice, self.after = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.plain = nn.Conv2d(4, 4, 3, groups=4)
        self.foldable = nn.BatchNorm2d(4, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(self.first(x))
        x = self.two(self.shared(self.one(self.shared(x))))
        x = self.both(self.left(x)) + self.both(self.right(x))
        y = self.read_twice(x)
        x = y + self.after(y)
        return self.foldable(self.plain(x)).mean((2, 3))


def test_only_a_convolution_that_feeds_one_norm_alone_is_folded() -> None:
    torch.manual_seed(1)
    original = shaken(Awkward())
    images = torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        expected = original(images)
        module = folded(original)
        got = module(images)
    assert used_norms(module) == 6  # first, one, two, both twice, after
    assert torch.allclose(got, expected, rtol=1e-5, atol=1e-6)


class Untraceable(nn.Module):
    feature_dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return x.mean((2, 3)) if float(x.sum()) > 0 else x.amax((2, 3))


def test_a_module_that_cannot_be_traced_runs_as_it_is_and_has_an_empty_plan() -> None:
    module = shaken(Untraceable())
    backbone = Backbone(module, Architecture("module", {"name": "mine"}), Preprocessing())
    images = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    with closing(engine("torch").compile(backbone, batch=2, threads=1, input_size=8)) as made:
        with torch.no_grad():
            assert np.allclose(made(images), module(torch.from_numpy(images)), atol=1e-6)
        assert made.describe().nodes == ()


def test_bf16_keeps_its_tolerance_and_is_not_fp32() -> None:
    torch.manual_seed(0)
    backbone = Backbone.create("resnet18")
    shaken(backbone.module)
    images = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    with torch.no_grad():
        expected = backbone.module(torch.from_numpy(images)).numpy()
    with closing(engine("torch").compile(backbone, batch=2, threads=1, input_size=64, numerics="bf16")) as made:
        got = made(images)
        assert made.describe().numerics == "bf16"
    error = np.abs(got - expected).max() / np.abs(expected).max()
    assert got.dtype == np.float32
    assert TOLERANCE["fp32"] < error < TOLERANCE["bf16"]


def test_the_number_of_threads_is_put_back() -> None:
    backbone = Backbone.create("resnet18")
    before = torch.get_num_threads()
    with closing(engine("torch").compile(backbone, batch=1, threads=before + 1, input_size=32)) as made:
        made(np.zeros((1, 3, 32, 32), np.float32))
        assert torch.get_num_threads() == before
        with pytest.raises(UserError):
            made(np.zeros((2, 3, 32, 32), np.float32))
    assert torch.get_num_threads() == before


def test_compiled_features_need_no_gradient_and_leave_the_backbone_trainable() -> None:
    backbone = Backbone.create("resnet18")
    with closing(engine("torch").compile(backbone, batch=1, threads=1, input_size=32)) as made:
        made(np.zeros((1, 3, 32, 32), np.float32))
    assert all(parameter.requires_grad for parameter in backbone.module.parameters())
    assert backbone.module(torch.zeros(1, 3, 32, 32)).requires_grad


def test_cuda_without_a_device_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    expected = "engine torch-cuda: PyTorch finds no CUDA device; use --device cpu"
    with pytest.raises(UserError) as caught:
        engine("torch-cuda")
    assert str(caught.value) == expected
    with pytest.raises(UserError) as caught:
        engines.get("torch-cuda").compile(Backbone.create("resnet18"), batch=1, threads=1, input_size=32)
    assert str(caught.value) == expected


class Recorder(nn.Module):
    """Notes how precisely CUDA would convolve and multiply while it runs."""

    feature_dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.seen: list[tuple[str, str]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append((torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision))
        return x.mean((2, 3)) * self.scale


@pytest.fixture
def kept_precisions() -> Iterator[None]:
    """What the process has set, put back at the end."""
    conv, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = conv.fp32_precision, matmul.fp32_precision
    yield
    conv.fp32_precision, matmul.fp32_precision = before


@pytest.mark.parametrize("asked", ["tf32", "ieee"])
@pytest.mark.usefixtures("kept_precisions")
def test_float32_on_cuda_is_never_tf32_whatever_the_process_has_set(asked: str) -> None:
    """No GPU needed: the settings are the process's, and the device decides alone whether they matter."""
    conv, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    conv.fp32_precision = matmul.fp32_precision = asked
    module = Recorder()
    with exact_float32(torch.device("cuda")):
        module(torch.zeros(1, 3, 8, 8))
    assert module.seen == [("ieee", "ieee")]
    assert (conv.fp32_precision, matmul.fp32_precision) == (asked, asked)


def test_a_batch_too_large_for_the_device_says_what_to_make_smaller() -> None:
    class Full(Recorder):
        def forward(self, x: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    backbone = Backbone(Full(), Architecture("module", {"name": "mine"}), Preprocessing())
    made = engine("torch").compile(backbone, batch=2, threads=1, input_size=8)
    with closing(made), pytest.raises(UserError) as caught:
        made(np.zeros((2, 3, 8, 8), np.float32))
    assert str(caught.value) == (
        "engine torch: 2 pictures at once do not fit into the memory of the device; use a smaller --batch-size than 2"
    )


def test_an_unknown_engine_suggests_the_nearest() -> None:
    with pytest.raises(UserError) as caught:
        engine("troch")
    assert str(caught.value) == 'no engine is called "troch"; did you mean "torch"?'
