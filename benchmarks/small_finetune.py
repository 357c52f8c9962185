"""What finetuning all weights under the mask brings over a linear head, on small sets of real pictures.

Both by protocol ``cvpr2022``, seed 21; 20 epochs of SGD at 0.02, cosine schedule, one epoch of warm-up, batches
of 32. Runs that are in the folder of runs already are shown, those that were stopped go on.

    python benchmarks/small_finetune.py CHECKPOINT folder:PICTURES... [--runs DIR] [--threads 1] [--save]
"""

from pathlib import Path

import measure

from sparse_transfer import Compute, Execution, FullPlan, Plan, finetune, linear_transfer, load
from sparse_transfer.metrics.comparison import mcnemar

SEED = 21


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    options = parser.parse_args()
    measure.use_threads(options.threads)
    checkpoint = load(options.checkpoint)
    plan = FullPlan.of("cvpr2022", lr=0.02, epochs=20, batch_size=32, schedule="cosine", warmup=1)
    result: dict[str, object] = {"checkpoint": str(checkpoint.backbone.architecture)}
    for dataset in options.datasets:
        (linear,) = linear_transfer(
            checkpoint,
            dataset,
            plan=Plan.of("cvpr2022"),
            seeds=[SEED],
            runs=options.runs,
            compute=Compute("cpu", threads=options.threads),
        )
        execution = Execution(threads=options.threads, cache_bytes=2**30)
        (full,) = finetune(checkpoint, dataset, plan=plan, seeds=[SEED], runs=options.runs, execution=execution)
        before, after = linear.predictions(), full.predictions()
        assert before is not None
        assert after is not None
        trained = load(full.folder / "network.safetensors")
        result[full.result.identity.dataset] = {
            "linear top-1": linear.result.last.top1,
            "full top-1": full.result.last.top1,
            "95 % interval of full": [full.result.last.top1_interval.low, full.result.last.top1_interval.high],
            "test pictures": full.result.n_test,
            "McNemar p": mcnemar(before[0], before[1], after[1]).p_value,
            "mask is the starting one": trained.backbone.mask == checkpoint.backbone.mask,
            "seconds": round(sum(full.result.seconds.values())),
        }
    measure.report("small_finetune", options.threads, result, save=options.save)


if __name__ == "__main__":
    main()
