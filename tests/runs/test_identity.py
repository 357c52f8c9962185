import hashlib
import json
from dataclasses import replace
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparse_transfer.runs.identity import file_name
from support.runs import identity


def test_the_id_is_the_start_of_sha256_over_the_canonical_json() -> None:
    run = identity()
    parts = {
        "checkpoint_digest": "d" * 64,
        "dataset": "pets",
        "numerics": "fp32",
        "protocol": "cvpr2022",
        "seed": 21,
        "settings": {"epochs": 3, "lr": 0.01, "solver": "sgd"},
        "splits": {"test": "b" * 64, "train": "a" * 64},
        "transfer": "linear",
        "version": 1,
    }
    text = json.dumps(parts, separators=(",", ":"))  # the keys above stand in their sorted order
    assert run.id == hashlib.sha256(text.encode()).hexdigest()[:12]
    assert run.folder.as_posix() == f"linear/pets/acdc80/seed21-{run.id}"


def test_the_order_of_settings_does_not_matter_and_the_checkpoints_name_neither() -> None:
    run = identity(settings={"a": 1, "b": [1, 2]})
    assert identity(settings={"b": [1, 2], "a": 1}).id == run.id
    assert identity(settings={"b": (1, 2), "a": 1}).id == run.id
    assert replace(run, checkpoint="renamed").id == run.id


@pytest.mark.parametrize(
    "change",
    [
        {"transfer": "full"},
        {"dataset": "flowers"},
        {"checkpoint_digest": "e" * 64},
        {"splits": {"train": "a" * 64, "test": "c" * 64}},
        {"protocol": "clean"},
        {"settings": {"solver": "sgd", "lr": 0.1, "epochs": 3}},
        {"numerics": "bf16"},
        {"version": 2},
    ],
)
def test_whatever_changes_the_result_changes_the_id(change: dict[str, object]) -> None:
    assert replace(identity(), **change).id != identity().id  # type: ignore[arg-type]
    assert replace(identity(), **change).group != identity().group  # type: ignore[arg-type]


def test_seeds_have_ids_of_their_own_and_one_group() -> None:
    assert identity(21).id != identity(51).id
    assert identity(21).group == identity(51).group


def test_settings_that_are_not_finite_have_no_identity() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        _ = identity(settings={"lr": float("nan")}).id


@given(st.text())
def test_any_name_becomes_one_safe_file_name(name: str) -> None:
    safe = file_name(name)
    assert len(PurePosixPath(safe).parts) == 1
    assert not safe.startswith(".")
    assert not set(safe) & set('/\\:*?"<>|\0\n')
    assert 1 <= len(safe.encode()) <= 100
    assert file_name(safe) == safe


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("folder:my/pictures", "folder_my_pictures"),
        ("../../etc", "_.._etc"),
        ("Blüten 2.1", "Blüten_2.1"),
        ("", "_"),
        ("\udc80", "_"),
        ("ü" * 80, "ü" * 50),
    ],
)
def test_names_as_they_become(name: str, safe: str) -> None:
    assert file_name(name) == safe
