"""The page: gathers figures and tables, fills the template, writes one file."""

import os
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from trivium.errors import UserError
from trivium.report import (
    branch_charts,
    branches,
    charts,
    curves,
    feedback_sections,
    judge_sections,
    rlvr_sections,
    tables,
)
from trivium.report.canvas import GLYPHS, LIGHT, SERIES, VARIABLE, css_variables, standalone, to_png, to_svg
from trivium.report.judges import interval
from trivium.report.loading import MAKE_FILES, Run, Stage, load, mapping, number
from trivium.report.samples import FEW, QUOTAS, select
from trivium.report.verdict import differences, verdict
from trivium.report.wording import clean, count, decimal, duration, signed

MOST_WARNINGS = 3  # regressions that stand in full at the top of the page; more are folded away
_WORK = {
    "base": "the model as it came",
    "pretrain": "guesses the next token",
    "sft": "imitates demonstrations",
    "rl": "learns from feedback",
    "dpo": "learns from preferences",
    "rank": "answers are ranked",
    "audit": "a judge is measured",
    "revise": "answers are criticised and revised",
    "reward": "learns to judge from rankings",
}


def build(run_directory: Path | str) -> Path:
    """Write ``report.html`` into a run directory, from its data files alone, and return its path.

    The page stands alone (no script, nothing fetched), and equal files give an equal page. Missing parts are named on
    the page. Raises :class:`UserError` where the directory is no run.
    """
    run = load(Path(run_directory))
    path = run.directory / "report.html"
    _write(path, _environment().get_template("template.html").render(context(run)).encode("utf-8", "replace"))
    return path


def main_figure(run_directory: Path | str, path: Path | str) -> Path:
    """Write the main figure (accuracy by stage) to ``path``, an .svg that follows light and dark, or a .png."""
    run, path = load(Path(run_directory)), Path(path)
    if not run.tasks:
        raise UserError(f"{run.directory} has no evaluation to draw: let the run evaluate at least one stage first.")
    task = run.tasks[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".svg":
        svg = to_svg(charts.accuracy_figure(run, task, VARIABLE), "main", charts.accuracy_alt(run, task))
        _write(path, standalone(svg).encode())
    elif path.suffix == ".png":
        to_png(charts.accuracy_figure(run, task, LIGHT), path)
    else:
        raise UserError(f"The main figure is written as .svg or .png, not as {path.name}.")
    return path


def _write(path: Path, content: bytes) -> None:
    """Written beside and renamed, so that a reader never sees half a file."""
    beside = path.with_name(f".{path.name}.part")
    beside.write_bytes(content)
    os.replace(beside, path)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("trivium.report", "."),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(decimal=decimal, count=count, duration=duration, signed=signed, clean=clean)
    return environment


def context(run: Run) -> dict[str, Any]:
    """Everything the template shows."""
    apart = _branches(run)
    sentence, below = verdict(run, branches_apart=apart is not None)
    main = run.tasks[0] if run.tasks else None
    style = _environment().loader.get_source(_environment(), "style.css")[0]  # type: ignore[union-attr]
    return {
        "run": run,
        "style": Markup(style),
        "variables": [Markup(css_variables(scheme)) for scheme in (0, 1)],
        "verdict": sentence,
        "below": below,
        "key_numbers": key_numbers(run, main),
        "chain": [_chain_link(run, stage, main) for stage in run.stages],
        "costs": tables.cost_table(run),
        "memory": tables.memory_table(run),
        "adapters": tables.has_adapters(run),
        "other_numbers": tables.other_numbers_table(run),
        "tasks": [_task(run, task, position) for position, task in enumerate(run.tasks)],
        "branches": apart,
        "rankings": feedback_sections.of_rankings(run),
        "watches": feedback_sections.of_watches(run),
        "judges": judge_sections.of_judges(run),
        "warnings": [*judge_sections.warnings(run), *rlvr_sections.warnings(run)],
        "regressions": rlvr_sections.regressions(run),
        "most_warnings": MOST_WARNINGS,
        "alarms": rlvr_sections.alarms(run),
        "apart": rlvr_sections.apart_table(run),
        "curves": [_curves(run, stage) for stage in run.stages if stage.kind not in MAKE_FILES],
        "samples": [
            found
            for task in run.tasks
            if not run.scored(task) and (found := select(run, task, QUOTAS if task == main else FEW))
        ],
        "lineage": tables.lineage_table(run.lineage),
        "environment": tables.environment_table(mapping(run.summary.get("environment"))),
        "glyphs": GLYPHS,
        "series_count": len(SERIES),
    }


def _branches(run: Run) -> dict[str, Any] | None:
    """The ends of all branches beside each other; None for a run that does not branch, or has evaluated nothing."""
    groups = branches.branches(run)
    if not groups or not run.tasks:
        return None
    alt = branch_charts.alt(run, groups)
    return {
        "sentences": branches.sentences(run, groups),
        "wide": to_svg(branch_charts.branch_figure(run, groups, VARIABLE), "branches-wide", alt),
        "narrow": to_svg(branch_charts.branch_figure(run, groups, VARIABLE, 3.5), "branches-narrow", alt),
        "caption": branches.caption(run, groups),
        "table": branches.table(run, groups),
        "notes": branches.notes(groups),
        "pairs": branches.pairs_table(run, groups),
    }


def key_numbers(run: Run, main: str | None) -> list[tuple[str, str]]:
    """Names and values of the figures at the top of the page."""
    found = []
    if main and (ends := run.leaves(main)):
        found += [
            (f"{run.measure(main)} of {end.label}", decimal(end.evaluation[main]["accuracy"], 2)) for end in ends[:3]
        ]
        teacher = number(run.first_of(main, "teacher").get("greedy"))
        if teacher is not None:
            found.append(("teacher’s ceiling", decimal(teacher, 2)))
    seconds = number(run.summary.get("seconds"))
    if seconds is None:
        seconds = sum(number(stage.summary.get("seconds")) or 0.0 for stage in run.stages) or None
    tokens = sum(number(stage.summary.get("tokens")) or 0.0 for stage in run.stages) or None
    together = (number(run.recipe.get("parallel")) or 1) > 1  # their seconds overlap
    return [
        *found,
        ("time of all stages" if together else "time", duration(seconds)),
        ("tokens trained on", count(tokens)),
    ]


def _chain_link(run: Run, stage: Stage, main: str | None) -> dict[str, Any]:
    position, series = run.stages.index(stage), run.series(stage)
    before = run.stages[position - 1] if position else None
    sources = run.sources(stage)
    if not sources and stage.config.get("init") and (start := run.before(stage)) is not None:
        sources = [start]  # a model from elsewhere
    follows = before is not None and (before in sources or not (sources or stage.config))
    return {
        "label": stage.label,
        "work": _WORK.get(stage.kind, ""),
        "state": stage.state,
        "ended": clean(stage.ended, 200),
        "series": series % len(SERIES),
        "facts": _facts(stage, main),
        # The arrow says it where a stage builds on the one beside it alone.
        "builds_on": "" if sources in ([], [before]) else " and ".join(source.label for source in sources),
        "follows": follows,
    }


def _facts(stage: Stage, main: str | None) -> list[tuple[str, str]]:
    """What a card of the chain tells of its stage."""
    cost = [("Time", duration(stage.summary.get("seconds")))]
    if stage.kind == "audit":
        compared = mapping(
            mapping(stage.audit.get("asked")).get("compare") or mapping(stage.audit.get("asked")).get("score")
        )
        kappa = interval({"estimate": mapping(compared.get("kappa")).get("estimate")}, 2)
        return [("Pairs", decimal(compared.get("n"))), ("Cohen’s κ", kappa), *cost]
    if stage.kind in MAKE_FILES:
        made = ("Rankings", "rankings") if stage.kind == "rank" else ("Conversations", "conversations")
        told = [("Prompts", "tasks"), made]
        return [(name, decimal(stage.summary.get(key))) for name, key in told] + cost
    found = []
    accuracy = number((stage.evaluation.get(main, {}) if main else {}).get("accuracy"))
    pairs = number(mapping(stage.judging.get("pairs")).get("accuracy"))
    if accuracy is not None:
        found.append(("Accuracy", decimal(accuracy, 2)))
    if pairs is not None:
        found.append(("Pairs in order", decimal(pairs, 2)))
    found.append(("Ends at", tables.main_metric(stage, hint=False)))
    return [*found, *cost, ("Tokens", count(stage.summary.get("tokens")))]


def _legend(run: Run, stages: list[Stage]) -> list[dict[str, Any]]:
    indices = [run.series(stage) for stage in stages]
    return [
        {"label": s.label, "series": i % len(SERIES), "glyph": GLYPHS[i % len(GLYPHS)]}
        for s, i in zip(stages, indices, strict=True)
    ]


def _task(run: Run, task: str, position: int) -> dict[str, Any]:
    name = f"task{position}"
    alt = charts.accuracy_alt(run, task)
    wide, narrow = (9.4, 4.1 if position == 0 else 3.1), (3.5, 3.3)
    found = differences(run, task)
    samples = []
    for key, label in (("pass_at_k", "pass@k"), ("majority_at_k", "majority@k")):
        points = charts.pass_at_k(run, task, key)
        if points:
            stages = [stage for stage in run.stages if stage.name in points]
            ends = [f"{s.label} from {points[s.name][0][1]:.2f} to {points[s.name][-1][1]:.2f}" for s in stages]
            largest = max(k for pairs in points.values() for k, _ in pairs)
            words = f"Line chart of {label} for k up to {largest}: {'; '.join(ends)}."
            samples.append(
                {
                    "label": label,
                    "figure": to_svg(charts.samples_figure(run, task, key, VARIABLE), f"{name}-{key}", words),
                    "legend": _legend(run, stages),
                    "table": tables.at_k_table(run, task, key, label),
                }
            )
    return {
        "id": name,
        "name": clean(task),
        "measure": run.measure(task),
        "scored": run.scored(task),
        "wide": to_svg(charts.accuracy_figure(run, task, VARIABLE, *wide), f"{name}-wide", alt),
        "narrow": to_svg(charts.accuracy_figure(run, task, VARIABLE, *narrow), f"{name}-narrow", alt),
        "plain": [stage.label for stage in run.stages if stage.evaluation.get(task, {}).get("asked") == "plain"],
        "teacher_sampled": run.first_of(task, "teacher").get("sampled"),
        "constant_answer": run.first_of(task, "baseline").get("constant_answer"),
        "table": tables.evaluation_table(run, task),
        "samples": samples,
        "differences": found,
        "differences_figure": found
        and to_svg(charts.difference_figure(found, VARIABLE), f"{name}-differences", charts.difference_alt(found)),
        "endings": rlvr_sections.endings_table(run, task),
        "groups": [
            _groups(run, task, f"{name}-{key}", key, names)
            for key in ("by_level", "by_task")
            if len(names := charts.subtasks(run, task, key)) > 1
        ],
    }


def _groups(run: Run, task: str, name: str, key: str, groups: list[str]) -> dict[str, Any]:
    """Accuracy by kind of prompt (``by_task``) or by level."""
    word = "level" if key == "by_level" else "sub-task"
    alt = f"Accuracy of every stage on {len(groups)} {word}s with 95% intervals; the table below has the numbers."
    return {
        "title": f"Accuracy by {word}",
        "wide": to_svg(charts.subtask_figure(run, task, VARIABLE, key=key), name, alt),
        "narrow": to_svg(charts.subtask_figure(run, task, VARIABLE, 3.5, key), f"{name}-narrow", alt),
        "legend": _legend(run, run.evaluated(task)),
        "table": tables.subtask_table(run, task, groups, key),
    }


def _curves(run: Run, stage: Stage) -> dict[str, Any]:
    series = run.series(stage)
    drawn: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for position, chart in enumerate(curves.charts(stage, series % len(SERIES))):
        name = f"stage{series}-curve{position}"
        figure = to_svg(curves.curve_figure(chart, VARIABLE), name, chart.alt)
        drawn[chart.main].append({"title": clean(chart.title), "unit": chart.unit, "figure": figure, "chart": chart})
    return {"label": stage.label, "series": series, "id": f"curves-{series}", "main": drawn[True], "more": drawn[False]}
