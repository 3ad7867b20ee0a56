"""What the template shows of AI judges: audits, revisions, DPO, majority votes and scores that nothing learns from."""

from typing import Any

from trivium.report import judges, monitor_charts, monitors, preferences, revisions, reward_charts
from trivium.report.canvas import SERIES, VARIABLE, to_svg
from trivium.report.curves import curve_figure
from trivium.report.loading import Run, Stage
from trivium.report.wording import clean


def of_audits(run: Run) -> list[dict[str, Any]]:
    """Every judge that was audited."""
    return [_audit(run, stage) for stage in run.stages if stage.audit]


def _audit(run: Run, stage: Stage) -> dict[str, Any]:
    name = f"audit{run.stages.index(stage)}"
    figures = []
    if kappas := judges.kappas(stage):
        figure = to_svg(
            monitor_charts.kappa_figure(kappas, VARIABLE), f"{name}-kappa", monitor_charts.kappa_alt(kappas)
        )
        caption = "Agreement beyond chance: 0 is a coin that knows how common each verdict is, 1 is full agreement."
        figures.append({"title": "Cohen’s κ", "figure": figure, "caption": caption})
    for way, entry in judges.ways(stage).items():
        if bins := judges.calibration(entry):
            figure = to_svg(
                reward_charts.reliability_figure(bins, VARIABLE),
                f"{name}-{way}",
                reward_charts.reliability_alt(bins),
            )
            caption = (
                "Of the pairs in which the judge is this sure of its choice, the share in which the choice was right. "
                "On the dashed line its certainty is deserved; the area of a point is the number of pairs."
            )
            figures.append({"title": f"Calibration: {judges.WAYS[way].lower()}", "figure": figure, "caption": caption})
    known = bool(judges.ways(stage))
    return {
        "label": stage.label,
        "judge": judges.judge_name(stage),
        "sentence": judges.sentence(stage),
        "contradictions": judges.contradictions(stage),
        "chance": judges.chance(stage),
        "trusted": known and stage.audit.get("chance") is False,
        "table": judges.table(stage),
        "principles": judges.principle_table(stage),
        "figures": figures,
    }


def of_learning(run: Run) -> list[dict[str, Any]]:
    """RL stages whose reward is a judge or a majority, or that were monitored."""
    found = []
    for stage in run.stages:
        votes, scores = monitors.majority(stage), monitors.lines(stage)
        missing = monitors.missing_sentence(stage)
        usage = judges.usage_sentence(stage) if stage.kind == "rl" else ""
        if stage.kind != "rl" or not (votes or scores or missing or usage):
            continue
        told, warning = monitors.reading(stage)
        name = f"learning{run.stages.index(stage)}"
        found.append(
            {
                "label": stage.label,
                "warning": warning,
                "told": told,
                "more": " ".join(filter(None, [missing, usage])),
                "votes": monitors.majority_sentence(stage),
                "charts": [
                    *([_scores_chart(scores, name)] if scores else []),
                    *([_votes_chart(votes, name)] if votes else []),
                ],
            }
        )
    return found


def _scores_chart(found: list[monitors.Line], name: str) -> dict[str, Any]:
    words = "reward and monitors"
    scale = "on one scale" if monitors.comparable(found) else "each on its own scale"
    return _chart(found, f"{name}-scores", words, False) | {
        "title": "The reward, and what nothing learns from",
        "caption": (
            f"Means over the steps, {scale}; the dashed line is what the policy is trained on, rings are held-out "
            "prompts. A reward that rises while another line falls is not doing what it is meant for."
        ),
    }


def _votes_chart(found: list[monitors.Line], name: str) -> dict[str, Any]:
    return _chart(found, f"{name}-votes", "majority votes", True) | {
        "title": "Majority votes",
        "caption": (
            "Share of a group that gave its commonest answer, share of groups whose majority was too weak to learn "
            "from, and how often the label was right by a monitor, which training never sees."
        ),
    }


def _chart(found: list[monitors.Line], name: str, words: str, share: bool) -> dict[str, Any]:
    alt = monitors.alt(found, words)
    wide = monitor_charts.lines_figure(found, VARIABLE, share=share)
    narrow = monitor_charts.lines_figure(found, VARIABLE, 3.5, share=share)
    return {
        "legend": monitors.legend(found),
        "wide": to_svg(wide, f"{name}-wide", alt),
        "narrow": to_svg(narrow, f"{name}-narrow", alt),
    }


def of_preferences(run: Run) -> list[dict[str, Any]]:
    """DPO stages."""
    found = []
    for stage in run.stages:
        if stage.kind != "dpo" or not (stage.metrics or stage.iterations or stage.finished):
            continue
        name = f"preferences{run.stages.index(stage)}"
        charts = [
            {
                "title": chart.title,
                "unit": chart.unit,
                "figure": to_svg(curve_figure(chart, VARIABLE), f"{name}-{position}", chart.alt),
                "chart": chart,
            }
            for position, chart in enumerate(preferences.iteration_charts(stage))
        ]
        told = [preferences.way_sentence(stage), preferences.iteration_sentence(stage), preferences.sentence(stage)]
        told += [judges.usage_sentence(stage)]
        found.append(
            {
                "label": stage.label,
                "measures": preferences.measures_table(stage),
                "curves": f"curves-{run.series(stage)}",
                "told": " ".join(filter(None, told)),
                "table": preferences.iteration_table(stage),
                "charts": charts,
            }
        )
    return found


def of_revisions(run: Run) -> list[dict[str, Any]]:
    """Stages that criticise and revise."""
    return [
        {
            "label": stage.label,
            "sentence": revisions.sentence(stage),
            "usage": judges.usage_sentence(stage),
            "better": revisions.better(stage),
            "table": revisions.table(stage),
            "examples": revisions.examples(stage),
            "series": run.series(stage) % len(SERIES),
        }
        for stage in run.stages
        if stage.kind == "revise" and (stage.finished or stage.revisions)
    ]


def of_judges(run: Run) -> dict[str, Any] | None:
    """Everything about AI feedback; None for a run without any."""
    found: dict[str, Any] = {
        "audits": of_audits(run),
        "revisions": of_revisions(run),
        "preferences": of_preferences(run),
        "learning": of_learning(run),
        "usage": judges.usage_table(run),
    }
    sections = {  # as the headings of judges.html begin
        ("judges", "AI judges"): found["audits"] or found["usage"],
        ("monitors", "Monitors"): found["learning"],
        ("preferences", "Preference optimisation"): found["preferences"],
        ("revisions", "Critique and revise"): found["revisions"],
    }
    there = [entry for entry, content in sections.items() if content]
    return found | {"entries": there} if there else None


def warnings(run: Run) -> list[str]:
    """What belongs beside the headline: judges that are no better than chance."""
    return [
        f"The audit {clean(stage.label, 60)} finds {judges.judge_name(stage)} no better than chance."
        for stage in run.stages
        if stage.audit and judges.chance(stage)
    ]
