"""``sparse-transfer import``."""

from pathlib import Path
from typing import Literal, Unpack

import click

from sparse_transfer.cli import options


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help="Where to write the checkpoint.")
@options.foreign
@click.option("--licence", "--license", help="Licence of the weights, kept with them.")
@click.option(
    "--classes", type=click.Path(path_type=Path), help="Text file of class names, one a line, in label order."
)
@click.option("--encoding", type=click.Choice(["packed", "dense"]), default="packed", show_default=True,
              help="packed is small; dense holds each weight as it is, for whatever reads safetensors.")  # fmt: skip
@click.option("--statistics", metavar="DATASET",
              help="Normalise by this data set's mean and std, as the paper's finetuned networks expect.")  # fmt: skip
@click.option("--recalibrate", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Estimate BatchNorm's statistics anew, on up to 1,000 pictures of FOLDER/CLASS/*, as CrAM's authors"
              " do after pruning.")  # fmt: skip
@click.option("--verify-on", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Measure it on labelled pictures, ImageNet's or FOLDER/CLASS/*, and report top-1.")  # fmt: skip
@options.as_json
@options.compute
@options.quiet
def command(
    file: Path,
    output: Path,
    architecture: str | None,
    backbone: Path | None,
    sparsity: float | None,
    nm: tuple[int, int] | None,
    ticket: str | None,
    method: str | None,
    licence: str | None,
    classes: Path | None,
    encoding: Literal["packed", "dense"],
    statistics: str | None,
    recalibrate: Path | None,
    verify_on: Path | None,
    as_json: bool,
    **compute: Unpack[options.ComputeOptions],
) -> None:
    """Bring somebody else's checkpoint in: safely, with its mask, and a report of what was found and assumed.

    FILE is a file, a folder of a checkpoint of several files, or an archive (tar, gzip) of one.

    \b
    Example:
      sparse-transfer import resnet50-acdc80.pth -o acdc80.safetensors --method AC/DC
    """
    import json
    from dataclasses import replace

    from sparse_transfer.checkpoints.file import save
    from sparse_transfer.checkpoints.importing import import_checkpoint
    from sparse_transfer.core.files import read_lines
    from sparse_transfer.data.reading import require_folder
    from sparse_transfer.transfer.output import require_writable

    require_writable(output, source=file)
    for folder in (recalibrate, verify_on):
        if folder is not None:
            require_folder(folder)
    imported = import_checkpoint(
        file,
        architecture=architecture,
        backbone=backbone,
        sparsity=sparsity,
        classes=None if classes is None else read_lines(classes),
        method=method,
        licence=licence,
        nm=nm,
        ticket=ticket,
    )
    if statistics is not None:
        from sparse_transfer.data.specs import find_spec

        spec = find_spec(statistics)
        imported = imported.normalised_by(spec.mean, spec.std)
    if recalibrate is not None:
        from sparse_transfer.transfer.recalibrate import recalibrated

        estimated = recalibrated(imported.network, recalibrate, compute=options.to_compute(compute))
        imported = imported.with_statistics(*estimated)
    report = imported.report
    if verify_on is not None:
        from sparse_transfer.transfer.verify import verify

        verified = verify(imported.network, verify_on, compute=options.to_compute(compute))
        report = replace(report, verified=verified)
    digest = save(imported.network, output, encoding=encoding, origin=imported.origin)
    if as_json:
        click.echo(json.dumps({"output": str(output), "digest": digest, "report": report.to_json()}))
    else:
        click.echo(report.render())
        click.echo(f"written: {output} (digest {digest[:12]})")
