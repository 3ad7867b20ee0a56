"""Learning curves: which metrics of a stage are drawn, in which order, and how."""

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from trivium.report.canvas import SERIES, Theme, marker, new_figure, style
from trivium.report.loading import Stage, number
from trivium.report.wording import clean, decimal, flatten, title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_POINTS = 400
FEW = 12  # points that are marked one by one
SMOOTH_FROM = 60  # points from which a running mean is laid over the raw line

# metric (or prefix ending in a slash): title, unit or reading
MAIN = {
    "reward": ("Reward", "mean over rollouts"),
    "accuracy": ("Accuracy while training", "share right"),
    "pair_accuracy": ("Pairs in order", "share of pairs"),
    "loss": ("Loss", "nats per token"),
    "bits_per_byte": ("Bits per byte", "held-out text"),
    "reward/": ("Parts of the reward", "mean over rollouts"),
    "kl": ("KL to the reference", "nats per token"),
    "entropy": ("Entropy", "nats per token"),
    "response_length": ("Response length", "tokens"),
    "curriculum/level": ("Curriculum: highest open level", "level"),
    "curriculum/": ("Curriculum: prompts", "number"),
    "groups_without_spread": ("Groups without spread", "share of groups"),
    "clip_share": ("Clip share", "share of tokens"),
    "truncated_share": ("Truncated responses", "share"),
    "status/": ("Verdict status", "rollouts by status"),
    "monitor/": ("Monitors", "mean, nothing learns from them"),
    "majority/": ("Majority vote", "share"),
    "judge/": ("Judge without a verdict", "share of its calls"),
}
# Of DPO some of them mean other things, and what belongs together is drawn together.
DPO = {
    "loss": ("Loss", "mean over what was ranked"),
    "accuracy": ("Pairs in order", "share of pairs"),
    "margin": ("Margin", "implicit reward of chosen less rejected"),
    "*_reward": ("Implicit rewards", "β × log-ratio to the reference"),
    "kl": ("KL to the start", "nats a response, by sampling"),
    "*_log_prob": ("Log-probabilities", "of the chosen and the rejected answer"),
    "response_length": ("Response length", "tokens, of its own answers"),
    "*_length": ("Length of what is learned from", "tokens"),
    "nll": ("Imitation of the best answers", "nats a token"),
}
NOT_CURVES = {"step", "split"}


@dataclass(frozen=True)
class Curve:
    """One line: ``points`` are (step, value); ``series`` picks colour and marker."""

    name: str
    points: list[tuple[float, float]]
    series: int
    validation: bool = False


@dataclass(frozen=True)
class CurveChart:
    title: str
    unit: str
    curves: list[Curve]
    main: bool
    over: str = "steps"

    @property
    def alt(self) -> str:
        parts = [f"{c.name} from {decimal(c.points[0][1])} to {decimal(c.points[-1][1])}" for c in self.curves]
        return f"Line chart of {self.title.lower()} over {self.over}: {'; '.join(parts)}."


def charts(stage: Stage, series: int) -> list[CurveChart]:
    """The charts of a stage, the telling ones first; ``series`` is the colour of the stage."""
    table = _columns(stage)
    found: list[CurveChart] = []
    used: set[str] = set()
    for key, (name, unit) in (DPO | (MAIN | DPO) if stage.kind == "dpo" else MAIN).items():
        metrics = [m for m in table if _belongs(m, key) and m not in used]
        used.update(metrics)
        if not metrics or (key == "reward/" and len(metrics) < 2):
            continue
        # The loss of RL is no measure of progress: it goes to the smaller charts.
        main = not (key == "loss" and stage.kind == "rl")
        unit = unit if main else "objective"
        found.append(CurveChart(name, unit, _curves(table, metrics, key, series), main))
    for metric in table:
        if metric not in used:
            found.append(CurveChart(title(metric), "", _curves(table, [metric], metric, series), main=False))
    return found


def _belongs(metric: str, key: str) -> bool:
    """A key names one metric, ``reward/`` all that start so, ``*_reward`` all that end so."""
    if key.startswith("*"):
        return metric.endswith(key[1:])
    return metric == key or (key.endswith("/") and metric.startswith(key))


def _columns(stage: Stage) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """metric -> split -> points, in the order of the file."""
    table: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for line in stage.metrics:
        step, split = number(line["step"]), str(line.get("split", "train"))
        for metric, value in flatten(line).items():
            if metric not in NOT_CURVES and step is not None:
                table.setdefault(metric, {}).setdefault(split, []).append((step, float(value)))
    return table


def _curves(
    table: dict[str, dict[str, list[tuple[float, float]]]], metrics: list[str], key: str, series: int
) -> list[Curve]:
    several = len(metrics) > 1
    curves = []
    for position, metric in enumerate(metrics):
        name = _part(metric, key)
        for split, points in table[metric].items():
            validation = split != "train"
            if validation and several:
                continue  # one line a part: the parts are compared with each other
            label = "held out" if validation else name or "training"
            curves.append(Curve(label, thin(points), position if several else series, validation))
    return curves or [Curve(metrics[0], thin(next(iter(table[metrics[0]].values()))), series)]


def _part(metric: str, key: str) -> str:
    """What a metric is called among those of its chart.

    >>> _part("status/ok", "status/"), _part("chosen_reward", "*_reward"), _part("loss", "loss")
    ('ok', 'chosen', '')
    """
    if key.startswith("*"):
        return clean(title(metric.removesuffix(key[1:])).lower(), 40)
    return clean(metric.removeprefix(key), 40) if key.endswith("/") else ""


def thin(points: list[tuple[float, float]], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """At most ``most`` points: means over equal stretches, at the last step of each. Steps run twice keep the last."""
    ordered = sorted(dict(points).items())
    if len(ordered) <= most:
        return ordered
    edges = [len(ordered) * i // most for i in range(most + 1)]
    return [
        (ordered[end - 1][0], sum(value for _, value in ordered[start:end]) / (end - start))
        for start, end in pairwise(edges)
    ]


def running_mean(values: list[float], window: int) -> list[float]:
    """Centred mean over ``window`` values, over fewer at the ends."""
    half = window // 2
    parts = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in parts]


def curve_figure(chart: CurveChart, theme: Theme, width: float = 3.3, height: float = 1.9) -> "Figure":
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure(width, height)
    style(axes, theme)
    values = []
    for curve in chart.curves:
        x, y = [step for step, _ in curve.points], [value for _, value in curve.points]
        values += y
        colour = theme["ink"] if curve.validation else theme.series(curve.series)
        if curve.validation or len(y) == 1:
            shape = "o" if curve.validation else marker(curve.series)
            face = theme["surface"] if curve.validation else colour
            axes.plot(x, y, color=colour, marker=shape, markersize=4, markerfacecolor=face, linewidth=1.2, zorder=3)
        elif len(y) >= SMOOTH_FROM:
            axes.plot(x, y, color=colour, linewidth=0.8, alpha=0.35)
            axes.plot(x, running_mean(y, len(y) // 15), color=colour, linewidth=1.9)
        else:
            points = marker(curve.series) if len(y) <= FEW else None
            dashes = _dashes(curve.series, len(chart.curves))
            axes.plot(x, y, color=colour, linewidth=1.7, linestyle=dashes, marker=points, markersize=4.5)
    low, high = min(values), max(values)
    axes.set_ylim(*_limits(low, high))
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(tick)
    figure.subplots_adjust(left=0.5 / width, right=1 - 0.12 / width, top=1 - 0.1 / height, bottom=0.28 / height)
    return figure


def _limits(low: float, high: float) -> tuple[float | None, float | None]:
    """The range of the vertical axis; None leaves a bound to the data.

    What is never negative starts at 0 where it comes near, so a share that is always 0 shows as a line on the axis
    and not in the middle of impossible values.
    """
    if low >= 0 and (low < 0.6 * high or low == high):
        return 0, 1.08 * high or 1
    return (1.08 * low, 0) if low == high else (None, None)


def _dashes(series: int, curves: int) -> str:
    """Several lines in one chart differ in dashes too, so that colour is not all that tells them apart."""
    return ("-", "--", "-.", ":")[series % 4] if curves > 2 and series < len(SERIES) else "-"


def tick(value: float, _position: float) -> str:
    """The label of a tick, in at most six characters.

    >>> [tick(value, 0) for value in (0, 0.25, 12000, -0.5, 0.00025)]
    ['0', '0.25', '12k', '−0.5', '2.5e−4']
    """
    size = abs(value)
    if size >= 1e4:
        text = f"{value / 1e3:g}k" if size < 1e6 else f"{value / 1e6:g}M"
    elif 0 < size < 0.00095:
        mantissa, exponent = f"{value:.1e}".split("e")
        text = f"{float(mantissa):g}e{int(exponent)}"
    else:
        text = f"{value:.3g}"
    return text.replace("-", "\u2212")
