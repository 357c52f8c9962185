"""What a training needs to go on exactly where it stopped, in one file that is believed whole or not at all.

Random numbers need no entry in it: each is drawn from (seed, epoch or update, what for), so the position in the run is
their state.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import torch
from torch import Tensor

from sparse_transfer.checkpoints.checked import Damaged, read_checked, write_checked
from sparse_transfer.core.canonical import Json
from sparse_transfer.core.progress import warn

KEPT = 2  # the newest states that stay
SHARE = 0.01  # of the time may go into saving at the ends of epochs


@dataclass
class Position:
    """Where a training is. ``epoch`` and ``update`` count from 0 and name what comes next.

    update: within the epoch.   updates: in all.   lr_scale: what restarts left of the learning rate.
    loss_sum, correct, seen: over the pictures of this epoch so far.   best_epoch (from 1), best_value: of the epochs
    looked at, by what chooses.   ended: why it ended early.
    seconds: by phase, of all attempts together.
    """

    epoch: int = 0
    update: int = 0
    updates: int = 0
    lr_scale: float = 1.0
    restarts: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    best_epoch: int | None = None
    best_value: float | None = None
    ended: str | None = None
    seconds: dict[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True)
class State:
    """A position, and the tensors that belong to it, by name (``model/…``, ``optimiser/…``, ``average/…``, …).

    scalars: what else the learner keeps, as plain JSON.
    """

    position: Position
    tensors: Mapping[str, Tensor]
    scalars: Mapping[str, Json]


class States:
    """The state files of one run: ``state-<updates>.safetensors`` in its folder, the newest two.

    run: the run's id; a state of another run is not taken.   minutes: at most this long between two of them.
    """

    def __init__(self, folder: Path | None, run: str, *, minutes: float = 10.0) -> None:
        self.folder = folder
        self.run = run
        self.minutes = minutes
        self._damaged: list[Path] = []
        self._saved_at = time.monotonic()
        self._cost_s = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether the run has no state yet, whole or not."""
        return not self._paths()

    def due(self, *, epoch_ends: bool) -> bool:
        """Whether it is time: every ``minutes``, and at the end of an epoch unless saving took more than 1 % since."""
        if self.folder is None:
            return False
        since = time.monotonic() - self._saved_at
        return since >= 60 * self.minutes or (epoch_ends and since * SHARE >= self._cost_s)

    def save(self, state: State) -> None:
        """Write the state and drop all but the newest two. A damaged one would count as one of them: it goes first."""
        if self.folder is None:
            return
        began = time.monotonic()
        while self._damaged:
            self._damaged.pop().unlink(missing_ok=True)
        path = self.folder / f"state-{state.position.updates:09d}.safetensors"
        position: Json = asdict(state.position)
        write_checked(path, state.tensors, {"run": self.run, "position": position, "scalars": dict(state.scalars)})
        for old in self._paths()[KEPT:]:
            old.unlink(missing_ok=True)
        self._saved_at = time.monotonic()
        self._cost_s = self._saved_at - began

    def newest(self) -> State | None:
        """The newest state that is whole; a damaged one is named and passed over. None: begin at the beginning."""
        paths = self._paths()
        for path in paths:
            try:
                return read_state(path, self.run)
            except Damaged as error:
                then = (
                    "it is the oldest one, so the run begins again" if path == paths[-1] else "the one before is taken"
                )
                warn(f"{path}: {error}; {then}")
                self._damaged.append(path)
        return None

    def _paths(self) -> list[Path]:
        """Newest first."""
        if self.folder is None:
            return []
        return sorted(self.folder.glob("state-*.safetensors"), reverse=True)


def read_state(path: Path, run: str) -> State:
    """Read one state file. Raises ``Damaged`` for one that is cut short, changed, or of another run."""
    tensors, told = read_checked(path)
    position, scalars = told.get("position"), told.get("scalars")
    if told.get("run") != run:
        raise Damaged(f"the state belongs to run {told.get('run')}")
    if not isinstance(position, Mapping) or not isinstance(scalars, Mapping):
        raise Damaged("the state does not say where the run was")
    known = {item.name for item in fields(Position)}
    given = {key: value for key, value in position.items() if key in known}
    return State(replace(Position(), **given), tensors, scalars)


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state by ``<parameter number>/<kind>``, its counters as tensors too."""
    return {
        f"{number}/{kind}": value if isinstance(value, Tensor) else torch.tensor(value)
        for number, states in optimiser.state_dict()["state"].items()
        for kind, value in states.items()
        if value is not None
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what ``optimiser_tensors`` gave; rates and groups stay the optimiser's own.

    Each tensor of a weight's shape gets the weight's memory format again: in another one an update takes longer.
    """
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, _, kind = name.partition("/")
        weight = weights[int(number)]
        laid = torch.empty_like(weight, dtype=value.dtype).copy_(value) if value.shape == weight.shape else value
        states.setdefault(int(number), {})[kind] = laid
    optimiser.load_state_dict({"state": states, "param_groups": optimiser.state_dict()["param_groups"]})
