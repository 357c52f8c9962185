"""How many threads this process may use."""

import os


def available_cores() -> int:
    """Cores this process may run on: its CPU affinity, which containers and Slurm set; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1
