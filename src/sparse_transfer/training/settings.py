"""What a training is asked to do, and how it is run."""

from dataclasses import asdict, dataclass, field
from typing import Literal

from sparse_transfer.core.canonical import Json
from sparse_transfer.core.errors import UserError
from sparse_transfer.core.threads import available_cores
from sparse_transfer.training.average import require_decay
from sparse_transfer.training.objective import ObjectiveSettings
from sparse_transfer.training.optimiser import OptimiserSettings
from sparse_transfer.training.schedule import Schedule

Amp = Literal["off", "bf16", "fp16"]


@dataclass(frozen=True)
class TrainSettings:
    """Everything that changes what a training gives. The defaults are the paper's (research: protocol 1.3).

    batch_size: pictures a forward pass, over all processes together.   accumulate: passes an update.
    clip: largest norm of the gradient, over all that is trained.   average: decay of the EMA that is evaluated and
    kept instead.   frozen: prefixes of layer names.   freeze_bn: BatchNorm uses, and keeps, its ImageNet statistics.
    patience: epochs without a better validation loss after which to end.
    on_divergence: at a loss that is not finite, ``stop``, or go back and on at a tenth of the rate ``restarts`` times.
    """

    epochs: int = 150
    batch_size: int = 64
    accumulate: int = 1
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    schedule: Schedule = field(default_factory=Schedule)
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    clip: float | None = None
    average: float | None = None
    frozen: tuple[str, ...] = ()
    freeze_bn: bool = False
    patience: int | None = None
    on_divergence: Literal["stop", "restart"] = "stop"
    restarts: int = 3

    def __post_init__(self) -> None:
        for value, option in (
            (self.epochs, "--epochs"),
            (self.batch_size, "--batch-size"),
            (self.accumulate, "--grad-accum-steps"),
            (self.patience, "--patience"),
        ):
            if value is not None and value < 1:
                raise UserError(f"{value}", where=option, do="give 1 or more")
        if self.clip is not None and not 0 < self.clip < float("inf"):
            raise UserError(f"a norm of {self.clip}", where="--clip-grad", do="it is above 0")
        if self.average is not None:
            require_decay(self.average)
        if self.schedule.warmup >= self.epochs and self.schedule.warmup:
            raise UserError(
                f"a warm-up of {self.schedule.warmup} epochs, and {self.epochs} in all",
                where="--warmup-epochs",
                do="leave some for the training itself",
            )

    def to_json(self) -> dict[str, Json]:
        """What makes a training another one: part of a run's identity. What follows a loss that is not finite is none
        of it, so a run that ended there goes on when a restart is asked for."""
        return {name: value for name, value in asdict(self).items() if name not in ("on_divergence", "restarts")}


@dataclass(frozen=True)
class Execution:
    """How a training is run. Only ``amp``, and floating-point order, can change a result.

    device: ``cpu`` or ``cuda``.   compile: through ``torch.compile``.   channels_last: memory format of weights.
    threads, workers: of a step, and for decoding; one a core by default.   save_minutes: between two states.
    cache_bytes: decoded pictures kept in memory, 0 for none.   sync_bn: BatchNorm over all processes (CUDA).
    """

    device: Literal["cpu", "cuda"] = "cpu"
    amp: Amp = "off"
    compile: bool = False
    channels_last: bool = True
    threads: int | None = None
    workers: int | None = None
    save_minutes: float = 10.0
    cache_bytes: int = 0
    sync_bn: bool = False

    def __post_init__(self) -> None:
        if self.sync_bn and self.device != "cuda":
            raise UserError("torch has synchronised BatchNorm on CUDA alone", where="--sync-bn", do="leave it out")

    @property
    def cores(self) -> int:
        """Threads of a step."""
        return self.threads or available_cores()

    @property
    def numerics(self) -> str:
        """The class of arithmetic, for a run's identity. tf32: as PyTorch trains float32 on CUDA, the inputs of
        convolutions rounded to 10 bits where the GPU can, several times as fast."""
        if self.amp != "off":
            return self.amp
        return "tf32" if self.device == "cuda" else "fp32"
