"""Every format has a note for docs/reference/formats.md, and what a note says of options is so."""

import re
from dataclasses import astuple
from pathlib import Path

import click
import pytest

from sparse_transfer.checkpoints.formats import encodings, key_families
from sparse_transfer.checkpoints.formats.notes import CONTAINERS, ENCODINGS, FAMILIES
from sparse_transfer.cli.main import cli
from support.fuzzing import CASES
from support.samples import SAMPLES


def test_every_container_encoding_and_family_has_a_note_and_no_note_is_left_over() -> None:
    assert list(CONTAINERS) == list(CASES)
    assert set(ENCODINGS) == set(encodings)
    assert set(FAMILIES) == set(key_families)


def test_notes_are_short_and_name_only_options_of_import() -> None:
    command = cli.get_command(click.Context(cli), "import")
    assert command is not None
    options = {spelling for parameter in command.params for spelling in parameter.opts}
    notes = [*CONTAINERS.values(), *ENCODINGS.values(), *FAMILIES.values()]
    assert len(notes) > 40
    for note in notes:
        for words in astuple(note):
            assert len(words) < 250
            assert not words.endswith(".")
            assert set(re.findall(r"--[a-z]+", words)) <= options, words


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_an_encoding_asks_for_what_its_note_says(name: str, tmp_path: Path) -> None:
    """A file that has to be told something has an option in its note, and one that need not has none.

    Two exceptions: LBC's sample states an N:M that its file knows; SuperBlock's has its sparsity in its settings.
    """
    said = SAMPLES[name](tmp_path).said
    asked = {word.removeprefix("--") for word in re.findall(r"--[a-z]+", ENCODINGS[name].say)}
    if name not in ("lbc", "superblock"):
        assert set(said) <= asked, name
        assert bool(said) == bool(asked), name
