"""The tables of a study's report, and all its numbers as plain data."""

from dataclasses import asdict
from typing import Any

from trivium.evaluation.intervals import Evidence
from trivium.report.tables import Table
from trivium.report.wording import MISSING, clean, count, decimal, duration, signed
from trivium.studies.analysis import DONE, Analysis, Comparison, Measure
from trivium.studies.findings import FORMS, WORDS, budget_ratio, label_states, several


def whole(mean: float | None) -> str:
    """A mean of counts, without its fraction."""
    return count(None if mean is None else round(mean))


COSTS = {
    "tokens": ("Tokens trained", whole),
    "generated": ("Tokens generated", whole),
    "answer_tokens": ("Tokens an answer", whole),
    "seconds": ("Time of its stages", duration),
    "shared_seconds": ("Time of shared stages", duration),
}


def means_table(analysis: Analysis) -> Table:
    """A row a label, a column a measure: the mean over seeds with its interval."""
    measures = [one for one in analysis.measures if not one.derived]
    rows = [
        [
            _struck(label.name, label.missing and not _measured(analysis, label.name)),
            *(evidence(one.means.get(label.name)) for one in measures),
        ]
        for label in analysis.labels
    ]
    return Table("Means over seeds, with 95% intervals", ["", *(clean(one.title, 60) for one in measures)], rows)


def along_table(analysis: Analysis) -> Table | None:
    """What is read off the curves, as ``means_table``."""
    measures = [one for one in analysis.measures if one.derived]
    rows = [
        [label.name, *(evidence(one.means.get(label.name)) for one in measures)]
        for label in analysis.labels
        if any(label.name in one.means for one in measures)
    ]
    header = ["", *(clean(one.title, 60) for one in measures)]
    return Table("Read off the curves: means over seeds, with 95% intervals", header, rows) if rows else None


def _measured(analysis: Analysis, label: str) -> bool:
    return any(label in measure.means for measure in analysis.measures)


def _struck(name: str, struck: object) -> str:
    return f"{name} (no result)" if struck else name


def evidence(found: Evidence | None, sign: bool = False) -> str:
    """
    >>> evidence(Evidence(0.5, 0.25, 0.75, None, 2, 0))
    '0.500\\n0.250 to 0.750'
    """
    if found is None:
        return MISSING
    write = (lambda value: signed(value, 3)) if sign else decimal
    if found.low is None or found.low == found.high:  # one number, or the same one everywhere
        return write(found.estimate)
    return write(found.estimate) + f"\n{write(found.low)} to {write(found.high)}"


def arms_table(analysis: Analysis) -> Table:
    arms = {label.arm: label for label in analysis.labels}
    rows = [[arm, clean(label.about, 200) or MISSING] for arm, label in arms.items()]
    return Table("The arms", ["Arm", "What it does"], rows)


def comparison_tables(analysis: Analysis) -> list[dict[str, Any]]:
    """For each measure its comparisons, certain ones first and larger ones before smaller."""
    found = []
    for measure in analysis.measures:
        if not measure.comparisons:
            continue
        ordered = sorted(measure.comparisons, key=lambda one: (not one.certain, -abs(one.evidence.estimate)))
        tested = sum(one.p is not None for one in measure.comparisons)
        words = f"corrected for {several(tested, 'comparison')} (Holm)" if tested else "one seed: nothing is tested"
        found.append(
            {
                "table": Table(
                    f"{measure.title}: paired differences with 95% intervals; p {words}",
                    ["Comparison", "Difference", "95% interval", "Seeds", "p", "p corrected", "Reading"],
                    [_comparison(one, measure) for one in ordered],
                ),
                "title": measure.title,
                "certain": sum(one.certain for one in measure.comparisons),
                "n": len(ordered),
            }
        )
    return found


def _comparison(one: Comparison, measure: Measure) -> list[str]:
    value, low, high, p, seeds, _ = one.evidence
    if not one.certain:
        reading = "not certain"
    elif measure.better == "neither":
        reading = "certainly more" if value > 0 else "certainly less"
    else:
        reading = "certainly better" if (value > 0) == (measure.better == "higher") else "certainly worse"
    interval = MISSING if low is None else f"{signed(low, 3)} to {signed(high, 3)}"
    name = f"{one.second} against {one.first}"
    return [clean(name, 120), signed(value, 3), interval, str(seeds), probability(p), probability(one.p), reading]


def probability(p: float | None) -> str:
    """
    >>> probability(0.0004), probability(0.0312), probability(None)
    ('< 0.001', '0.031', '–')
    """
    return MISSING if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def fits_table(analysis: Analysis) -> Table | None:
    rows = []
    for curve in analysis.fits:
        form = curve.form
        peak = curve.peak_kl
        rows.append(
            [
                f"{curve.label}, {curve.curve}",
                ("" if curve.better else "≈ ") + FORMS[form],
                evidence(curve.alpha.get(form)),
                evidence(curve.beta.get(form)),
                evidence(curve.aic_difference, sign=True),
                MISSING if peak is None else decimal(peak, 2) if peak < 1e3 else "> 1000",
                decimal(curve.largest_kl, 2),
                f"{curve.inside} of {curve.fitted}",
            ]
        )
    header = ["Curve", "Form", "α", "β", "AIC difference", "KL of the peak", "Largest KL", "Peak within"]
    return (
        Table(
            "Fitted forms, parameters over seeds with 95% intervals (d = √KL; ≈: the other form fits alike)",
            header,
            rows,
        )
        if rows
        else None
    )


def costs_table(analysis: Analysis) -> Table | None:
    used = [key for key in COSTS if any(key in costs for costs in analysis.costs.values())]
    if not used:
        return None
    shares = {label.name: budget_ratio(analysis, label.name) for label in analysis.labels}
    limited = any(share is not None for share in shares.values())
    rows = [
        [
            label.name,
            *(COSTS[key][1](analysis.costs[label.name].get(key)) for key in used),
            *([MISSING if (share := shares[label.name]) is None else f"{share:.0%}"] if limited else []),
        ]
        for label in analysis.labels
        if label.name in analysis.costs
    ]
    header = ["", *(COSTS[key][0] for key in used), *(["Share of the budget"] if limited else [])]
    return Table("Cost of one seed, means", header, rows)


def lost_table(analysis: Analysis) -> Table | None:
    """Labels of which a seed failed, ran out of budget, is missing or was ended by the budget, with the reasons."""
    rows = [
        [label.name, label_states(label), clean("; ".join(label.reasons), 600) or MISSING]
        for label in analysis.labels
        if set(label.states) & set(WORDS)
    ]
    return Table("Seeds by what became of them", ["", "Seeds", "Why"], rows) if rows else None


def as_data(analysis: Analysis) -> dict[str, Any]:
    """Every number that the report shows, as plain data (``analysis.json``)."""
    verdict = analysis.verdict
    return {
        "seeds": analysis.seeds,
        "labels": {
            one.name: {"states": one.states, "done": sum(one.states.get(s, 0) for s in DONE)} for one in analysis.labels
        },
        "measures": {
            one.name: {
                "title": one.title,
                "better": one.better,
                "means": {label: mean._asdict() for label, mean in one.means.items()},
                "comparisons": [
                    {
                        "first": two.first,
                        "second": two.second,
                        **two.evidence._asdict(),
                        "p_corrected": two.p,
                        "certain": two.certain,
                    }
                    for two in one.comparisons
                ],
            }
            for one in analysis.measures
        },
        "costs": analysis.costs,
        "fits": [
            {
                "label": one.label,
                "curve": one.curve,
                "better": one.better,
                "alpha": {form: found._asdict() for form, found in one.alpha.items()},
                "beta": {form: found._asdict() for form, found in one.beta.items()},
                "aic_difference": one.aic_difference._asdict() if one.aic_difference else None,
                "peak_kl": one.peak_kl,
                "largest_kl": one.largest_kl,
            }
            for one in analysis.fits
        ],
        "claim": None
        if verdict is None
        else {
            "outcome": verdict.outcome,
            "parts": [{**asdict(side), "outcome": how} for side, how, _ in verdict.parts],
        },
    }
