"""Several processes as one: who takes part, and the few things they say to each other.

``torchrun`` starts the processes and sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT; without it a
process is alone, and every method below does nothing.
"""

import os
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from sparse_transfer.core.errors import Interrupted, UserError
from sparse_transfer.sparsity import MaskViolation

T = TypeVar("T")

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
JOINING = timedelta(minutes=5)  # until all processes have started
TIMEOUT = timedelta(minutes=30)  # a process may wait while the first one writes, or decodes its last batch

# gloo's threads outlive the group (DistributedDataParallel keeps it), and let go of the last tensors a moment after all
# have them. If the interpreter is ending by then, the process aborts, and torchrun ends the others: one run in twelve
# on a busy machine, torch 2.15. Asleep, this thread leaves them the interpreter.
RELEASE_S = 0.5


@dataclass(frozen=True)
class Group:
    """The processes of one training.

    rank: which one this is, from 0.   size: how many.   local: which one on its machine.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and speaks."""
        return self.rank == 0

    @classmethod
    @contextmanager
    def joined(cls, device: str) -> "Generator[Group]":
        """Join the processes that ``torchrun`` started; alone, a group of one.

        Tensors on CUDA are exchanged by nccl; digests, counts and the wish to stop stay on the CPU, by gloo.

        Raises:
            UserError: the environment says that there are others, and not where; there are too few GPUs; another
                process ended, or never came.
        """
        if os.environ.get("WORLD_SIZE", "1") == "1":
            yield cls()
            return
        rank, size, local = _from_environment()
        if device == "cuda":
            if local >= (gpus := torch.cuda.device_count()):
                raise UserError(
                    f"process {local} of this machine has no GPU to itself: there are {gpus}",
                    do=f"start torchrun with --nproc-per-node {gpus}",
                )
            torch.cuda.set_device(local)  # else events, streams and nccl of every process lie on the first one
        try:
            store, *_ = next(dist.rendezvous("env://", timeout=JOINING))
            backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
        except (RuntimeError, OSError) as error:
            raise UserError(
                f"the other processes cannot be reached ({str(error).partition(chr(10))[0]})",
                where=f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}",
                do="start it with torchrun",
            ) from None
        try:
            yield cls(rank, size, local)
            time.sleep(RELEASE_S)
        except Interrupted:  # all of them together
            time.sleep(RELEASE_S)
            raise
        except RuntimeError as error:
            if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
                raise
            raise UserError(
                f"process {rank} cannot go on: another one ended",
                do="see what that one said; the same command goes on from the last state",
            ) from None
        finally:
            dist.destroy_process_group()

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The model as one of several: gradients are averaged over the processes after each backward pass."""
        if self.size == 1:
            return model
        device = next(model.parameters()).device
        return nn.parallel.DistributedDataParallel(
            model, device_ids=[device] if device.type == "cuda" else None, gradient_as_bucket_view=True
        )

    def share(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """This process's part of a batch: every ``size``-th picture."""
        return indices[self.rank :: self.size]

    def sum_(self, values: Tensor) -> Tensor:
        """Add up over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def any(self, *flags: bool) -> list[bool]:
        """Of each flag, whether it is set on any process."""
        return [count > 0 for count in self.sum_(torch.tensor(flags, dtype=torch.int32)).tolist()]

    def share_buffers(self, model: nn.Module) -> None:
        """Give all processes the first one's buffers: BatchNorm statistics are gathered by each process alone."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def agreed(self, value: T | None) -> T:
        """The first process's value, on all of them: plain values only."""
        values = [value]
        if self.size > 1:
            dist.broadcast_object_list(values, src=0)
        return cast(T, values[0])

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.size > 1:
            dist.barrier()

    def require_equal(self, digest: str, what: str) -> None:
        """Raise ``MaskViolation`` where ``digest`` is not the same on all processes."""
        if self.size == 1:
            return
        digests: list[str] = [""] * self.size
        dist.all_gather_object(digests, digest)
        if others := [rank for rank, other in enumerate(digests) if other != digests[0]]:
            raise MaskViolation(
                f"{what} of process {others[0]} differs from that of process 0", do="start again from the last state"
            )


def _from_environment() -> tuple[int, int, int]:
    """RANK, WORLD_SIZE and LOCAL_RANK, of an environment that has all that is needed to find the others."""
    if missing := [name for name in NAMES if name not in os.environ]:
        raise UserError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, and {', '.join(missing)} not set",
            do="start it with torchrun, or unset WORLD_SIZE",
        )
    try:
        rank, size, local = (int(os.environ[name]) for name in NAMES[:3])
    except ValueError as error:
        raise UserError(f"RANK, WORLD_SIZE or LOCAL_RANK is no number ({error})", do="start it with torchrun") from None
    return rank, size, local


def rounds(parts: Sequence[NDArray[np.int64]], group: Group) -> list[NDArray[np.int64]]:
    """Each batch's part for this process. A process for which a small batch has nothing gets its first picture: it has
    to take part in the exchange of gradients, and what it says then counts 0."""
    shares = [group.share(part) for part in parts]
    return [share if len(share) else part[:1] for share, part in zip(shares, parts, strict=True)]
