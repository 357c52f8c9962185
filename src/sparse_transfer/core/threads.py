"""How many threads this process may use."""

import os


def available_cores() -> int:
    """Cores this process may run on: its CPU affinity, which containers and Slurm set; at least 1.

    Those that ``torchrun`` starts on one machine share them (LOCAL_WORLD_SIZE).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    beside = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, cores // int(beside) if beside.isdigit() and int(beside) else cores)
