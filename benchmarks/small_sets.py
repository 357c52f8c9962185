"""How well an 80 % sparse ResNet-50 and its dense twin transfer linearly to four small sets of real pictures.

    SPARSE_TRANSFER_TEST_DATA=DATA python benchmarks/small_sets.py --dense RESNET50.safetensors [--save]

DATA/data holds `flowers`, `pets`, `birds` and `caltech101` (class folders) and the sparse network in `weights/sparse`;
the dense twin is a torchvision state dict of the network with stride 2 in the first 1×1 (v1). Protocol `clean`, five
seeds. The sets are small: an interval over their test pictures is wide, and a comparison is paired, picture by picture.
"""

import argparse
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from measure import RESULTS, hardware

from sparse_transfer.checkpoints.file import Origin, save
from sparse_transfer.checkpoints.importing import import_checkpoint
from sparse_transfer.core.threads import available_cores
from sparse_transfer.metrics.comparison import mcnemar
from sparse_transfer.runs import table
from sparse_transfer.runs.table_text import to_text
from sparse_transfer.transfer.linear import linear_transfer
from support.published import resnet50_s80

SETS = ("flowers", "pets", "birds", "caltech101")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dense", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/small_sets.json")
    args = parser.parse_args()
    data = Path(os.environ["SPARSE_TRANSFER_TEST_DATA"])
    files = {"dense": args.runs / "resnet50-dense.safetensors", "sparse": args.runs / "resnet50-s80.safetensors"}
    if not files["dense"].exists():
        dense = import_checkpoint(args.dense, architecture="resnet50,stride=v1", method="dense")
        save(dense.network, files["dense"], origin=dense.origin)
    if not files["sparse"].exists():
        save(resnet50_s80(data), files["sparse"], origin=Origin(method="one-shot", sparsity=0.8))

    lines = []
    finished = []
    for name in SETS:
        both = {}
        for kind, file in files.items():
            runs = linear_transfer(file, f"folder:{data / 'data' / name}", runs=args.runs)
            finished += runs
            both[kind] = runs[0].predictions()
        labels, dense_says = both["dense"]
        paired = mcnemar(labels, dense_says, both["sparse"][1])
        lines.append(
            {"set": name, "only_dense": paired.only_first, "only_sparse": paired.only_second, "p": paired.p_value}
        )
        print(f"{name}: seed 21, McNemar: dense alone right {paired.only_first}, sparse alone {paired.only_second},"
              f" p = {paired.p_value:.2g}")  # fmt: skip
    summary = table.summarise(table.rows(finished))
    print(to_text(summary, width=110))
    if args.save:
        result = {
            "benchmark": "small_sets",
            "hardware": hardware(available_cores()),
            "rows": json.loads(table.to_json(summary)),
            "paired": lines,
        }
        (RESULTS / "small_sets.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
