"""What a user sees while a run works: bars on a terminal, a line now and then in a log, nothing where it is not wanted.

Stages know three calls: ``stage`` begins a piece of work, ``advance`` says how far it is, ``note`` says a sentence.
Where several stages run at a time, each has a ``part``.
"""

import math
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, TextIO

LINE_SECONDS = 10.0  # between two lines of a log
SHOWN_METRICS = 4


class Progress:
    """The silent one, and the base of the others: also what ranks other than the first are given."""

    def stage(self, name: str, total: int, start: int = 0) -> None:
        """Begin ``name``, which takes ``total`` steps of which ``start`` are done; what was begun before is over."""

    def advance(self, step: int, metrics: Mapping[str, Any] | None = None) -> None:
        """``step`` steps of the total are done (counted from the start of the stage, also after a resume)."""

    def note(self, text: str) -> None:
        """Say a sentence."""

    def finish(self, line: str) -> None:
        """End the piece of work with one line that stays."""

    def close(self) -> None:
        """Leave the terminal as it was; may be called twice."""

    def part(self) -> "Progress":
        """What shows one of several pieces of work that go on at a time, each in a thread of its own."""
        return self


class Pace:
    """Rate and time left, counted from ``start``, so that a resumed stage does not look fast.

    >>> pace = Pace(total=100, start=40, now=1.0)
    >>> pace.update(60, now=3.0)
    >>> pace.rate, pace.left
    (10.0, 4.0)
    """

    def __init__(self, total: int, start: int, now: float):
        self.total, self.start, self.began = total, start, now
        self.step, self.now = start, now

    def update(self, step: int, now: float) -> None:
        self.step, self.now = step, now

    @property
    def rate(self) -> float | None:
        """Steps a second; None before the first."""
        if self.now <= self.began or self.step <= self.start:
            return None
        return (self.step - self.start) / (self.now - self.began)

    @property
    def left(self) -> float | None:
        """Seconds to the end."""
        return None if self.rate is None else max(0, self.total - self.step) / self.rate

    def text(self) -> str:
        if self.rate is None or self.left is None:
            return ""
        rate = f"{self.rate:.1f}/s" if self.rate >= 1 else f"{1 / self.rate:.1f} s each"
        return f"{rate}, {clock(self.left)} left"


class Lines(Progress):
    """One line every few seconds, for logs and pipes. ``quiet``: only notes and the line at the end of a stage."""

    def __init__(self, file: TextIO | None = None, quiet: bool = False):
        self.file, self.quiet = file or sys.stderr, quiet
        self.name, self.pace, self.said = "", Pace(0, 0, 0.0), 0.0

    def stage(self, name: str, total: int, start: int = 0) -> None:
        self.said = time.monotonic()
        self.name, self.pace = name, Pace(total, start, self.said)

    def advance(self, step: int, metrics: Mapping[str, Any] | None = None) -> None:
        now = time.monotonic()
        self.pace.update(step, now)
        if not self.quiet and now - self.said >= LINE_SECONDS:
            self.said = now
            parts = (f"{self.name} {step}/{self.pace.total}", self.pace.text(), metrics_text(metrics))
            self._say("  ".join(part for part in parts if part))

    def note(self, text: str) -> None:
        self._say(f"note: {text}")

    def finish(self, line: str) -> None:
        self._say(line)

    def part(self) -> Progress:
        return Lines(self.file, self.quiet)

    def _say(self, text: str) -> None:
        self.file.write(f"{text}\n")  # at once, so that the lines of two threads do not mix
        self.file.flush()


class Bars(Progress):
    """A bar for the work at hand with rate, time left and the latest metrics; finished work leaves one line.

    ``beside``: share the terminal with these bars.
    """

    def __init__(self, beside: "Bars | None" = None) -> None:
        self.pace = Pace(0, 0, 0.0)
        self.task: Any = None
        self.console: Any
        self.bars: Any
        self.turn: threading.RLock  # bars come and go one at a time
        if beside is not None:
            self.console, self.bars, self.turn = beside.console, beside.bars, beside.turn
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as RichProgress

        # Without markup: a note may quote a user's text with brackets in it.
        self.console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}", markup=False),
            TextColumn("{task.fields[metrics]}", markup=False, style="dim"),
        )
        self.bars = RichProgress(*columns, console=self.console, transient=True, refresh_per_second=4)
        self.turn = threading.RLock()

    def stage(self, name: str, total: int, start: int = 0) -> None:
        with self.turn:
            self._drop()
            self.pace = Pace(total, start, time.monotonic())
            self.bars.start()
            self.task = self.bars.add_task(name, total=total or None, completed=start, pace="", metrics="")

    def advance(self, step: int, metrics: Mapping[str, Any] | None = None) -> None:
        if self.task is None:
            return
        self.pace.update(step, time.monotonic())
        self.bars.update(self.task, completed=step, pace=self.pace.text())
        if metrics:
            self.bars.update(self.task, metrics=metrics_text(metrics))

    def note(self, text: str) -> None:
        self.console.print(f"note: {text}", style="yellow")

    def finish(self, line: str) -> None:
        self._drop()
        self.console.print(line)

    def close(self) -> None:
        self._drop()

    def part(self) -> Progress:
        return Bars(self)

    def _drop(self) -> None:
        with self.turn:
            if self.task is not None:
                self.bars.remove_task(self.task)
                self.task = None
            if not self.bars.tasks:  # those of the others go on
                self.bars.stop()


def make(quiet: bool = False) -> Progress:
    """Bars on a terminal, lines elsewhere."""
    return Bars() if sys.stderr.isatty() and not quiet else Lines(quiet=quiet)


def metrics_text(metrics: Mapping[str, Any] | None) -> str:
    """The first few numbers of ``metrics`` in four figures.

    >>> metrics_text({"loss": 1.23456, "text": "no number", "learning_rate": 1e-4})
    'loss 1.235  learning_rate 0.0001'
    """
    numbers = [(key, value) for key, value in (metrics or {}).items() if isinstance(value, int | float)]
    return "  ".join(f"{key} {value:.4g}" for key, value in numbers[:SHOWN_METRICS])


def clock(seconds: float) -> str:
    """Seconds as a person reads them.

    >>> clock(8.4), clock(75), clock(7260)
    ('8 s', '1:15', '2:01:00')
    """
    if not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def short(number: float) -> str:
    """A count in three figures.

    >>> short(950), short(12_345), short(1_234_567)
    ('950', '12.3k', '1.23M')
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def visible(text: str) -> str:
    """Text from elsewhere, such as a model's, for the terminal: characters that could drive it are shown as escapes.

    >>> print(visible(f"clear {chr(27)}[2J"))
    clear \\x1b[2J
    """
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
