"""What is known of AI judges: how far an audit trusts them, and what their calls cost."""

from typing import Any

from trivium.feedback.judges.base import known_name
from trivium.report.loading import Run, Stage, mapping, number
from trivium.report.tables import Table
from trivium.report.wording import MISSING, clean, count, decimal, duration, signed

WAYS = {"compare": "Comparing two answers", "score": "Scoring one answer"}
ANNOTATORS = "Annotators together"
REFERENCES = {"gold": "the gold score", "rankings": "the rankings"}
_COUNTS = ("calls", "cached", "missing", "prompt_tokens", "completion_tokens", "cost", "seconds")


def ways(stage: Stage) -> dict[str, dict[str, Any]]:
    """The measurements of an audit by how the judge was asked."""
    asked = mapping(stage.audit.get("asked"))
    return {name: entry for name in WAYS if (entry := mapping(asked.get(name)))}


def judge_name(stage: Stage) -> str:
    """Who was asked: by the audit, or else by the configuration."""
    told = mapping(stage.audit.get("judge")).get("name")
    if isinstance(told, str) and told:
        return clean(told, 60)
    asked = mapping(stage.config.get("judge"))
    model = asked.get("model")
    if not isinstance(model, str):
        return "the judge"
    return clean(f"judge:{known_name(model) if asked.get('backend', 'local') == 'local' else model}", 60)


def chance(stage: Stage) -> bool:
    """Whether an audit found its judge no better than chance."""
    return stage.audit.get("chance") is True


def sentence(stage: Stage) -> str:
    """The verdict of an audit: its own, or where it tells none what the interval of κ carries."""
    told = stage.audit.get("told")
    if isinstance(told, str) and told.strip():
        return clean(told.strip(), 600)
    found = next(iter(ways(stage).values()), {})
    kappa = mapping(found.get("kappa"))
    if number(kappa.get("estimate")) is None:
        return f"Nothing is known of how far {judge_name(stage)} can be trusted."
    claim = "is no better than chance" if chance(stage) else "agrees"
    reference = REFERENCES.get(str(stage.audit.get("reference")), "the reference")
    link = "against" if chance(stage) else "with"
    return f"{judge_name(stage)} {claim} {link} {reference}: κ {interval(kappa)}."


def contradictions(stage: Stage) -> str:
    """How many comparisons the judge contradicts itself on; empty where that was not measured."""
    found = number(stage.audit.get("contradictions"))
    compared = mapping(mapping(stage.audit.get("asked")).get("compare"))
    if found is None or not compared or mapping(stage.audit.get("judge")).get("both_orders") is False:
        return ""
    pairs = number(compared.get("n"))
    of = f" of {decimal(int(pairs))} pairs" if pairs else " pairs"
    return f"On {decimal(int(found))}{of} it contradicts itself when the answers change places."


def interval(entry: Any, digits: int = 3, sign: bool = False) -> str:
    """An estimate with its interval, which may be missing.

    >>> interval({"estimate": 0.5, "low": 0.4, "high": 0.6}), interval({"estimate": -0.5}, 2, True), interval(None)
    ('0.500 (0.400 to 0.600)', '−0.50', '–')
    """
    entry = mapping(entry)
    estimate, low, high = (number(entry.get(key)) for key in ("estimate", "low", "high"))
    if estimate is None:
        return MISSING
    write = signed if sign else decimal
    bounds = f" ({write(low, digits)} to {write(high, digits)})" if low is not None and high is not None else ""
    return write(estimate, digits) + bounds


def table(stage: Stage) -> Table | None:
    """All numbers of an audit: a column for each way of asking; beside them annotators against each other, and the
    judge against them on the pairs that two or more of them ranked."""
    found = ways(stage)
    if not found:
        return None
    people = mapping(stage.audit.get("annotators"))
    beside = {
        ANNOTATORS: people,
        "Judge on their pairs": {"n": people.get("n"), **mapping(people.get("judge"))},
    }
    beside = {name: entry for name, entry in beside.items() if any(_estimate(entry.get(key)) for key in _PEOPLE)}
    entries = [*found.values(), *beside.values()]

    def row(name: str, *path: str, sign: bool = False) -> list[str]:
        return [name, *(interval(_at(entry, path), 2, sign) for entry in entries)]

    rows = [
        ["Pairs", *(decimal(_whole(entry.get("n"))) for entry in entries)],
        ["Without a verdict", *(decimal(_whole(entry.get("missing"))) for entry in entries)],
        row("Agreement (ties count half)", "agreement"),
        row("Cohen’s κ", "kappa"),
        row("Verdicts for the first place", "position", "first"),
        row("Position bias (P(first) − 0.5)", "position", "bias", sign=True),
        row("Same verdict in both orders", "consistency"),
        row("Prefers the longer answer", "length", "judge"),
        row("Reference prefers the longer", "length", "reference"),
        row("Length bias (their difference)", "length", "bias", sign=True),
        ["Calibration error (ECE)", *(decimal(_at(entry, ("calibration", "ece"))) for entry in entries)],
        ["Log-loss (nats; a coin has 0.693)", *(decimal(_at(e, ("calibration", "log_loss"))) for e in entries)],
    ]
    rows = [row for row in rows if any(cell != MISSING for cell in row[1:])]
    header = ["", *(WAYS[name] for name in found), *beside]
    against = REFERENCES.get(str(stage.audit.get("reference")), "the reference")
    return Table(f"{judge_name(stage)} against {against}, with 95% intervals over prompts", header, rows)


_PEOPLE = ("agreement", "kappa")


def principle_table(stage: Stage) -> Table | None:
    """The agreement of each principle alone, where there are several."""
    told = {name: entry for entry in ways(stage).values() for name, entry in mapping(entry.get("principles")).items()}
    rows = [[clean(name, 80), interval(entry)] for name, entry in told.items() if _estimate(entry)]
    caption = "Agreement of each principle alone, with 95% intervals over prompts"
    return Table(caption, ["Principle", "Agreement"], rows) if len(rows) > 1 else None


def _estimate(entry: Any) -> bool:
    return number(mapping(entry).get("estimate")) is not None


def _at(entry: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        entry = mapping(entry).get(key)
    return entry


def _whole(value: Any) -> int | None:
    found = number(value)
    return None if found is None else int(found)


def kappas(stage: Stage) -> list[tuple[str, float, float, float]]:
    """(who, κ, low, high) of every way of asking and of annotators with each other, as far as they have intervals."""
    entries: list[tuple[str, Any]] = [(WAYS[name], entry.get("kappa")) for name, entry in ways(stage).items()]
    found = []
    for name, entry in [*entries, (ANNOTATORS, mapping(stage.audit.get("annotators")).get("kappa"))]:
        value, low, high = (number(mapping(entry).get(key)) for key in ("estimate", "low", "high"))
        if value is not None and low is not None and high is not None:
            found.append((name, value, low, high))
    return found


def calibration(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The bins of a calibration that have pairs and both numbers."""
    bins = mapping(entry.get("calibration")).get("bins")
    found = [mapping(one) for one in bins] if isinstance(bins, list) else []
    return [one for one in found if number(one.get("n")) and all(number(one.get(k)) is not None for k in _CALIBRATED)]


_CALIBRATED = ("predicted", "observed")


# ---- what calls cost -------------------------------------------------------------------------------------------------


def usages(stage: Stage) -> dict[str, dict[str, float]]:
    """What the judges of a stage cost, by judge.

    A summary tells ``usage`` as one account or as accounts by name; an iterated DPO may tell it by iteration alone,
    and an audit in its file.
    """
    for found in (stage.summary.get("usage"), stage.audit.get("usage")):
        if accounts := _accounts(found, judge_name(stage)):
            return accounts
    rows = [_account(row.get("usage")) for row in stage.iterations]
    total = {key: sum(row[key] for row in rows if key in row) for key in _COUNTS if any(key in row for row in rows)}
    return {judge_name(stage): total} if total else {}


def _accounts(value: Any, name: str) -> dict[str, dict[str, float]]:
    if own := _account(value):
        return {name: own}
    parts = {key: found for key, inner in mapping(value).items() if (found := _account(inner))}
    return {f"the judge of “{clean(key, 60)}”": found for key, found in parts.items()}


def _account(value: Any) -> dict[str, float]:
    entry = mapping(value)
    found = {key: amount for key in _COUNTS if (amount := number(entry.get(key))) is not None}
    return found if "calls" in found else {}


def missing_share(usage: dict[str, float]) -> float | None:
    """The share of questions that got no verdict, of those that were asked or answered from the cache."""
    asked = usage.get("calls", 0.0) + usage.get("cached", 0.0)
    return usage["missing"] / asked if asked and "missing" in usage else None


def usage_table(run: Run) -> Table | None:
    """What every judge of the run cost."""
    rows = []
    for stage in run.stages:
        for name, usage in usages(stage).items():
            amounts = [decimal(_whole(usage.get(key))) for key in ("calls", "cached")]
            tokens = [count(usage.get(key)) for key in ("prompt_tokens", "completion_tokens")]
            share = missing_share(usage)
            cost = usage.get("cost")
            rows.append(
                [
                    f"{stage.label}: {name}",
                    *amounts,
                    MISSING if share is None else f"{100 * share:.1f}%",
                    *tokens,
                    MISSING if cost is None else f"${cost:,.2f}" if cost else "none",
                    duration(usage.get("seconds")),
                ]
            )
    header = ["Judge", "Calls", "From the cache", "No verdict", "Tokens read", "Tokens written", "Cost", "Time"]
    return Table("What the judges were asked and what that cost", header, rows) if rows else None


def usage_sentence(stage: Stage) -> str:
    """What a stage's judges cost, in a sentence; empty for a stage without one."""
    parts = []
    for name, usage in usages(stage).items():
        who = name.replace("the judge", "The judge", 1) if name.startswith("the judge") else name
        text = f"{who} was asked {decimal(int(usage['calls']))} times"
        if usage.get("cached"):
            text += f" ({decimal(int(usage['cached']))} more answers came from the cache)"
        share = missing_share(usage)
        if share is not None:
            text += f", {100 * share:.1f}% of its answers were no verdict"
        tokens = usage.get("prompt_tokens", 0.0) + usage.get("completion_tokens", 0.0)
        text += f", {count(tokens)} tokens" if tokens else ""
        text += f", ${usage['cost']:,.2f}" if usage.get("cost") else ""
        parts.append(text + ".")
    return " ".join(parts)
