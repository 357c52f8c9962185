"""The network in tests/checkpoints/golden: every number in it is a multiple of 1/32, so no rounding can move it."""

import torch

from sparse_transfer.models import Backbone, Head, Network
from sparse_transfer.sparsity import Mask, prunable_weights

SEED = 20221111


def golden_network() -> Network:
    """A ResNet-20 of an eighth of the width: all but the stem pruned by three quarters, the head by half."""
    generator = torch.Generator().manual_seed(SEED)
    dense = Backbone.create("resnet20,width=0.125,shortcut=B")

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randint(1, 64, shape, generator=generator) / 32

    with torch.no_grad():
        for tensor in dense.module.state_dict().values():
            tensor.copy_(numbers(*tensor.shape)) if tensor.is_floating_point() else tensor.fill_(7)
    weights = {name: weight for name, weight in prunable_weights(dense.module).items() if name != "conv1.weight"}
    kept = {name: torch.rand(weight.shape, generator=generator) < 0.25 for name, weight in weights.items()}
    mask = Mask(kept, dense.module)
    mask.apply_(dense.module)
    head_kept = torch.rand(3, 8, generator=generator) < 0.5
    head = Head(numbers(3, 8) * head_kept, torch.tensor([0.5, -1, 2]), ("cat", "dog", "größer als"), head_kept)
    return Network(Backbone(dense.module, dense.architecture, dense.preprocessing, mask), head)
