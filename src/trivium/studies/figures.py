"""The figures of a study: arms as dots, arms on an axis as lines, gold against proxy with the fitted forms."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from trivium.evaluation.overoptimisation import value
from trivium.report.canvas import Theme, marker, style
from trivium.report.curves import tick
from trivium.report.panels import end_labels, heading
from trivium.report.wording import decimal, signed
from trivium.studies.analysis import Analysis, Label, Measure
from trivium.studies.fits import CurveFit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Draw = Callable[[Analysis, Theme, float], "Figure"]
WIDE, NARROW = 9.4, 3.5  # inches
ROW = 0.38  # inches for a row of dots
STATES = {"failed": "failed", "out_of_budget": "out of budget", "missing": "no result"}


def figures_of(analysis: Analysis) -> dict[str, Draw]:
    """The figures that the study has something for, the main one first: ``curves``, ``lines``, ``dots``."""
    shown = [measure for measure in analysis.measures if not measure.derived]
    found: dict[str, Draw] = {}
    if any(curve.points for curve in analysis.fits):
        found["curves"] = curves_figure
    measured = any(measure.means for measure in shown)
    if measured and len({label.x for label in analysis.on_axis}) > 1:
        found["lines"] = lines_figure
    elif measured:
        found["dots"] = dots_figure
    return found


def alt(analysis: Analysis, name: str) -> str:
    """The figure in words, for those who do not see it."""
    if name == "curves":
        parts = []
        for curve in analysis.fits:
            ends = [points[-1]["gold"] for points in curve.points.values() if "gold" in points[-1]]
            if ends:
                parts.append(f"{curve.label} ({curve.curve}) ends at a gold gain of {signed(sum(ends) / len(ends), 3)}")
        return f"Gold and proxy gains against the square root of the KL: {'; '.join(parts)}."
    parts = [
        f"{measure.title}: " + ", ".join(f"{label} {decimal(mean.estimate)}" for label, mean in measure.means.items())
        for measure in analysis.measures
        if not measure.derived
    ]
    return f"Means over seeds with 95% intervals. {'; '.join(parts)}."


def grid(width: float, panels: int, columns: int, height: float, theme: Theme, **edges: float) -> "tuple[Figure, Any]":
    """A figure of ``panels`` axes, ``height`` inches each; ``edges`` (left, right …) are inches too."""
    from matplotlib.figure import Figure

    rows = math.ceil(panels / columns)
    total = edges["top"] + rows * height + (rows - 1) * edges["between"] + edges["bottom"]
    figure = Figure(figsize=(width, total))
    each = (width - edges["left"] - edges["right"] - (columns - 1) * edges["gap"]) / columns
    found = []
    for panel in range(panels):
        row, column = divmod(panel, columns)
        x = edges["left"] + column * (each + edges["gap"])
        y = total - edges["top"] - (row + 1) * height - row * edges["between"]
        axes = figure.add_axes((x / width, y / total, each / width, height / total))
        style(axes, theme)
        found.append(axes)
    return figure, found


def dots_figure(analysis: Analysis, theme: Theme, width: float = WIDE) -> "Figure":
    """A panel a measure, a row a label: the mean over seeds with its interval, and below it each seed as a faint dot.

    A label without a number keeps its row, struck out, with what became of it.
    """
    measures = [measure for measure in analysis.measures if not measure.derived]
    labels = analysis.labels
    names = [_row_name(label, width) for label in labels]
    left = 0.3 + 0.078 * max(map(len, names))
    columns = min(len(measures), 3) if width > 5 else 1
    edges = {"left": left, "right": 0.5, "top": 0.34, "bottom": 0.34, "gap": 0.62, "between": 0.74}
    height = ROW * (len(labels) + 0.4)
    figure, panels = grid(width, len(measures), columns, height, theme, **edges)
    for place, (axes, measure) in enumerate(zip(panels, measures, strict=True)):
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", color=theme["grid"], linewidth=0.8)
        heading(axes, measure.title, theme)
        for row, label in enumerate(labels):
            _dot(axes, theme, row, label, measure, analysis)
        axes.set_ylim(len(labels) - 0.5, -0.7)
        axes.margins(x=0.06)
        axes.locator_params(axis="x", nbins=5)
        axes.xaxis.set_major_formatter(tick)
        first = place % columns == 0
        axes.set_yticks(range(len(labels)), names if first else [""] * len(labels))
        axes.tick_params(axis="y", labelsize=10, labelcolor=theme["ink"])
        if first:
            for text, label in zip(axes.get_yticklabels(), labels, strict=True):
                if not any(label.name in one.means for one in measures):
                    text.set_color(theme["muted"])
                    _strike(axes, theme, labels.index(label), len(text.get_text()))
    return figure


def _row_name(label: Label, width: float) -> str:
    total = sum(label.states.values())
    part = f" ({total - label.missing} of {total} seeds)" if 0 < label.missing < total else ""
    return short(label.name, width - len(part) * 0.06) + part


def short(name: str, width: float) -> str:
    """``name`` with no more letters than leave room for a figure in ``width`` inches.

    >>> short("best of n", 3.5), short("x" * 50, 3.5)
    ('best of n', 'xxxxxxxxxxxxxxxxxxxxxxx…')
    """
    most = int(7 * width)
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _strike(axes: "Axes", theme: Theme, row: int, letters: int) -> None:
    """A line through the name of a row, which ends at the left edge of the panel."""
    length = (0.068 * letters) / (axes.get_position().width * axes.figure.get_figwidth())  # type: ignore[union-attr]
    end = -0.07 / (axes.get_position().width * axes.figure.get_figwidth())  # type: ignore[union-attr]
    across = axes.get_yaxis_transform()
    axes.plot([end - length, end], [row, row], color=theme["muted"], linewidth=1.2, transform=across, clip_on=False)


def _dot(axes: "Axes", theme: Theme, row: int, label: Label, measure: Measure, analysis: Analysis) -> None:
    mean = measure.means.get(label.name)
    if mean is None:
        states = [STATES[state] for state in label.states if state in STATES] or ["not measured"]
        across = axes.get_yaxis_transform()
        axes.text(0.02, row, ", ".join(states), va="center", fontsize=9, color=theme["muted"], transform=across)
        return
    series = analysis.models.index(label.model) if len(analysis.models) < len(analysis.labels) else 0
    colour = theme.series(series + 1)
    seeds = [found for seed in measure.values[label.name] if (found := measure.of_seed(label.name, seed)) is not None]
    axes.plot(seeds, [row + 0.27] * len(seeds), "o", color=colour, alpha=0.4, markersize=3.5, markeredgewidth=0)
    if mean.low is not None and mean.high is not None:
        axes.hlines(row, mean.low, mean.high, color=colour, linewidth=2)
    ended = "ended_by_budget" in label.states
    face = theme["surface"] if ended else colour
    axes.plot([mean.estimate], [row], marker(series), color=colour, markersize=7, markerfacecolor=face)
    axes.annotate(
        decimal(mean.estimate, 2),
        (1, row),
        xycoords=axes.get_yaxis_transform(),
        xytext=(7, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color=theme["ink"],
        annotation_clip=False,
    )


def lines_figure(analysis: Analysis, theme: Theme, width: float = WIDE) -> "Figure":
    """A panel a measure: means over seeds along the axis, one line a model, with a band; seeds as faint points."""
    measures = [measure for measure in analysis.measures if not measure.derived]
    columns = min(len(measures), 2) if width > 5 else 1
    models = list(dict.fromkeys(label.model for label in analysis.on_axis))
    right = 0.3 + 0.075 * max(len(short(model, width)) for model in models)
    lost = [label for label in analysis.on_axis if label.missing]
    bottom = 0.62 + 0.2 * len(lost)
    edges = {"left": 0.46, "right": right, "top": 0.34, "bottom": bottom, "gap": right + 0.46, "between": 0.95}
    figure, panels = grid(width, len(measures), columns, 2.7 if width > 5 else 2.3, theme, **edges)
    for axes, measure in zip(panels, measures, strict=True):
        heading(axes, measure.title, theme)
        ends = []
        for series, model in enumerate(models):
            labels = [one for one in analysis.on_axis if one.model == model]
            if any(one.name in measure.means for one in labels):
                ends.append(_line(axes, theme, series, labels, measure))
        axes.set_xlabel(str(analysis.study.get("axis") or "x"), color=theme["muted"], fontsize=9, labelpad=4)
        axes.set_xticks(sorted({label.x for label in analysis.on_axis if label.x is not None}))
        axes.xaxis.set_major_formatter(tick)
        axes.yaxis.set_major_formatter(tick)
        axes.locator_params(axis="y", nbins=5)
        end_labels(axes, ends, theme)
    _lost(figure, theme, lost)
    return figure


def _line(
    axes: "Axes", theme: Theme, series: int, labels: Sequence[Label], measure: Measure
) -> tuple[float, float, str, str]:
    """One model's line, with a gap where a label has no number; returns what its end is called."""
    colour = theme.series(series + 1)
    x = [label.x or 0.0 for label in labels]
    means = [measure.means.get(label.name) for label in labels]
    bounds = [(math.nan, math.nan) if mean is None or mean.low is None else (mean.low, mean.high) for mean in means]
    low, high = zip(*bounds, strict=True)
    axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)  # type: ignore[arg-type]
    gaps = [True, *map(math.isnan, low), True]
    for place in range(len(x)):
        if gaps[place] and gaps[place + 2] and not gaps[place + 1]:  # it has no neighbour, and so no band
            axes.vlines(x[place], low[place], high[place], color=colour, linewidth=2)
    for at_x, label in zip(x, labels, strict=True):
        seeds = [measure.of_seed(label.name, seed) for seed in measure.values.get(label.name, {})]
        axes.plot([at_x] * len(seeds), seeds, "o", color=colour, alpha=0.3, markersize=3.5, markeredgewidth=0)  # type: ignore[arg-type]
    estimates = [math.nan if mean is None else mean.estimate for mean in means]
    dashes = ("-", "--", "-.", ":")[series % 4]
    axes.plot(x, estimates, color=colour, linewidth=2, linestyle=dashes)
    for at_x, estimate, label in zip(x, estimates, labels, strict=True):
        face = theme["surface"] if "ended_by_budget" in label.states else colour
        axes.plot([at_x], [estimate], marker(series), color=colour, markersize=6, markerfacecolor=face)
    last = max(place for place, mean in enumerate(means) if mean is not None)
    width = axes.figure.get_figwidth()  # type: ignore[union-attr]
    return x[last], estimates[last], short(labels[0].model, width), colour


def _lost(figure: "Figure", theme: Theme, labels: Sequence[Label]) -> None:
    """Labels that lack seeds, below the figure; struck out where they have none at all."""
    height, width = figure.get_figheight(), figure.get_figwidth()
    for row, label in enumerate(labels):
        y = (0.12 + 0.2 * (len(labels) - 1 - row)) / height
        total = sum(label.states.values())
        words = ", ".join(f"{n} of {total} {STATES[state]}" for state, n in label.states.items() if state in STATES)
        name = short(label.name, width)
        figure.text(0.14 / width, y, f"{name}: {words}", fontsize=9, color=theme["muted"], va="center")
        if label.missing == total:
            from matplotlib.lines import Line2D

            end = (0.14 + 0.06 * len(name)) / width
            figure.add_artist(Line2D([0.14 / width, end], [y, y], color=theme["muted"], linewidth=1.2))


def curves_figure(analysis: Analysis, theme: Theme, width: float = WIDE) -> "Figure":
    """A panel a curve and label: gold gains (means over seeds, each seed faint), the fitted form, and the proxy."""
    names = list(dict.fromkeys(curve.curve for curve in analysis.fits))
    shown = [curve for name in names for curve in analysis.fits if curve.curve == name]
    most = max(sum(curve.curve == name for curve in shown) for name in names)
    columns = min(most, 5 if width > 5 else 2)
    lost = [label for label in analysis.labels if label.missing]
    bottom = 0.6 + 0.2 * len(lost)
    edges = {"left": 0.78, "right": 0.12, "top": 0.62, "bottom": bottom, "gap": 0.2, "between": 0.68}
    height = 1.75 if columns > 2 or width < 5 else 2.4
    # Each curve begins a row of its own.
    places: list[int] = []
    for name in names:
        start = math.ceil((places[-1] + 1) / columns) * columns if places else 0
        places += [start + i for i in range(sum(curve.curve == name for curve in shown))]
    figure, panels = grid(width, places[-1] + 1, columns, height, theme, **edges)
    for unused in set(range(len(panels))) - set(places):
        panels[unused].set_axis_off()
    for name in names:
        _curve_block(
            [(panels[place], curve) for place, curve in zip(places, shown, strict=True) if curve.curve == name],
            theme,
            name if len(names) > 1 else "",
            columns,
        )
    _legend(figure, theme)
    _lost(figure, theme, lost)
    return figure


def _curve_block(block: "list[tuple[Axes, CurveFit]]", theme: Theme, name: str, columns: int) -> None:
    """The panels of one curve, on common axes. A proxy of a much larger scale is divided by a round number."""
    divisor = _divisor([curve for _, curve in block])
    lows, highs, reach = [0.0], [0.0], 0.1
    for axes, curve in block:
        low, high = _curve(axes, theme, curve, divisor)
        lows.append(low)
        highs.append(high)
        reach = max(reach, math.sqrt(curve.largest_kl))
    room = 0.08 * (max(highs) - min(lows) or 1.0)
    for place, (axes, curve) in enumerate(block):
        axes.set_xlim(0, reach * 1.04)
        axes.set_ylim(min(lows) - room, max(highs) + room)
        axes.locator_params(nbins=4)
        axes.xaxis.set_major_formatter(tick)
        axes.yaxis.set_major_formatter(tick)
        heading(axes, short(curve.label, NARROW), theme)
        if place == 0:
            divided = f"\nproxy ÷ {divisor:g}" if divisor > 1 else ""
            axes.set_ylabel(f"{name or 'gain'}{divided}", color=theme["muted"], fontsize=9, labelpad=3)
        axes.set_xlabel("d = √KL", color=theme["muted"], fontsize=9, labelpad=2)
        if place % columns:
            axes.tick_params(axis="y", labelleft=False)


def _divisor(curves: Sequence[CurveFit]) -> float:
    """1, or 2, 5, 10, 20 …: what the proxy is divided by so that gold can be seen beside it."""
    every = [point for curve in curves for points in curve.points.values() for point in points]
    gold = max((abs(point["gold"]) for point in every if "gold" in point), default=0.0)
    proxy = max((abs(point["proxy"]) for point in every if "proxy" in point), default=0.0)
    if not gold or proxy <= 2.5 * gold:
        return 1.0
    power = 10 ** math.floor(math.log10(proxy / gold))
    return float(max(1, *(step * power for step in (1, 2, 5) if step * power <= proxy / gold)))


def _curve(axes: "Axes", theme: Theme, curve: CurveFit, divisor: float) -> tuple[float, float]:
    """One panel; returns the least and greatest value in it."""
    axes.axhline(0, color=theme["muted"], linewidth=0.8)
    drawn = [0.0]
    for key, series, scale, filled in (("proxy", 2, divisor, False), ("gold", 1, 1.0, True)):
        colour = theme.series(series)
        seeds = [[(math.sqrt(p["kl"]), p[key] / scale) for p in points if key in p] for points in curve.points.values()]
        every = [point for points in seeds for point in points]
        drawn += [y for _, y in every]
        # Seeds that share their KL (best-of-n) have a mean at each; along training each seed has its own.
        common = len(seeds) > 1 and len({tuple(round(d, 9) for d, _ in points) for points in seeds}) == 1
        mean = (
            [(column[0][0], sum(y for _, y in column) / len(column)) for column in zip(*seeds, strict=True)]
            if common
            else []
        )
        faint = 0.35 if mean else 0.5
        face = colour if filled else theme["surface"]
        size = 3.5
        for points, alpha, diameter in ((every, faint, size), (mean, 1.0, 5.0)):
            if points:
                x, y = zip(*points, strict=True)
                axes.plot(x, y, marker(series), color=colour, alpha=alpha, markersize=diameter, markerfacecolor=face)
    if curve.form in curve.alpha:
        # one seed that went much further than the others says nothing of theirs
        end = math.sqrt(statistics.median(max(point["kl"] for point in points) for points in curve.points.values()))
        along = [end * i / 80 for i in range(81)]
        gains = value(curve.form, curve.alpha[curve.form].estimate, curve.beta[curve.form].estimate, along)
        axes.plot(along, gains, color=theme["ink"], linewidth=1.6, zorder=4)
        drawn += gains
    return min(drawn), max(drawn)


def _legend(figure: "Figure", theme: Theme) -> None:
    from matplotlib.lines import Line2D

    gold, proxy = theme.series(1), theme.series(2)
    handles = [
        Line2D([], [], color=gold, marker=marker(1), linestyle="none", markersize=5),
        Line2D([], [], color=theme["ink"], linewidth=1.6),
        Line2D([], [], color=proxy, marker=marker(2), linestyle="none", markersize=5, markerfacecolor=theme["surface"]),
    ]
    found = figure.legend(
        handles,
        ["gold gain", "fitted form", "proxy gain"],
        loc="upper left",
        ncols=3,
        frameon=False,
        fontsize=9,
        borderaxespad=0.2,
        handletextpad=0.4,
        columnspacing=1.2,
    )
    for text in found.get_texts():
        text.set_color(theme["ink"])
