"""``sparse-transfer linear``."""

from pathlib import Path
from typing import Unpack

import click

from sparse_transfer.cli import options


def numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> float | tuple[float, ...] | None:
    """``0.01`` or ``0.1,0.01``."""
    if value is None:
        return None
    try:
        found = tuple(float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f'"{value}" is no number or list of numbers') from None
    return found[0] if len(found) == 1 else found


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("dataset")
@click.option("--protocol", default="clean", show_default=True, help="clean, or cvpr2022: the published rules.")
@click.option("--solver", help="sgd or lbfgs.  [default: the protocol's]")
@click.option(
    "--seeds", "--seed", default="5", show_default=True, help="How many of the paper's seeds, or a list: 1,2,3"
)
@click.option("--shots", type=int, help="Take this many training pictures of each class.")
@click.option("--fraction", type=float, help="Take this share of each class's training pictures.")
@click.option("--augment", is_flag=True, help="Augmented features, made anew each epoch (sgd).")
@click.option("--views", type=int, help="Cache this many augmented views of each training picture instead.")
@click.option("--lr", callback=numbers, help="sgd: learning rate, or several to choose among: 0.1,0.01")
@click.option("--epochs", type=click.IntRange(1), help="sgd: passes over the training features.  [default: 150]")
@click.option("--head-batch-size", type=click.IntRange(1), help="sgd: pictures a step.  [default: 64]")
@click.option(
    "--l2", callback=numbers, help="lbfgs: strength of the regularisation, or several.  [default: 45 of them]"
)
@click.option("--max-iter", type=click.IntRange(1), help="lbfgs: iterations for each strength.")
@options.runs_folder
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Write backbone, head and class names here.")
@click.option("--force", is_flag=True, help="Do finished runs again, beside the old ones.")
@click.option("--no-wait", is_flag=True, help="Refuse, rather than wait, where another process is on the same run.")
@options.trackers
@options.as_json
@options.compute
@options.quiet
def command(
    checkpoint: Path,
    dataset: str,
    protocol: str,
    solver: str | None,
    seeds: str,
    shots: int | None,
    fraction: float | None,
    augment: bool,
    views: int | None,
    lr: float | tuple[float, ...] | None,
    epochs: int | None,
    head_batch_size: int | None,
    l2: float | tuple[float, ...] | None,
    max_iter: int | None,
    runs: Path,
    output: Path | None,
    force: bool,
    no_wait: bool,
    log_wandb: bool,
    log_tensorboard: bool,
    as_json: bool,
    **compute: Unpack[options.ComputeOptions],
) -> None:
    """Fit linear heads on DATASET with the frozen backbone of CHECKPOINT, and keep a record of each.

    DATASET is NAME[:ROOT]: pets:data/pets, folder:my/pictures, digits.

    \b
    Example:
      sparse-transfer linear resnet50.safetensors folder:my/pictures -o mine.safetensors
    """
    import json

    from sparse_transfer.runs import table
    from sparse_transfer.transfer.linear import linear_transfer
    from sparse_transfer.transfer.plan import Plan

    finished = linear_transfer(
        checkpoint,
        dataset,
        plan=Plan.of(
            protocol,
            solver=solver,
            lr=lr,
            epochs=epochs,
            batch_size=head_batch_size,
            l2=l2,
            max_iter=max_iter,
            augment=augment,
            views=views,
        ),
        seeds=options.seeds(seeds),
        shots=shots,
        fraction=fraction,
        runs=runs,
        output=output,
        force=force,
        wait=not no_wait,
        compute=options.to_compute(**compute),
        trackers=options.chosen_trackers(log_wandb, log_tensorboard),
    )
    if as_json:
        click.echo(json.dumps([run.result.to_json() for run in finished]))
    else:
        click.echo(options.shown(table.summarise(table.rows(finished))), nl=False)
        click.echo(f"runs: {finished[0].folder.parent}" + (f", network: {output}" if output else ""))
