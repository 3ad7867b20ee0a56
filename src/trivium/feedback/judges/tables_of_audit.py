"""An audit as a table for the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from trivium.feedback.judges.audit import interval_text
from trivium.progress import visible

COMPARED = (
    ("agreement with the reference", ("agreement",), ""),
    ("kappa", ("kappa",), ""),
    ("verdicts for the place shown first", ("position", "first"), ""),
    ("position bias", ("position", "bias"), "+"),
    ("both orders name the same answer", ("consistency",), ""),
    ("longer answer preferred by the judge", ("length", "judge"), ""),
    ("longer answer preferred by the reference", ("length", "reference"), ""),
    ("length bias", ("length", "bias"), "+"),
)


def text(report: Mapping[str, Any]) -> str:
    """The content of ``audit.json``, a line a number with its 95% interval, and the verdict; no colour."""
    # Without markup: names may have brackets.
    console = Console(width=110, color_system=None, highlight=False, markup=False)
    judge, asked = report["judge"], report["asked"]
    orders = "both orders" if judge["both_orders"] else "one order"
    principles = "all principles" if judge["principles"] == "all" else "a random principle"
    with console.capture() as capture:
        console.print(visible(f"{judge['name']} by the constitution {judge['constitution']} ({principles}, {orders})"))
        console.print(_table(asked, report["annotators"]))
        for measured in asked.values():
            for name, agreement in (measured.get("principles") or {}).items():
                console.print(visible(f"by the principle {name} alone: agreement {interval_text(agreement)}"))
        console.print(_usage(report))
        console.print(visible(report["told"]))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _table(asked: Mapping[str, Any], people: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for how in asked:
        table.add_column(f"by {how}", justify="right", no_wrap=True)
    table.add_row("pairs", *(str(measured["n"]) for measured in asked.values()))
    table.add_row("without a verdict", *(str(measured["missing"]) for measured in asked.values()))
    for words, path, sign in COMPARED:
        cells = [interval_text(_at(measured, path), sign) for measured in asked.values()]
        if set(cells) != {"-"}:
            table.add_row(words, *cells)
    for words, key in (("calibration error", "ece"), ("log loss", "log_loss")):
        values = [(measured["calibration"] or {}).get(key) for measured in asked.values()]
        if any(value is not None for value in values):
            table.add_row(words, *("-" if value is None else f"{value:.3f}" for value in values))
    if people["kappa"] is not None:
        table.add_section()
        table.add_row(f"pairs that several of {people['annotators']} annotators ranked", str(people["n"]))
        table.add_row("kappa between annotators", interval_text(people["kappa"]))
        table.add_row("kappa of the judge with them", interval_text(people["judge"]["kappa"]))
    return table


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        value = None if value is None else value[key]
    return value


def _usage(report: Mapping[str, Any]) -> str:
    return f"{report['contradictions']} contradictions; {usage_text(report['usage'])}"


def usage_text(usage: Mapping[str, Any]) -> str:
    """
    >>> usage_text({"calls": 2, "cached": 1, "missing": 0, "prompt_tokens": 90, "completion_tokens": 2, "cost": 0.5})
    '2 calls, 1 more from the cache, 0 without a verdict; 90 + 2 tokens, $0.5000'
    """
    cost = f", ${usage['cost']:.4f}" if usage["cost"] else ""
    return (
        f"{usage['calls']} calls, {usage['cached']} more from the cache, {usage['missing']} without a verdict; "
        f"{usage['prompt_tokens']} + {usage['completion_tokens']} tokens{cost}"
    )
