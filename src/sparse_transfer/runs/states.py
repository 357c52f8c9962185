"""What unfinished runs need to go on: ``state-<epoch>.safetensors`` in the folder of each, the newest alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from sparse_transfer.checkpoints.checked import Damaged, read_checked, write_checked
from sparse_transfer.core.canonical import Json
from sparse_transfer.core.progress import note, warn
from sparse_transfer.runs.finished import STATES
from sparse_transfer.runs.store import Run

Tensors = Mapping[str, Tensor]


class EpochStates:
    """The states of runs that are fitted together, one a run; without runs nothing is kept and nothing found."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs

    def keep(self, epoch: int, states: Sequence[Tensors]) -> None:
        """Write the state of each run after ``epoch``, counted from 1; older ones go when all are there."""
        for run, state in zip(self.runs, states, strict=True):
            write_checked(_path(run, epoch), state, _of(run, epoch))
        for run in self.runs:
            for older in set(_epochs(run)) - {epoch}:
                _path(run, older).unlink(missing_ok=True)

    def newest(self) -> tuple[int, list[Tensors]] | None:
        """(epoch, the state of each run after it) of the last epoch that all have; None, said, where there is none.

        A damaged file is named, and the runs begin again.
        """
        found = [set(_epochs(run)) for run in self.runs]
        common = set[int]().union(*found).intersection(*found)
        if not common:
            if any(found):
                note("the seeds were not stopped at one epoch: they begin again together")
            return None
        epoch = max(common)
        states: list[Tensors] = []
        for run in self.runs:
            state = _read(_path(run, epoch), epoch, run)
            if state is None:
                warn(f"{_path(run, epoch)}: the state is damaged; the fit begins again")
                return None
            states.append(state)
        return epoch, states


def _path(run: Run, epoch: int) -> Path:
    return run.folder / STATES.replace("*", str(epoch))


def _epochs(run: Run) -> list[int]:
    numbers = [path.stem.removeprefix("state-") for path in run.folder.glob(STATES)]
    return [int(number) for number in numbers if number.isascii() and number.isdecimal()]


def _read(path: Path, epoch: int, run: Run) -> Tensors | None:
    """The tensors; None where the file is damaged, or of another run or epoch."""
    try:
        tensors, told = read_checked(path)
    except Damaged:
        return None
    return tensors if told == _of(run, epoch) else None


def _of(run: Run, epoch: int) -> dict[str, Json]:
    return {"run": run.record.identity.id, "epoch": epoch}
