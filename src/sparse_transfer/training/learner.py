"""One network being trained: the update, in which the mask is held, and all that has to be kept to go on later."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparse_transfer.core.canonical import Json
from sparse_transfer.core.errors import UserError
from sparse_transfer.sparsity import Mask
from sparse_transfer.training.average import Average
from sparse_transfer.training.distributed import Group
from sparse_transfer.training.held_mask import HeldMask
from sparse_transfer.training.model import Trainable, shown_mask
from sparse_transfer.training.objective import Mix, losses
from sparse_transfer.training.optimiser import TIMES, make_optimiser
from sparse_transfer.training.settings import Execution, TrainSettings
from sparse_transfer.training.state import optimiser_tensors, restore_optimiser

AUTOCAST = {"off": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Part:
    """What one forward pass gets. images: [b, 3, H, W] float32.   labels: [b] int64.

    counts: False for a picture that only keeps a process in step with the others.
    """

    images: Tensor
    labels: Tensor
    mix: Mix | None = None
    counts: bool = True


@dataclass(frozen=True)
class Step:
    """What an update saw on this process: sums over its pictures."""

    loss: float
    correct: int


class NotFinite(Exception):
    """The loss of a forward pass is not finite; the weights are as they were before the update."""


class Learner:
    """``model`` under ``mask``, with optimiser, scaler and average."""

    def __init__(
        self,
        model: Trainable,
        mask: Mask,
        settings: TrainSettings,
        execution: Execution,
        group: Group,
        teacher: nn.Module | None = None,
    ) -> None:
        self.settings, self.execution, self.group = settings, execution, group
        self.device = torch.device("cuda", group.local) if execution.device == "cuda" else torch.device("cpu")
        layout = torch.channels_last if execution.channels_last else torch.contiguous_format
        self.model = model.to(self.device, memory_format=layout)  # pyright: ignore[reportCallIssue]
        self.teacher = None if teacher is None else teacher.to(self.device).eval()
        self.wrapped = group.wrapped(self.model)  # gives all processes the first one's weights: before any copy of them
        self.mask = HeldMask(shown_mask(mask, self.model), self.model)
        self.optimiser = make_optimiser(settings.optimiser, self.model)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=execution.amp == "fp16")
        self.average = None if settings.average is None else Average(self.model, settings.average)
        self.forward = torch.compile(self.wrapped) if execution.compile else self.wrapped

    def update(self, parts: Sequence[Part], pictures: int, factor: float) -> Step:
        """One update of the weights. ``pictures``: how many count, on all processes together.

        The gradient is that of the mean loss over these pictures. Order: forward, backward, unscale, mask the
        gradients, clip, optimiser, mask the weights, average and mask it. (Masked before clipping, so that what is
        pruned has no part in the norm.)

        Raises:
            NotFinite: a loss is NaN or infinite, on any process.
        """
        for rates in self.optimiser.param_groups:
            rates["lr"] = self.settings.optimiser.lr * factor * rates[TIMES]
        self.model.train()
        self.optimiser.zero_grad(set_to_none=True)
        loss_sum, correct = 0.0, 0
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            with self._alone() if not last else nullcontext():
                loss, right = self._backward(part, pictures)
            loss_sum += loss
            correct += right
        self.scaler.unscale_(self.optimiser)
        self.mask.mask_gradients()
        if self.settings.clip is not None:
            trained = [weight for weight in self.model.parameters() if weight.requires_grad]
            nn.utils.clip_grad_norm_(trained, self.settings.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.mask.mask_weights()
        if self.average is not None:
            self.average.update(self.model)
            self.mask.mask_tensors(self.average.shadow)
        return Step(loss_sum, correct)

    def _backward(self, part: Part, pictures: int) -> tuple[float, int]:
        """Forward and backward of one part; sums of loss and correct predictions."""
        images = part.images if part.mix is None else part.mix.images(part.images)
        with torch.autocast(self.device.type, AUTOCAST[self.execution.amp], enabled=self.execution.amp != "off"):
            logits = self.forward(images)
            taught = None if self.teacher is None else self._taught(images)
        each = losses(logits, part.labels, self.settings.objective, part.mix, taught)
        total = each.sum() if part.counts else each.sum() * 0
        value = total.detach().reshape(1).double()
        if not bool(torch.isfinite(self.group.sum_(value.clone()))):
            raise NotFinite
        # DistributedDataParallel averages over the processes: times their number, the average is the sum.
        self.scaler.scale(total * (self.group.size / pictures)).backward()
        if not part.counts:
            return 0.0, 0
        return float(value), int((logits.argmax(1) == part.labels).sum())

    def _taught(self, images: Tensor) -> Tensor:
        assert self.teacher is not None
        with torch.no_grad():
            return self.teacher(images)

    def _alone(self) -> "nullcontext[None]":
        """No exchange of gradients for this pass: the last one of an update sends their sum."""
        if isinstance(self.wrapped, nn.parallel.DistributedDataParallel):
            return self.wrapped.no_sync()  # type: ignore[return-value]
        return nullcontext()

    def audit(self) -> None:
        """Raise ``MaskViolation`` unless all is inside the mask, which is the same on all processes."""
        self.mask.audit(self.optimiser, None if self.average is None else self.average.shadow)
        self.group.require_equal(self.mask.digest(), "the mask")

    def evaluated(self) -> dict[str, Tensor]:
        """The tensors to be judged and kept: the average where there is one, else the model's own."""
        return self.model.state_dict() if self.average is None else self.average.shadow

    def state(self) -> tuple[dict[str, Tensor], dict[str, Json]]:
        """Tensors and scalars, by name: what ``restore`` needs."""
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"optimiser/{name}": value for name, value in optimiser_tensors(self.optimiser).items()}
        scalars: dict[str, Json] = {"scaler": self.scaler.state_dict()}
        if self.average is not None:
            tensors |= {f"average/{name}": value for name, value in self.average.shadow.items()}
            scalars["average_updates"] = self.average.updates
        return tensors, scalars

    def restore(self, tensors: dict[str, Tensor], scalars: dict[str, Json]) -> None:
        """Become what ``state`` described, and audit it."""

        def below(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

        self.model.load_state_dict(below("model/"))
        restore_optimiser(self.optimiser, below("optimiser/"))
        scaler = scalars.get("scaler")
        if isinstance(scaler, dict) and scaler:
            self.scaler.load_state_dict(dict(scaler))
        if self.average is not None:
            for name, value in below("average/").items():
                self.average.shadow[name].copy_(value)
            updates = scalars.get("average_updates")
            assert isinstance(updates, int)
            self.average.updates = updates
        self.audit()

    def out_of_memory(self, part: Part) -> UserError:
        """What to say where the device does not hold ``part``: the largest half, quarter, … of it that fits."""
        images, pieces = len(part.images), 1
        while images > 1:
            images, pieces = images // 2, pieces * 2
            self.optimiser.zero_grad(set_to_none=True)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            try:
                self._backward(Part(part.images[:images], part.labels[:images]), images)
            except torch.OutOfMemoryError:
                continue
            size = self.settings.batch_size // pieces
            return UserError(
                f"a batch of {self.settings.batch_size} pictures does not fit into the device's memory, {size} do",
                do=f"--batch-size {size} --grad-accum-steps {self.settings.accumulate * pieces} gives the same updates",
            )
        return UserError("not even one picture fits into the device's memory", do="use --amp bf16, or another device")
