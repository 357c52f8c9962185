"""A finished network to learn from, whatever its pictures are normalised by."""

import torch
from torch import Tensor, nn

from sparse_transfer.models import Preprocessing


class Renormalised(nn.Module):
    """``network`` for pictures that were normalised as ``given`` says, and not as the ``wanted`` it was trained on.

    (x · std + mean) of the one is what the other normalises, so each channel is scaled and shifted. Resize and crop are
    those of the pictures: they are not made again.
    """

    def __init__(self, network: nn.Module, given: Preprocessing, wanted: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.is_flipped = given.channel_order != wanted.channel_order
        mean, std = (torch.tensor(values).flip(0) if self.is_flipped else torch.tensor(values)
                     for values in (given.mean, given.std))  # fmt: skip
        self.register_buffer("scale", (std / torch.tensor(wanted.std)).view(3, 1, 1))
        self.register_buffer("shift", ((mean - torch.tensor(wanted.mean)) / torch.tensor(wanted.std)).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        images = images.flip(1) if self.is_flipped else images
        return self.network(images * self.get_buffer("scale") + self.get_buffer("shift"))
