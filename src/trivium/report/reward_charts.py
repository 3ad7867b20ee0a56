"""The charts of a reward model: is its certainty deserved, and on which pairs is it right."""

from typing import TYPE_CHECKING, Any

from trivium.report.canvas import Theme, new_figure, style
from trivium.report.loading import number
from trivium.report.wording import decimal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE = "series-1"


def reliability_alt(bins: list[dict[str, Any]]) -> str:
    parts = [f"said {decimal(entry['predicted'], 2)}, was {decimal(entry['observed'], 2)}" for entry in bins]
    return f"Reliability plot, predicted against observed share of preferred answers: {'; '.join(parts)}."


def reliability_figure(bins: list[dict[str, Any]], theme: Theme, width: float = 3.3, height: float = 2.6) -> "Figure":
    """Predicted against observed share; the area of a point is the number of pairs. On the line it is calibrated."""
    figure, axes = _axes(theme, width, height)
    ends = [min(entry["predicted"] for entry in bins), max(entry["predicted"] for entry in bins)]
    low = 0.0 if min(ends[0], *(entry["observed"] for entry in bins)) < 0.45 else 0.4
    axes.plot([low, 1], [low, 1], color=theme["ink"], linewidth=1.1, linestyle="--")
    most = max(entry["n"] for entry in bins)
    x, y = [entry["predicted"] for entry in bins], [entry["observed"] for entry in bins]
    axes.plot(x, y, color=theme[_BLUE], linewidth=1.4)
    axes.scatter(x, y, s=[12 + 70 * entry["n"] / most for entry in bins], color=theme[_BLUE], zorder=3, linewidths=0)
    axes.set_xlim(low, 1.02)
    axes.set_ylim(low, 1.02)
    axes.set_xlabel("predicted", color=theme["muted"], fontsize=9, labelpad=3)
    return figure


def margin_alt(bins: list[dict[str, Any]]) -> str:
    parts = [f"{_range(entry)} {decimal(entry['accuracy'], 2)} of {decimal(int(entry['n']))}" for entry in bins]
    return f"Pair accuracy by difference of the two scores: {'; '.join(parts)}."


def margin_figure(bins: list[dict[str, Any]], theme: Theme, width: float = 3.3, height: float = 2.6) -> "Figure":
    """Accuracy of pairs by how far apart the model scores them; it should rise."""
    figure, axes = _axes(theme, width, height)
    places = range(len(bins))
    axes.bar(places, [entry["accuracy"] for entry in bins], width=0.66, color=theme[_BLUE], zorder=2, linewidth=0)
    axes.axhline(0.5, color=theme["ink"], linewidth=1.1, linestyle="--", zorder=3)
    for place, entry in zip(places, bins, strict=True):
        axes.annotate(
            f"{entry['accuracy']:.2f}",
            (place, entry["accuracy"]),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8.5,
            color=theme["ink"],
            bbox={"facecolor": theme["surface"], "edgecolor": "none", "pad": 0.6},
            zorder=4,
        )
    axes.set_xticks(places, [_range(entry) for entry in bins])
    axes.tick_params(axis="x", labelsize=8 if len(bins) > 4 else 9)
    axes.set_ylim(0, 1.12)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.50", "0.75", "1"])
    axes.set_xlabel("difference of the scores", color=theme["muted"], fontsize=9, labelpad=3)
    return figure


def _range(entry: dict[str, Any]) -> str:
    """The bounds of a bin; the last one may be open.

    >>> _range({"low": 0.5, "high": 1.0}), _range({"low": 2.0, "high": None})
    ('0.5–1.0', '≥ 2.0')
    """
    low, high = number(entry.get("low")) or 0.0, number(entry.get("high"))
    return f"≥ {_bound(low)}" if high is None else f"{_bound(low)}–{_bound(high)}"


def _bound(value: float) -> str:
    return f"{value:.1f}" if value >= 0.095 else f"{value:.1g}" if value >= 0.01 else "0"


def _axes(theme: Theme, width: float, height: float) -> "tuple[Figure, Axes]":
    figure, axes = new_figure(width, height)
    style(axes, theme)
    figure.subplots_adjust(left=0.42 / width, right=1 - 0.15 / width, top=1 - 0.1 / height, bottom=0.5 / height)
    return figure, axes
