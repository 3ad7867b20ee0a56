"""The charts that compare stages: accuracy, pass@k, sub-tasks, differences."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trivium.report.canvas import Theme, dashes, marker, new_figure, style
from trivium.report.loading import SILENT, Run, Stage, mapping, number
from trivium.report.verdict import Difference
from trivium.report.wording import MISSING, decimal, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Line:
    """A level to compare with, such as the teacher's ceiling."""

    name: str
    value: float
    dashes: Any  # a line style of matplotlib


def reference_lines(run: Run, task: str) -> list[Line]:
    teacher, baseline = run.first_of(task, "teacher"), run.first_of(task, "baseline")
    found = [
        ("Teacher’s ceiling", number(teacher.get("greedy")), "--"),
        ("Best constant", number(baseline.get("constant")), ":"),
        ("Chance", number(baseline.get("chance")), (0, (1, 4))),
    ]
    return [Line(name, value, dashes) for name, value, dashes in found if value is not None]


def shown_stages(run: Run) -> list[Stage]:
    """Stages whose product answers problems: those of the recipe too that were not reached."""
    return [stage for stage in run.stages if stage.kind not in SILENT]


def accuracy_alt(run: Run, task: str) -> str:
    """The main figure in words."""
    parts = []
    for stage in shown_stages(run):
        numbers = stage.evaluation.get(task, {})
        if number(numbers.get("accuracy")) is None:
            parts.append(f"{stage.label} not evaluated")
        else:
            interval = f"{decimal(numbers.get('low'), 2)} to {decimal(numbers.get('high'), 2)}"
            parts.append(f"{stage.label} {decimal(numbers['accuracy'], 2)} ({interval})")
    parts += [f"{line.name} {decimal(line.value, 2)}" for line in reference_lines(run, task)]
    return f"Bar chart of {run.measure(task)} on {task} by stage with 95% intervals: {'; '.join(parts)}."


def accuracy_figure(run: Run, task: str, theme: Theme, width: float = 9.4, height: float = 4.1) -> "Figure":
    """Bars with Wilson whiskers, one a stage, and the lines they are compared with."""
    figure, axes = new_figure(width, height)
    style(axes, theme)
    stages, lines = shown_stages(run), reference_lines(run, task)
    narrow = width < 5
    margin = (1.05 if narrow else 1.45) if lines else 0.1
    room = (width - 0.42 - margin) / max(len(stages), 1)  # inches for a bar with its name
    top = 0.0
    for position, stage in enumerate(stages):
        numbers = stage.evaluation.get(task, {})
        top = max(top, _accuracy_bar(axes, theme, position, run.series(stage), numbers, 13 if room > 0.5 else 8))
    turned = _names(axes, theme, stages, narrow, room)
    axes.set_xlim(-0.6, max(len(stages), 1) - 0.4)
    reach = max([top, *(line.value for line in lines), 0.05])
    lowest = min([0.0, *(number(stage.evaluation.get(task, {}).get("low")) or 0.0 for stage in stages)])
    roof = reach * 1.2 if reach > 1 else min(1.1, reach * 1.2) if reach > 0.5 else reach * 1.35
    axes.set_ylim(lowest * 1.2, roof)
    if not run.scored(task) and axes.get_ylim()[1] > 1:
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.50", "0.75", "1"])
    below = max(0.58 if narrow else 0.42, turned)
    figure.subplots_adjust(left=0.42 / width, right=1 - margin / width, top=1 - 0.12 / height, bottom=below / height)
    _draw_lines(axes, theme, lines, height, 8 if narrow else 9)
    return figure


def _names(axes: "Axes", theme: Theme, stages: list[Stage], narrow: bool, room: float) -> float:
    """The names below the bars; where they would touch, they stand slanted, and the inches they then need are returned
    (otherwise 0)."""
    labels = [_short(stage.label) for stage in stages]
    broken = [re.sub(r"(?<=\w{3})[ _-]", lambda gap: gap[0].strip() + "\n", label) for label in labels]
    shown, size, letter = (broken, 9, 0.072) if narrow else (labels, 10.5, 0.085)
    widest = max((len(line) for label in shown for line in label.split("\n")), default=0) * letter
    axes.tick_params(axis="x", labelsize=size, labelcolor=theme["ink"], pad=8)
    if widest <= room:
        axes.set_xticks(range(len(stages)), shown)
        return 0.0
    axes.set_xticks(range(len(stages)), labels, rotation=40, ha="right", rotation_mode="anchor")
    return 0.34 + 0.7 * letter * max(map(len, labels))


def _accuracy_bar(
    axes: "Axes", theme: Theme, position: int, series: int, numbers: dict[str, Any], size: float
) -> float:
    """One bar with its value in letters of ``size``; the height that it, its whisker and its label need."""
    accuracy = number(numbers.get("accuracy"))
    if accuracy is None:
        small: dict[str, Any] = {"fontsize": 9, "rotation": 0} if size > 9 else {"fontsize": 8, "rotation": 90}
        axes.text(position, 0.015, "not\nevaluated", ha="center", va="bottom", color=theme["muted"], **small)
        return 0.0
    low, high = number(numbers.get("low")), number(numbers.get("high"))
    axes.bar(position, accuracy, width=0.5, color=theme.series(series), zorder=2, linewidth=0)
    peak = accuracy
    if low is not None and high is not None:
        peak = max(accuracy, high)
        axes.vlines(position, low, high, color=theme["ink"], linewidth=1.3, zorder=4)
        axes.hlines([low, high], position - 0.045, position + 0.045, color=theme["ink"], linewidth=1.3, zorder=4)
    axes.annotate(
        f"{accuracy:.2f}",
        (position, peak),
        xytext=(0, 5),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=size,
        fontweight="bold",
        color=theme["ink"],
        zorder=5,
        bbox={"facecolor": theme["surface"], "edgecolor": "none", "pad": 1.2},
    )
    return peak


def _draw_lines(axes: "Axes", theme: Theme, lines: list[Line], height: float, size: float) -> None:
    """Reference lines, named at the right; names that would touch are pushed apart."""
    span = axes.get_ylim()[1]
    room = span * 0.42 / (height - 0.54)  # two lines of text, in data units
    place = -1.0
    for line in sorted(lines, key=lambda line: line.value):
        axes.axhline(line.value, color=theme["ink"], linewidth=1.2, linestyle=line.dashes, zorder=3)
        place = max(line.value, place + room, room / 2 - span * 0.02)
        axes.annotate(
            f"{line.name}\n{decimal(line.value, 2)}",
            (1, place),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            ha="left",
            va="center",
            fontsize=size,
            color=theme["ink"],
            linespacing=1.25,
        )


def pass_at_k(run: Run, task: str, key: str) -> dict[str, list[tuple[int, float]]]:
    """Points (k, value) by stage name; ``key`` is ``pass_at_k`` or ``majority_at_k``."""
    found = {}
    for stage in run.stages:
        entries = mapping(stage.evaluation.get(task, {}).get(key)).items()
        points = [(int(k), value) for k, v in entries if str(k).isdigit() and (value := number(v)) is not None]
        if points:
            found[stage.name] = sorted(points)
    return found


def samples_figure(run: Run, task: str, key: str, theme: Theme, width: float = 4.4, height: float = 2.9) -> "Figure":
    """pass@k (or majority@k) of every stage on one chart, k on a scale of doublings."""
    figure, axes = new_figure(width, height)
    style(axes, theme)
    points = pass_at_k(run, task, key)
    for stage in run.stages:
        if stage.name in points:
            index = run.series(stage)
            x, y = zip(*points[stage.name], strict=True)
            bands = intervals_at_k(stage, task) if key == "pass_at_k" else {}
            banded = [k for k in x if k in bands]
            low, high = [bands[k][0] for k in banded], [bands[k][1] for k in banded]
            axes.fill_between(banded, low, high, color=theme.series(index), alpha=0.16, linewidth=0)
            drawn: dict[str, Any] = {"color": theme.series(index), "marker": marker(index), "linestyle": dashes(index)}
            axes.plot(x, y, markersize=6, linewidth=2, clip_on=False, **drawn)
    ticks = sorted({k for pairs in points.values() for k, _ in pairs})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.minorticks_off()
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("samples k", color=theme["muted"], fontsize=9, labelpad=4)
    figure.subplots_adjust(left=0.42 / width, right=1 - 0.15 / width, top=1 - 0.12 / height, bottom=0.52 / height)
    return figure


def intervals_at_k(stage: Stage, task: str) -> dict[int, tuple[float, float]]:
    """The 95% interval of pass@k by k, where the evaluation has them."""
    found = {}
    for k, bounds in mapping(stage.evaluation.get(task, {}).get("pass_at_k_intervals")).items():
        low, high = (
            (number(bound) for bound in bounds) if isinstance(bounds, list) and len(bounds) == 2 else (None, None)
        )
        if str(k).isdigit() and low is not None and high is not None:
            found[int(k)] = (low, high)
    return found


def subtasks(run: Run, task: str, key: str = "by_task") -> list[str]:
    """The names of the groups of a task's prompts, by kind (``by_task``) or by level (``by_level``)."""
    found = [mapping(stage.evaluation.get(task, {}).get(key)) for stage in run.stages]
    return list(dict.fromkeys(name for entry in found for name in entry))


def subtask_figure(run: Run, task: str, theme: Theme, width: float = 9.4, key: str = "by_task") -> "Figure":
    """Accuracy of every stage on every group of prompts: points with whiskers, a row a group."""
    rows = subtasks(run, task, key)
    stages = run.evaluated(task)
    height = 0.55 + 0.2 * len(rows) * (len(stages) + 0.8)
    figure, axes = new_figure(width, height)
    style(axes, theme)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=theme["grid"], linewidth=0.8)
    for row, name in enumerate(rows):
        for order, stage in enumerate(stages):
            numbers = mapping(mapping(stage.evaluation[task].get(key)).get(name))
            place = row - 0.5 + (order + 0.9) / (len(stages) + 0.8)
            _whisker_point(axes, theme, run.series(stage), place, numbers)
        if row:
            axes.axhline(row - 0.5, color=theme["grid"], linewidth=0.8)
    axes.set_yticks(range(len(rows)), [_short(name) for name in rows])
    axes.tick_params(axis="y", labelsize=10, labelcolor=theme["ink"])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(-0.01, 1.02)
    left = min(2.2, 0.3 + 0.085 * max(len(_short(name)) for name in rows))
    figure.subplots_adjust(left=left / width, right=1 - 0.15 / width, top=1 - 0.08 / height, bottom=0.36 / height)
    return figure


def _short(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"


def _whisker_point(axes: "Axes", theme: Theme, series: int, y: float, numbers: dict[str, Any]) -> None:
    accuracy, low, high = (number(numbers.get(key)) for key in ("accuracy", "low", "high"))
    if accuracy is None:
        return
    if low is not None and high is not None:
        axes.hlines(y, low, high, color=theme.series(series), linewidth=1.6, clip_on=False)
    axes.plot([accuracy], [y], marker=marker(series), color=theme.series(series), markersize=6, clip_on=False)


def difference_alt(found: list[Difference]) -> str:
    parts = [f"{d.after} minus {d.before}: {signed(d.difference)} ({signed(d.low)} to {signed(d.high)})" for d in found]
    return f"Differences in accuracy with 95% intervals: {'; '.join(parts) or MISSING}."


def difference_figure(found: list[Difference], theme: Theme, width: float = 4.4) -> "Figure":
    """Paired differences with their intervals around the line of no difference."""
    height = 0.6 + 0.52 * len(found)
    figure, axes = new_figure(width, height)
    style(axes, theme)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=theme["grid"], linewidth=0.8)
    axes.axvline(0, color=theme["ink"], linewidth=1.2, linestyle="--")
    for row, entry in enumerate(found):
        axes.hlines(row, entry.low, entry.high, color=theme["series-1"], linewidth=2.4)
        axes.plot([entry.difference], [row], marker="o", color=theme["series-1"], markersize=7)
    axes.set_yticks(range(len(found)), [f"{d.after}\nagainst {d.before}" for d in found])
    axes.tick_params(axis="y", labelsize=9, labelcolor=theme["ink"])
    axes.set_ylim(len(found) - 0.5, -0.5)
    reach = max(0.05, *(max(abs(d.low), abs(d.high)) for d in found)) * 1.1
    axes.set_xlim(-reach if min(d.low for d in found) < 0 else -reach * 0.12, reach)
    left = 0.25 + 0.075 * max(max(len(d.after), len(d.before) + 8) for d in found)
    figure.subplots_adjust(left=left / width, right=1 - 0.15 / width, top=1 - 0.08 / height, bottom=0.36 / height)
    return figure
