"""What every architecture has to hold, at its defaults."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sparse_transfer.checkpoints.file import load, save
from sparse_transfer.core.errors import UserError
from sparse_transfer.models import Architecture, Backbone, Head, Network, build, cost, families
from sparse_transfer.models.network import head_name
from sparse_transfer.sparsity import Mask, prunable_weights

NAMES = list(families)
SIZE = 64  # px: small, and larger than the 32 by which the deepest network reduces a picture
# What a file holds does not depend on the width: a narrow network, and the two deepest by `make test-long` alone.
NARROW = {"wideresnet": "wideresnet,depth=10,width=1"}
DEEP = ("resnet101", "resnet152")
FILES = [pytest.param(NARROW.get(name, name), marks=pytest.mark.long if name in DEEP else ()) for name in NAMES]

# SHA-256 over the sorted lines "name shape" of the state dict, first 12 digits: a snapshot that guards against change,
# because a renamed tensor makes every file written before unreadable. Correct names: tests/models, against others.
STATE_DICTS = {
    "resnet18": "05d62c7320b2",
    "resnet34": "adc7641db1c6",
    "resnet50": "569b87478859",
    "resnet101": "ee737dbd57cc",
    "resnet152": "d12ee6d999c9",
    "mobilenet_v1": "74f81cb4ac54",
    "resnet20": "f614da0bfd4e",
    "resnet32": "c7ae08a2638e",
    "resnet44": "72074b3e23b9",
    "resnet56": "879f8b9dd409",
    "wideresnet": "b10ed6957570",
}


def state_dict_digest(tensors: dict[str, torch.Tensor]) -> str:
    lines = sorted(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def pruned(name: str) -> Backbone:
    """A freshly drawn backbone, half of each weight pruned."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = Backbone.create(name)
    kept = {
        key: weight.abs() > weight.abs().flatten().kthvalue(max(1, weight.numel() // 2)).values
        for key, weight in prunable_weights(backbone.module).items()
    }
    mask = Mask(kept, backbone.module)
    mask.apply_(backbone.module)
    return replace(backbone, mask=mask)


def test_there_are_architectures() -> None:
    assert {"resnet50", "mobilenet_v1", "resnet20"} <= set(NAMES)


def hollow(name: str) -> Backbone:
    """The backbone on the meta device: shapes, and no weights to draw."""
    architecture = Architecture.parse(name)
    return Backbone(build(architecture, device="meta"), architecture, architecture.preprocessing)


@pytest.mark.parametrize("name", NAMES)
def test_it_builds_with_and_without_weights_and_gives_features_of_the_width_it_states(name: str) -> None:
    backbone, without = Backbone.create(name), hollow(name)
    tensors = backbone.module.state_dict()
    assert all(tensor.is_meta for tensor in without.module.state_dict().values())
    assert {key: tensor.shape for key, tensor in without.module.state_dict().items()} == {
        key: tensor.shape for key, tensor in tensors.items()
    }
    assert not backbone.module.training
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = backbone(images)
        alone = backbone(images[1:])
    assert features.shape == (2, backbone.feature_dim)
    assert features.dtype == torch.float32
    assert features.isfinite().all()
    # A picture does not see its neighbours; sums in another order for another batch: a few ulp of the largest feature.
    torch.testing.assert_close(alone[0], features[1], rtol=1e-4, atol=1e-5 * float(features.abs().max()))


@pytest.mark.parametrize("name", NAMES)
def test_its_graph_has_every_weight_and_its_cost_is_that_of_torch(name: str) -> None:
    backbone = hollow(name)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone(torch.zeros(1, 3, SIZE, SIZE, device="meta"))
    found = cost(backbone, SIZE)  # reads the graph, and nothing else
    assert {f"{layer.name}.weight" for layer in found.layers} == set(prunable_weights(backbone.module))
    assert 2 * found.macs_dense == counter.get_total_flops()
    assert found.macs_sparse == found.macs_dense


@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes_of_its_tensors_are_those_of_every_file_written_before(name: str) -> None:
    assert state_dict_digest(hollow(name).module.state_dict()) == STATE_DICTS[name]


@pytest.mark.parametrize("name", NAMES)
def test_no_tensor_of_the_backbone_has_the_heads_name(name: str) -> None:
    backbone = hollow(name)
    head = head_name(backbone.architecture)
    assert head
    assert not [key for key in backbone.module.state_dict() if key.startswith(f"{head}.")]


@pytest.mark.parametrize("name", FILES)
def test_both_encodings_give_the_same_network_back(name: str, tmp_path: Path) -> None:
    backbone = pruned(name)
    generator = torch.Generator().manual_seed(1)
    head = Head(torch.randn(3, backbone.feature_dim, generator=generator), torch.zeros(3), ("a", "b", "ü"))
    network = Network(backbone, head)
    digest = network.digest()
    for encoding in ("packed", "dense"):
        path = tmp_path / f"{encoding}.safetensors"
        assert save(network, path, encoding=encoding) == digest
        found = load(path)
        assert found.digest == found.network.digest() == digest
        assert found.backbone.architecture == backbone.architecture
        assert found.backbone.mask == backbone.mask
        assert found.backbone.preprocessing == backbone.preprocessing
        assert found.head is not None
        assert found.head.classes == ("a", "b", "ü")
        tensors = found.network.tensors()
        assert all(torch.equal(tensors[key], tensor) for key, tensor in network.tensors().items())
    assert (tmp_path / "packed.safetensors").stat().st_size < (tmp_path / "dense.safetensors").stat().st_size


@pytest.mark.parametrize("name", NAMES)
def test_its_name_and_arguments_survive_json_and_a_command_line(name: str) -> None:
    architecture = Architecture.parse(name)
    stored = architecture.to_json()
    assert isinstance(stored, dict)
    assert Architecture.from_json(stored) == architecture == Architecture.parse(str(architecture))
    with pytest.raises(UserError, match="has no argument"):
        Architecture.parse(f"{name},nonsense=1")


@pytest.mark.parametrize("name", NAMES)
def test_what_it_expects_of_a_picture_fits_it(name: str) -> None:
    backbone = hollow(name)
    facts = backbone.preprocessing
    assert facts.channel_order == "rgb"
    assert facts.crop in (32, 224)
    assert backbone(torch.zeros(1, 3, facts.crop, facts.crop, device="meta")).shape == (1, backbone.feature_dim)
