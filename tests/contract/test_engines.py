"""Every engine in the registry keeps the contract of inference/engine.py; the oracle is torch, layer by layer."""

import copy
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from sparse_transfer.core.errors import UserError
from sparse_transfer.inference import Compiled, Engine, engines
from sparse_transfer.inference.engine import TOLERANCE
from sparse_transfer.models import Backbone
from sparse_transfer.sparsity import Mask, prunable_weights

SIZE = 40  # odd feature maps further down: 20, 10, 5, 3, 2
BATCH = 5


@dataclass
class Case:
    """A sparse ResNet-18 with BatchNorm statistics that are not 0 and 1."""

    backbone: Backbone

    def expected(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            return copy.deepcopy(self.backbone.module).eval()(torch.from_numpy(images)).numpy()


def sparse_backbone(architecture: str, seed: int, sparsity: float = 0.8) -> Case:
    torch.manual_seed(seed)
    backbone = Backbone.create(architecture)
    generator = torch.Generator().manual_seed(seed)
    for layer in backbone.module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_(0, 0.2, generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
            layer.weight.data.uniform_(0.5, 1.5, generator=generator)
            layer.bias.data.normal_(0, 0.2, generator=generator)
    for weight in prunable_weights(backbone.module).values():
        weight.data[torch.rand(weight.shape, generator=generator) < sparsity] = 0
    return Case(
        Backbone(backbone.module, backbone.architecture, backbone.preprocessing, Mask.from_zeros(backbone.module))
    )


def images(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, 3, SIZE, SIZE)).astype(np.float32)


def compiled(engine: Engine, case: Case, batch: int = BATCH) -> Compiled:
    return engine.compile(case.backbone, batch=batch, threads=1, input_size=SIZE)


def assert_close(got: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    assert got.dtype == np.float32
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= TOLERANCE["fp32"] * np.abs(expected).max()


@pytest.fixture(params=list(engines))
def engine(request: pytest.FixtureRequest) -> Engine:
    found = engines.get(request.param)
    availability = found.available()
    if not availability:
        assert availability.what
        assert availability.do
        pytest.skip(availability.what)
    return found


@pytest.fixture(scope="module")
def case() -> Case:
    return sparse_backbone("resnet18", 0)


@pytest.fixture
def ready(engine: Engine, case: Case) -> Iterator[Compiled]:
    with closing(compiled(engine, case)) as made:
        yield made


def test_there_are_engines_and_each_knows_its_name() -> None:
    assert "torch" in engines
    assert [engines.get(name).name for name in engines] == list(engines)


@pytest.mark.parametrize("count", range(1, BATCH + 1))
def test_features_are_those_of_torch_for_every_batch_up_to_the_compiled_one(
    ready: Compiled, case: Case, count: int
) -> None:
    assert_close(ready(images(count)), case.expected(images(count)))


def test_a_picture_has_the_same_features_in_any_company(ready: Compiled) -> None:
    together = ready(images(BATCH))
    alone = np.concatenate([ready(images(BATCH)[row : row + 1]) for row in range(BATCH)])
    assert_close(alone, together)


def test_the_result_is_the_callers_own(ready: Compiled, case: Case) -> None:
    first = ready(images(2, seed=1))
    kept = first.copy()
    ready(images(2, seed=2))
    assert np.array_equal(first, kept)


def test_inputs_in_any_memory_order_are_read_and_none_is_changed(ready: Compiled, case: Case) -> None:
    plain = images(3)
    expected = case.expected(plain)
    channels_last = np.ascontiguousarray(plain.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    backwards = np.ascontiguousarray(plain[::-1])[::-1]
    every_other = np.repeat(plain, 2, axis=0)[::2]
    locked = plain.copy()
    locked.flags.writeable = False
    for view in (plain, channels_last, backwards, every_other, locked):
        before = view.copy()
        assert_close(ready(view), expected)
        assert np.array_equal(view, before)


def test_a_layer_of_zeros_and_a_backbone_of_zeros_run(engine: Engine) -> None:
    case = sparse_backbone("resnet18", 1)
    weights = prunable_weights(case.backbone.module)
    weights["layer2.0.conv1.weight"].data.zero_()
    with closing(compiled(engine, case)) as one:
        assert_close(one(images(2)), case.expected(images(2)))
    for weight in weights.values():
        weight.data.zero_()
    with closing(compiled(engine, case)) as none:
        assert_close(none(images(2)), case.expected(images(2)))


def test_two_compiled_at_once_do_not_disturb_each_other(engine: Engine, case: Case) -> None:
    other = sparse_backbone("resnet18", 2, sparsity=0.5)
    with closing(compiled(engine, case)) as first, closing(compiled(engine, other, batch=2)) as second:
        for _ in range(2):
            assert_close(first(images(3)), case.expected(images(3)))
            assert_close(second(images(2)), other.expected(images(2)))
        second.close()
        assert_close(first(images(1)), case.expected(images(1)))


def test_nan_in_is_nan_out_and_stays_in_its_picture(ready: Compiled) -> None:
    pictures = images(3)
    pictures[1, 0, SIZE // 2, SIZE // 2] = np.nan
    got = ready(pictures)
    # the whole of a ResNet-18's last map sees the centre of 40 px
    assert np.isnan(got[1]).all()
    assert np.isfinite(got[[0, 2]]).all()


def test_nan_in_the_weights_reaches_the_features(engine: Engine) -> None:
    case = sparse_backbone("resnet18", 3)
    weight = prunable_weights(case.backbone.module)["layer1.0.conv1.weight"]
    weight.data[0, 0, 0, 0] = float("nan")
    with closing(compiled(engine, case)) as made:
        assert np.isnan(made(images(1))).any()


def test_the_backbone_is_copied_and_left_as_it_was(engine: Engine) -> None:
    case = sparse_backbone("resnet18", 4)
    case.backbone.module.train()
    before = {name: tensor.clone() for name, tensor in case.backbone.module.state_dict().items()}
    expected = case.expected(images(2))
    with closing(compiled(engine, case)) as made:
        for weight in prunable_weights(case.backbone.module).values():
            weight.data.mul_(2)
        assert_close(made(images(2)), expected)
    assert case.backbone.module.training
    after = case.backbone.module.state_dict()
    untouched = [name for name in before if name not in prunable_weights(case.backbone.module)]
    assert all(torch.equal(after[name], before[name]) for name in untouched)


def test_a_closed_backbone_refuses_and_may_be_closed_again(engine: Engine, case: Case) -> None:
    made = compiled(engine, case)
    made.close()
    made.close()
    with pytest.raises(RuntimeError, match="closed"):
        made(images(1))
    with pytest.raises(RuntimeError, match="closed"):
        made.describe()


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((BATCH + 1, 3, SIZE, SIZE), np.float32),
        np.zeros((0, 3, SIZE, SIZE), np.float32),
        np.zeros((1, 1, SIZE, SIZE), np.float32),
        np.zeros((1, 3, SIZE, SIZE + 1), np.float32),
        np.zeros((3, SIZE, SIZE), np.float32),
        np.zeros((1, 3, SIZE, SIZE), np.float64),
        np.zeros((1, 3, SIZE, SIZE), np.uint8),
    ],
)
def test_images_it_was_not_compiled_for_are_refused(ready: Compiled, wrong: NDArray[np.float32]) -> None:
    with pytest.raises(UserError, match=r"images (of|at once)"):
        ready(wrong)


def test_the_plan_covers_every_layer_with_its_density_and_macs(ready: Compiled, case: Case, engine: Engine) -> None:
    plan = ready.describe()
    assert (plan.engine, plan.batch, plan.threads, plan.input_size) == (engine.name, BATCH, 1, SIZE)
    density = {f"{node.name}.weight": node.density for node in plan.nodes if node.macs}
    assert set(density) == set(prunable_weights(case.backbone.module))
    for name, weight in prunable_weights(case.backbone.module).items():
        assert density[name] == pytest.approx(float((weight != 0).double().mean()), abs=1e-12)
    stem = next(node for node in plan.nodes if node.name == "conv1")
    assert 0 < stem.macs <= 64 * 3 * 7 * 7 * 20 * 20  # by hand; fewer where an engine skips zeros
    assert all(node.kernel and node.weight_bytes >= 0 for node in plan.nodes)
