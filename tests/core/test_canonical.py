"""Canonical JSON: one spelling, always UTF-8, and every name on a disk comes back."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparse_transfer.core import canonical
from sparse_transfer.core.files import write_text


@given(st.binary().map(os.fsdecode))
def test_any_file_name_reads_back_from_utf_8(name: str) -> None:
    assert json.loads(canonical.dumps([name]).encode("utf-8")) == [name]


def test_text_stays_as_it_is_and_only_what_is_none_is_escaped() -> None:
    assert canonical.dumps({"é🙂": "\\udce9"}) == '{"é🙂":"\\\\udce9"}'
    assert canonical.dumps("caf\udce9") == '"caf\\udce9"'


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_of_json_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical.dumps([value])


def test_a_text_file_may_hold_a_name_that_is_no_text(tmp_path: Path) -> None:
    write_text(tmp_path / "names", "é caf\udce9")
    assert (tmp_path / "names").read_bytes() == "é caf\\udce9".encode()
