"""What a hundred thousand changed files of every container did to their readers: time, and memory.

    python benchmarks/fuzz.py [--inputs 100000] [--save]

The files are small ones of ``tests/support/fuzzing.py``, changed with the seeds of ``tests/long/test_fuzz.py``; each
must be read or refused in one sentence. A crash, a hang or too much memory ends the script with the seed of that file.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import measure

from support.fuzzing import CASES, MEMORY_MOST, SECONDS_MOST, fuzz

FIRST = 1000


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    options = parser.parse_args()
    measure.use_threads(options.threads)
    result: dict[str, object] = {
        "limits for a file": f"{SECONDS_MOST} s of processor time, 4 x the file + {MEMORY_MOST >> 20} MB",
        "command": f"python benchmarks/fuzz.py --inputs {options.inputs}",
    }
    for kind in CASES:
        found = fuzz(kind, range(FIRST, FIRST + options.inputs))
        result[kind] = {
            "inputs": found.inputs,
            "read": found.read,
            "refused": found.inputs - found.read,
            "seconds": round(found.seconds, 1),
            "slowest, ms": round(found.slowest_s * 1000, 1),
            "memory, MB": round(found.memory_bytes / (1 << 20), 1),
            "file, bytes": found.file_bytes,
        }
        print(kind, result[kind], flush=True)
    measure.report("fuzz", options.threads, result, save=options.save)


if __name__ == "__main__":
    main()
