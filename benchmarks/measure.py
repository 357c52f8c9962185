"""What the benchmarks share: timing that is fair on a busy machine, and results that say where they were made."""

import argparse
import json
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
BEGAN = time.perf_counter()


@dataclass(frozen=True)
class Ratio:
    """How many times faster, from pairs of runs side by side: the median, and the least and most of ``n`` pairs."""

    median: float
    least: float
    most: float
    n: int

    def __str__(self) -> str:
        return f"{self.median:.1f} x ({self.least:.1f} to {self.most:.1f}, n = {self.n})"


def interleaved(
    cases: Mapping[str, Callable[[], object]], *, repeats: int, warm: bool = True
) -> dict[str, list[float]]:
    """Seconds of each case, ``repeats`` times: A B C A B C ..., so that a busy minute hits all of them alike."""
    if warm:
        for case in cases.values():
            case()
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, case in cases.items():
            began = time.perf_counter()
            case()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def processor_seconds() -> float:
    """Seconds of processor time of this process and its finished children: what a busy machine distorts least."""
    return sum(os.times()[:4])


def ratio(slow: list[float], fast: list[float]) -> Ratio:
    """``slow`` over ``fast``, run by run."""
    pairs = [a / b for a, b in zip(slow, fast, strict=True)]
    return Ratio(statistics.median(pairs), min(pairs), max(pairs), len(pairs))


def hardware(threads: int) -> str:
    """One line: processor, its instruction set, cores, threads used, how busy the machine is, versions, date."""
    import torch

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    load = os.getloadavg()[0]
    return (
        f"{model} ({torch.backends.cpu.get_cpu_capability()}), {os.cpu_count()} cores, {threads} thread(s),"
        f" load {load:.1f},"
        f" torch {torch.__version__}, Python {platform.python_version()}, {date.today().isoformat()}"
    )


@contextmanager
def anonymous_peak() -> Generator[Callable[[], float]]:
    """Samples this process's anonymous memory (RssAnon: not what is mapped from files) every 5 ms; Linux only.

    Yields a function that gives the highest value so far, in bytes above the value at the start.
    """

    def now() -> int:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
        return int(line.split()[1]) * 1024

    start, peak, over = now(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.005):
            peak = max(peak, now() - start)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: max(peak, now() - start)
    finally:
        over.set()
        watcher.join()


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options every benchmark has: --threads and --save."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch and BLAS (default 1)")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/NAME.json")
    return parser


def use_threads(threads: int) -> None:
    """Hold torch, and the BLAS libraries that NumPy, SciPy and scikit-learn brought, to that many threads."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(threads)
    threadpool_limits(threads)


def report(name: str, threads: int, result: Mapping[str, object], *, save: bool) -> None:
    """Print ``result`` line by line, with the hardware and how long it all took; and write it down if asked to."""
    took = round(time.perf_counter() - BEGAN)
    whole = {"benchmark": name, "hardware": hardware(threads), **result, "all of it took, s": took}
    for key, value in whole.items():
        print(f"{key}: {value}")
    if save:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{name}.json"
        path.write_text(json.dumps(whole, indent=2, default=str) + "\n")
        print(f"written: {path.relative_to(Path.cwd())}" if path.is_relative_to(Path.cwd()) else f"written: {path}")
