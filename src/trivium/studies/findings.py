"""What a study found, in plain sentences made from its numbers."""

from collections.abc import Iterable

from trivium.report.loading import mapping, number
from trivium.report.wording import count, decimal, signed
from trivium.studies.analysis import DONE, Analysis, Comparison, Label, Measure
from trivium.studies.claims import Sides, names
from trivium.studies.fits import CurveFit

MOST = 4  # differences told one by one; the table has the rest
WORDS = {
    "failed": "Failed",
    "out_of_budget": "Out of budget before it could be measured",
    "missing": "Without a result",
    "ended_by_budget": "Ended by the budget, and measured as it stood",
}
FORMS = {"best_of_n": "d (α − β d)", "rl": "d (α − β ln d)"}


def paragraph(analysis: Analysis) -> str:
    """The findings as one paragraph: what was compared, what is certain, what is not, and what of the claim."""
    return " ".join(sentences(analysis))


def sentences(analysis: Analysis) -> list[str]:
    found = [
        compared(analysis),
        *unfinished(analysis),
        *overspent(analysis),
        *versions(analysis),
        "In brackets: 95% intervals.",
    ]
    if len(analysis.seeds) < 2:
        found.append("One seed says nothing of the chance between seeds: no difference is certain.")
    for measure in analysis.measures:
        if not measure.derived:
            found += of_measure(analysis, measure)
    found += of_curves(analysis)
    return [sentence for sentence in [*found, *of_claim(analysis)] if sentence]


def listed(words: Iterable[str]) -> str:
    """
    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    each = list(words)
    return each[0] if len(each) == 1 else f"{', '.join(each[:-1])} and {each[-1]}" if each else "nothing"


def several(n: int, word: str) -> str:
    return f"{decimal(n)} {word}" if n == 1 else f"{decimal(n)} {word}s"


def budget(study: dict[str, object]) -> str:
    """The budget of an arm in words; empty where there is none."""
    kinds = {"tokens": "{} tokens trained", "generated": "{} tokens generated", "seconds": "{} seconds"}
    given = mapping(study.get("budget"))
    told = [words.format(count(given[key])) for key, words in kinds.items() if given.get(key)]
    return listed(told) if told else ""


def compared(analysis: Analysis) -> str:
    arms = list(dict.fromkeys(label.arm for label in analysis.labels))
    told = f"{several(len(arms), 'arm')} ({', '.join(arms)})" if arms else "No arm"
    models = f", measured after {listed(analysis.models)}," if len(analysis.models) < len(analysis.labels) else ""
    limit = budget(analysis.study)
    stages = [str(stage) for stage in analysis.study.get("shared") or []]
    shared, none = listed(stages), f"{_are(len(stages))} part of nobody's budget"
    paid = f", each on a budget of {limit}" if limit else ", without a budget"
    apart = f" ({shared} {none})" if limit and stages else ""
    seeds, were = several(len(analysis.seeds), "seed"), "was" if len(arms) == 1 else "were"
    return f"{told}{models} {were} compared on {seeds}{paid}{apart}."


def unfinished(analysis: Analysis) -> list[str]:
    """A sentence for each status other than finished, with the labels and in how many of their seeds."""
    found = []
    for state, words in WORDS.items():
        hit = [(label, label.states[state]) for label in analysis.labels if state in label.states]
        if hit:
            each = listed(f"{label.name} ({n} of {several(sum(label.states.values()), 'seed')})" for label, n in hit)
            found.append(f"{words}: {each}.")
    return found


def overspent(analysis: Analysis) -> list[str]:
    """A stage ends with the step that passes its budget, and what is sampled after the steps is not cut at all."""
    shares = {label.name: budget_ratio(analysis, label.name) or 0.0 for label in analysis.labels}
    over = [f"{name} ({share:.0%})" for name, share in shares.items() if share >= 1.005]
    return [f"Spent more than the budget: {listed(over)}."] if over else []


def versions(analysis: Analysis) -> list[str]:
    """That stages of before an upgrade were taken, which a difference may then be due to."""
    rows = analysis.results.get("rows") or []
    found = list(dict.fromkeys(code for row in rows if isinstance(row, dict) for code in row.get("code") or []))
    return [f"The stages were made by {len(found)} versions of Trivium ({listed(found)})."] if len(found) > 1 else []


def points(value: float, low: float | None, high: float | None, sign: bool = True) -> str:
    """A number with its interval.

    >>> points(0.25, 0.125, 0.375), points(0.5, None, None, sign=False)
    ('+0.250 (+0.125 to +0.375)', '0.500')
    """

    def write(one: float | None) -> str:
        return signed(one, 3) if sign else decimal(one)

    return write(value) + (f" ({write(low)} to {write(high)})" if low is not None else "")


def of_measure(analysis: Analysis, measure: Measure) -> list[str]:
    if not measure.means:
        return [f"{measure.title}: measured nowhere."]
    found = []
    if measure.better != "neither" and len(measure.means) > 1 and not analysis.on_axis:
        found.append(best(measure))
    found += fewer(analysis, measure)
    lines = series(analysis, measure) if analysis.on_axis else []
    return found + (lines or differences(measure, begun=bool(found))) + bounds(analysis, measure)


def best(measure: Measure) -> str:
    """Whose mean is highest (or lowest, where that is better), all who share it, and whether all are over the same."""
    sign, end = (-1, "lowest") if measure.better == "lower" else (1, "highest")
    top = max(sign * mean.estimate for mean in measure.means.values())
    names = [label for label, mean in measure.means.items() if sign * mean.estimate == top]
    if len(names) == len(measure.means):
        return f"On {measure.title}, the means are alike: {decimal(sign * top)}."
    alone = points(*measure.means[names[0]][:3], sign=False) if len(names) == 1 else decimal(sign * top)
    seen = {
        frozenset((seed, *_items(value)) for seed, value in measure.values[label].items()) for label in measure.means
    }
    apart = " (the means are not all over the same seeds and prompts; the differences are)" if len(seen) > 1 else ""
    return f"On {measure.title}, {listed(names)} {_are(len(names))} {end} with {alone}{apart}."


def _items(value: float | dict[str, float]) -> tuple[str, ...]:
    return tuple(sorted(value)) if isinstance(value, dict) else ()


def fewer(analysis: Analysis, measure: Measure) -> list[str]:
    """Labels of which a seed that came to its end has no number here."""
    short = []
    for label in analysis.labels:
        done = sum(label.states.get(state, 0) for state in DONE)
        with_number = len(measure.values.get(label.name, {}))
        if 0 < with_number < done:
            short.append(f"{label.name} ({with_number} of {several(done, 'seed')})")
    return [f"A number of fewer seeds on {measure.title}: {listed(short)}."] if short else []


def bounds(analysis: Analysis, measure: Measure) -> list[str]:
    """Best-of-n has no KL that could be sampled: what stands for it is a bound, with which nothing is compared."""
    if mapping(mapping(analysis.study.get("measures")).get(measure.name)).get("kl_to") is None:
        return []
    arms = mapping(analysis.study.get("arms"))
    named = [arm for arm, config in arms.items() if mapping(config).get("best_of") and arm in measure.means]
    return [f"That of {listed(named)} is the bound ln n − (n − 1)/n, no measurement."] if named else []


def differences(measure: Measure, begun: bool = False) -> list[str]:
    """How many of the comparisons are certain, the largest of them, and those that are not.

    ``begun`` says that the sentence before is about the same measure.
    """
    tested = [one for one in measure.comparisons if one.p is not None]
    if not tested:
        return []
    certain = sorted((one for one in tested if one.certain), key=lambda one: -abs(one.evidence.estimate))
    n, start = len(tested), "Of" if begun else f"On {measure.title}, of"
    many = f"{start} {n} comparisons, corrected together (Holm),"
    if n == 1:
        where = "" if begun else f" on {measure.title}"
        return [f"The one difference{where} is {'certain' if certain else 'not certain'}: {difference(tested[0])}."]
    if not certain:
        largest = max(tested, key=lambda one: abs(one.evidence.estimate))
        return [f"{many} none is certain; the largest is {difference(largest)}."]
    told = listed(difference(one) for one in certain[:MOST])
    smaller, others = len(certain) - MOST, len(tested) - len(certain) - MOST
    more = f", and {smaller} smaller {'one' if smaller == 1 else 'ones'}" if smaller > 0 else ""
    found = [f"{many} {'all' if len(certain) == n else len(certain)} {_are(len(certain))} certain: {told}{more}."]
    opened = [one for one in tested if not one.certain]
    if opened:
        pairs = listed(f"{one.second} against {one.first}" for one in opened[:MOST])
        rest = f" and {others} {'other' if others == 1 else 'others'}" if others > 0 else ""
        found.append(f"Not certain at this number of seeds: {pairs}{rest}.")
    return found


def _are(n: int) -> str:
    return "is" if n == 1 else "are"


def difference(one: Comparison) -> str:
    """The higher first, so that every difference told is above 0."""
    value, low, high = one.evidence[:3]
    if value == 0:
        return f"{one.second} as {one.first}, {points(value, low, high)} apart"
    if value > 0:
        return f"{one.second} above {one.first} by {points(value, low, high)}"
    turned = (None, None) if low is None or high is None else (-high, -low)
    return f"{one.first} above {one.second} by {points(-value, *turned)}"


def series(analysis: Analysis, measure: Measure) -> list[str]:
    """Where two models on the axis part: at which x the one is certainly above the other."""
    places = {label.name: label for label in analysis.on_axis}
    pairs: dict[tuple[str, str], list[tuple[float, Comparison]]] = {}
    for one in measure.comparisons:
        first, second = places.get(one.first), places.get(one.second)
        if first and second and first.arm == second.arm and first.x is not None:
            pairs.setdefault((first.model, second.model), []).append((first.x, one))
    every = sorted({label.x for label in analysis.on_axis if label.x is not None})
    found = []
    for (first_model, second_model), along in pairs.items():
        along.sort(key=lambda pair: pair[0])
        above = [x for x, one in along if one.certain and one.evidence.estimate > 0]
        below = [x for x, one in along if one.certain and one.evidence.estimate < 0]
        opened = [x for x, one in along if not one.certain]
        parts = []
        for places_of, word in ((above, "above"), (below, "below")):
            if places_of:
                most = max((one for x, one in along if x in places_of), key=lambda one: abs(one.evidence.estimate))
                x = next(x for x, one in along if one is most)
                parts.append(
                    f"certainly {word} {first_model} at {_places(places_of, every)} "
                    f"(most at {x:g}: {points(*most.evidence[:3])})"
                )
        if opened:
            other = "it" if parts else first_model
            parts.append(f"not certainly apart from {other} at {_places(opened, every)}")
        found.append(f"On {measure.title}, {second_model} is {'; '.join(parts)}.")
    tested = sum(one.p is not None for one in measure.comparisons)
    if found and tested > 1:
        found.append(f"All {tested} comparisons of {measure.title} are corrected together (Holm).")
    return found


def _places(some: list[float], every: list[float]) -> str:
    """
    >>> _places([0.2, 0.4], [0.0, 0.2, 0.4]), _places([0.0, 0.4], [0.0, 0.2, 0.4]), _places([1.0], [1.0])
    ('every x from 0.2 on', 'x = 0 and 0.4', 'every x')
    """
    if some == every:
        return "every x"
    if len(some) > 1 and some == every[-len(some) :]:
        return f"every x from {some[0]:g} on"
    return f"x = {listed(f'{x:g}' for x in some)}"


def of_curves(analysis: Analysis) -> list[str]:
    """For each curve: which form fits whom better, whose gold turned down, and which highest gold gains differ."""
    found = []
    for name in dict.fromkeys(curve.curve for curve in analysis.fits):
        curves = [curve for curve in analysis.fits if curve.curve == name]
        fitted = [curve for curve in curves if curve.fitted]
        short = [curve.label for curve in curves if not curve.fitted]
        if short:
            found.append(f"Too few points for a fit ({name}): {listed(short)}.")
        if not fitted:
            continue
        parts = []
        for better, words in (*((form, f"{shape} fits better for") for form, shape in FORMS.items()), (None, "")):
            alike = [curve.label for curve in fitted if curve.better == better]
            if alike:
                parts.append(f"{words} {listed(alike)}" if better else f"the two forms fit alike for {listed(alike)}")
        found.append(f"Of gold along {name}, {'; '.join(parts)}.")
        found.append(f"Its peak lies {_peaks(fitted)}.")
        gains = next((one for one in analysis.measures if one.name == f"{name}/best"), None)
        found += differences(gains) if gains else []
    return found


def _peaks(fitted: Iterable[CurveFit]) -> str:
    """Whose peak lies within the KL measured, whose beyond; with how many seeds agree."""
    within, beyond = [], []
    for curve in fitted:
        peak, seeds = curve.peak_kl, f"{curve.inside} of {several(curve.fitted, 'seed')}"
        if peak is not None and peak <= curve.largest_kl:
            within.append(f"{curve.label} (KL {decimal(peak, 2)}; in {seeds})")
        else:
            beyond.append(f"{curve.label} (to KL {decimal(curve.largest_kl, 2)}; within in {seeds})")
    told = [f"within the KL measured for {listed(within)}"] if within else []
    return "; ".join(
        [
            *told,
            *(
                [f"beyond it for {listed(beyond)}"]
                if beyond and within
                else [f"beyond the KL measured for {listed(beyond)}"]
                if beyond
                else []
            ),
        ]
    )


def of_claim(analysis: Analysis) -> list[str]:
    claim = str(analysis.study.get("claim") or "").strip()
    if not claim:
        return []
    quoted = f"The claim “{claim.rstrip('.')}”"
    verdict = analysis.verdict
    if verdict is None:
        return [f"{quoted} is tied to no comparison (holds_if); the numbers above are what there is to judge it by."]
    words = {
        "supported": "is supported",
        "contradicted": "is contradicted",
        "open": "is neither supported nor contradicted: it stays open",
    }
    measures = {measure.name: measure for measure in analysis.measures}
    reasons = [_reason(side, one, measures.get(side.measure)) for side, _, one in verdict.parts]
    held = sum(outcome == "supported" for _, outcome, _ in verdict.parts)
    share = f" ({held} of {len(reasons)} comparisons as claimed)" if len(reasons) > 1 else ""
    return [f"{quoted} {words[verdict.outcome]}{share}: {'; '.join(reasons)}."]


def _reason(side: Sides, one: Comparison | None, measure: Measure | None) -> str:
    if side.problem:
        return side.problem
    title = measure.title if measure else side.measure
    if one is None or measure is None:
        return f"{side.better} and {side.worse} have no common seed on {title}"
    value, low, high = one.evidence[:3]
    if one.first != names(side)[0]:
        value, low, high = -value, None if high is None else -high, None if low is None else -low
    sure = "certain" if one.certain else "not certain"
    p = f", corrected p {'below 0.001' if one.p < 0.001 else decimal(one.p)}" if one.p is not None else ""
    arms = len(side.pairs)
    over = f", mean over {arms - one.lost} of {arms} arms," if arms > 1 else ""
    return f"{side.better} less {side.worse} on {title}{over} is {points(value, low, high)}, {sure}{p}"


def label_states(label: Label) -> str:
    """What became of a label's seeds, in words."""
    return listed(f"{n} {state.replace('_', ' ')}" for state, n in label.states.items())


def budget_ratio(analysis: Analysis, label: str) -> float | None:
    """The largest share of any part of the budget that a label spent, on average over seeds."""
    given = mapping(analysis.study.get("budget"))
    spent = analysis.costs.get(label, {})
    shares = [spent[key] / limit for key in spent if (limit := number(given.get(key)))]
    return max(shares, default=None)
