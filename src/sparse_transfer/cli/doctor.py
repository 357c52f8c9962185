"""``sparse-transfer doctor``."""

import click

from sparse_transfer.cli import options


@click.command()
@click.option("--install-check", is_flag=True, hidden=True, help="Only check that torch and torchvision are a pair.")
@options.as_json
def command(install_check: bool, as_json: bool) -> None:
    """Say what is there, what is missing, and the exact way to get it.

    \b
    Example:
      sparse-transfer doctor
    """
    import json
    from dataclasses import asdict

    from sparse_transfer.core import environment
    from sparse_transfer.core.errors import UserError

    findings = [environment.torch_pair()] if install_check else environment.examine()
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings]))
    elif not install_check:
        for finding in findings:
            click.echo(f"{finding.state:8} {finding.what:22} {finding.detail}")
            if finding.remedy and finding.state != "ok":
                click.echo(f"{'':8} {'':22} -> {finding.remedy}")
    broken = [finding for finding in findings if finding.state == "broken"]
    if broken:
        raise UserError(broken[0].detail, where=broken[0].what, do=broken[0].remedy)
