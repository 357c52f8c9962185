"""``sparse-transfer predict``."""

from pathlib import Path
from typing import Unpack

import click

from sparse_transfer.cli import options


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(1), default=3, show_default=True, help="Classes a picture, likeliest first.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV: path, rank, class, probability, error.")
@options.as_json
@options.compute
@options.quiet
def command(
    checkpoint: Path,
    pictures: tuple[Path, ...],
    top: int,
    as_csv: bool,
    as_json: bool,
    **compute: Unpack[options.ComputeOptions],
) -> None:
    """Say what is on PICTURES (files or folders), with the network of CHECKPOINT.

    A picture that cannot be read is reported and passed over; where not one can be, the exit status is 2.

    \b
    Example:
      sparse-transfer predict flowers.safetensors garden/ --top 1 --csv
    """
    import csv
    import json
    import sys

    from sparse_transfer.core.errors import UserError
    from sparse_transfer.core.progress import warn
    from sparse_transfer.data.readers.found import counted
    from sparse_transfer.transfer.predict import predict

    if as_csv and as_json:
        raise UserError("--csv and --json were given", do="choose one")
    predictions = predict(checkpoint, pictures, top=top, compute=options.to_compute(compute))
    rows: list[dict[str, object]] = []
    table = csv.writer(sys.stdout, lineterminator="\n")
    if as_csv:
        table.writerow(("path", "rank", "class", "probability", "error"))
    total = unread = 0
    for found in predictions:
        total += 1
        ranked = list(zip(found.classes, found.probabilities, strict=True))
        if found.error is not None:
            unread += 1
            warn(found.error)
        if as_json:
            best = [{"class": name, "probability": round(share, 6)} for name, share in ranked]
            rows.append({"path": str(found.path), "classes": best, "error": found.error})
        elif as_csv:
            for rank, (name, share) in enumerate(ranked, 1):
                table.writerow((found.path, rank, name, f"{share:.6f}", ""))
            if found.error is not None:
                table.writerow((found.path, "", "", "", found.error))
        elif found.error is None:
            click.echo(f"{found.path}  " + "  ".join(f"{name} {share:.1%}" for name, share in ranked))
    if as_json:
        click.echo(json.dumps(rows))
    if unread == total:
        raise UserError(f"none of {counted(total, 'picture')} could be read", do="what each has is said above")
    if unread:
        warn(f"{counted(unread, 'picture')} of {total:,} could not be read and passed over")
