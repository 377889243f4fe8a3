"""What a person sees while a run works: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text


def duration(seconds: float) -> str:
    """``9 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def _pace(done: float, seconds: float, unit: str) -> str:
    per_second = done / seconds if seconds > 0 else 0.0
    if per_second >= 1 or per_second == 0:
        return f"{per_second:,.{0 if per_second >= 100 else 1}f} {unit}/s"
    return f"{1 / per_second:,.1f} s/{unit.removesuffix('s')}"


def _text(fields: dict[str, object]) -> str:
    shown = (
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in fields.items()
    )
    return "  ".join(shown)


class _State(ProgressColumn):
    """Count, rate, time left and the latest fields, all in one column."""

    def render(self, task: Task) -> Text:
        unit, fields = task.fields["unit"], task.fields["shown"]
        count = f"{task.completed:,.0f}" + (f"/{task.total:,.0f}" if task.total else "") + f" {unit}"
        elapsed = task.elapsed or 0.0
        parts = [count, _pace(task.completed, elapsed, unit) if task.completed else "starting"]
        if task.total and task.completed:
            parts.append(duration(elapsed * (task.total / task.completed - 1)) + " left")
        return Text("  ".join([*parts, _text(fields)] if fields else parts))


class Display:
    """The console of one run, shared with its stages, so that bars and lines do not write over each other."""

    def __init__(
        self, *, quiet: bool = False, every_seconds: float = 10.0, console: Console | None = None
    ) -> None:
        self.quiet, self.every_seconds = quiet, every_seconds
        self.console = console or Console(stderr=True)
        self._bars: Bars | None = None
        self._open = 0

    def say(self, text: str) -> None:
        """A line for people, exactly as it is: brackets are no markup here."""
        if not self.quiet:
            self.console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def bars(self) -> Bars:
        """The bars on the terminal, started with the first and stopped with the last of them."""
        if self._bars is None:
            self._bars = Bars(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                _State(),
                console=self.console,
                transient=True,
            )
            self._bars.start()
        self._open += 1
        return self._bars

    def close(self) -> None:
        """One bar less."""
        self._open -= 1
        if self._open == 0 and self._bars is not None:
            self._bars.stop()
            self._bars = None


class Progress:
    """One piece of work under way; a context manager."""

    def __init__(self, display: Display, description: str, total: int | None, unit: str) -> None:
        self._display, self._description, self._total, self._unit = display, description, total, unit
        self._done = 0
        self._fields: dict[str, object] = {}
        self._bars: Bars | None = None
        self._task = TaskID(0)
        self._is_line = False

    def __enter__(self) -> Self:
        self._began = self._said = time.monotonic()
        if not self._display.quiet and self._display.console.is_terminal:
            self._bars = self._display.bars()
            total = float(self._total) if self._total is not None else None
            self._task = self._bars.add_task(self._description, total=total, unit=self._unit, shown={})
        return self

    def advance(self, n: int = 1, **fields: object) -> None:
        """`n` more are done; `fields` (``loss=2.31``) are shown beside the rate."""
        self._done += n
        self._fields |= fields
        if self._bars is not None:
            self._bars.update(self._task, completed=self._done, shown=dict(self._fields))
        elif not self._display.quiet:
            instant = time.monotonic()
            if instant - self._said >= self._display.every_seconds:
                self._said, self._is_line = instant, True
                self._display.say(self._line(instant - self._began))

    def _line(self, seconds: float) -> str:
        count = f"{self._done:,}" + (f"/{self._total:,}" if self._total else "")
        parts = [f"{self._description}: {count} {self._unit}", _pace(self._done, seconds, self._unit)]
        if self._total and self._done:
            parts.append(duration(seconds * (self._total / self._done - 1)) + " left")
        return ", ".join([*parts, _text(self._fields)] if self._fields else parts)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = time.monotonic() - self._began
        if self._bars is not None:
            self._bars.remove_task(self._task)
            self._display.close()
        if error is not None or self._display.quiet:
            return
        if self._is_line or self._bars is not None or seconds >= 2:
            told = [duration(seconds)]
            if self._done:  # it need not be known how much of it there is
                pace = _pace(self._done, seconds, self._unit)
                told = [f"{self._done:,} {self._unit} in {duration(seconds)}", pace]
            shown = [_text(self._fields)] if self._fields else []
            self._display.say(f"{self._description}: {', '.join(told + shown)}")
