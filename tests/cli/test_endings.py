"""One exit status for each way a command ends, one sentence for each mistake."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from sparse_transfer.cli import finetune, linear, transferring
from sparse_transfer.cli import main as program
from sparse_transfer.cli.cache import number_of, prune, spelt
from sparse_transfer.core.errors import Interrupted, UserError
from support.processes import heed_interrupts


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = program.run(list(words))
    out, err = capsys.readouterr()
    return status, out, err


def test_an_unknown_command_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "liner") == (2, "", 'error: no command is called "liner"; did you mean "linear"?\n')


def test_an_unknown_dataset_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "data", "list", "flower")
    assert (status, out) == (2, "")
    assert err == 'error: no dataset is called "flower"; did you mean "flowers"?\n'


def test_a_missing_checkpoint_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "no.safetensors"
    assert run(capsys, "linear", str(path), "digits") == (2, "", f"error: {path}: there is no such file\n")


def test_an_option_that_the_solver_has_not_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, _, err = run(capsys, "linear", "x.safetensors", "digits", "--solver", "lbfgs", "--lr", "0.1")
    assert status == 2
    assert err == "error: --solver lbfgs has no --lr; drop it, or use --solver sgd\n"


def test_a_wrong_option_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "linear", "x", "digits", "--sedes", "3")
    assert status == 2
    assert "--seeds" in err


def test_underscores_are_as_good_as_dashes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    missing = tmp_path / "no.safetensors"
    assert run(capsys, "predict", str(missing), "x.jpg", "--batch_size=4")[2].endswith("there is no such file\n")
    assert run(capsys, "predict", str(missing), "x.jpg", "--batch_size", "4")[2].endswith("there is no such file\n")


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("it is wrong", where="a.pth", do="mend it"), 2, "error: a.pth: it is wrong; mend it"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Interrupted(), 130, "interrupted"),
        (OSError(errno.ENOSPC, "No space left on device", "/cache/x"), 1, "error: /cache/x: No space left on device"),
        (ZeroDivisionError("division by zero"), 1, "bug: ZeroDivisionError: division by zero"),
    ],
)
def test_every_ending_has_its_status(
    error: BaseException,
    status: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("sparse_transfer.core.environment.examine", fail)
    ended, out, err = run(capsys, "doctor")
    assert (ended, out) == (status, "")
    assert err.lstrip("\n").startswith(said)  # click ends the line that ^C was typed on
    assert "Traceback" not in err


def test_doctor_says_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "doctor")
    assert status == 0
    assert "torch and torchvision" in out


def test_seeds_are_a_number_of_the_papers_or_a_list() -> None:
    assert transferring.seeds("3") == (21, 51, 81)
    assert transferring.seeds("5") == (21, 51, 81, 111, 141)
    assert transferring.seeds("7,8") == (7, 8)
    assert transferring.seeds("0,") == (0,)
    for wrong in ("6", "0", "a", "3,3", "-1,2", ","):
        with pytest.raises(click.BadParameter):
            transferring.seeds(wrong)


@pytest.mark.parametrize(("command", "usual"), [(linear.command, 5), (finetune.command, 1)])
def test_a_seed_is_that_seed_alone(command: click.Command, usual: int) -> None:
    def taken(*words: str) -> tuple[int, ...]:
        return command.make_context("x", ["a.safetensors", "digits", *words]).params["seeds"]

    assert len(taken()) == usual
    assert taken("--seeds", "2") == (21, 51)
    assert taken("--seed", "3") == (3,)
    assert taken("--seed", "42") == (42,)


SIZES = [
    ("0", 0), ("7", 7), ("7b", 7), ("500M", 500 * 2**20), ("4G", 4 * 2**30), ("1.5g", 3 * 2**29), (".5K", 512),
    ("2KiB", 2048), ("500MB", 500_000_000), ("1.5 GB", 1_500_000_000), ("20gb", 20_000_000_000), ("3T", 3 * 2**40),
]  # fmt: skip


@pytest.mark.parametrize(("text", "count"), SIZES)
def test_a_size_is_read_in_the_units_people_write(text: str, count: int) -> None:
    for command, option, words in ((finetune.command, "--cache-images", ["a", "b"]), (prune, "--max-size", [])):
        assert count in command.make_context("x", [*words, option, text]).params.values()


@pytest.mark.parametrize("text", ["big", "infG", "nan", "-1G", "+1", "1e9", "4X", "4 ib", "", "1.G", "9" * 400])
def test_a_size_without_sense_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("finetune", "a", "b", "--cache-images"), ("cache", "prune", "--max-size")):
        status, out, err = run(capsys, *words, text)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert f'"{text}" is no size: write 500M or 20GB; see sparse-transfer' in err


def test_one_entry_is_not_entries() -> None:
    assert [number_of(count) for count in (0, 1, 1200)] == ["0 entries", "1 entry", "1,200 entries"]


def test_sizes_are_shown_in_units_of_a_thousand() -> None:
    assert [spelt(count) for count in (0, 999, 1000, 1_500_000, 2_000_000_000_000_000)] == [
        "0 B", "999 B", "1.0 KB", "1.5 MB", "2000.0 TB",
    ]  # fmt: skip


@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_asleep_unless_the_user_says_otherwise(before: str | None, after: str) -> None:
    program_text = (
        "import atexit, os, sys\n"
        "from sparse_transfer.cli.main import main\n"
        "atexit.register(lambda: print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules))\n"
        "main(['--version'])"
    )
    given = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    given |= {"OMP_WAIT_POLICY": before} if before else {}
    done = subprocess.run([sys.executable, "-c", program_text], capture_output=True, text=True, check=True, env=given)
    assert done.stdout.splitlines()[-1] == f"{after} False"  # torch reads it when it is imported


def test_an_interrupt_in_somebodys_exec_is_an_ending_like_any_other(tmp_path: Path) -> None:
    """Imports have such places: named tuples, dataclasses. ``python -m`` is where CPython would end by the signal."""
    (tmp_path / "interrupted.py").write_text(
        "from sparse_transfer.cli import main as program\n"
        "text = 'import os, signal; os.kill(os.getpid(), signal.SIGINT)'\n"
        "program.cli.main = lambda **how: exec(text)\n"
        "program.main()\n"
    )
    source = Path(program.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "interrupted"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(source)},
        preexec_fn=heed_interrupts,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.split(":")[0]) == (130, "interrupted")
