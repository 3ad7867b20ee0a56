"""Charts in panels that share an axis: the over-optimisation watch, scores against the KL, best-of-n."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trivium.evaluation.overoptimisation import value
from trivium.report.canvas import Theme, marker, style
from trivium.report.curves import tick
from trivium.report.loading import number
from trivium.report.overoptimisation import COLOURS, NAMES, AgainstKL, Watched
from trivium.report.wording import decimal, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NARROW = 5  # inches; below it, a phone


def panels(
    width: float,
    heights: Sequence[float],
    theme: Theme,
    gap: float = 0.42,
    top_margin: float = 0.3,
    right: float | None = None,
) -> "tuple[Figure, list[Axes]]":
    """A figure of stacked axes with ``heights`` in inches that share their x axis; ``gap`` inches between them.

    ``right``: inches for what stands beside the ends of the lines; default: room for names.
    """
    from matplotlib.figure import Figure

    total = sum(heights) + gap * (len(heights) - 1) + top_margin + 0.5
    figure = Figure(figsize=(width, total))
    found: list[Axes] = []
    top = total - top_margin
    # the longest name is "Held-out score +1.34"
    margin = ((1.1 if width < NARROW else 1.6) if right is None else right) / width
    for height in heights:
        left = 0.46 / width
        box = (left, (top - height) / total, 1 - left - margin, height / total)
        axes = figure.add_axes(box, sharex=found[0] if found else None)
        style(axes, theme)
        axes.tick_params(labelbottom=False)
        axes.spines["bottom"].set_visible(False)
        found.append(axes)
        top -= height + gap
    found[-1].tick_params(labelbottom=True)
    found[-1].spines["bottom"].set_visible(True)
    return figure, found


def watch_alt(found: Watched) -> str:
    parts = [f"{score.name} {signed(score.points[-1][1])}" for score in found.scores]
    if found.kl:
        parts.append(f"KL {decimal(found.kl[-1][1])} nats a response")
    if found.length:
        parts.append(f"length {decimal(found.length[-1][1])} tokens")
    kept = f"; step {found.kept} was kept" if found.kept is not None else ""
    return f"Line chart over training steps of the change since the start, ending at: {', '.join(parts)}{kept}."


def watch_figure(found: Watched, theme: Theme, width: float = 9.4) -> "Figure":
    """The scores as changes since the start; below them KL and length, over the same steps."""
    from matplotlib.ticker import MaxNLocator

    extra = [
        (title, points)
        for title, points in (("KL, nats a response", found.kl), ("Length, tokens", found.length))
        if len(points) > 1
    ]
    narrow = width < NARROW
    figure, axes = panels(width, [2.3 if narrow else 2.9, *[0.75] * len(extra)], theme, top_margin=0.45)
    _scores(axes[0], found, theme, narrow)
    for panel, (title, points) in zip(axes[1:], extra, strict=True):
        x, y = zip(*points, strict=True)
        panel.plot(x, y, color=theme["muted"], linewidth=1.6, marker="o", markersize=3)
        panel.yaxis.set_major_locator(MaxNLocator(2, steps=[1, 2, 2.5, 5, 10]))
        panel.yaxis.set_major_formatter(tick)
        panel.set_ylim(min(0.0, *y) if title.startswith("KL") else None, None)
        heading(panel, title, theme)
        end_labels(panel, [(x[-1], y[-1], decimal(y[-1], 2), theme["ink"])], theme)
    for panel in axes:
        _marks(panel, found, theme, labelled=panel is axes[0], narrow=narrow)
    axes[-1].xaxis.set_major_locator(MaxNLocator(5 if narrow else 8, integer=True, steps=[1, 2, 5, 10]))
    axes[-1].set_xlabel("training step", color=theme["muted"], fontsize=9, labelpad=4)
    axes[0].set_xlim(min(p.points[0][0] for p in found.scores), found.last)
    return figure


def _scores(axes: "Axes", found: Watched, theme: Theme, narrow: bool) -> None:
    axes.axhline(0, color=theme["muted"], linewidth=0.8)
    ends = []
    for score in found.scores:
        colour = theme.series(COLOURS[score.key])
        x, y, errors = (list(column) for column in zip(*score.points, strict=True))
        if any(errors):
            low, high = ([value + sign * e for value, e in zip(y, errors, strict=True)] for sign in (-1, 1))
            axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
        shape = marker(COLOURS[score.key])
        dashes = "--" if score.key == "proxy" else "-"
        axes.plot(x, y, color=colour, linewidth=2, marker=shape, markersize=4.5, linestyle=dashes, clip_on=False)
        name = score.name.removesuffix(" score") if narrow else score.name
        ends.append((x[-1], y[-1], f"{name} {signed(y[-1])}", colour))
        if score.key == found.judge and found.best is not None and found.best in x:
            height = y[x.index(found.best)]
            axes.plot(
                found.best, height, marker="o", markersize=13, markerfacecolor="none", markeredgewidth=1.6, color=colour
            )
    axes.yaxis.set_major_formatter(tick)
    end_labels(axes, ends, theme)


def end_labels(axes: "Axes", ends: list[tuple[float, float, str, str]], theme: Theme) -> None:
    """(x, y, text, colour): names at the right end of lines, pushed apart where they would touch."""
    low, high = axes.get_ylim()
    room = (high - low) * 0.2 / (axes.get_position().height * axes.figure.get_figheight())  # type: ignore[union-attr]
    place = -float("inf")
    for _, y, text, colour in sorted(ends, key=lambda end: end[1]):
        place = max(y, place + room)
        axes.annotate(
            text,
            (1, place),
            xycoords=("axes fraction", "data"),
            xytext=(9, 0),
            textcoords="offset points",
            ha="left",
            va="center",
            fontsize=9,
            color=colour,
        )


def heading(axes: "Axes", text: str, theme: Theme) -> None:
    axes.set_title(text, loc="left", fontsize=9, color=theme["muted"], pad=5)


def _marks(axes: "Axes", found: Watched, theme: Theme, labelled: bool, narrow: bool) -> None:
    """Upright lines where the kept checkpoint stands and where the watch ended the stage."""
    marks = [(found.kept, "kept", "-")] if found.kept is not None else []
    marks += [(found.last, "stopped", ":")] if found.stopped and found.last != found.kept else []
    for row, (step, word, dashes) in enumerate(marks):
        axes.axvline(step, color=theme["ink"], linewidth=1.1, linestyle=dashes, zorder=1, clip_on=False)
        if not labelled:
            continue
        close = row == 0 and len(marks) > 1 and found.last - step < found.last * (0.95 if narrow else 0.3)
        axes.annotate(
            f"{word}: step {step}",
            (step, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 15 if close else 4),  # names that would touch stand in two lines
            textcoords="offset points",
            ha="right" if step > found.last * 0.85 else "center" if step > found.last * 0.15 else "left",
            va="bottom",
            fontsize=9,
            color=theme["ink"],
        )


def kl_alt(found: AgainstKL) -> str:
    parts = [f"{NAMES[key]} from {signed(y[0][1])} to {signed(y[-1][1])}" for key, y in found.points.items() if y]
    return f"Scores against the square root of the KL, as changes since the start: {'; '.join(parts)}. {found.sentence}"


def kl_figure(found: AgainstKL, theme: Theme, width: float = 4.4) -> "Figure":
    """Points in the order of training are not joined: what matters is the score at a KL."""
    figure, (axes,) = panels(width, [2.2], theme)
    axes.axhline(0, color=theme["muted"], linewidth=0.8)
    ends = []
    for key, points in found.points.items():
        colour = theme.series(COLOURS[key])
        x, y = zip(*points, strict=True)
        face = theme["surface"] if key == "proxy" else colour
        shape = marker(COLOURS[key])
        axes.plot(x, y, linestyle="none", marker=shape, markersize=5, color=colour, markerfacecolor=face, zorder=3)
        ends.append((x[-1], y[-1], NAMES[key].removesuffix(" score"), colour))
    if found.fit is not None:
        reach = max(d for d, _ in found.points[found.key])
        grid = [reach * i / 80 for i in range(81)]
        alpha, beta = (found.fit[found.form][name]["estimate"] for name in ("alpha", "beta"))
        axes.plot(grid, value(found.form, alpha, beta, grid), color=theme.series(COLOURS[found.key]), linewidth=1.5)
    axes.set_xlim(0, None)
    axes.yaxis.set_major_formatter(tick)
    axes.set_xlabel("d = √KL (KL in nats a response)", color=theme["muted"], fontsize=9, labelpad=4)
    end_labels(axes, ends, theme)
    return figure


def best_of_n_figure(curve: dict[str, Any], theme: Theme, width: float = 3.3) -> "Figure":
    """Gold gain over one sample with its interval, and the proxy below; n and the KL it costs on the shared axis."""
    figure, axes = panels(width, [1.0, 0.45], theme, gap=0.36)
    n, gold, proxy = ([number(v) or 0.0 for v in curve[key]] for key in ("n", "gold", "proxy"))
    places = list(range(len(n)))
    gain = [v - gold[0] for v in gold]
    low, high = (curve.get(key) for key in ("gain_low", "gain_high"))
    colour = theme.series(COLOURS["gold"])
    if isinstance(low, list) and isinstance(high, list) and len(low) == len(high) == len(gain):
        axes[0].fill_between(places, low, high, color=colour, alpha=0.18, linewidth=0)
    axes[0].axhline(0, color=theme["muted"], linewidth=0.8)
    axes[0].plot(places, gain, color=colour, linewidth=2, marker=marker(COLOURS["gold"]), markersize=5, clip_on=False)
    heading(axes[0], "Gold score, gain over one sample", theme)
    end_labels(axes[0], [(places[-1], gain[-1], signed(gain[-1], 3), colour)], theme)
    colour = theme.series(COLOURS["proxy"])
    axes[1].plot(
        places, proxy, color=colour, linewidth=2, linestyle="--", marker=marker(2), markersize=5, clip_on=False
    )
    heading(axes[1], "Proxy of the chosen response", theme)
    end_labels(axes[1], [(places[-1], proxy[-1], decimal(proxy[-1], 2), colour)], theme)
    for panel in axes:
        panel.yaxis.set_major_formatter(tick)
        panel.locator_params(axis="y", nbins=4 if panel is axes[0] else 2)
    labels = [f"{int(size)}\n{decimal(float(kl), 2)}" for size, kl in zip(n, curve["kl"], strict=True)]
    axes[1].set_xticks(places, labels)
    axes[1].set_xlabel("n, and below it the KL in nats", color=theme["muted"], fontsize=9, labelpad=3)
    return figure
