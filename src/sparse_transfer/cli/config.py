"""Options of a command from a TOML file."""

import json
import tomllib
from pathlib import Path

import click
from click.types import FloatParamType, IntParamType

from sparse_transfer.core.errors import UserError
from sparse_transfer.core.registry import suggestion

# Options that are text on the command line, where a recipe has a number, or a list of numbers.
NUMBERS = ("cache_images",)
LISTS = ("seeds", "decay_milestones")


def from_file(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
    """Options of this command from a TOML file, as if they were its defaults: what is typed goes before them.

    Raises:
        UserError: it is no TOML file, a key is no option, or a setting is not of the option's type.
    """
    if value is None:
        return
    known = {
        option.lstrip("-"): parameter
        for parameter in ctx.command.params
        if isinstance(parameter, click.Option) and parameter.expose_value
        for option in parameter.opts
        if option.startswith("--")
    }
    defaults: dict[str, object] = {}
    for key, setting in parsed(value).items():
        name = key.replace("_", "-")
        if name not in known:
            hint = suggestion(name, list(known), otherwise=f"`{ctx.command_path} --help` lists them")
            raise UserError(f'no option is called "{key}"', where=value, do=hint)
        option = known[name]
        if str(option.name) in defaults:
            raise UserError(f'"{key}" is set twice, under two of its names', where=value, do="take one line away")
        expected, spelt = as_typed(option, setting)
        if spelt is None:
            raise UserError(f"{key} takes {expected}, not {json.dumps(setting, default=str)}", where=value)
        try:
            option.process_value(ctx, spelt)
        except click.BadParameter as error:
            raise UserError(f"{key}: {error.message.rstrip('.')}", where=value) from None
        defaults[str(option.name)] = spelt
    ctx.default_map = {**(ctx.default_map or {}), **defaults}


def parsed(path: Path) -> dict[str, object]:
    """What a TOML file says."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError("there is no such file", where=path) from None
    except IsADirectoryError:
        raise UserError("this is a folder", where=path, do="give a TOML file") from None
    except OSError as error:
        raise UserError(f"it cannot be read ({error.strerror})", where=path) from None
    except (ValueError, RecursionError) as error:  # tomllib's own, of the text's encoding, of a number too long
        raise UserError(f"it is no TOML ({error})", where=path, do="write lines such as lr = 0.01") from None


def as_typed(option: click.Option, setting: object) -> tuple[str, bool | str | list[str] | None]:
    """What the option takes, in words, and the setting as it would be typed; None where it is something else."""
    text = setting if isinstance(setting, str) else None
    whole = str(setting) if isinstance(setting, int) and not isinstance(setting, bool) else None
    if option.is_flag:
        return "true or false", setting if isinstance(setting, bool) else None
    if option.multiple:
        texts = [entry for entry in _entries(setting) if isinstance(entry, str)]
        return "a text or a list of texts", texts if len(texts) == len(_entries(setting)) else None
    if option.name in LISTS:
        return "a whole number or a list of them", text or whole or _comma_list(setting)
    if option.name in NUMBERS:
        return "a whole number or a text", text or whole
    if isinstance(option.type, IntParamType):
        return "a whole number", whole
    if isinstance(option.type, FloatParamType):
        return "a number", str(setting) if isinstance(setting, float) else whole
    if isinstance(option.type, click.Choice):
        choices = list(map(str, option.type.choices))
        return f"one of {', '.join(map(json.dumps, choices))}", text if text in choices else None
    return "a text", text


def _entries(setting: object) -> list[object]:
    return setting if isinstance(setting, list) else [setting]


def _comma_list(setting: object) -> str | None:
    """``21,51``; a list of one is ``21,``, which is the seed 21 and not so many seeds."""
    if not isinstance(setting, list) or not setting:
        return None
    if any(isinstance(entry, bool) or not isinstance(entry, int) for entry in setting):
        return None
    return ",".join(map(str, setting)) + ("," if len(setting) == 1 else "")
