"""What does holding the mask cost: in a training step, in memory and between epochs?

- step: what holding the mask adds to an update. It is the same whatever the update sees, so it is measured where it
  stands out, on few and small pictures (``--step-batch``, ``--step-size``): single updates with a mask over 80 % of the
  weights and without any, in ABBA order, so that what drifts hits both alike; the median difference of the quadruples
  with its 95 % interval (sign test). Processor time beside the wall clock, which the neighbours stretch. As a share: of
  a whole update of ``--batch`` pictures of 224 px, timed among them;
- memory: the most that updates of ``--batch`` pictures take, in processes of their own, in turn: anonymous memory, or
  on CUDA what torch allocates there;
- bookkeeping: audit, counting zeros and a saved state, as a share of an epoch of pets' 3,680 training pictures.

    python benchmarks/bench_training.py [--architecture resnet50] [--batch 32] [--threads 2] [--save]
    python benchmarks/bench_training.py --device cuda --amp bf16 --batch 128 --step-batch 128 --step-size 224 [--save]

On two quiet cores all of it takes some four minutes; ``--only step`` or ``--only memory`` two.
"""

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import measure
import torch
from scipy.stats import binom
from torch import nn

from sparse_transfer.models import Backbone
from sparse_transfer.sparsity import Mask, prunable_weights
from sparse_transfer.training.distributed import Group
from sparse_transfer.training.learner import Learner, Part
from sparse_transfer.training.model import Trainable
from sparse_transfer.training.settings import Execution, TrainSettings
from sparse_transfer.training.state import Position, State, States

CLASSES = 10
EPOCH = 3680
LEAST = 6  # quadruples: of fewer, not even least and most hold the median in 95 % of measurements
Case = Callable[[], object]
Spent = dict[str, float]
CLOCKS: dict[str, Callable[[], float]] = {"processor time": time.process_time, "wall clock": time.perf_counter}


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--architecture", default="resnet50")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--step-batch", type=int, default=4, help="pictures of an update that is timed")
    parser.add_argument("--step-size", type=int, default=128, help="their side, px")
    parser.add_argument("--step-seconds", type=float, default=90, help="how long updates are timed")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--amp", choices=["off", "bf16", "fp16"], default="off")
    parser.add_argument("--only", choices=["step", "memory"], help="leave all else out")
    options = parser.parse_args()
    measure.use_threads(options.threads)
    name, batch = options.architecture, options.batch
    execution = Execution(options.device, options.amp, threads=options.threads)
    report = "training" if options.device == "cpu" else "training_cuda"
    settings = f"{name}, {execution.numerics}, batch {batch} of 224 px"
    result: dict[str, object] = {"settings": settings}
    if options.only == "memory":
        result |= peaks(name, execution, batch)
        measure.report(f"{report}_memory", options.threads, result, save=options.save)
        return

    masked, plain = (learner(name, sparsity, execution) for sparsity in (0.8, None))
    with_mask, without = (step(made, options.step_batch, options.step_size) for made in (masked, plain))
    updates = Updates.timed(with_mask, without, step(plain, batch), seconds=options.step_seconds)
    result["step, of"] = f"{options.step_batch} pictures of {options.step_size} px"
    result |= {f"step, {clock}": updates.told(clock) for clock in CLOCKS}
    if options.only == "step":
        measure.report(f"{report}_step", options.threads, result, save=options.save)
        return
    an_epoch = updates.whole_s("wall clock") * EPOCH / batch
    between = bookkeeping(masked)
    result |= peaks(name, execution, batch) | {
        "between epochs, seconds": {what: round(spent, 3) for what, spent in between.items()},
        "between epochs, share of an epoch of 3,680 pictures": round(sum(between.values()) / an_epoch, 5),
    }
    measure.report(report, options.threads, result, save=options.save)


def learner(name: str, sparsity: float | None, execution: Execution) -> Learner:
    """The network with random zeros, held or not: where they are makes no difference to a dense step."""
    torch.manual_seed(0)
    backbone = Backbone.create(name)
    if sparsity is not None:
        for weight in prunable_weights(backbone.module).values():
            weight.data[torch.rand_like(weight) < sparsity] = 0
    mask = Mask.none() if sparsity is None else Mask.from_zeros(backbone.module)
    model = Trainable(backbone.module, nn.Linear(backbone.feature_dim, CLASSES))
    return Learner(model, mask, TrainSettings(), execution, Group())


def step(made: Learner, batch: int, size: int = 224) -> Case:
    """An update, and on CUDA its end."""
    images = torch.randn(batch, 3, size, size).to(made.device, memory_format=torch.channels_last)
    part = Part(images, torch.randint(CLASSES, (batch,)).to(made.device))

    def run() -> None:
        made.update([part], batch, 1.0)
        if made.device.type == "cuda":
            torch.cuda.synchronize()

    return run


@dataclass(frozen=True)
class Updates:
    """Seconds of single updates by each clock: quadruples masked, plain, plain, masked; and whole ones, plain."""

    quadruples: list[list[Spent]]
    whole: list[Spent]

    @classmethod
    def timed(cls, masked: Case, plain: Case, whole: Case, *, seconds: float) -> "Updates":
        """As many quadruples as take so long, and three whole updates spread over the time."""
        for case in (masked, plain, whole):
            case()
        made = cls([], [])
        began = time.perf_counter()
        while (spent := time.perf_counter() - began) < seconds or len(made.quadruples) < LEAST:
            made.quadruples.append([clocked(case) for case in (masked, plain, plain, masked)])
            if spent > seconds / 3 * len(made.whole):
                made.whole.append(clocked(whole))
        return made

    def whole_s(self, clock: str) -> float:
        """Of a whole update, the median."""
        return statistics.median(one[clock] for one in self.whole)

    def told(self, clock: str) -> str:
        """What the mask adds, with its 95 % interval by the sign test, and that as a share of a whole update."""
        added = sorted((a[clock] - b[clock] - c[clock] + d[clock]) / 2 for a, b, c, d in self.quadruples)
        least, most = (added[rank] for rank in sign_test_ranks(len(added)))
        middle, whole = statistics.median(added), self.whole_s(clock)
        plain = statistics.median(one[clock] for quadruple in self.quadruples for one in quadruple[1:3])
        return (
            f"{1000 * middle:.1f} ms more (95 %: {1000 * least:.1f} to {1000 * most:.1f}, n = {len(added)}) than"
            f" {1000 * plain:.0f} ms; of a whole update of {whole:.2f} s"
            f" {middle / whole:.2%} ({least / whole:.2%} to {most / whole:.2%})"
        )


def clocked(case: Case) -> Spent:
    before = {clock: read() for clock, read in CLOCKS.items()}
    case()
    return {clock: read() - before[clock] for clock, read in CLOCKS.items()}


def sign_test_ranks(n: int) -> tuple[int, int]:
    """Ranks, from 0, of n sorted values between which the median of what they come from lies, in 95 % of such cases."""
    k = int(binom.ppf(0.025, n, 0.5))
    return max(k - 1, 0), min(n - k, n - 1)


def peaks(name: str, execution: Execution, batch: int) -> dict[str, object]:
    """Medians of processes with and without a mask, in turn, and the ratio of each pair: allocators vary by some %."""
    pairs = [[memory(name, sparsity, execution, batch) for sparsity in (0.8, None)] for _ in range(3)]
    masked, plain = (int(statistics.median(case)) for case in zip(*pairs, strict=True))
    return {
        "peak memory, MB": {"masked": masked // 2**20, "plain": plain // 2**20},
        "peak memory, masked over plain": sorted(round(a / b, 3) for a, b in pairs),
    }


def memory(name: str, sparsity: float | None, execution: Execution, batch: int) -> int:
    """Bytes that two updates need, in a fresh process; the second has momentum."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(peak_of_updates, (name, sparsity, execution, batch))


def peak_of_updates(name: str, sparsity: float | None, execution: Execution, batch: int) -> int:
    measure.use_threads(execution.cores)
    with measure.anonymous_peak() as peak:
        run = step(learner(name, sparsity, execution), batch)
        run()
        run()
        return torch.cuda.max_memory_allocated() if execution.device == "cuda" else int(peak())


def bookkeeping(made: Learner) -> dict[str, float]:
    """Seconds of what is done between two epochs, the look at the test pictures apart."""
    with tempfile.TemporaryDirectory() as folder:
        states = States(Path(folder), "run")
        return {
            "audit": timed(made.audit),
            "count zeros": timed(made.mask.sparsity),
            "save a state": timed(lambda: states.save(State(Position(), *made.state()))),
        }


def timed(case: Callable[[], object]) -> float:
    case()
    began = time.perf_counter()
    case()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
