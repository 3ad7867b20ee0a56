"""``results.json``: every arm, model and seed of a study with what was measured and spent, or why there is nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trivium import files
from trivium.config import CurveConfig
from trivium.studies.nodes import COSTS, Cost, Outcome
from trivium.studies.plan import Plan, Row

Outcomes = Mapping[str, Outcome]
REACHED = ("finished", "ended_by_budget")
NOT_RUN = Outcome("missing", "it was not run yet")


def spent(plan: Plan, outcomes: Outcomes, keys: Any) -> Cost:
    """What the steps ``keys`` have cost of the budget: those that are shared cost nothing."""
    counted = [outcomes[key].cost for key in set(keys) if plan.steps[key].counted and key in outcomes]
    return {name: sum(cost.get(name, 0.0) for cost in counted) for name in COSTS}


def row_of(plan: Plan, row: Row, outcomes: Outcomes) -> dict[str, Any]:
    """One row as plain data; ``status`` is that of all that it needs, the first that is not whole giving the reason."""
    own = [outcomes.get(key, NOT_RUN) for key in row.paid.values()]
    measured = outcomes.get(row.measurement, NOT_RUN) if row.measurement else None
    status, reason = status_of([*own, *([measured] if measured else [])])
    cost: dict[str, Any] = spent(plan, outcomes, row.paid.values())
    if status in REACHED and (gone := beyond(plan, row, cost)):
        status, reason = "out_of_budget", gone
    reached = status in REACHED
    shared = [outcomes[key] for key in row.paid.values() if not plan.steps[key].counted and key in outcomes]
    cost["shared_seconds"] = sum(outcome.cost.get("seconds", 0.0) for outcome in shared)
    cost = {name: value if "seconds" in name else int(value) for name, value in cost.items()}
    if measured is not None and measured.made:
        cost["answer_tokens"] = measured.summary.get("answer_tokens")
    return {
        "arm": row.arm,
        "model": row.model,
        "label": row.label,
        "seed": row.seed,
        "x": row.x,
        "made_of": made_of(row),
        "code": sorted({outcome.code for outcome in own if outcome.code}),
        "status": status,
        "reason": reason,
        "measures": measures_of(plan, row, outcomes, measured) if reached else {},
        "cost": cost,
        "curves": {
            name: {"kind": plan.study.curves[name].kind, "points": points}
            for name, key in row.curves.items()
            if (points := curve_of(plan.study.curves[name], outcomes.get(key, NOT_RUN)))
        },
        "nodes": {
            name: str(outcomes[key].folder)
            for name, key in row.paid.items()
            if key in outcomes and outcomes[key].folder
        },
    }


def made_of(row: Row) -> list[str]:
    """The keys of all that a row is made of: another recipe, other data or another measurement have others."""
    return sorted({*row.paid.values(), *row.curves.values(), *([row.measurement] if row.measurement else [])})


def other_origin(plan: Plan, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether any of ``rows`` (of results.json) was made of something else than the plan has in its place now."""
    now = {(row.arm, row.model, row.seed): made_of(row) for row in plan.rows}
    return any(row.get("made_of") != now[_place(row)] for row in rows if _place(row) in now)


def beyond(plan: Plan, row: Row, cost: Cost) -> str:
    """That an arm's stages side by side have together spent more than its budget, as a sentence; else nothing.

    Neither goes back to the other, so each was given what their common past has left. A stage alone passes the budget
    by its last step, or by what it samples after its steps, which findings tell (``findings.overspent``)."""
    keys = {key for key in row.paid.values() if plan.steps[key].counted}
    beside = keys - set().union(*(plan.steps[key].before for key in keys))
    if len(beside) < 2:
        return ""
    budget = plan.study.budget.model_dump()
    over = [name for name, limit in budget.items() if limit is not None and cost[name] > limit]
    return "; ".join(f"its stages spent {cost[name]:,.0f} {name} of the budget of {budget[name]:,}" for name in over)


def status_of(outcomes: list[Outcome]) -> tuple[str, str]:
    """The worst of them and its reason. One that was ended by the budget is whole."""
    for status in ("failed", "out_of_budget", "missing", "ended_by_budget"):
        for outcome in outcomes:
            if outcome.status == status:
                return status, outcome.reason
    return "finished", ""


def measures_of(plan: Plan, row: Row, outcomes: Outcomes, measured: Outcome | None) -> dict[str, Any]:
    """Values and items in the order of the study's measures; a number of the stage's summary has no items."""
    found = dict(measured.summary["measures"]) if measured is not None else {}
    for name, config in plan.study.measures.items():
        if config.of is not None and row.model:
            found[name] = {"value": number_at(outcomes[row.paid[row.model]].summary, config.of), "items": {}}
    return {name: found[name] for name in plan.study.measures if name in found}


def number_at(summary: Mapping[str, Any], path: str) -> float | None:
    """The number at a dotted path of plain data; None where there is none.

    >>> number_at({"metric": {"value": 0.5}}, "metric.value"), number_at({}, "metric.value")
    (0.5, None)
    """
    here: Any = summary
    for segment in path.split("."):
        here = here.get(segment) if isinstance(here, Mapping) else None
    return float(here) if isinstance(here, int | float) and not isinstance(here, bool) else None


def curve_of(curve: CurveConfig, outcome: Outcome) -> list[dict[str, float]]:
    """Points of a curve from what its stage has written; gains over the start, where the KL is 0."""
    if not outcome.made or outcome.product is None:
        return []
    folder = outcome.product.parent
    if curve.kind == "best_of_n":
        found = (files.read_json(folder / "evaluation.json") or {}).get("best_of_n") or {}
        rows = [dict(zip(("kl", "proxy", "gold"), values, strict=True)) for values in _columns(found)]
    else:
        rows = (files.read_json(folder / "watch.json") or {}).get("observations", [])
    return gains(rows)


def _columns(curve: Mapping[str, Any]) -> Any:
    return zip(*(curve.get(name, []) for name in ("kl", "proxy", "gold")), strict=True)


def gains(rows: list[dict[str, Any]]) -> list[dict[str, float]]:
    """``kl``, and ``proxy`` and ``gold`` over those of the first row; rows without all three are left out.

    >>> gains([{"kl": 0.0, "proxy": 1.0, "gold": 2.0}, {"kl": 1.0, "proxy": 3.0, "gold": 1.5}])
    [{'kl': 0.0, 'proxy': 0.0, 'gold': 0.0}, {'kl': 1.0, 'proxy': 2.0, 'gold': -0.5}]
    """
    names = ("kl", "proxy", "gold")
    whole = [row for row in rows if all(row.get(name) is not None for name in names)]
    return [{"kl": row["kl"], **{name: row[name] - whole[0][name] for name in ("proxy", "gold")}} for row in whole]


def write(
    plan: Plan,
    outcomes: Outcomes,
    directory: Path,
    asked: Mapping[str, Any],
    seconds: float,
    environment: dict[str, Any],
    earlier: Sequence[dict[str, Any]] = (),
) -> None:
    """Write ``results.json`` whole, from what is known now. ``asked``: what else was asked for, by key; ``earlier``:
    what the same study had found before, which stands until its jobs have been looked at again."""
    known = {_place(row): row for row in earlier}
    rows = [row_of(plan, row, outcomes) for row in plan.rows]
    rows = [known.get(_place(row), row) if row["reason"] == NOT_RUN.reason else row for row in rows]
    value = {
        "study": plan.study.model_dump(mode="json"),
        "seeds": plan.seeds,
        **asked,
        "wall_seconds": round(seconds, 1),
        "environment": environment,
        "rows": rows,
    }
    files.write_json(directory / "results.json", value)


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["arm"], row["model"], row["seed"]
