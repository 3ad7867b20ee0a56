"""What the template shows of rankings, reward models and the over-optimisation watch."""

from typing import Any

from trivium.report import overoptimisation, panels, rankings, reward_charts, reward_model
from trivium.report.canvas import VARIABLE, to_svg
from trivium.report.loading import Run, Stage, number
from trivium.report.wording import signed


def of_rankings(run: Run) -> dict[str, Any] | None:
    """Rank stages, reward models and what went into what; None for a run without either."""
    ranked = [stage for stage in run.stages if stage.kind == "rank" and stage.finished]
    judges = [stage for stage in run.stages if stage.judging]
    direct = any(stage.kind == "dpo" and stage.finished for stage in run.stages)
    chain = rankings.chain_table(run) if ranked or judges or direct else None
    if not ranked and not judges and not chain:
        return None
    return {
        "ranked": [{"label": stage.label, "sentence": rankings.sentence(stage)} for stage in ranked],
        "judges": [_judge(run, stage) for stage in judges],
        "chain": chain,
    }


def _judge(run: Run, stage: Stage) -> dict[str, Any]:
    name = f"judge{run.stages.index(stage)}"
    figures = []
    if reliable := reward_model.bins(stage, "reliability", "predicted", "observed"):
        figure = to_svg(
            reward_charts.reliability_figure(reliable, VARIABLE),
            f"{name}-reliable",
            reward_charts.reliability_alt(reliable),
        )
        caption = (
            "Of the pairs in which the model gives one answer this chance to be preferred, the share in which it was. "
            "On the dashed line its chances are right; the area of a point is the number of pairs."
        )
        figures.append({"title": "Is its certainty deserved?", "figure": figure, "caption": caption})
    if margins := reward_model.bins(stage, "by_margin", "accuracy"):
        figure = to_svg(
            reward_charts.margin_figure(margins, VARIABLE), f"{name}-margin", reward_charts.margin_alt(margins)
        )
        caption = "The further apart two scores lie, the more often the order should be right; dashed: a coin."
        figures.append({"title": "Accuracy by margin", "figure": figure, "caption": caption})
    if curve := reward_model.best_of_n(stage):
        gain = curve["gold"][-1] - curve["gold"][0]
        alt = f"Best-of-n: the gold score changes by {signed(gain, 3)} from n = 1 to n = {curve['n'][-1]}."
        caption = (
            "The best of n samples by the reward model, with no training, judged by the gold score; 95% intervals "
            f"over prompts. {_best_of_n_words(curve)}"
        )
        figure = to_svg(panels.best_of_n_figure(curve, VARIABLE), f"{name}-best", alt)
        figures.append({"title": "Best-of-n", "figure": figure, "caption": caption})
    return {
        "label": stage.label,
        "sentence": f"{reward_model.sentence(stage)} {reward_model.under_policy(stage)}".strip(),
        "table": reward_model.table(stage),
        "sections": reward_model.section_table(stage),
        "figures": figures,
    }


def _best_of_n_words(curve: dict[str, Any]) -> str:
    fit = curve.get("fit")
    if isinstance(fit, dict):
        return overoptimisation.fit_sentence(fit, "gold score", str(fit.get("better") or "best_of_n"))
    low, high = ((curve.get(key) or [None])[-1] for key in ("gain_low", "gain_high"))
    if number(low) is None or number(high) is None:
        return ""
    return f"Best of {curve['n'][-1]} gains between {signed(low, 3)} and {signed(high, 3)}."


def of_watches(run: Run) -> list[dict[str, Any]]:
    """Every stage whose policy was watched."""
    seed = int(number(run.recipe.get("seed")) or 0)
    found = []
    for stage in run.stages:
        watch = overoptimisation.watched(stage)
        if watch is None:
            continue
        name, alt = f"watch{run.stages.index(stage)}", panels.watch_alt(watch)
        against = overoptimisation.against_kl(watch, seed)
        answer, *more = overoptimisation.sentences(stage)
        found.append(
            {
                "label": stage.label,
                "answer": answer,
                "more": more,
                "wide": to_svg(panels.watch_figure(watch, VARIABLE), f"{name}-wide", alt),
                "narrow": to_svg(panels.watch_figure(watch, VARIABLE, 3.5), f"{name}-narrow", alt),
                "caption": _watch_caption(watch),
                "kl": against and to_svg(panels.kl_figure(against, VARIABLE), f"{name}-kl", panels.kl_alt(against)),
                "fit": against.sentence if against else "",
                "parameters": overoptimisation.fit_table(against.fit) if against and against.fit else None,
            }
        )
    return found


def _watch_caption(watch: overoptimisation.Watched) -> str:
    unit = (
        "in standard deviations of the responses at the start"
        if watch.in_deviations
        else "each score divided by its own largest change, so heights cannot be compared between scores"
    )
    band = " Bands are one standard error." if any(e for score in watch.scores for _, _, e in score.points) else ""
    ring = " The ring is the best observation." if watch.best is not None and watch.judge else ""
    return (
        f"Scores of sampled answers to held-out prompts, the same draws every time, as change since the start, {unit}."
        f"{band}{ring} Over-optimisation shows as a proxy that rises while another score falls."
    )
