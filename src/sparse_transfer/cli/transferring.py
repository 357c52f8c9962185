"""What ``linear`` and ``finetune`` are both asked, and how they say what came of it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import click
from click.core import ParameterSource

from sparse_transfer.cli import options
from sparse_transfer.core.errors import UserError

if TYPE_CHECKING:
    from sparse_transfer.runs.finished import FinishedRun
    from sparse_transfer.runs.trackers import TrackerFactory


def asked(usual_seeds: str) -> Callable[[options.F], options.F]:
    """What ``linear`` and ``finetune`` are both asked; ``usual_seeds`` is the default."""

    def decorate(function: options.F) -> options.F:
        for option in reversed(
            (
                click.option(
                    "--protocol", default="clean", show_default=True, help="clean, or cvpr2022: the published rules."
                ),
                click.option(
                    "--seeds",
                    default=usual_seeds,
                    show_default=True,
                    callback=_seeds,
                    help="How many of the paper's seeds, or a list: 1,2,3",
                ),
                click.option("--seed", type=click.IntRange(0, 2**63 - 1), is_eager=True, help="This seed alone."),
                click.option("--shots", type=int, help="Take this many training pictures of each class."),
                click.option("--fraction", type=float, help="Take this share of each class's training pictures."),
                click.option(
                    "--runs",
                    type=click.Path(path_type=Path),
                    default=Path("runs"),
                    show_default=True,
                    help="Where run records go.",
                ),
                click.option(
                    "--output",
                    "-o",
                    type=click.Path(path_type=Path),
                    help="Write the network of the first seed here too: backbone, head and class names.",
                ),
                click.option("--force", is_flag=True, help="Do finished runs again, beside the old ones."),
                click.option(
                    "--no-wait",
                    is_flag=True,
                    help="Refuse, rather than wait, where another process is on the same run.",
                ),
                click.option(
                    "--log-wandb",
                    is_flag=True,
                    help="Follow the runs with Weights & Biases too (WANDB_MODE=offline works).",
                ),
                click.option(
                    "--log-tensorboard", is_flag=True, help="Write TensorBoard event files into the run folders too."
                ),
                options.as_json,
                options.quiet,
            )
        ):
            function = option(function)
        return function

    return decorate


class _Both(TypedDict):
    seeds: tuple[int, ...]
    shots: int | None
    fraction: float | None
    runs: Path
    output: Path | None
    force: bool


class Asked(_Both):
    """What ``asked`` adds to a command's keywords; ``seeds`` has taken ``seed`` in."""

    protocol: str
    seed: int | None
    no_wait: bool
    log_wandb: bool
    log_tensorboard: bool
    as_json: bool


class Keywords(_Both):
    """What ``linear_transfer`` and ``finetune`` take of them."""

    wait: bool
    trackers: "TrackerFactory"


def to_keywords(given: Asked) -> Keywords:
    """Each run gets trackers of its own."""
    from sparse_transfer.runs.trackers import TensorBoardTracker, WandbTracker

    kinds = [
        *([WandbTracker] if given["log_wandb"] else []),
        *([TensorBoardTracker] if given["log_tensorboard"] else []),
    ]
    return {
        "seeds": given["seeds"],
        "shots": given["shots"],
        "fraction": given["fraction"],
        "runs": given["runs"],
        "output": given["output"],
        "force": given["force"],
        "wait": not given["no_wait"],
        "trackers": lambda: [kind() for kind in kinds],
    }


def show(finished: "list[FinishedRun]", network: Path | None, *, as_json: bool) -> None:
    """Print what a transfer came to, and where its runs and its network are."""
    import json

    from sparse_transfer.runs import table

    if as_json:
        click.echo(json.dumps([run.result.to_json() for run in finished]))
        return
    click.echo(options.shown(table.summarise(table.rows(finished))), nl=False)
    click.echo(f"runs: {finished[0].folder.parent}" + (f", network: {network}" if network else ""))


def speaks() -> bool:
    """Whether this process prints results: among those that torchrun started, the first one does."""
    import os

    return os.environ.get("RANK", "0") == "0"


def _seeds(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    """``--seed`` is read before this one. Of the two, what is typed goes before what a file says."""
    typed = ParameterSource.COMMANDLINE
    here, there = ctx.get_parameter_source("seeds"), ctx.get_parameter_source("seed")
    seed: int | None = ctx.params.get("seed")
    if seed is None or (here is typed and there is not typed):
        return seeds(value)
    if here is there:
        raise UserError("--seed and --seeds were given", do="choose one")
    return (seed,)


def seeds(text: str) -> tuple[int, ...]:
    """``5`` is the paper's first five seeds; ``1,2,3`` or ``7,`` is a list."""
    from sparse_transfer.transfer.protocols import PAPER_SEEDS

    try:
        numbers = [int(part) for part in text.removesuffix(",").split(",")]
    except ValueError:
        raise click.BadParameter(f'"{text}" is no list of seeds: write 5 for the first five, or 21,51,81') from None
    if "," in text:
        if len(set(numbers)) != len(numbers) or not all(0 <= number < 2**63 for number in numbers):
            raise click.BadParameter(f'"{text}" repeats a seed or has one outside 0 to 2^63 - 1')
        return tuple(numbers)
    if not 1 <= numbers[0] <= len(PAPER_SEEDS):
        raise click.BadParameter(
            f"{text} seeds, and the paper has {len(PAPER_SEEDS)}: name your own, as in 1,2,3,4,5,6, or --seed {text}"
        )
    return PAPER_SEEDS[: numbers[0]]
