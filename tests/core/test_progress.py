"""The bar at 80 columns: nothing is cut, and what an earlier process did counts neither as rate nor as time."""

from io import StringIO

import pytest
from rich.console import Console

from sparse_transfer.core.bar import Bar
from sparse_transfer.core.progress import progress


def shown(what: str, total: int | None, unit: str, *, done: int, step: int, text: str = "", columns: int = 80) -> str:
    """What stands there after ten steps, one a second."""
    now = 0.0
    console = Console(file=StringIO(), width=columns, force_terminal=True, color_system=None)
    bar = Bar(console, unit, clock=lambda: now)
    task = bar.add_task(what, total=total, completed=done, text=text)
    for _ in range(10):
        now += 1
        bar.advance(task, step)
    with console.capture() as capture:
        console.print(bar.get_renderable())
    lines = capture.get().splitlines()
    assert all(len(line) <= columns for line in lines)
    return "\n".join(line.rstrip() for line in lines)


def test_at_80_columns_nothing_is_cut_and_earlier_work_does_not_count() -> None:
    first, second = shown(
        "epoch 103/150", 1281167, "pictures", done=1000167, step=1000, text="loss 2.372  acc 10.8%  sparse 80.0%"
    ).splitlines()
    assert first.startswith("epoch 103/150 ━")
    assert first.endswith(" 1010167/1281167 1000 img/s 0:04:31 left")  # 271,000 at 1,000 a second
    assert second == "loss 2.372  acc 10.8%  sparse 80.0%"


def test_a_download_is_counted_in_megabytes() -> None:
    line = shown("wf95-resnet50-imagenet-oneshot", 102_500_000, "bytes", done=50_000_000, step=1_000_000)
    assert line.startswith("wf95-resnet50-imagenet-oneshot ━")
    assert line.endswith(" 60.0/102.5 MB 1.0 MB/s 0:00:43 left")
    assert "60.0/? MB 1.0 MB/s" in shown("somebody.pth", None, "bytes", done=50_000_000, step=1_000_000)


@pytest.mark.parametrize(("step", "rate"), [(1, "1 epochs/s"), (12, "12 epochs/s")])
def test_other_units_keep_their_word(step: int, rate: str) -> None:
    assert f"{10 * step}/150 {rate} 0:0" in shown("fit", 150, "epochs", done=0, step=step).replace("  ", " ")


def test_brackets_are_text() -> None:
    assert shown("a[b]c", 20, "", done=0, step=1, text="[d]").endswith("[d]")
    line = shown("a[b]c", 20, "", done=0, step=1)
    assert line.startswith("a[b]c ━")
    assert line.endswith(" 10/20 1/s 0:00:10 left")


def test_a_terminal_gets_the_bar_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sparse_transfer.core.progress._quiet", False)
    monkeypatch.setenv("TERM", "xterm")
    for stderr, expected in ((Terminal(), True), (StringIO(), False)):
        monkeypatch.setattr("sys.stderr", stderr)
        with progress("look", 4, unit="pictures") as advance:
            advance(1, "so far")
        assert ("1/4" in stderr.getvalue() and "so far" in stderr.getvalue()) is expected
