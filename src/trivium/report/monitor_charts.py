"""The charts of learning from AI feedback: scores beside the reward, majority votes, a judge's κ."""

from typing import TYPE_CHECKING

from trivium.report.canvas import Theme, marker, new_figure, style
from trivium.report.curves import SMOOTH_FROM, running_mean, tick
from trivium.report.judges import ANNOTATORS
from trivium.report.monitors import Line, comparable
from trivium.report.panels import NARROW, end_labels, heading, panels
from trivium.report.wording import decimal, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN = 26  # characters of a name in a chart; the legend has it whole


def lines_figure(found: list[Line], theme: Theme, width: float = 9.4, share: bool = False) -> "Figure":
    """Lines over steps: on one axis where one scale serves them all, else each in a panel of its own, the first on top.

    ``share``: all are shares, so the axis goes from 0 to 1.
    """
    narrow = width < NARROW
    if share or comparable(found):
        figure, (axes,) = panels(width, [2.4 if narrow else 3.0], theme, top_margin=0.15, right=0.75)
        for line in found:
            _draw(axes, line, theme)
        values = [value for line in found for _, value in [*line.points, *line.held_out]]
        if share or (min(values) >= 0 and max(values) > 0.5):
            axes.set_ylim(-0.02, 1.04)
        drawn = [axes]
        end_labels(axes, [_end(line, theme) for line in found], theme)
    else:
        heights = [1.3 if narrow else 1.5, *[1.0 if narrow else 1.2] * (len(found) - 1)]
        figure, drawn = panels(width, heights, theme, right=0.75)
        for axes, line in zip(drawn, found, strict=True):
            _draw(axes, line, theme)
            name = line.name if len(line.name) <= _SHOWN else line.name[: _SHOWN - 1] + "…"
            heading(axes, name, theme)
            axes.locator_params(axis="y", nbins=4)
            end_labels(axes, [_end(line, theme)], theme)
    steps = [step for line in found for step, _ in [*line.points, *line.held_out]]
    room = 0.01 * (max(steps) - min(steps)) or 0.5
    for axes in drawn:  # they share their steps
        axes.set_xlim(min(steps) - room, max(steps) + room)
        axes.yaxis.set_major_formatter(tick)
    _steps(drawn[-1], theme, narrow)
    return figure


def _draw(axes: "Axes", line: Line, theme: Theme) -> None:
    colour, dashes = theme.series(line.series), "--" if line.series == 2 else "-"
    if line.points:
        x, y = [step for step, _ in line.points], [value for _, value in line.points]
        if len(y) >= SMOOTH_FROM:
            axes.plot(x, y, color=colour, linewidth=0.8, alpha=0.3)
            y = running_mean(y, len(y) // 15)
        every = max(1, len(x) // 8)
        axes.plot(x, y, color=colour, linewidth=2, linestyle=dashes, marker=marker(line.series), markevery=every)
    if line.held_out:
        x, y = [step for step, _ in line.held_out], [value for _, value in line.held_out]
        joined = ":" if line.points else dashes
        axes.plot(
            x, y, color=colour, linewidth=1.2, linestyle=joined, marker="o", markerfacecolor=theme["surface"], zorder=3
        )


def _end(line: Line, theme: Theme) -> tuple[float, float, str, str]:
    """The last value of a line as it is drawn."""
    values = [value for _, value in line.told]
    if len(values) >= SMOOTH_FROM:
        values = running_mean(values, len(values) // 15)
    return line.told[-1][0], values[-1], decimal(values[-1], 2), theme.series(line.series)


def _steps(axes: "Axes", theme: Theme, narrow: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5 if narrow else 8, integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("training step", color=theme["muted"], fontsize=9, labelpad=4)


def kappa_alt(found: list[tuple[str, float, float, float]]) -> str:
    parts = [f"{name} {signed(value)} ({signed(low)} to {signed(high)})" for name, value, low, high in found]
    return f"Cohen’s kappa with 95% intervals, where 0 is chance and 1 is full agreement: {'; '.join(parts)}."


def kappa_figure(found: list[tuple[str, float, float, float]], theme: Theme, width: float = 3.3) -> "Figure":
    """Points with whiskers; the dashed line is chance."""
    height = 0.75 + 0.5 * len(found)
    figure, axes = new_figure(width, height)
    style(axes, theme)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=theme["grid"], linewidth=0.8)
    axes.axvline(0, color=theme["ink"], linewidth=1.2, linestyle="--")
    for row, (name, value, low, high) in enumerate(found):
        colour = theme.series(0 if name == ANNOTATORS else 1)
        axes.hlines(row, low, high, color=colour, linewidth=2.4)
        axes.plot([value], [row], marker="s" if name == ANNOTATORS else "o", color=colour, markersize=7)
    axes.set_yticks(range(len(found)), [name.replace(" ", "\n", 1) for name, *_ in found])
    axes.tick_params(axis="y", labelsize=9, labelcolor=theme["ink"])
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlim(min(-0.06, *(1.1 * low for _, _, low, _ in found)), 1)
    axes.set_xlabel("κ (0: chance)", color=theme["muted"], fontsize=9, labelpad=3)
    figure.subplots_adjust(left=1.1 / width, right=1 - 0.15 / width, top=1 - 0.08 / height, bottom=0.5 / height)
    return figure
