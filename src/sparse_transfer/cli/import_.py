"""``sparse-transfer import``."""

from pathlib import Path

import click

from sparse_transfer.cli import options


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help="Where to write the checkpoint.")
@click.option("--arch", help="What the file cannot tell, as in resnet50,stride=v1 or timm:vit_small_patch16_224.")
@click.option("--backbone", type=click.Path(path_type=Path), help="The checkpoint that a bare linear head belongs to.")
@click.option("--sparsity", type=click.FloatRange(0, 1), help="What the file's authors claim: checked against it.")
@click.option("--method", help="Pruning method, for tables and reports.")
@click.option("--licence", "--license", help="Licence of the weights, kept with them.")
@click.option(
    "--classes", type=click.Path(path_type=Path), help="Text file of class names, one a line, in label order."
)
@click.option("--encoding", type=click.Choice(["packed", "dense"]), default="packed", show_default=True,
              help="packed is small; dense can be read by timm and transformers too.")  # fmt: skip
@options.as_json
@options.quiet
def command(
    file: Path,
    output: Path,
    arch: str | None,
    backbone: Path | None,
    sparsity: float | None,
    method: str | None,
    licence: str | None,
    classes: Path | None,
    encoding: str,
    as_json: bool,
) -> None:
    """Bring somebody else's checkpoint in: safely, with its mask, and a report of what was found and assumed.

    \b
    Example:
      sparse-transfer import resnet50-acdc80.pth -o acdc80.safetensors --method AC/DC
    """
    import json

    from sparse_transfer.checkpoints.file import save
    from sparse_transfer.checkpoints.importing import import_checkpoint
    from sparse_transfer.core.files import read_lines
    from sparse_transfer.transfer.output import require_writable

    require_writable(output, source=file)
    imported = import_checkpoint(
        file,
        architecture=arch,
        backbone=backbone,
        sparsity=sparsity,
        classes=None if classes is None else read_lines(classes),
        method=method,
        licence=licence,
    )
    digest = save(
        imported.network, output, encoding="dense" if encoding == "dense" else "packed", origin=imported.origin
    )
    if as_json:
        click.echo(json.dumps({"output": str(output), "digest": digest, "report": imported.report.to_json()}))
    else:
        click.echo(imported.report.render())
        click.echo(f"written: {output} (digest {digest[:12]})")
