"""The report of a study: one page, its findings as Markdown, its main figure as pictures, its numbers as data."""

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from trivium.files import write_json, write_text
from trivium.report.canvas import LIGHT, VARIABLE, css_variables, standalone, to_png, to_svg
from trivium.report.loading import mapping
from trivium.report.tables import Table, environment_table
from trivium.report.wording import clean, duration
from trivium.studies import tables
from trivium.studies.analysis import Analysis, analyse, load
from trivium.studies.figures import NARROW, alt, figures_of
from trivium.studies.findings import budget, paragraph

OUTCOMES = {"supported": "Supported", "contradicted": "Contradicted", "open": "Open"}
CAPTIONS = {
    "dots": "Means over seeds with 95% intervals; faint dots are the seeds. Hollow: the budget ended it in some seed.",
    "lines": "Means over seeds, with 95% intervals as bands; faint dots are the seeds. Hollow: the budget ended it in "
    "some seed. A gap: no number.",
    "curves": "Gains over the start against the square root of the KL (nats a response), each seed faint, means "
    "strong; the line is the form that fits better, with parameters that are means over seeds, drawn as far as half of "
    "them went.",
}


def build(directory: Path | str) -> Path:
    """Write ``report.html``, ``findings.md``, ``analysis.json``, ``figure.svg`` and ``figure.png`` of a study.

    All come from ``results.json`` alone, and equal results give an equal page. Returns the page. A study of which
    nothing is finished yet has a page without figures. Raises :class:`UserError` where there are no results.
    """
    directory = Path(directory)
    analysis = analyse(load(directory))
    drawn = figures_of(analysis)
    if drawn:
        name, draw = next(iter(drawn.items()))
        svg = to_svg(draw(analysis, VARIABLE, 9.4), "main", alt(analysis, name))
        write_text(directory / "figure.svg", standalone(svg))
        beside = directory / ".figure.part.png"
        to_png(draw(analysis, LIGHT, 9.4), beside)
        beside.replace(directory / "figure.png")
    write_text(directory / "findings.md", markdown(analysis))
    write_json(directory / "analysis.json", tables.as_data(analysis))
    path = directory / "report.html"
    page = _environment().get_template("study.html").render(context(analysis))
    write_text(path, page.encode("utf-8", "replace").decode())
    return path


def findings(directory: Path | str) -> str:
    """The findings of a study as one paragraph."""
    return paragraph(analyse(load(Path(directory))))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("trivium.studies", "."), PackageLoader("trivium.report", ".")]),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(clean=clean)
    return environment


def context(analysis: Analysis) -> dict[str, Any]:
    """Everything the template shows."""
    style = _environment().loader.get_source(_environment(), "style.css")[0]  # type: ignore[union-attr]
    study, results = analysis.study, analysis.results
    return {
        "title": clean(study.get("title") or study.get("name"), 200),
        "name": clean(study.get("name"), 80),
        "question": clean(study.get("question") or ""),
        "claim": clean(study.get("claim") or ""),
        "outcome": analysis.verdict.outcome if analysis.verdict else "",
        "outcomes": OUTCOMES,
        "findings": paragraph(analysis),
        "style": Markup(style),
        "variables": [Markup(css_variables(scheme)) for scheme in (0, 1)],
        "numbers": _key_numbers(analysis),
        "figures": _figures(analysis),
        "means": tables.means_table(analysis),
        "along": tables.along_table(analysis),
        "arms": tables.arms_table(analysis),
        "comparisons": tables.comparison_tables(analysis),
        "fits": tables.fits_table(analysis),
        "costs": tables.costs_table(analysis),
        "lost": tables.lost_table(analysis),
        "environment": environment_table(mapping(results.get("environment"))),
        "command": command(analysis),
    }


def command(analysis: Analysis) -> str:
    """What was typed, as far as the results know it."""
    seeds = ",".join(map(str, analysis.seeds))
    at_once = analysis.results.get("at_once")
    given = analysis.results.get("given") or [str(analysis.study.get("name"))]
    words = clean(shlex.join(map(str, given)), 1000)
    return f"trivium study {words} --seeds {seeds}" + (f" --at-once {at_once}" if isinstance(at_once, int) else "")


def _key_numbers(analysis: Analysis) -> list[tuple[str, str]]:
    found = [
        ("Arms", str(len({label.arm for label in analysis.labels}))),
        ("Seeds", str(len(analysis.seeds))),
        ("Comparisons", str(sum(len(one.comparisons) for one in analysis.measures))),
        ("Certain", str(sum(two.certain for one in analysis.measures for two in one.comparisons))),
    ]
    if analysis.results.get("wall_seconds") is not None:
        found.append(("Wall clock", duration(analysis.results["wall_seconds"])))
    return found


def _figures(analysis: Analysis) -> list[dict[str, Any]]:
    return [
        {
            "wide": to_svg(draw(analysis, VARIABLE, 9.4), f"{name}-wide", alt(analysis, name)),
            "narrow": to_svg(draw(analysis, VARIABLE, NARROW), f"{name}-narrow", alt(analysis, name)),
            "caption": CAPTIONS[name],
        }
        for name, draw in figures_of(analysis).items()
    ]


def markdown(analysis: Analysis) -> str:
    """``findings.md``: question, claim, findings, the figure and the means."""
    study = analysis.study
    parts = [f"# {_plain(study.get('title') or study.get('name'))}", _plain(study.get("question") or "")]
    if study.get("claim"):
        verdict = f" ({OUTCOMES[analysis.verdict.outcome].lower()})" if analysis.verdict else ""
        parts.append(f"**Claim**{verdict}: {_plain(study['claim'])}")
    parts.append(_plain(paragraph(analysis)))
    if figures_of(analysis):
        parts.append("![The main figure](figure.svg)")
    limit = budget(study)
    for table in (tables.means_table(analysis), tables.costs_table(analysis), tables.fits_table(analysis)):
        if table is not None:
            parts.append(_markdown_table(table))
    seconds = analysis.results.get("wall_seconds")
    took = f" in {duration(seconds)} of wall clock" if seconds else ""
    parts.append(f"Made by `{command(analysis)}`{took}" + (f", on a budget of {limit} for each arm." if limit else "."))
    return "\n\n".join(part for part in parts if part) + "\n"


def _plain(text: Any) -> str:
    """Words of a study as one line of Markdown, in which nothing is a tag or a link."""
    line = " ".join(clean(str(text), 10**6).split())
    return re.sub(r"([\\<\[\]`])", r"\\\1", line)


def _markdown_table(table: Table) -> str:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(_plain(cell).replace("|", "\\|") for cell in cells) + " |"

    rule = "|" + "|".join("---" if i == 0 else "--:" for i in range(len(table.header))) + "|"
    return "\n".join([f"{table.caption}:", "", line(table.header), rule, *map(line, table.rows)])
