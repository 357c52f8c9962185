"""Weights and BatchNorm statistics that make every parameter matter."""

import torch
from torch import nn


def randomise_(module: nn.Module, seed: int = 0) -> nn.Module:
    """Fill all parameters and statistics, so that no scale is 1 and no shift 0; activations stay of order one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim > 1:
                tensor.copy_(noise * (2 / tensor[0].numel()) ** 0.5)
            elif name.endswith(("running_var", "weight")):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            else:
                tensor.copy_(0.2 * noise)
    return module.eval()
