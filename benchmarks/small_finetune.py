"""What finetuning all weights under the mask brings over a linear head, on small sets of real pictures.

Both by protocol ``cvpr2022``, seed 21, the last epoch's accuracy; by one of two recipes, cosine schedule, one epoch of
warm-up each. Runs that are in the folder of runs already are shown, those that were stopped go on.

    python benchmarks/small_finetune.py CHECKPOINT folder:PICTURES... [--recipe gentle] [--runs DIR] [--save]
"""

from pathlib import Path

import measure

from sparse_transfer import Compute, Execution, FullPlan, Plan, finetune, linear_transfer, load
from sparse_transfer.metrics.comparison import mcnemar

SEED = 21
RECIPES = {
    # a network that reads small pictures, for long
    "usual": FullPlan.of("cvpr2022", lr=0.02, epochs=20, batch_size=32, schedule="cosine", warmup=1),
    # a large one, for a few hundred updates: from the linear head on, BatchNorm as it is
    "gentle": FullPlan.of(
        "cvpr2022", head="linear", optimiser="adamw", lr=5e-5, weight_decay=0.01, epochs=6, batch_size=16,
        schedule="cosine", warmup=1, freeze_bn=True,
    ),
}  # fmt: skip


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--recipe", choices=RECIPES, default="usual")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    options = parser.parse_args()
    measure.use_threads(options.threads)
    checkpoint = load(options.checkpoint)
    plan = RECIPES[options.recipe]
    result: dict[str, object] = {"checkpoint": str(checkpoint.backbone.architecture), "recipe": options.recipe}
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
    name = "small_finetune" if options.recipe == "usual" else f"small_finetune_{options.recipe}"
    measure.report(name, options.threads, result, save=options.save)


if __name__ == "__main__":
    main()
