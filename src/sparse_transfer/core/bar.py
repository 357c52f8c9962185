"""The bar that ``progress`` shows: a module of its own, because rich takes long to import."""

from collections.abc import Callable, Iterable

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column
from rich.text import Text

WINDOW_S = 120  # the rate is that of the last two minutes


class Bar(Progress):
    """One line: what, bar, done/total, rate, time left; the task's ``text`` in a line below, so that both fit."""

    def __init__(self, console: Console, unit: str, *, clock: Callable[[], float] | None = None) -> None:
        whole = Column(no_wrap=True)
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            DownloadColumn(table_column=whole) if unit == "bytes" else MofNCompleteColumn(table_column=whole),
            TransferSpeedColumn() if unit == "bytes" else Rate(unit),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            transient=True,
            expand=True,
            speed_estimate_period=WINDOW_S,
            get_time=clock,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield from (Text(task.fields["text"]) for task in self.tasks if task.fields["text"])


class Rate(ProgressColumn):
    """Units a second of what this process did."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = {"pictures": " img", "": ""}.get(unit, f" {unit}")

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        shown = "-" if speed is None else f"{speed:.0f}" if speed >= 10 else f"{speed:.2g}"
        return Text(f"{shown}{self.unit}/s")
