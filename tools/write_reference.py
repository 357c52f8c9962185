"""Write docs/reference: cli.md from the commands, datasets.md from the dataset specs, formats.md from the formats.

``python tools/write_reference.py`` writes them; with ``--check`` it writes nothing and exits with 1 where one is stale.
"""

import sys
from inspect import cleandoc
from pathlib import Path

import click

from sparse_transfer.cli.main import COMMANDS, cli
from sparse_transfer.data.specs import DatasetSpec, datasets

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"
WRITTEN = "<!-- Written by tools/write_reference.py: change what it reads, and run it. -->"


def pages() -> dict[str, str]:
    """File name in docs/reference -> its text."""
    return {"cli.md": cli_page(), "datasets.md": datasets_page(), "formats.md": formats_page()}


def stale(folder: Path = REFERENCE) -> list[str]:
    """The pages that are missing or differ from what would be written now."""
    return [name for name, text in pages().items() if not _holds(folder / name, text)]


def cli_page() -> str:
    """Every command with its help, arguments and options."""
    commands = all_commands()
    parts = [
        "# The command line",
        WRITTEN,
        "`python -m sparse_transfer` is the same as `sparse-transfer`. Options may be spelt with underscores too"
        " (`--batch_size`). stdout carries results, stderr everything else.",
        "\n".join(f"- [`{name}`](#{name.replace(' ', '-')}): {_first_line(command)}" for name, command in commands),
        *(_command(name, command) for name, command in commands),
    ]
    return "\n\n".join(parts) + "\n"


def all_commands(*, groups: bool = False) -> list[tuple[str, click.Command]]:
    """Name and command in the order of ``--help``; of a group the commands below it, with ``groups`` itself too."""
    context = click.Context(cli)
    found: list[tuple[str, click.Command]] = []
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        if groups or not isinstance(command, click.Group):
            found.append((name, command))
        if isinstance(command, click.Group):
            found += [(f"{name} {sub}", command.commands[sub]) for sub in command.commands]
    return found


def datasets_page() -> str:
    """Facts of every data set, then what a copy of each may look like."""
    specs = [datasets.get(name) for name in datasets]
    rows = [("name", "data set", "classes", "train", "test", "headline metric", "licence", "address", "`--download`")]
    rows += [_facts(spec) for spec in specs]
    parts = [
        "# Data sets",
        WRITTEN,
        "Sizes are those of the published splits. The guide's page on [data sets](../guide/02-datasets.md) says how to"
        " use them.",
        _table(rows),
        *(_layouts(spec) for spec in specs),
    ]
    return "\n\n".join(parts) + "\n"


def formats_page() -> str:
    """Containers, encodings and families of names, each in the order in which a file is asked."""
    from sparse_transfer.checkpoints.formats import encodings, key_families  # torch comes with them
    from sparse_transfer.checkpoints.formats.notes import CONTAINERS, ENCODINGS, FAMILIES

    containers = [(f"`{name}`", note.files, note.known_by, note.pitfall) for name, note in CONTAINERS.items()]
    encoding_rows = [
        (f"`{name}`", note.known_by, note.pruned, note.say or "nothing", note.pitfall, encodings.get(name).cite)
        for name, note in ((name, ENCODINGS[name]) for name in encodings)
    ]
    family_rows = [
        (f"`{name}`", note.networks, note.known_by, note.pitfall or "none known", key_families.get(name).cite)
        for name, note in ((name, FAMILIES[name]) for name in key_families)
    ]
    parts = [
        "# Formats",
        WRITTEN,
        "`import` asks three things of a file: what contains it, where its sparsity is written down, and whose names"
        " its tensors bear. Every answer goes with every other. The report says which were found and why, and"
        " `sparse-transfer inspect FILE` says it without writing anything.",
        "## Containers",
        "Told by their bytes, whatever the file is called. Nothing in them is executed; a file that asks for it is"
        " refused.",
        _table([("container", "files", "recognised by", "pitfalls"), *containers]),
        "## Where the sparsity is",
        "The first that a file fits is taken. Pruned weights are set to 0 by selection, whatever the file has there,"
        " and the report counts those that were not 0. Zeros of the file are its mask only where it has no other.",
        _table(
            [("encoding", "recognised by", "where the sparsity is", "to be said", "pitfalls", "source"), *encoding_rows]
        ),
        "## Whose names",
        "Where tensors cannot tell two networks apart, the usual one is taken and the report says so;"
        " `--arch` decides.",
        _table([("family", "networks", "recognised by", "pitfalls", "source"), *family_rows]),
    ]
    return "\n\n".join(parts) + "\n"


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def _first_line(command: click.Command) -> str:
    return (command.help or "").strip().splitlines()[0]


def _command(name: str, command: click.Command) -> str:
    text, _, example = cleandoc(command.help or "").partition("\b")
    arguments = [parameter for parameter in command.params if isinstance(parameter, click.Argument)]
    options = [
        parameter for parameter in command.params if isinstance(parameter, click.Option) and not parameter.hidden
    ]
    usage = " ".join(["sparse-transfer", name, *(["[OPTIONS]"] if options else []), *map(_argument, arguments)])
    parts = [f"## {name}", f"```\n{usage}\n```", text.strip()]
    lines = [line.strip() for line in example.strip().splitlines() if line.strip() != "Example:"]
    if lines:
        parts.append("```\n" + "\n".join(lines) + "\n```")
    if options:
        parts.append(_table([("option", "takes", "default", ""), *map(_option, options)]))
    return "\n\n".join(parts)


def _argument(argument: click.Argument) -> str:
    name = (argument.name or "").upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _option(option: click.Option) -> tuple[str, str, str, str]:
    spelt = ", ".join(f"`{spelling}`" for spelling in sorted(option.opts, key=lambda word: (-len(word), word)))
    if option.secondary_opts:
        spelt += f" / `{option.secondary_opts[0]}`"
    said, _, default = (option.help or "").partition("[default: ")
    if option.show_default and option.default is not None and not default:
        default = str(option.default) if not option.is_flag else (option.opts if option.default else ["off"])[0]
    if option.required:
        default = "needed"
    return spelt, _takes(option), default.rstrip("]"), said.strip()


def _takes(option: click.Option) -> str:
    kind = option.type
    if option.is_flag:
        return ""
    if isinstance(kind, click.Choice):
        return " or ".join(f"`{choice}`" for choice in kind.choices)
    if isinstance(kind, click.IntRange | click.FloatRange):
        noun = "integer" if isinstance(kind, click.IntRange) else "number"
        if kind.max is not None:
            return f"{noun} from {kind.min} to {kind.max}"
        return f"{noun}, at least {kind.min}"
    return {"integer": "integer", "float": "number", "path": "path"}.get(kind.name, "text")


def _facts(spec: DatasetSpec) -> tuple[str, ...]:
    counts = ("–" if count is None else f"{count:,}" for count in (spec.classes, spec.train_size, spec.test_size))
    metric = {"top1": "top-1", "mean_per_class": "mean per class"}[spec.metric]
    downloads = "yes" if spec.downloader else "comes with scikit-learn" if spec.built_in else "no"
    return (f"`{spec.name}`", spec.title, *counts, metric, spec.licence, f"<{spec.address}>", downloads)


def _layouts(spec: DatasetSpec) -> str:
    lines = [f"- `{layout}`" for layout in spec.layouts]
    if spec.dead is not None:
        lines.append(f"\nNot to be had at its address any more: {spec.dead}.")
    return "\n".join([f"## {spec.name}\n", *lines])


def _table(rows: list[tuple[str, ...]]) -> str:
    """The first row is the heading."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def main(words: list[str]) -> int:
    if words not in ([], ["--check"]):
        print("usage: python tools/write_reference.py [--check]", file=sys.stderr)
        return 2
    old = stale()
    if words:
        for name in old:
            print(f"docs/reference/{name} is stale; run python tools/write_reference.py", file=sys.stderr)
        return 1 if old else 0
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (REFERENCE / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
