"""``sparse-transfer finetune``."""

from pathlib import Path
from typing import Literal, Unpack

import click

from sparse_transfer.cli import config, options, transferring


def milestones(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """``50,100``."""
    try:
        return None if value is None else tuple(int(part) for part in value.removesuffix(",").split(","))
    except ValueError:
        raise click.BadParameter(f'"{value}" is no list of epochs') from None


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("dataset")
@click.option("--config", "-c", type=click.Path(path_type=Path), is_eager=True, expose_value=False,
              callback=config.from_file, help="TOML file of these options; what is typed goes first.")  # fmt: skip
@click.option("--epochs", type=click.IntRange(1), help="Passes over the training pictures.  [default: 150]")
@click.option(
    "--batch-size", "-b", type=click.IntRange(1), help="Pictures a forward pass, over all processes.  [default: 64]"
)
@click.option("--grad-accum-steps", type=click.IntRange(1), help="Forward passes an update.  [default: 1]")
@click.option("--opt", type=click.Choice(["sgd", "adamw"]), help="Optimiser.  [default: sgd]")
@click.option("--lr", type=float, help="Learning rate.  [default: the data set's: 0.01 aircraft and cars, else 0.001]")
@click.option("--momentum", type=float, help="Of sgd.  [default: 0.9]")
@click.option("--weight-decay", "--wd", type=float, help="On all that is trained.  [default: 0.0005]")
@click.option("--layer-decay", type=float, help="Each block's rate as a share of the next one's.  [default: 1]")
@click.option("--sched", type=click.Choice(["step", "cosine", "constant"]), help="Schedule.  [default: step]")
@click.option(
    "--decay-milestones", callback=milestones, help="step: epochs at which the rate falls.  [default: 51,101]"
)
@click.option("--decay-rate", type=float, help="step: by which factor it falls.  [default: 0.1]")
@click.option("--warmup-epochs", type=click.IntRange(0), help="The rate rises linearly over these.  [default: 0]")
@click.option("--label-smoothing", "--smoothing", type=float, help="[default: 0]")
@click.option("--mixup", type=float, help="Alpha of mixup.  [default: 0]")
@click.option("--clip-grad", type=float, help="Largest norm of the gradient.")
@click.option("--model-ema-decay", type=float, help="Keep and evaluate an average of the weights, of this decay.")
@click.option("--freeze", multiple=True, help="Layer whose weights and BatchNorms stay, as in --freeze layer1.")
@click.option("--freeze-bn", is_flag=True, help="All BatchNorms keep their statistics.")
@click.option("--patience", type=click.IntRange(1), help="End after this many epochs without a better validation loss.")
@click.option(
    "--head",
    type=click.Choice(["new", "linear", "keep"]),
    default="new",
    show_default=True,
    help="Begin with a new head, with the linear one, fitted first, or with the checkpoint's own.",
)
@click.option("--teacher", type=click.Path(path_type=Path), help="A finetuned checkpoint to learn from too.")
@click.option("--distil-weight", type=float, help="Share of the teacher's term.  [default: 0.5]")
@click.option("--distil-temperature", type=float, help="[default: 2]")
@click.option("--on-divergence", type=click.Choice(["stop", "restart"]),
              help="At a loss that is not finite: stop, or go back, slower.  [default: stop]")  # fmt: skip
@click.option("--max-restarts", type=click.IntRange(0), help="How often.  [default: 3]")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda or auto.")
@click.option(
    "--amp", type=click.Choice(["off", "bf16", "fp16"]), default="off", show_default=True, help="Mixed precision."
)
@click.option("--compile", "compiled", is_flag=True, help="Compile the network with torch.compile.")
@click.option("--threads", type=click.IntRange(1), help="Threads of a step.  [default: all cores]")
@click.option("--workers", "-j", type=click.IntRange(0), help="Threads that decode.  [default: all cores]")
@click.option("--cache-images", callback=options.size, default="0", show_default=True,
              help="Keep decoded pictures in memory, up to this size: 4G.")  # fmt: skip
@click.option(
    "--augment-on",
    type=click.Choice(["host", "device"]),
    default="host",
    show_default=True,
    help="Where training pictures are cropped and flipped; device is for a GPU that waits for its pictures.",
)
@click.option("--save-minutes", type=click.FloatRange(0), default=10, show_default=True,
              help="Save the state to go on from at least this often.")  # fmt: skip
@click.option("--sync-bn", is_flag=True, help="BatchNorm over all processes (CUDA).")
@transferring.asked(usual_seeds="1")
def command(
    checkpoint: Path,
    dataset: str,
    epochs: int | None,
    batch_size: int | None,
    grad_accum_steps: int | None,
    opt: Literal["sgd", "adamw"] | None,
    lr: float | None,
    momentum: float | None,
    weight_decay: float | None,
    layer_decay: float | None,
    sched: Literal["step", "cosine", "constant"] | None,
    decay_milestones: tuple[int, ...] | None,
    decay_rate: float | None,
    warmup_epochs: int | None,
    label_smoothing: float | None,
    mixup: float | None,
    clip_grad: float | None,
    model_ema_decay: float | None,
    freeze: tuple[str, ...],
    freeze_bn: bool,
    patience: int | None,
    head: Literal["new", "linear", "keep"],
    teacher: Path | None,
    distil_weight: float | None,
    distil_temperature: float | None,
    on_divergence: Literal["stop", "restart"] | None,
    max_restarts: int | None,
    device: str,
    amp: Literal["off", "bf16", "fp16"],
    compiled: bool,
    threads: int | None,
    workers: int | None,
    cache_images: int,
    augment_on: Literal["host", "device"],
    save_minutes: float,
    sync_bn: bool,
    **given: Unpack[transferring.Asked],
) -> None:
    """Train all weights of CHECKPOINT on DATASET under its mask; a run that was stopped goes on where it was.

    DATASET is NAME[:ROOT]: pets:data/pets, folder:my/pictures, digits. On several GPUs or machines the same command
    is started by torchrun: torchrun --nproc-per-node 4 -m sparse_transfer finetune ...

    \b
    Example:
      sparse-transfer finetune resnet50.safetensors folder:my/pictures --epochs 30 -o mine.safetensors
    """
    from sparse_transfer.checkpoints.file import load
    from sparse_transfer.training.settings import Execution
    from sparse_transfer.transfer.compute import chosen_device
    from sparse_transfer.transfer.full import finetune
    from sparse_transfer.transfer.full_plan import FullPlan

    plan = FullPlan.of(
        given["protocol"],
        lr=lr,
        epochs=epochs,
        batch_size=batch_size,
        accumulate=grad_accum_steps,
        optimiser=opt,
        momentum=momentum,
        weight_decay=weight_decay,
        layer_decay=layer_decay,
        schedule=sched,
        milestones=decay_milestones,
        gamma=decay_rate,
        warmup=warmup_epochs,
        label_smoothing=label_smoothing,
        mixup=mixup,
        clip=clip_grad,
        average=model_ema_decay,
        frozen=freeze,
        freeze_bn=freeze_bn,
        patience=patience,
        on_divergence=on_divergence,
        restarts=max_restarts,
        head=head,
        teacher=None if teacher is None else load(teacher),
        distil_weight=distil_weight,
        distil_temperature=distil_temperature,
        augment_on=augment_on,
    )
    execution = Execution(
        device=chosen_device(device),
        amp=amp,
        compile=compiled,
        threads=threads,
        workers=workers,
        cache_bytes=cache_images,
        save_minutes=save_minutes,
        sync_bn=sync_bn,
    )
    finished = finetune(checkpoint, dataset, plan=plan, execution=execution, **transferring.to_keywords(given))
    if transferring.speaks():
        network = given["output"] or finished[0].folder / "network.safetensors"
        transferring.show(finished, network, as_json=given["as_json"])
