"""The contract of every encoding: a file of its authors comes in as their network, is inspected, and transfers."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sparse_transfer.checkpoints.file import load, save
from sparse_transfer.checkpoints.formats import encodings
from sparse_transfer.checkpoints.importing import Imported, import_checkpoint
from sparse_transfer.checkpoints.inspecting import inspect
from sparse_transfer.models import Preprocessing
from sparse_transfer.transfer.compute import Compute
from sparse_transfer.transfer.linear import linear_transfer
from support.foreign import Sample
from support.samples import SAMPLES

SMALL = Preprocessing(resize=32, crop=32)


def imported(sample: Sample) -> Imported:
    return import_checkpoint(sample.path, **sample.said)  # type: ignore[arg-type]


def pictures(size: int) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(5))


def test_every_encoding_has_a_file_in_these_tests() -> None:
    assert len(encodings) >= 2
    assert set(SAMPLES) == set(encodings)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_a_file_computes_what_its_origin_computes(name: str, tmp_path: Path) -> None:
    """Oracle: the origin's definition, whose weights were pruned by the origin's own rule."""
    sample = SAMPLES[name](tmp_path)
    found = imported(sample)
    network = found.network
    with torch.no_grad():
        images = pictures(sample.size)
        expected = sample.network(images)
        # The same sums in the same order but for the head, whose 1×1 convolution becomes a linear layer.
        torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert sum(int((~kept).sum()) for kept in network.masks().values()) == sample.pruned > 0
    network.backbone.mask.audit(network.backbone.module)
    assert found.report.sparsities.masked.zeros == sample.pruned
    assert 0 < found.report.sparsities.prunable.sparsity < 1
    assert 0 < found.report.sparsities.total.sparsity < found.report.sparsities.masked.sparsity
    assert found.report.encoding in (name, "zeros")
    assert found.origin.format == f"{found.report.encoding}/{found.report.family}"


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_a_file_is_inspected_saved_and_transfers_linearly(name: str, tmp_path: Path) -> None:
    sample = SAMPLES[name](tmp_path)
    found = imported(sample)
    path = tmp_path / "ours.safetensors"
    digest = save(found.network, path, origin=found.origin)
    assert load(path).digest == digest
    inspection = inspect(path)
    assert inspection.digest == digest
    assert sum(layer.size - layer.kept for layer in inspection.layers) == sample.pruned

    small = import_checkpoint(sample.path, preprocessing=SMALL, **sample.said)  # type: ignore[arg-type]
    save(small.network, path, origin=small.origin)
    runs = linear_transfer(
        path, "digits", seeds=[21], shots=2, runs=tmp_path / "runs", compute=Compute("cpu", threads=1, workers=1)
    )
    assert len(runs) == 1
    assert runs[0].result.last.total > 300
    assert runs[0].result.identity.checkpoint_digest == load(path).digest
