"""The command ``sparse-transfer``: finds the command's file, and turns every ending into one exit status.

0 done, 1 our bug or the machine's trouble (disk full), 2 something the user can put right, 130 interrupted.
"""

import errno
import io
import os
import signal
import sys
import tempfile
import traceback
from importlib import import_module
from types import FrameType
from typing import NoReturn

import click

from sparse_transfer import __version__
from sparse_transfer.core.errors import Interrupted, UserError

# Command -> its module in this folder. A module is imported when its command runs or is listed; none imports torch.
COMMANDS = {
    "demo": "demo",
    "import": "import_",
    "inspect": "inspect",
    "diff": "diff",
    "catalog": "catalog",
    "data": "data",
    "linear": "linear",
    "finetune": "finetune",
    "evaluate": "evaluate",
    "predict": "predict",
    "results": "results",
    "cache": "cache",
    "doctor": "doctor",
}


class LazyCommands(click.Group):
    """A group whose commands are imported one by one, in the order of ``COMMANDS``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f"sparse_transfer.cli.{COMMANDS[cmd_name]}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            from sparse_transfer.core.registry import suggestion

            raise UserError(f'no command is called "{args[0]}"', do=suggestion(args[0], list(COMMANDS)))
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyCommands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        # --batch_size is as good as --batch-size: users come from tools that spell it either way.
        # Click takes the dashes in front off, and asks about choices too: none of ours has an underscore.
        "token_normalize_func": lambda token: token.replace("_", "-"),
    },
)
@click.version_option(__version__, prog_name="sparse-transfer")
def cli() -> None:
    """How well does a sparse network transfer to your pictures, and what does it cost to run?

    \b
    Example:
      sparse-transfer import resnet50.pth -o resnet50.safetensors
      sparse-transfer linear resnet50.safetensors folder:my/pictures -o mine.safetensors
      sparse-transfer predict mine.safetensors holiday.jpg
    """


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status."""
    # Read when torch loads OpenMP. Threads that spin while they wait for each other cost a busy machine many times
    # what the work does (docs/log.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not under nohup
        # A KeyboardInterrupt that passes through an exec() of somebody's text, as in an import, would end
        # `python -m` by the signal, whatever status we give (CPython, run_eval_code_obj).
        signal.signal(signal.SIGINT, _stop)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that the terminal cannot show is no reason to stop
        sys.stdout.reconfigure(errors="backslashreplace")
    status = run(args)
    for late in (signal.SIGINT, signal.SIGTERM):  # everything is said and done: nothing is left to interrupt
        signal.signal(late, signal.SIG_IGN)
    sys.exit(status)


def run(args: list[str] | None = None) -> int:
    """Run the command line; the exit status instead of an exception."""
    try:
        cli.main(args=args, prog_name="sparse-transfer", standalone_mode=False)
    except UserError as error:
        _say(f"error: {error}")
        return 2
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        _say(f"error: {_sentence(error)}")
        return 2
    except (KeyboardInterrupt, Interrupted, click.Abort):
        _say("interrupted: what was finished is kept, the same command goes on from there")
        return 130
    except BrokenPipeError:  # the reader of stdout has gone, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM):
            return _bug(error)
        _say(f"error: {error.filename}: {error.strerror}" if error.filename else f"error: {error.strerror}")
        return 1
    except Exception as error:  # the one place where everything is caught: it is our bug
        return _bug(error)
    return 0


def _stop(signum: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted


def _sentence(error: click.ClickException) -> str:
    """What click says of a wrong option, as one sentence of ours."""
    what = " ".join(error.format_message().split()).rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    return what if context is None else f"{what}; see {context.command_path} --help"


def _bug(error: Exception) -> int:
    """Keep the traceback in a file and name the bug in a line."""
    with tempfile.NamedTemporaryFile("w", prefix="sparse-transfer-", suffix=".log", delete=False) as log:
        log.write("".join(traceback.format_exception(error)))
    _say(f"bug: {type(error).__name__}: {error}\nThis is our mistake; the traceback is in {log.name}")
    if os.environ.get("SPARSE_TRANSFER_DEBUG"):
        traceback.print_exception(error)
    return 1


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
