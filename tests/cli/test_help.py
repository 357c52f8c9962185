"""Every command says what it does, shows an example that parses, and starts without the heavy libraries."""

import ast
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

import sparse_transfer
from sparse_transfer.cli.main import COMMANDS, cli

HEAVY = ("torch", "torchvision", "pydantic", "rich", "scipy", "sklearn", "numpy", "PIL")
TOOL = Path(__file__).resolve().parents[2] / "tools" / "write_reference.py"
ALL_COMMANDS = runpy.run_path(str(TOOL))["all_commands"](groups=True)


@pytest.mark.parametrize(("name", "command"), ALL_COMMANDS, ids=lambda value: value if isinstance(value, str) else "")
def test_command_has_help_and_an_example_that_parses(name: str, command: click.Command) -> None:
    example = re.search(r"Example:\s+sparse-transfer (.+)", command.help or "")
    assert example, f"{name} --help shows no example"
    words = shlex.split(example[1])
    parsed = cli.get_command(click.Context(cli), words[0])
    assert parsed is not None
    arguments = words[1:]
    if isinstance(parsed, click.Group):
        parsed, arguments = parsed.commands[arguments[0]], arguments[1:]
    parsed.make_context(name, list(arguments))  # parses; runs nothing


def test_help_imports_none_of_the_heavy_libraries() -> None:
    program = (
        "import sys\n"
        "from sparse_transfer.cli.main import run\n"
        "status = run(['--help'])\n"
        f"print('HEAVY', status, [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY 0 []"


def test_help_lists_every_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sparse_transfer", "--help"], capture_output=True, text=True, check=True
    )
    for name in COMMANDS:
        assert re.search(rf"^  {name}\b", done.stdout, re.MULTILINE), name


def test_every_option_that_an_error_names_is_one_of_a_command() -> None:
    params = [param for _, command in ALL_COMMANDS for param in command.params]
    known = {option for param in params for option in (*param.opts, *param.secondary_opts)}
    known |= {"--help", "--nproc-per-node"}  # torchrun's
    for path in Path(sparse_transfer.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("UserError", "Availability"):
                named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", ast.unparse(node)))
                assert named <= known, f"{path}:{node.lineno}: {sorted(named - known)}"
