"""The paragraph: every sentence follows from the numbers, and turns with them."""

import pytest

from tests.studies.results_fixture import of_arms, of_curves, on_axis
from trivium.studies.analysis import analyse
from trivium.studies.findings import paragraph, unfinished


def test_what_was_compared_and_on_what_budget() -> None:
    text = paragraph(analyse(of_arms()))
    assert text.startswith("5 arms (sft, dpo, rl, rlaif, rlhf) were compared on 5 seeds, each on a budget of ")
    assert "tokens trained and " in text
    assert "(pretrain and sft are part of nobody's budget)" in text
    assert "without a budget" in paragraph(analyse(on_axis()))


def test_what_did_not_finish_is_told() -> None:
    told = unfinished(analyse(of_arms()))
    assert "Failed: rlaif (1 of 5 seeds)." in told
    assert "Out of budget before it could be measured: rlhf (5 of 5 seeds)." in told
    assert "Ended by the budget, and measured as it stood: dpo (1 of 5 seeds)." in told


def test_certain_differences_have_size_and_interval() -> None:
    analysis = analyse(of_arms())
    one = next(one for one in analysis.measures[0].comparisons if (one.first, one.second) == ("sft", "rl"))
    assert one.evidence.low is not None
    text = paragraph(analysis)
    assert f"rl above sft by +{one.evidence.estimate:.3f} (+{one.evidence.low:.3f} to" in text
    assert "comparisons, corrected together (Holm)" in text


def test_what_is_not_certain_is_told() -> None:
    results = of_arms()
    for row in results["rows"]:  # dpo becomes sft's equal: better in one half of the seeds, worse in the other
        if row["arm"] == "dpo":
            twin = next(r for r in results["rows"] if (r["arm"], r["seed"]) == ("sft", row["seed"]))
            step = 0.05 if row["seed"] % 2 else -0.05
            items = {key: value + step for key, value in twin["measures"]["accuracy"]["items"].items()}
            row["measures"] = {"accuracy": {"value": 0, "items": items}}
    assert "Not certain at this number of seeds: dpo against sft." in paragraph(analyse(results))


def test_the_best_is_told_with_all_who_share_its_place_and_with_what_it_is_over() -> None:
    results = of_arms()
    text = paragraph(analyse(results))
    assert "On right answers, rl is highest with 0." in text
    assert "the means are not all over the same seeds and prompts" in text  # rlaif failed in one
    whole = [row for row in results["rows"] if row["arm"] in ("sft", "rl")]
    assert "not all over the same" not in paragraph(analyse({**results, "rows": whole}))
    for row in results["rows"]:
        if row["arm"] == "dpo":
            twin = next(r for r in results["rows"] if (r["arm"], r["seed"]) == ("rl", row["seed"]))
            row["measures"] = twin["measures"]
    assert "On right answers, dpo and rl are highest with 0." in paragraph(analyse(results))
    for row in whole:
        row["measures"] = {"accuracy": {"value": 0.5, "items": {}}}
    assert "On right answers, the means are alike: 0.500." in paragraph(analyse({**results, "rows": whole}))


def test_seeds_without_a_number_and_a_budget_that_was_passed_are_told() -> None:
    results = of_arms()
    for row in results["rows"]:
        if row["arm"] == "rl":
            row["cost"]["tokens"] = 114_000
            if row["seed"] > 1:
                row["measures"]["kl"] = {"value": None, "items": {}}
    text = paragraph(analyse(results))
    assert "A number of fewer seeds on KL to SFT (nats a response): rl (2 of 5 seeds)." in text
    assert "Spent more than the budget: rl (228%)." in text


def test_a_certain_difference_without_an_interval_has_its_side() -> None:
    results = of_arms()
    rows = [row for row in results["rows"] if row["arm"] in ("sft", "rl")]
    for row in rows:  # all prompts of sft are right and none of rl's: a sign test, and no interval
        items = {f"p{n}": float(row["arm"] == "sft") for n in range(30)}
        row["measures"] = {"accuracy": {"value": items["p0"], "items": items}}
    text = paragraph(analyse({**results, "rows": rows}))
    assert "The one difference is certain: sft above rl by +1.000." in text


def test_stages_of_several_versions_are_told() -> None:
    results = of_arms()
    for row in results["rows"]:
        row["code"] = ["d92b8aa"]
    assert "versions of Trivium" not in paragraph(analyse(results))
    results["rows"][0]["code"] = ["d92b8aa", "f0fed34"]
    assert "The stages were made by 2 versions of Trivium (d92b8aa and f0fed34)." in paragraph(analyse(results))


def test_one_seed_is_told() -> None:
    text = paragraph(analyse(of_arms([0])))
    assert "One seed says nothing of the chance between seeds: no difference is certain." in text
    assert "certain:" not in text
    assert "is neither supported nor contradicted: it stays open" in text


@pytest.mark.parametrize(
    ("better", "words"),
    [("rl", "is supported: rl less sft"), ("dpo", "is contradicted: dpo less rl"), ("rlhf", "it stays open: rlhf")],
)
def test_the_claim_is_answered_as_plainly_either_way(better: str, words: str) -> None:
    worse = "sft" if better != "dpo" else "rl"
    text = paragraph(analyse(of_arms(holds_if=[{"better": better, "worse": worse}])))
    assert "The claim “RL beats SFT” " in text
    assert words in text


def test_a_contradicted_claim_shows_its_difference_from_the_claims_side() -> None:
    text = paragraph(analyse(of_arms(holds_if=[{"better": "dpo", "worse": "rl"}])))
    assert "dpo less rl on right answers is −0." in text


def test_a_claim_without_a_comparison_is_left_to_the_reader() -> None:
    assert "is tied to no comparison" in paragraph(analyse(of_arms(holds_if=[])))
    assert "claim" not in paragraph(analyse(of_arms(claim="", holds_if=[])))


def test_where_two_lines_part() -> None:
    text = paragraph(analyse(on_axis()))
    assert "rl is certainly above sft at every x from 0.2 on (most at 0.8: +0." in text
    assert "not certainly apart from it at x = 0." in text
    assert "rl less sft on right answers (greedy), mean over 4 of 4 arms, is +0." in text


def test_lines_that_cross_are_told_on_both_sides() -> None:
    results = on_axis(holds_if=[])
    for row in results["rows"]:
        if row["x"] == 0.0 and row["arm"] + " · rl" == row["label"]:
            row["measures"]["accuracy"] = {"value": 0.1 + 0.01 * row["seed"], "items": {}}
        elif row["x"] == 0.0:
            row["measures"]["accuracy"] = {"value": 0.9, "items": {}}
    assert "certainly below sft at x = 0 (most at 0: −0.78" in paragraph(analyse(results))


def test_which_form_fits_and_where_its_peak_lies() -> None:
    text = paragraph(analyse(of_curves()))
    assert "Of gold along bon, d (α − β d) fits better for large and small." in text
    assert "Its peak lies within the KL measured for small (KL 0.99; in 5 of 5 seeds)" in text
    assert "beyond it for large (to KL 3.17; within in 0 of 5 seeds)." in text
    assert "The one difference on highest gold gain (bon) is certain: large above small by +0.3" in text
    assert "the two forms fit alike for large and small" in paragraph(analyse(of_curves(noise=0.5)))


def test_curves_of_few_points_are_told() -> None:
    results = of_curves()
    for row in results["rows"]:
        if row["label"] == "small":
            row["curves"]["bon"]["points"] = row["curves"]["bon"]["points"][:3]
    assert "Too few points for a fit (bon): small." in paragraph(analyse(results))


def test_a_measure_that_nobody_has() -> None:
    results = of_arms(measures={"other": {"better": "higher", "label": "other", "unit": ""}}, holds_if=[])
    assert "other: measured nowhere." in paragraph(analyse(results))


def test_lines_of_one_seed_are_not_certain_and_nothing_is_said_to_be_corrected() -> None:
    text = paragraph(analyse(on_axis(seeds=[0])))
    assert "rl is not certainly apart from sft at every x." in text
    assert "corrected together" not in text
