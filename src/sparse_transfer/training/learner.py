"""One network being trained: the update, in which the mask is held, and all that has to be kept to go on later."""

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
LEAST_SCALE = 1e-4  # of a loss in fp16, halved by each update that overflows (fairseq's --min-loss-scale)


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
    """What an update saw: sums over its pictures, of all processes."""

    loss: float
    correct: int


class NotFinite(Exception):
    """``what`` is not finite. in_update: it is the loss of an update, and the weights are as they were before it."""

    def __init__(self, what: str, *, in_update: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.in_update = in_update


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
        self.model = model.to(self.device).to(memory_format=layout)
        self.teacher = None if teacher is None else teacher.to(self.device).to(memory_format=layout).eval()
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
        pruned has no part in the norm.) The losses are read once, when all before the optimiser is under way: reading
        waits for the device.

        Raises:
            NotFinite: a loss is NaN or infinite, on any process.
        """
        for rates in self.optimiser.param_groups:
            rates["lr"] = self.settings.optimiser.lr * factor * rates[TIMES]
        self.model.train()
        self.optimiser.zero_grad(set_to_none=True)
        seen = torch.zeros(2, dtype=torch.float64, device=self.device)  # sum of losses, and of correct predictions
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            with self._alone() if not last else nullcontext():
                seen += self._backward(part, pictures)
        self.scaler.unscale_(self.optimiser)
        self.mask.mask_gradients()
        if self.settings.clip is not None:
            trained = [weight for weight in self.model.parameters() if weight.requires_grad]
            nn.utils.clip_grad_norm_(trained, self.settings.clip)
        loss, correct = self.group.sum_(seen.cpu()).tolist()
        if not math.isfinite(loss):
            self.scaler.update()  # else it would refuse to unscale the next update's gradients
            raise NotFinite("the loss", in_update=True)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.mask.mask_weights()
        if self.average is not None:
            self.average.update(self.model)
            self.mask.mask_tensors(self.average.shadow)
        return Step(loss, round(correct))

    def _backward(self, part: Part, pictures: int) -> Tensor:
        """Forward and backward of one part; [2] float64 on the device: its sums of losses and correct predictions."""
        logits, each = self._forward(self.forward, part)
        total = each.sum() * part.counts
        # DistributedDataParallel averages over the processes: times their number, the average is the sum.
        self.scaler.scale(total * (self.group.size / pictures)).backward()
        return torch.stack([total.detach().double(), (logits.argmax(1) == part.labels).sum().double() * part.counts])

    def _forward(self, model: Callable[[Tensor], Tensor], part: Part) -> tuple[Tensor, Tensor]:
        """Logits [b, C], and losses [b], of one part."""
        images = part.images if part.mix is None else part.mix.images(part.images)
        with torch.autocast(self.device.type, AUTOCAST[self.execution.amp], enabled=self.execution.amp != "off"):
            logits = model(images)
            taught = None if self.teacher is None else _taught(self.teacher, images)
        return logits, losses(logits, part.labels, self.settings.objective, part.mix, taught)

    def _alone(self) -> AbstractContextManager[None]:
        """No exchange of gradients for this pass: the last one of an update sends their sum."""
        if isinstance(self.wrapped, nn.parallel.DistributedDataParallel):
            return self.wrapped.no_sync()
        return nullcontext()

    def audit(self, *, together: bool = True) -> None:
        """Raise ``MaskViolation`` unless all is inside the mask; ``together``: which is the same on all processes."""
        self.mask.audit(self.optimiser, None if self.average is None else self.average.shadow)
        if together:
            self.group.require_equal(self.mask.digest(), "the mask")

    def require_finite(self) -> None:
        """Raise ``NotFinite`` where updates broke the weights, or where fp16's scale fell so far that none is made."""
        for name, weight in self.model.named_parameters():
            if not bool(weight.isfinite().all()):
                raise NotFinite(name)
        if self.scaler.is_enabled() and self.scaler.get_scale() < LEAST_SCALE:
            raise NotFinite("the gradient in float16, whatever its scale,")

    def evaluated(self) -> dict[str, Tensor]:
        """The tensors to be judged and kept: the average where there is one, else the model's own."""
        return self.model.state_dict() if self.average is None else self.average.shadow

    @contextmanager
    def averaged(self) -> Generator[None]:
        """Inside the block the model is what ``evaluated`` gives; afterwards, however it is left, itself again."""
        if self.average is None:
            yield
            return
        own = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.average.shadow)
        try:
            yield
        finally:
            self.model.load_state_dict(own)

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
        """What to say where the device does not hold ``part``: the largest even share of a batch that it holds.

        Nothing is exchanged here: the other processes are elsewhere, in the middle of their own pass. Called outside
        of the ``except`` that saw the error, which would keep the memory of the pass that failed.
        """
        batch, processes = self.settings.batch_size, self.group.size
        for pieces in range(2, batch + 1):
            if batch % pieces == 0 and self._fits(part, -(-batch // pieces // processes)):
                size = batch // pieces
                return UserError(
                    f"a batch of {batch} pictures does not fit into the device's memory, {size} do",
                    do=f"--batch-size {size} --grad-accum-steps {self.settings.accumulate * pieces} shows each update"
                    " as many pictures",
                )
        return UserError("not even one picture fits into the device's memory", do="use --amp bf16, or another device")

    def _fits(self, part: Part, count: int) -> bool:
        """Whether the device holds forward and backward of the first ``count`` pictures."""
        self.optimiser.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            _, each = self._forward(self.model, Part(part.images[:count], part.labels[:count]))
            trained = [weight for weight in self.model.parameters() if weight.requires_grad]
            torch.autograd.grad(each.sum(), trained, allow_unused=True)  # not backward(): its hooks talk to the others
        except torch.OutOfMemoryError:
            return False
        return True


@torch.no_grad()
def _taught(teacher: nn.Module, images: Tensor) -> Tensor:
    return teacher(images)
