"""From results to numbers: what is paired with what, what is certain, what a claim comes to."""

import json
import math
from typing import Any

import pytest

from tests.studies.results_fixture import SEEDS, of_arms, of_curves, on_axis
from trivium.errors import UserError
from trivium.studies.analysis import Analysis, Comparison, analyse, load
from trivium.studies.findings import paragraph
from trivium.studies.paired import differences, pooled


def comparison(analysis: Analysis, measure: str, first: str, second: str) -> Comparison:
    table = {(one.first, one.second): one for m in analysis.measures if m.name == measure for one in m.comparisons}
    return table[first, second]


def test_differences_are_paired_by_seed_and_item() -> None:
    """Two arms over hard and easy seeds: what the seeds share cancels."""
    found = analyse(of_arms())
    one = comparison(found, "accuracy", "sft", "rl")
    means = next(m for m in found.measures if m.name == "accuracy").means
    assert one.evidence.estimate == pytest.approx(means["rl"].estimate - means["sft"].estimate)
    assert (one.evidence.seeds, one.evidence.items) == (5, 600)
    assert one.certain


def test_only_common_seeds_count() -> None:
    found = analyse(of_arms())
    assert comparison(found, "accuracy", "sft", "rlaif").evidence.seeds == 4  # one of them failed
    assert not any("rlhf" in (one.first, one.second) for one in found.measures[0].comparisons)


def test_by_hand() -> None:
    """Differences of 0.5 (items) and 0.3 (items) in two seeds: mean 0.4, error 0.1, t = 4 with one degree."""
    results = of_arms((0, 1))
    shares = {("sft", 0): 0.2, ("sft", 1): 0.4, ("rl", 0): 0.7, ("rl", 1): 0.7}
    rows = []
    for (arm, seed), share in shares.items():
        items = {f"{seed}-{i}": float(i < 10 * share) for i in range(10)}
        row = next(row for row in results["rows"] if (row["arm"], row["seed"]) == (arm, seed))
        rows.append({**row, "measures": {"accuracy": {"value": share, "items": items}}})
    one = comparison(analyse({**results, "rows": rows}), "accuracy", "sft", "rl")
    assert one.evidence.estimate == pytest.approx(0.4)
    assert one.evidence.p == pytest.approx(1 - 2 / math.pi * math.atan(4))
    assert one.p == one.evidence.p  # the only comparison: nothing to correct for


def test_p_values_are_corrected_for_all_comparisons_of_the_measure() -> None:
    found = analyse(of_arms()).measures[0].comparisons
    assert len(found) == 6
    smallest = min(found, key=lambda one: one.evidence.p or 0)
    assert smallest.p == pytest.approx(6 * (smallest.evidence.p or 0))


def test_one_seed_makes_nothing_certain() -> None:
    found = analyse(of_arms([0]))
    assert all(one.p is None and not one.certain for m in found.measures for one in m.comparisons)
    one = comparison(found, "accuracy", "sft", "rl")
    assert one.evidence.low is not None
    assert one.evidence.low > 0  # the items alone would say so
    assert found.verdict is not None
    assert found.verdict.outcome == "open"


def test_intervals_of_shares_end_at_0_and_1() -> None:
    """Two seeds far apart: t with one degree of freedom reaches beyond; that of a KL with the same values may."""
    results = of_arms((0, 1))
    rows = [
        {**row, "measures": {name: {"value": 0.2 + 0.6 * row["seed"], "items": {}} for name in ("accuracy", "kl")}}
        for row in results["rows"]
        if row["arm"] == "sft"
    ]
    measures = {"accuracy": {"task": "problems"}, "kl": {"task": "problems", "kl_to": "sft"}}
    found = {
        m.name: m
        for m in analyse({**results, "rows": rows, "study": {**results["study"], "measures": measures}}).measures
    }
    assert found["accuracy"].means["sft"][1:3] == (0.0, 1.0)
    assert (found["kl"].means["sft"].low or 0) < -3


@pytest.mark.parametrize(("compare", "pairs"), [("all", 6), ("first", 3), ("models", 0)])
def test_what_is_compared(compare: str, pairs: int) -> None:
    """4 of the 5 arms came to a number. The claim's own comparison is always among them."""
    names = {(one.first, one.second) for one in analyse(of_arms(compare=compare)).measures[0].comparisons}
    assert len(names) == max(pairs, 1)
    assert ("sft", "rl") in names


def test_models_of_an_arm_are_compared_with_one_another_and_arms_at_the_same_model() -> None:
    of_models = {(one.first, one.second) for one in analyse(on_axis(holds_if=[])).measures[0].comparisons}
    assert of_models == {(f"e{x} · sft", f"e{x} · rl") for x in (0.0, 0.2, 0.4, 0.8)}
    firsts = {(one.first, one.second) for one in analyse(on_axis(holds_if=[], compare="first")).measures[0].comparisons}
    assert firsts == {(f"e0.0 · {model}", f"e{x} · {model}") for x in (0.2, 0.4, 0.8) for model in ("sft", "rl")}


@pytest.mark.parametrize(
    ("better", "worse", "outcome"),
    [("rl", "sft", "supported"), ("sft", "rl", "contradicted"), ("sft", "nobody", "open"), ("rlhf", "sft", "open")],
)
def test_the_verdict_on_a_claim(better: str, worse: str, outcome: str) -> None:
    found = analyse(of_arms(holds_if=[{"better": better, "worse": worse}])).verdict
    assert found is not None
    assert found.outcome == outcome


def test_a_claim_of_two_parts_needs_both() -> None:
    right, wrong = {"better": "rl", "worse": "sft"}, {"better": "sft", "worse": "rl"}
    unknown = {"better": "rlhf", "worse": "sft"}
    for claim, outcome in (([right, unknown], "open"), ([right, wrong], "contradicted"), ([right, right], "supported")):
        found = analyse(of_arms(holds_if=claim)).verdict
        assert found is not None
        assert found.outcome == outcome


def test_lower_is_better_turns_the_claim_round() -> None:
    measures = {"accuracy": {"better": "lower", "label": "errors", "unit": ""}}
    found = analyse(of_arms(measures=measures)).verdict
    assert found is not None
    assert found.outcome == "contradicted"


def test_series_are_compared_by_their_mean_over_the_axis() -> None:
    results = on_axis()
    found = analyse(results)
    each = [comparison(found, "accuracy", f"e{x} · sft", f"e{x} · rl") for x in (0.0, 0.2, 0.4, 0.8)]
    whole = comparison(found, "accuracy", "sft (all)", "rl (all)")
    assert whole.evidence.estimate == pytest.approx(sum(one.evidence.estimate for one in each) / 4)
    for row in results["rows"]:
        if row["label"] == "e0.8 · rl":
            row.update(status="failed", measures={})
    left = comparison(analyse(results), "accuracy", "sft (all)", "rl (all)")
    assert left.evidence.estimate == pytest.approx(sum(one.evidence.estimate for one in each[:3]) / 3)


def test_curves_give_back_what_they_were_made_of() -> None:
    """Gold is d (0.5 - b d) with little noise: alpha 0.5, b 0.25 (peak at KL 1, measured to 3.17) and 0.1 (at 6.25)."""
    large, small = analyse(of_curves()).fits
    assert (large.better, small.better) == ("best_of_n", "best_of_n")
    assert small.alpha["best_of_n"].estimate == pytest.approx(0.5, abs=0.02)
    assert small.beta["best_of_n"].estimate == pytest.approx(0.25, abs=0.02)
    assert (small.inside, large.inside) == (5, 0)
    assert small.peak_kl == pytest.approx(1, abs=0.05)
    assert large.peak_kl is not None
    assert large.peak_kl > large.largest_kl


def test_noisy_curves_do_not_tell_the_forms_apart() -> None:
    found = analyse(of_curves(noise=0.5)).fits
    assert [one.better for one in found] == [None, None]
    assert [one.form for one in found] == ["best_of_n", "best_of_n"]  # that of its kind


def test_curves_can_be_compared_by_their_best_and_their_gap() -> None:
    found = analyse(of_curves())
    names = [measure.name for measure in found.measures]
    assert names == ["accuracy", "bon/best", "bon/last", "bon/gap", "bon/peak"]
    gap = comparison(found, "bon/gap", "large", "small")
    kl = math.log(64) - 63 / 64
    # At n = 64 the golds differ by 0.15 d^2, d^2 = KL = 3.1745.
    assert gap.evidence.estimate == pytest.approx(0.15 * kl, abs=0.02)
    # Peaks: 1 for the small model; the large one's, at 6.25, lies beyond what was measured, so it counts 3.1745.
    peak = comparison(found, "bon/peak", "large", "small")
    assert peak.evidence.estimate == pytest.approx(1 - kl, abs=0.05)
    assert found.verdict is not None
    assert found.verdict.outcome == "supported"


def test_a_curve_of_few_points_has_no_fit() -> None:
    results = of_curves()
    for row in results["rows"]:
        row["curves"]["bon"]["points"] = row["curves"]["bon"]["points"][:3]
    assert [one.fitted for one in analyse(results).fits] == [0, 0]


def test_costs_are_means_over_seeds_that_came_to_a_number() -> None:
    costs = analyse(of_arms()).costs
    assert costs["sft"]["tokens"] == 50_200  # 50 000 + 100 * (0 + 1 + 2 + 3 + 4) / 5
    assert costs["rlaif"]["tokens"] == 50_225  # without seed 1: 900 / 4
    assert "rlhf" not in costs


def test_numbers_that_are_none_are_left_out() -> None:
    results = of_arms()
    entry = results["rows"][0]["measures"]["accuracy"]
    entry["items"][next(iter(entry["items"]))] = None
    assert comparison(analyse(results), "accuracy", "sft", "rl").evidence.items == 599


def test_results_are_not_changed() -> None:
    results = of_arms()
    before = json.dumps(results)
    analyse(results)
    assert json.dumps(results) == before


def test_no_results_is_a_sentence(tmp_path: Any) -> None:
    with pytest.raises(UserError, match="holds no results of a study"):
        load(tmp_path)
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(UserError, match="holds no results of a study"):
        load(tmp_path)


def test_a_study_of_which_nothing_is_done() -> None:
    results = of_arms()
    assert analyse({**results, "rows": []}).labels == []
    for row in results["rows"]:
        row.update(status="missing", measures={}, cost={})
    found = analyse(results)
    assert [label.missing for label in found.labels] == [5] * 5
    assert found.measures[0].comparisons == []


def test_a_series_that_lost_an_arm_stays_open() -> None:
    """Certain as claimed over the arms that are left: those that failed may have done so where it does not hold."""
    results = on_axis()
    for entry in results["rows"]:
        if (entry["x"], entry["model"]) == (0.8, "rl"):
            entry.update(status="failed", measures={})
    found = analyse(results)
    assert found.verdict is not None
    assert found.verdict.outcome == "open"
    part = found.verdict.parts[0][2]
    assert part is not None and part.lost == 1 and part.certain
    text = paragraph(found)
    assert "mean over 3 of 4 arms" in text
    assert "every x" not in text and "above sft at x = 0.2 and 0.4" in text


def test_a_label_is_not_held_against_a_series() -> None:
    found = analyse(on_axis(holds_if=[{"better": "e0.4 · rl", "worse": "sft"}])).verdict
    assert found is not None and found.outcome == "open"
    assert "is one label, 'sft' several" in found.parts[0][0].problem


def test_paired_values() -> None:
    assert differences({0: {"a": 1.0}}, {0: {"b": 1.0}}) == {}
    assert differences({0: 1.0}, {0: {"b": 1.0}}) == {}  # a bound and a measurement
    # Pairs count alike, (1 + 0) / 2, and an item moves the mean by what it moves its pairs by: here none.
    first = differences({0: {"a": 0.0, "b": 0.0}}, {0: {"a": 1.0, "b": 1.0}})
    assert pooled([first, {0: {"a": 0.0}}]) == {0: {"a": 0.5, "b": 0.5}}
    # Without any in common, the mean of the means: (1 + 3) / 2. Seed 1 is in one pair alone.
    assert pooled([{0: {"a": 1.0}, 1: 1.0}, {0: {"c": 3.0}}]) == {0: {"a": 2.0, "c": 2.0}}
    # a moves the means 0.5 and 3 by -0.25 and -0.5: 1.75 + 3 * (-0.25 - 0.5) / 2; b and c one of them each
    assert pooled([{0: {"a": 0.0, "b": 1.0}}, {0: {"a": 2.0, "c": 4.0}}]) == {0: {"a": 0.625, "b": 2.125, "c": 2.5}}


def test_a_series_is_not_judged_by_the_few_prompts_that_its_arms_share() -> None:
    """RL is worse at each x on 100 prompts, and better on the two that both arms have."""
    rows = []
    for arm, x in (("one", 0.0), ("two", 1.0)):
        for seed in range(5):
            for model in ("sft", "rl"):
                items = {f"{arm}-{n}": float(model == "sft" and (n + seed) % 4 == 0) for n in range(100)}
                items |= {"both-0": float(model == "rl"), "both-1": float(model == "rl")}
                about = {"arm": arm, "model": model, "label": f"{arm} · {model}", "seed": seed, "x": x}
                measures = {"accuracy": {"value": sum(items.values()) / len(items), "items": items}}
                rows.append({**about, "status": "finished", "measures": measures})
    study = {"name": "s", "claim": "rl better", "arms": {"one": {}, "two": {}}, "compare": "models",
             "measures": {"accuracy": {"task": "t"}}, "holds_if": [{"better": "rl", "worse": "sft"}]}  # fmt: skip
    verdict = analyse({"study": study, "seeds": list(range(5)), "rows": rows}).verdict
    assert verdict is not None and verdict.outcome == "contradicted"
    found = verdict.parts[0][2]
    assert found is not None and found.evidence.estimate == pytest.approx((2 - 25) / 102)
    assert found.evidence.items == 202


def test_a_share_that_is_0_or_1_throughout_has_the_interval_of_its_items() -> None:
    """0 of 30 prompts, in every seed: Wilson's interval of the distinct prompts, 0 to 0.114."""
    found = of_arms()
    for row in found["rows"]:
        if row["arm"] == "sft":
            row["measures"]["accuracy"] = {"value": 0.0, "items": {f"p{n}": 0.0 for n in range(30)}}
    found["study"]["measures"]["accuracy"]["task"] = "problems"
    mean = next(m for m in analyse(found).measures if m.name == "accuracy").means["sft"]
    assert (mean.estimate, mean.low, mean.high) == (0.0, 0.0, pytest.approx(0.1135, abs=1e-4))


def test_one_of_many_comparisons_the_other_way_round_does_not_contradict_by_chance() -> None:
    """A claim of five measures with one comparison each, one of which is the other way round."""
    names = [f"m{n}" for n in range(5)]
    rows = []
    for seed, step in enumerate((0.02, 0.06, 0.08, 0.1, 0.14)):  # t = 0.08 / 0.02 with 4 degrees of freedom: p = 0.016
        for arm, sign in (("a", 0.0), ("b", 1.0)):
            measures = {"m0": {"value": sign * step}}
            measures |= {name: {"value": sign * (-0.1) ** (seed % 2)} for name in names[1:]}
            row = {"arm": arm, "model": "rl", "label": arm, "seed": seed, "status": "finished", "measures": measures}
            rows.append(row)
    claim = [{"better": "a", "worse": "b", "measure": name} for name in names]
    study = {"name": "s", "arms": {"a": {}, "b": {}}, "measures": {name: {} for name in names}}
    for asked, outcome in ((claim[:1], "contradicted"), (claim, "open")):
        results = {"study": {**study, "holds_if": asked}, "seeds": list(range(5)), "rows": rows}
        verdict = analyse(results).verdict
        assert verdict is not None and verdict.outcome == outcome
        found = verdict.parts[0][2]
        assert found is not None and found.certain  # in the family of its measure, which has no other


def test_labels_stand_in_the_order_of_the_arms() -> None:
    results = of_arms()
    results["rows"].reverse()
    assert [label.name for label in analyse(results).labels] == ["sft", "dpo", "rl", "rlaif", "rlhf"]
    assert analyse(results).seeds == list(SEEDS)
