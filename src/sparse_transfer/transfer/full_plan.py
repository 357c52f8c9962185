"""What a full transfer is asked to do, checked and resolved before the first long step."""

from dataclasses import dataclass, replace
from typing import Literal

from sparse_transfer.checkpoints.file import Checkpoint
from sparse_transfer.core.canonical import Json
from sparse_transfer.core.errors import UserError
from sparse_transfer.data.specs import DatasetSpec
from sparse_transfer.data.transforms import evaluation, training
from sparse_transfer.models import Preprocessing
from sparse_transfer.training.objective import ObjectiveSettings
from sparse_transfer.training.optimiser import OptimiserSettings
from sparse_transfer.training.schedule import Schedule, scaled_boundaries
from sparse_transfer.training.settings import TrainSettings
from sparse_transfer.transfer.plan import Transforms
from sparse_transfer.transfer.protocols import Protocol, protocols


@dataclass(frozen=True)
class FullPlan:
    """Protocol, training settings, and where the head starts.

    lr: None takes the data set's own, as the paper did.   head: a ``new`` one at random, the ``linear`` one that the
    protocol fits on the frozen backbone's features first, or ``keep`` the checkpoint's.
    teacher: a network with a head, from which the new one learns too.
    augment_on: where training pictures are cropped and flipped. The draws are the same, the pixels nearly.
    """

    protocol: Protocol
    settings: TrainSettings
    lr: float | None = None
    head: Literal["new", "linear", "keep"] = "new"
    teacher: Checkpoint | None = None
    augment_on: Literal["host", "device"] = "host"

    @classmethod
    def of(
        cls,
        protocol: str = "clean",
        *,
        lr: float | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        accumulate: int | None = None,
        optimiser: Literal["sgd", "adamw"] | None = None,
        momentum: float | None = None,
        weight_decay: float | None = None,
        layer_decay: float | None = None,
        schedule: Literal["step", "cosine", "constant"] | None = None,
        milestones: tuple[int, ...] | None = None,
        gamma: float | None = None,
        warmup: int | None = None,
        label_smoothing: float | None = None,
        mixup: float | None = None,
        clip: float | None = None,
        average: float | None = None,
        frozen: tuple[str, ...] = (),
        freeze_bn: bool = False,
        patience: int | None = None,
        on_divergence: Literal["stop", "restart"] | None = None,
        restarts: int | None = None,
        head: Literal["new", "linear", "keep"] = "new",
        teacher: Checkpoint | None = None,
        distil_weight: float | None = None,
        distil_temperature: float | None = None,
        augment_on: Literal["host", "device"] = "host",
    ) -> "FullPlan":
        """The plan that these options mean; what is not given is the paper's (research: protocol 1.3).

        Raises:
            UserError: an unknown name, a value out of its range, or options that exclude each other.
        """
        rules = protocols.get(protocol)
        if patience is not None and rules.selection == "none":
            raise UserError(
                f"{protocol} looks at the test pictures, and --patience would choose by them",
                do="use --protocol clean, which holds pictures back for that",
            )
        if teacher is None and (distil_weight is not None or distil_temperature is not None):
            raise UserError("--distil-weight and --distil-temperature need a teacher", do="name one with --teacher")
        if milestones is not None and schedule not in (None, "step"):
            raise UserError(f"--sched {schedule} has no milestones", do="leave --decay-milestones out")
        if gamma is not None and schedule not in (None, "step"):
            raise UserError(f"--sched {schedule} does not fall by steps", do="leave --decay-rate out")
        if momentum is not None and optimiser == "adamw":
            raise UserError("--opt adamw has no momentum of that kind", do="leave --momentum out, or use --opt sgd")
        number = TrainSettings().epochs if epochs is None else epochs
        boundaries = scaled_boundaries(number) if milestones is None else milestones
        given = _given(
            accumulate=accumulate,
            batch_size=batch_size,
            clip=clip,
            average=average,
            patience=patience,
            on_divergence=on_divergence,
            restarts=restarts,
        )
        settings = replace(
            TrainSettings(),
            epochs=number,
            optimiser=replace(
                OptimiserSettings(),
                **_given(name=optimiser, lr=lr, momentum=momentum, weight_decay=weight_decay, layer_decay=layer_decay),
            ),
            schedule=replace(
                Schedule(boundaries=boundaries),
                **_given(kind=schedule, gamma=gamma, warmup=warmup),
            ),
            objective=replace(
                ObjectiveSettings(),
                **_given(
                    label_smoothing=label_smoothing,
                    mixup=mixup,
                    distil=(0.5 if distil_weight is None else distil_weight) if teacher else None,
                    temperature=distil_temperature,
                ),
            ),
            frozen=frozen,
            freeze_bn=freeze_bn,
            **given,
        )
        return cls(rules, settings, lr, head, teacher, augment_on)

    def for_dataset(self, spec: DatasetSpec) -> TrainSettings:
        """The settings with the data set's learning rate, where none was given."""
        if self.lr is not None:
            return self.settings
        return replace(self.settings, optimiser=replace(self.settings.optimiser, lr=spec.finetune_lr))

    def transforms(self, checkpoint: Preprocessing, spec: DatasetSpec) -> Transforms:
        """Random crops to train, centre crops to look; ``cvpr2022`` normalises by the data set's statistics."""
        facts = self.protocol.preprocessing(checkpoint)
        if self.protocol.statistics == "imagenet":  # the published full runs: each data set's own (protocol 1.1)
            facts = replace(facts, mean=spec.mean, std=spec.std)
        exif = self.protocol.exif
        train = training(facts, exif=exif, on_device=self.augment_on == "device")
        return Transforms(train, evaluation(facts, exif=exif))

    def to_json(self, spec: DatasetSpec) -> dict[str, Json]:
        """Every resolved rule and setting: part of a run's identity."""
        return {
            "rules": self.protocol.to_json(),
            "training": self.for_dataset(spec).to_json(),
            "head": self.head,
            "teacher": None if self.teacher is None else self.teacher.digest,
        }


def _given(**options: object) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}
