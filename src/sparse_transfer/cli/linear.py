"""``sparse-transfer linear``."""

from pathlib import Path
from typing import Unpack

import click

from sparse_transfer.cli import options, transferring


class Given(transferring.Asked, options.ComputeOptions):
    """What other commands are asked too."""


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
@click.option("--solver", help="sgd or lbfgs.  [default: the protocol's]")
@click.option("--augment", is_flag=True, help="Augmented features, made anew each epoch (sgd).")
@click.option("--views", type=int, help="Cache this many augmented views of each training picture instead.")
@click.option("--lr", callback=numbers, help="sgd: learning rate, or several to choose among: 0.1,0.01")
@click.option("--epochs", type=click.IntRange(1), help="sgd: passes over the training features.  [default: 150]")
@click.option("--head-batch-size", type=click.IntRange(1), help="sgd: pictures a step.  [default: 64]")
@click.option(
    "--l2", callback=numbers, help="lbfgs: strength of the regularisation, or several.  [default: 45 of them]"
)
@click.option("--max-iter", type=click.IntRange(1), help="lbfgs: iterations for each strength.")
@transferring.asked(usual_seeds="5")
@options.compute
def command(
    checkpoint: Path,
    dataset: str,
    solver: str | None,
    augment: bool,
    views: int | None,
    lr: float | tuple[float, ...] | None,
    epochs: int | None,
    head_batch_size: int | None,
    l2: float | tuple[float, ...] | None,
    max_iter: int | None,
    **given: Unpack[Given],
) -> None:
    """Fit linear heads on DATASET with the frozen backbone of CHECKPOINT, and keep a record of each.

    DATASET is NAME[:ROOT]: pets:data/pets, folder:my/pictures, digits.

    \b
    Example:
      sparse-transfer linear resnet50.safetensors folder:my/pictures -o mine.safetensors
    """
    from sparse_transfer.transfer.linear import linear_transfer
    from sparse_transfer.transfer.plan import Plan

    finished = linear_transfer(
        checkpoint,
        dataset,
        plan=Plan.of(
            given["protocol"],
            solver=solver,
            lr=lr,
            epochs=epochs,
            batch_size=head_batch_size,
            l2=l2,
            max_iter=max_iter,
            augment=augment,
            views=views,
        ),
        compute=options.to_compute(given),
        **transferring.to_keywords(given),
    )
    transferring.show(finished, given["output"], as_json=given["as_json"])
