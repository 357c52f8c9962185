"""What is minimised: cross-entropy, smoothed, on mixed pictures, beside a teacher."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sparse_transfer.core.errors import UserError


@dataclass(frozen=True)
class ObjectiveSettings:
    """label_smoothing: ε of Szegedy et al. 2016.   mixup: α of Zhang et al. 2018, 0 for none.

    distil: share of the teacher's term, T² · KL(teacher ‖ student) at ``temperature`` T (Hinton et al. 2015).
    """

    label_smoothing: float = 0.0
    mixup: float = 0.0
    distil: float = 0.0
    temperature: float = 2.0

    def __post_init__(self) -> None:
        for value, option in (
            (self.label_smoothing, "--label-smoothing"),
            (self.distil, "--distil-weight"),
        ):
            if not 0 <= value <= 1:
                raise UserError(f"a share of {value}", where=option, do="it lies in [0, 1]")
        if not 0 <= self.mixup < float("inf"):
            raise UserError(f"mixup {self.mixup}", where="--mixup", do="it is 0 or more")
        if not 0 < self.temperature < float("inf"):
            raise UserError(f"a temperature of {self.temperature}", where="--distil-temperature", do="it is above 0")


@dataclass(frozen=True)
class Mix:
    """Mixup of one batch: picture i becomes share · picture i + (1 - share) · picture ``partner[i]``, labels alike."""

    share: float
    partner: Tensor

    @classmethod
    def drawn(cls, alpha: float, count: int, rng: np.random.Generator) -> "Mix":
        """share ~ Beta(α, α); partners are a random permutation."""
        return cls(float(rng.beta(alpha, alpha)), torch.from_numpy(rng.permutation(count)))

    def images(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> the same, mixed."""
        return images.lerp(images[self.partner.to(images.device, non_blocking=True)], 1 - self.share)


def losses(
    logits: Tensor, labels: Tensor, settings: ObjectiveSettings, mix: Mix | None = None, teacher: Tensor | None = None
) -> Tensor:
    """One loss for each picture, nats. logits, teacher: [B, C].   labels: [B] int64.  -> [B] float32."""
    logits = logits.float()

    def entropy(target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, target, reduction="none", label_smoothing=settings.label_smoothing)

    loss = entropy(labels)
    if mix is not None:
        loss = mix.share * loss + (1 - mix.share) * entropy(labels[mix.partner.to(labels.device, non_blocking=True)])
    if teacher is not None:
        t = settings.temperature
        target, student = (teacher.float() / t).log_softmax(1), (logits / t).log_softmax(1)
        divergence = nn.functional.kl_div(student, target, reduction="none", log_target=True).sum(1)
        loss = (1 - settings.distil) * loss + settings.distil * t * t * divergence
    return loss
