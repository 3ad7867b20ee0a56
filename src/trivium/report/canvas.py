"""From a matplotlib figure to an SVG whose colours and font follow the page, in light and in dark.

Charts are drawn in stand-in colours; the finished SVG has them replaced by CSS variables, which the page (or, for a
file that stands alone, a style element inside the SVG) defines for both schemes. Text stays text, so it takes the
font of the page.
"""

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Twice as many as there are colours, so that of two series in one colour each has a marker of its own.
MARKERS = ("o", "s", "^", "D", "v", "P", "p", "*", "<", "h", ">", "X")
GLYPHS = ("●", "■", "▲", "◆", "▼", "✚", "⬟", "★", "◀", "⬢", "▶", "✖")

# name: (light, dark). The series keep their order under red-green and blue-yellow blindness (they differ in lightness
# too), and each has at least 3:1 against its background.
COLOURS = {
    "ink": ("#1c2430", "#e8ebf0"),
    "muted": ("#5d6878", "#9aa5b5"),
    "grid": ("#e3e7ed", "#2c3542"),
    "surface": ("#ffffff", "#171d26"),
    "series-0": ("#7f8b9d", "#8e9bb0"),
    "series-1": ("#2468b8", "#6cabf2"),
    "series-2": ("#c8570a", "#ff9f4d"),
    "series-3": ("#0b7f6b", "#3fc7ae"),
    "series-4": ("#8b3f97", "#d08be0"),
    "series-5": ("#8a6d00", "#dcc04a"),
}
# Characters that no XML may hold, escaped or not.
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
SERIES = tuple(name for name in COLOURS if name.startswith("series"))


@dataclass(frozen=True)
class Theme:
    """What to draw with: stand-ins for an SVG, real colours for a bitmap."""

    colours: dict[str, str]

    def __getitem__(self, name: str) -> str:
        return self.colours[name]

    def series(self, index: int) -> str:
        return self.colours[SERIES[index % len(SERIES)]]


# Stand-ins: colours that no chart uses by chance, one for each name.
VARIABLE = Theme({name: f"#01fe{index:02x}" for index, name in enumerate(COLOURS)})
LIGHT = Theme({name: pair[0] for name, pair in COLOURS.items()})


def marker(index: int) -> str:
    return MARKERS[index % len(MARKERS)]


def dashes(index: int) -> str:
    """The line of a series: dashed where its colour is that of an earlier one."""
    return "--" if index % len(MARKERS) >= len(SERIES) else "-"


def css_variables(scheme: int) -> str:
    """The declarations of all chart colours: ``scheme`` 0 is light, 1 is dark."""
    return " ".join(f"--{name}: {pair[scheme]};" for name, pair in COLOURS.items())


def new_figure(width: float, height: float) -> "tuple[Figure, Axes]":
    """A figure of ``width`` x ``height`` inches (96 CSS pixels each) with one axes, away from pyplot's global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


def style(axes: "Axes", theme: Theme) -> None:
    """Quiet axes: horizontal grid, a base line, small ticks, no box."""
    axes.set_facecolor("none")
    axes.figure.patch.set_alpha(0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(theme["muted"])
    axes.spines["bottom"].set_linewidth(0.8)
    axes.tick_params(colors=theme["muted"], labelcolor=theme["muted"], labelsize=9, length=0, pad=5)
    axes.grid(axis="y", color=theme["grid"], linewidth=0.8)
    axes.set_axisbelow(True)


def to_svg(figure: "Figure", name: str, alt: str) -> Markup:
    """The figure as inline SVG: no dates, ids starting with ``name``, colours as CSS variables, labelled ``alt``."""
    import matplotlib

    buffer = io.StringIO()
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.parse_math": False,
        "font.family": "DejaVu Sans",
    }
    _no_formulas(figure)
    with matplotlib.rc_context(settings):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = _NOT_XML.sub("\ufffd", buffer.getvalue())
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    for key, stand_in in VARIABLE.colours.items():
        text = text.replace(stand_in, f"var(--{key})")
    # matplotlib names the font apart, or in older versions inside the shorthand.
    text = re.sub(r"(font-family: |font: [^;\"']*\dpx )[^;\"]*", r"\1var(--chart-font)", text)
    alt = _NOT_XML.sub("\ufffd", alt)
    head = f'<svg role="img" aria-label="{escape(alt)}"'
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"', rf"{_literal(head)} \1", text, count=1)
    text = re.sub(r'(<svg [^>]*?)height="[\d.]+pt" ', r"\1", text, count=1)
    return Markup(text.strip())


def to_png(figure: "Figure", path: Path) -> None:
    """The figure as a bitmap in ``path``, without the version of what drew it."""
    import matplotlib

    _no_formulas(figure)
    settings: Any = {"text.parse_math": False}
    with matplotlib.rc_context(settings):
        figure.savefig(path, dpi=160, facecolor=LIGHT["surface"], metadata={"Software": None})


def _no_formulas(figure: "Figure") -> None:
    """A name may hold a $, which matplotlib would take for the beginning of a formula."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)  # type: ignore[attr-defined]


def standalone(svg: str) -> str:
    """An SVG that brings its own colours, for a page that defines none (a README)."""
    sheet = (
        f"svg {{ --chart-font: system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; {css_variables(0)} }} "
        f"@media (prefers-color-scheme: dark) {{ svg {{ {css_variables(1)} }} }}"
    )
    card = '<rect width="100%" height="100%" rx="8" style="fill: var(--surface)"/>'
    # A Markup would escape what re.sub puts together.
    return re.sub(r"(<svg [^>]*>)", rf"\1<style>{_literal(sheet)}</style>{card}", str(svg), count=1) + "\n"


def _literal(text: str) -> str:
    """``text`` as the replacement of a regular expression."""
    return text.replace("\\", "\\\\")
