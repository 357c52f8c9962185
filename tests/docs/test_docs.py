"""The documentation is true: its commands run, its examples give what they show, its names, options and links exist."""

import doctest
import os
import re
import runpy
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
import torch

import sparse_transfer
from sparse_transfer.cli import main as program
from support import foreign
from support.pictures import CLASSES, class_folders, picture

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "CONTRIBUTING.md", ROOT / "README.md"])
GUIDES = sorted((DOCS / "guide").glob("*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
REFERENCE = runpy.run_path(str(ROOT / "tools" / "write_reference.py"))


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for language, text in FENCE.findall(page.read_text()) if language in languages]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def commands(page: Path) -> list[str]:
    """What follows ``$ `` in the page's console blocks; nothing else may stand there."""
    lines = [line for text in blocks(page, "console") for line in text.splitlines()]
    assert all(line.startswith("$ sparse-transfer ") for line in lines)
    return [line.removeprefix("$ sparse-transfer ") for line in lines]


def mentioned(page: Path) -> Iterator[str]:
    """Every command line of ours in any block that is a shell's, without variables before and remarks behind."""
    for text in blocks(page, "console", "sh"):
        for line in text.splitlines():
            words = line.removeprefix("$ ").partition("  #")[0]
            if match := re.match(r"(?:[A-Z_]+=\S+ )*sparse-transfer (.+)", words):
                yield match[1]


def pruned_network() -> dict[str, object]:
    """A CIFAR ResNet-20 less the smallest four fifths of each layer, as the transfer code saves it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = foreign.CifarResNet("A", "linear", 16, 10).state_dict()
    masks = {
        key: state[key].abs() > state[key].abs().flatten().kthvalue(round(0.8 * state[key].numel())).values
        for key in foreign.prunable(state)
    }
    return foreign.ist(foreign.wrapped(foreign.pruned(state, masks), masks), "resnet20")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the guide's reader sits: pictures, and somebody else's pruned network."""
    place = tmp_path / "workplace"
    class_folders(place / "my-pictures", train=6, test=3)
    class_folders(place / "split", train=5, test=0)
    (place / "split" / "train").rename(place / "unsorted")
    rng = np.random.default_rng(1)
    (place / "holiday").mkdir()
    picture(0, rng).save(place / "holiday" / "beach.png")
    picture(1, rng).save(place / "holiday" / "forest.png")
    torch.save(pruned_network(), place / "pruned.pth")
    monkeypatch.chdir(place)
    return place


def run_all(page: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Run the page's commands in order; each command with what it printed on stdout."""
    printed: dict[str, str] = {}
    for line in commands(page):
        status = program.run(shlex.split(line))
        out, err = capsys.readouterr()
        assert status == 0, f"{page.name}: sparse-transfer {line}\n{out}{err}"
        printed[line] = out
    return printed


@pytest.mark.usefixtures("workplace")
def test_the_way_from_pictures_to_a_prediction_runs_and_its_tables_are_explained(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = DOCS / "guide" / "01-your-pictures.md"
    printed = run_all(page, capsys)
    rows = re.findall(r"^\| (\*\*.+?\*\*) \|", page.read_text(), re.MULTILINE)
    explained = {name for row in rows for name in re.findall(r"\*\*(.+?)\*\*", row)}
    for begins, first in (("linear ", "dataset"), ("inspect ", "layer")):
        table = next(out for line, out in printed.items() if line.startswith(begins))
        heading = next(line for line in table.splitlines() if line.startswith(f"{first} "))
        assert unexplained(heading, explained) == "", begins
    prediction = printed["predict mine.safetensors holiday"]
    assert prediction.startswith("holiday/beach.png  ")
    assert any(name in prediction for name in CLASSES)


def unexplained(heading: str, names: set[str]) -> str:
    """What is left of a table's heading from the first column that has none of the names."""
    left = heading.strip()
    while found := [name for name in names if left == name or left.startswith(f"{name} ")]:
        left = left.removeprefix(max(found, key=len)).lstrip()
    return left


@pytest.mark.usefixtures("workplace")
def test_the_commands_of_the_page_on_data_sets_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.run(["import", "pruned.pth", "-o", "pruned.safetensors"]) == 0
    printed = run_all(DOCS / "guide" / "02-datasets.md", capsys)
    assert "sparse-transfer-split.csv" in os.listdir("unsorted")
    assert "Oxford-IIIT Pets" in printed["data list pets"]


@pytest.mark.usefixtures("workplace")
def test_the_python_examples_give_what_they_show() -> None:
    page = DOCS / "guide" / "03-python.md"
    text = "\n".join(blocks(page, "python"))
    test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    assert len(test.examples) > 30
    said: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)


def test_the_python_page_names_the_whole_public_api_and_no_more() -> None:
    table = prose(DOCS / "guide" / "03-python.md").partition("## Names")[2]
    named = set(re.findall(r"`(\w+)`", re.sub(r"`\w+\[.*?\]`", "", table)))
    assert {name for name in sparse_transfer.__all__ if name != "__version__"} <= named
    assert all(getattr(sparse_transfer, name) for name in sparse_transfer.__all__)


def test_some_command_is_found_on_the_pages() -> None:
    assert len([line for page in GUIDES for line in mentioned(page)]) > 25


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_that_is_shown_parses(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the files that the page shows: a TOML block begins with its file's name."""
    monkeypatch.chdir(tmp_path)
    for text in blocks(page, "toml"):
        Path(text.splitlines()[0].removeprefix("# ")).write_text(text)
    for line in mentioned(page):
        words = shlex.split(line)
        command = program.cli.get_command(click.Context(program.cli), words[0])
        assert command is not None, line
        if isinstance(command, click.Group):
            command, words = command.commands[words[1]], words[1:]
        command.make_context(words[0], words[1:])  # parses; runs nothing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_option_and_variable_in_the_text_exists(page: Path) -> None:
    options = {
        spelling
        for _, command in REFERENCE["all_commands"]()
        for parameter in command.params
        for spelling in (*parameter.opts, *parameter.secondary_opts)
    } | {"--help", "--version", "--batch_size"}
    used = {option for code in re.findall(r"`([^`\n]+)`", prose(page)) for option in re.findall(r"--[a-z][\w-]*", code)}
    others = {"--logdir", "--check", "--index"}  # TensorBoard's, of our tools, the installer's
    assert used - options - others == set()
    source = (
        "".join(path.read_text() for path in (ROOT / "src").rglob("*.py")) + (ROOT / "tests/conftest.py").read_text()
    )
    for variable in re.findall(r"\b(SPARSE_TRANSFER_[A-Z_]+|NO_COLOR)\b", page.read_text()):
        assert variable in source, variable


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("https://", "http://")):
            continue
        file, _, anchor = target.partition("#")
        there = page if not file else (page.parent / file)
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there), target


def anchors(page: Path) -> set[str]:
    """As GitHub makes them: lower case, spaces to dashes, other punctuation dropped."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_the_index_names_every_page() -> None:
    index = (DOCS / "README.md").read_text()
    pages = [
        page.relative_to(DOCS).as_posix() for folder in ("guide", "reference") for page in (DOCS / folder).glob("*.md")
    ]
    assert len(pages) >= 7
    assert [page for page in pages if f"({page})" not in index] == []


def test_every_file_that_contributing_names_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = {name for name in re.findall(r"`([\w./-]+)`", text) if "/" in name and "NAME" not in name}
    assert len(named) > 10
    places = (ROOT, ROOT / "src" / "sparse_transfer")
    assert [name for name in sorted(named) if not any((place / name).exists() for place in places)] == []


def test_a_source_distribution_holds_what_readme_leads_to() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    held = {*settings["tool"]["hatch"]["build"]["targets"]["sdist"]["include"], *settings["project"]["license-files"]}
    targets = re.findall(r"\]\(([^)#\s]+)", (ROOT / "README.md").read_text())
    local = {target.split("/")[0] for target in targets if not target.startswith("https://")}
    assert "CONTRIBUTING.md" in local
    assert local - held == set()


def test_every_make_target_that_is_shown_exists() -> None:
    rules = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = [
        target
        for page in PAGES
        for words in re.findall(r"(?:^|`)make ((?:[a-z][a-z-]* ?)+)", page.read_text(), re.MULTILINE)
        for target in words.split()
    ]
    assert shown
    assert set(shown) <= rules


def test_the_reference_is_what_the_tool_would_write_now() -> None:
    assert REFERENCE["stale"]() == [], "run python tools/write_reference.py"


def test_a_stale_page_is_found(tmp_path: Path) -> None:
    for name, text in REFERENCE["pages"]().items():
        (tmp_path / name).write_text(text)
    assert REFERENCE["stale"](tmp_path) == []
    with (tmp_path / "cli.md").open("a") as page:
        page.write("\n")
    (tmp_path / "datasets.md").unlink()
    assert REFERENCE["stale"](tmp_path) == ["cli.md", "datasets.md"]
