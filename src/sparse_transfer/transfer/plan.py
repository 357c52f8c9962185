"""What a linear transfer is asked to do, checked and resolved before the first long step."""

from dataclasses import asdict, dataclass, replace
from typing import Literal

from sparse_transfer.core.canonical import Json
from sparse_transfer.core.errors import UserError
from sparse_transfer.data.specs import DatasetSpec
from sparse_transfer.data.transforms import Transform, evaluation, training
from sparse_transfer.models import Backbone
from sparse_transfer.solvers import solvers
from sparse_transfer.solvers.lbfgs import LbfgsSettings
from sparse_transfer.solvers.sgd import SgdSettings
from sparse_transfer.training.schedule import scaled_boundaries
from sparse_transfer.transfer.protocols import Protocol, protocols

SolverSettings = SgdSettings | LbfgsSettings

# Under a protocol that selects on validation, SGD chooses among these; the published code has 0.01 alone.
CLEAN_LRS = (0.1, 0.03, 0.01, 0.003, 0.001)


@dataclass(frozen=True)
class Transforms:
    """What training and test pictures go through."""

    train: Transform
    test: Transform

    def to_json(self) -> Json:
        return {"train": self.train.to_json(), "test": self.test.to_json()}


@dataclass(frozen=True)
class Plan:
    """Protocol, solver with all its settings, and what is done to the training pictures.

    pictures: ``plain`` (as in evaluation), ``augmented`` (the training transform, features made anew each epoch) or
    ``views`` (that many augmented looks at each picture, cached).
    """

    protocol: Protocol
    solver: Literal["sgd", "lbfgs"]
    settings: SolverSettings
    pictures: Literal["plain", "augmented", "views"] = "plain"
    views: int = 1

    @classmethod
    def of(
        cls,
        protocol: str = "clean",
        *,
        solver: str | None = None,
        lr: float | tuple[float, ...] | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        l2: float | tuple[float, ...] | None = None,
        max_iter: int | None = None,
        augment: bool = False,
        views: int | None = None,
    ) -> "Plan":
        """The plan that these options mean; what is not given is the protocol's.

        Raises:
            UserError: an unknown name, or options that exclude each other.
        """
        rules = protocols.get(protocol)
        name = solver or ("sgd" if augment else rules.solver)
        if solvers.get(name) is SgdSettings:  # or the nearest name
            _refuse({"--l2": l2, "--max-iter": max_iter}, "sgd", "lbfgs")
            usual = SgdSettings(lr=CLEAN_LRS) if rules.selection == "validation" and not augment else SgdSettings()
            given = {"lr": lr, "epochs": epochs, "batch_size": batch_size}
            settings: SolverSettings = replace(
                usual, **{key: value for key, value in given.items() if value is not None}
            )
            settings = replace(settings, boundaries=scaled_boundaries(settings.epochs))
        else:
            _refuse({"--lr": lr, "--epochs": epochs, "--head-batch-size": batch_size}, "lbfgs", "sgd")
            given = {"l2": l2, "max_iter": max_iter}
            settings = replace(LbfgsSettings(), **{key: value for key, value in given.items() if value is not None})
        if augment and views:
            raise UserError("--augment and --views were given", do="make views anew each epoch, or cache some")
        if augment and name != "sgd":
            raise UserError("--augment trains epoch by epoch, which lbfgs has not", do="use --solver sgd, or --views 5")
        candidates = len(settings.lrs if isinstance(settings, SgdSettings) else settings.path)
        if candidates > 1 and (rules.selection == "none" or augment):
            option = "--lr" if name == "sgd" else "--l2"
            raise UserError(
                f"{candidates} values of {option}, and nothing to choose by"
                + (" with --augment" if augment else f" under {protocol}"),
                do=f"give one {option}" + ("" if augment else ", or use --protocol clean"),
            )
        if views is not None and views < 1:
            raise UserError(f"{views} views", where="--views", do="cache 1 or more")
        pictures = "augmented" if augment else "views" if views else "plain"
        return cls(rules, "sgd" if name == "sgd" else "lbfgs", settings, pictures, views or 1)

    def transforms(self, backbone: Backbone, spec: DatasetSpec) -> Transforms:
        """Evaluation transform for both; augmented pictures have the data set's own statistics, as published."""
        facts = self.protocol.preprocessing(backbone.preprocessing)
        if self.pictures != "plain" and spec.has_own_statistics:
            facts = replace(facts, mean=spec.mean, std=spec.std)
        test = evaluation(facts, exif=self.protocol.exif)
        return Transforms(test if self.pictures == "plain" else training(facts, exif=self.protocol.exif), test)

    @property
    def strength_name(self) -> str:
        """What tells one head of a fit from its sisters: the learning rate or l2."""
        return "lr" if self.solver == "sgd" else "l2"

    def with_strength(self, strength: float) -> SolverSettings:
        """The settings with that one learning rate or l2."""
        if isinstance(self.settings, SgdSettings):
            return replace(self.settings, lr=strength)
        return replace(self.settings, l2=strength)

    def to_json(self) -> dict[str, Json]:
        """Every resolved rule and setting: part of a run's identity."""
        return {
            "rules": self.protocol.to_json(),
            "solver": self.solver,
            "solver_settings": asdict(self.settings),
            "pictures": self.pictures,
            "views": self.views,
        }


def _refuse(options: dict[str, object], solver: str, other: str) -> None:
    for option, value in options.items():
        if value is not None:
            raise UserError(f"--solver {solver} has no {option}", do=f"drop it, or use --solver {other}")
