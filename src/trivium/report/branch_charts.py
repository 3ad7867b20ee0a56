"""The figure of all branches: a row for each, with what it reached, how far it went and what it cost."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trivium.report.branches import Branch, shown_tasks
from trivium.report.canvas import Theme, marker, style
from trivium.report.loading import Run, Stage, number
from trivium.report.wording import clean, decimal, duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NARROW = 5.0  # inches below which the panels stand under each other


@dataclass(frozen=True)
class Row:
    """Where a branch stands, counted from the top of the figure."""

    branch: Branch
    y: float
    group: int


def alt(run: Run, groups: list[list[Branch]]) -> str:
    """The figure in words."""
    parts = []
    for branch in (branch for group in groups for branch in group):
        words = [f"{branch.method}"]
        for task in shown_tasks(run):
            value, low, high = _measured(branch.stage, task)
            words.append(
                f"{clean(task, 40)} not evaluated"
                if value is None
                else f"{clean(task, 40)} {decimal(value, 2)} ({decimal(low, 2)} to {decimal(high, 2)})"
            )
        words += [f"KL {decimal(branch.kl, 1)}"] if branch.kl is not None else []
        words += [duration(branch.seconds)] if branch.seconds is not None else []
        start = f"from {branch.start.label}, " if branch.start else ""
        parts.append(start + ", ".join(words))
    return f"Dot chart of the branches of the run with 95% intervals: {'; '.join(parts)}."


def branch_figure(run: Run, groups: list[list[Branch]], theme: Theme, width: float = 9.4) -> "Figure":
    """A panel for each task, for the KL and for the time; a row for each branch, below the start it shares."""
    from matplotlib.figure import Figure

    kinds: list[tuple[str, str | None]] = [("task", task) for task in shown_tasks(run)]
    all_branches = [branch for group in groups for branch in group]
    kinds += [("kl", None)] if any(branch.kl is not None for branch in all_branches) else []
    kinds += [("time", None)] if any(branch.seconds is not None for branch in all_branches) else []
    narrow = width < NARROW
    step = 0.3 if narrow else 0.46  # inches a row
    rows, bottom = _rows(groups, 0.7 if not narrow else 1.0)
    panel_height, head, foot = bottom * step, 0.52, 0.34
    height = (head + panel_height + foot) * (len(kinds) if narrow else 1)
    figure = Figure(figsize=(width, height))
    left = (1.36 if narrow else 2.3) / width
    shares = [{"task": 2.3, "kl": 1.0, "time": 1.25}[kind] for kind, _ in kinds]
    gap = 0.28 / width
    room = 1 - left - 0.16 / width - gap * (len(kinds) - 1)
    place = left
    for position, (kind, task) in enumerate(kinds):
        if narrow:
            base = height - (position + 1) * (head + panel_height + foot) + foot
            box = (left, base / height, 1 - left - 0.16 / width, panel_height / height)
        else:
            wide = room * shares[position] / sum(shares)
            box = (place, foot / height, wide, panel_height / height)
            place += wide + gap
        axes = figure.add_axes(box)
        _prepare(axes, theme, rows, bottom)
        if kind == "task" and task is not None:
            _task_panel(axes, run, task, rows, theme)
        elif kind == "kl":
            _bars(axes, rows, theme, run, "kl")
        else:
            _bars(axes, rows, theme, run, "time")
        if narrow or position == 0:
            _labels(axes, rows, groups, theme, narrow, left * width)
        _heading(axes, _title(run, kind, task), theme, narrow)
    return figure


def _rows(groups: list[list[Branch]], header: float) -> tuple[list[Row], float]:
    """The rows from the top, each group below a line for its start; and the whole height, in rows."""
    rows, y = [], 0.0
    for number_of, group in enumerate(groups):
        y += header
        for branch in group:
            rows.append(Row(branch, y + 0.5, number_of))
            y += 1
    return rows, y


def _title(run: Run, kind: str, task: str | None) -> tuple[str, str]:
    if task is not None:
        return clean(task, 30), f"{run.measure(task)}, 95% intervals"
    return ("KL", "nats a response") if kind == "kl" else ("Time", "pale: stages it needs")


def _measured(stage: Stage, task: str) -> tuple[float | None, float | None, float | None]:
    numbers = stage.evaluation.get(task, {})
    value, low, high = (number(numbers.get(key)) for key in ("accuracy", "low", "high"))
    return value, low, high


def _prepare(axes: "Axes", theme: Theme, rows: list[Row], bottom: float) -> None:
    style(axes, theme)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=theme["grid"], linewidth=0.8)
    axes.spines["bottom"].set_visible(False)
    axes.set_ylim(bottom, 0)
    axes.set_yticks([])
    for row in rows:
        if row.group and row.y - 1 not in {other.y for other in rows}:
            axes.axhline(_top_of(row, rows), color=theme["grid"], linewidth=1.0)


def _top_of(first: Row, rows: list[Row]) -> float:
    """Where the group of its ``first`` row begins: below the last row of the one before."""
    return max(row.y for row in rows if row.group < first.group) + 0.5


def _heading(axes: "Axes", words: tuple[str, str], theme: Theme, narrow: bool) -> None:
    name, unit = words
    size = 9.5 if narrow else 10.5
    lift = 17
    placed: dict[str, Any] = {
        "xycoords": "axes fraction",
        "textcoords": "offset points",
        "ha": "left",
        "annotation_clip": False,
    }
    axes.annotate(
        name, (0, 1), xytext=(0, lift), va="bottom", fontsize=size, fontweight="bold", color=theme["ink"], **placed
    )
    axes.annotate(unit, (0, 1), xytext=(0, 6), va="bottom", fontsize=8.5, color=theme["muted"], **placed)


def _labels(axes: "Axes", rows: list[Row], groups: list[list[Branch]], theme: Theme, narrow: bool, room: float) -> None:
    """Names at the left: the start of each group, and for each branch its method and what taught it."""
    placed: dict[str, Any] = {
        "xycoords": ("axes fraction", "data"),
        "textcoords": "offset points",
        "annotation_clip": False,
    }
    edge = -room * 72 + 8
    for number_of, group in enumerate(groups):
        first = next(row for row in rows if row.group == number_of)
        start = group[0].start
        words = f"from {start.label}" if start else "from fresh weights"
        axes.annotate(
            words,
            (0, first.y - 0.5),
            xytext=(edge, 2),
            va="bottom",
            ha="left",
            fontsize=8.5 if narrow else 9.5,
            color=theme["muted"],
            **placed,
        )
    methods = [row.branch.method for row in rows]
    for row in rows:
        branch = row.branch
        twice = methods.count(branch.method) > 1
        name = _shortened(f"{branch.method}, {branch.stage.label}" if twice else branch.method, 15 if narrow else 26)
        axes.annotate(
            name,
            (0, row.y),
            xytext=(edge + 10, 0 if narrow else 6),
            va="center",
            ha="left",
            fontsize=9 if narrow else 11,
            fontweight="bold",
            color=theme["ink"],
            **placed,
        )
        if not narrow:
            by = _shortened(branch.taught_by, 34)
            axes.annotate(
                by,
                (0, row.y),
                xytext=(edge + 10, -7),
                va="center",
                ha="left",
                fontsize=8.5,
                color=theme["muted"],
                **placed,
            )


def _shortened(text: str, most: int) -> str:
    text = clean(text, 200)
    return text if len(text) <= most else text[: most - 1] + "…"


def _task_panel(axes: "Axes", run: Run, task: str, rows: list[Row], theme: Theme) -> None:
    """Dots with intervals, each with an arrow from its start, which is a line down the rows of its group."""
    values: list[float] = []
    falls = False
    for row in rows:
        branch, index = row.branch, run.series(row.branch.stage)
        value, low, high = _measured(branch.stage, task)
        begun = _measured(branch.start, task) if branch.start else (None, None, None)
        start = begun[0]
        values += [v for v in (value, low, high, *begun) if v is not None]
        if value is None:
            words = branch.stage.state or "not evaluated"
            axes.annotate(words, (0.02, row.y), xycoords=("axes fraction", "data"), va="center", fontsize=8.5,
                          color=theme["muted"], style="italic")  # fmt: skip
            continue
        colour = theme.series(index)
        if start is not None:
            axes.plot([start, value], [row.y, row.y], color=colour, linewidth=1.2, alpha=0.55, zorder=2)
        if low is not None and high is not None:
            axes.plot([low, high], [row.y, row.y], color=colour, linewidth=3.2, solid_capstyle="butt", zorder=3)
        axes.plot([value], [row.y], marker=marker(index), color=colour, markersize=8, zorder=4)
        # on the side away from the start, whose line it would stand on
        away = -1 if start is not None and value < start else 1
        axes.annotate(
            f"{value:.2f}",
            (value if (end := low if away < 0 else high) is None else end, row.y),
            xytext=(6 * away, 0),
            textcoords="offset points",
            ha="right" if away < 0 else "left",
            va="center",
            fontsize=9.5,
            fontweight="bold",
            color=theme["ink"],
            zorder=5,
            annotation_clip=False,
            bbox={"facecolor": theme["surface"], "edgecolor": "none", "pad": 0.8},
        )
        falls = falls or away < 0
    if not values:
        return
    low, high = min(values), max(values)
    spread = max(high - low, 0.05)
    axes.set_xlim(low - (0.2 if falls else 0.08) * spread, high + 0.24 * spread)
    for group in sorted({row.group for row in rows}):
        _start_line(axes, [row for row in rows if row.group == group], task, theme)


def _start_line(axes: "Axes", rows: list[Row], task: str, theme: Theme) -> None:
    start = rows[0].branch.start
    value, low, high = _measured(start, task) if start else (None, None, None)
    if start is None or value is None:
        return
    top, bottom = rows[0].y - 0.5, rows[-1].y + 0.5
    if low is not None and high is not None:
        axes.fill_betweenx([top, bottom], low, high, color=theme["muted"], alpha=0.14, linewidth=0, zorder=1)
    axes.plot([value, value], [top, bottom], color=theme["ink"], linewidth=1.2, linestyle="--", zorder=2)
    axes.annotate(
        f"{value:.2f}",
        (value, top),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=8.5,
        color=theme["muted"],
        annotation_clip=False,
    )


def _bars(axes: "Axes", rows: list[Row], theme: Theme, run: Run, what: str) -> None:
    """Bars from zero: the KL, or the seconds of the stage with those of the stages it needs in a paler piece."""
    reach = 0.0
    for row in rows:
        branch = row.branch
        own = branch.kl if what == "kl" else branch.seconds
        more = branch.needed if what == "time" else 0.0
        if own is None:
            axes.annotate("–", (0, row.y), xytext=(4, 0), textcoords="offset points", va="center", color=theme["muted"])
            continue
        colour = theme.series(run.series(branch.stage))
        axes.barh(row.y, own, height=0.34, color=colour, linewidth=0, zorder=3)
        axes.barh(row.y, more, left=own, height=0.34, color=colour, alpha=0.3, linewidth=0, zorder=3)
        words = (f"{own:.1f}" if own >= 1 else f"{own:.2g}") if what == "kl" else _short_time(own + more)
        axes.annotate(
            words,
            (own + more, row.y),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=theme["ink"],
            annotation_clip=False,
        )
        reach = max(reach, own + more)
    axes.set_xlim(0, 1.42 * reach or 1)
    axes.set_xticks([])
    axes.spines["left"].set_visible(True)
    axes.spines["left"].set_color(theme["muted"])
    axes.spines["left"].set_linewidth(0.8)


def _short_time(seconds: float) -> str:
    """A duration in one unit, for the end of a bar.

    >>> _short_time(54.2), _short_time(150), _short_time(9000)
    ('54 s', '2.5 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
