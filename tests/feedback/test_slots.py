"""Slot reports: by hand, and on the human references where they are at hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from trivium.config import VerifierConfig
from trivium.data.records import Prompt
from trivium.feedback.verifiers import SlotReport, build, slot_error_rate, slot_report
from trivium.feedback.verifiers.slot_analysis import parse_mr

REFERENCES = Path(__file__).parents[3] / "shared" / "data" / "restaurants"
FULL = (
    "name[The Eagle], eatType[coffee shop], food[English], priceRange[less than £20], customer rating[low], "
    "area[riverside], familyFriendly[no], near[Burger King]"
)
FULL_TEXT = (
    "The Eagle is a low rated coffee shop serving English food for under £20 by the riverside near Burger King. "
    "It is not family-friendly."
)


def outcome(slot: str, value: str, text: str, equivalents: bool = True) -> str:
    report = slot_report({slot: value}, text, equivalents)
    return next(kind for kind in ("stated", "omitted", "contradicted") if slot in getattr(report, kind))


@pytest.mark.parametrize(
    ("slot", "value", "text", "expected"),
    [
        ("name", "The Eagle", "Eagle is nice.", "stated"),
        ("name", "The Eagle", "The EAGLE's menu", "stated"),
        ("name", "The Eagle", "The Eagles", "omitted"),
        ("name", "The Eagle", "The Mill is nice.", "contradicted"),
        ("name", "The Eagle", "The Eagle and The Mill", "contradicted"),
        ("name", "Café Nowhere", "Cafe Nowhere is new.", "stated"),  # names need not be known
        ("near", "Raja Indian Cuisine", "near the Raja", "stated"),
        ("near", "Burger King", "near Café Rouge", "contradicted"),
        ("near", "Burger King", "near the river", "omitted"),
        ("eatType", "pub", "a pub and restaurant", "stated"),
        ("eatType", "pub", "a restaurant", "omitted"),
        ("eatType", "pub", "a coffee shop", "contradicted"),
        ("eatType", "restaurant", "a nice eatery", "stated"),
        ("eatType", "restaurant", "a pub", "contradicted"),
        ("food", "English", "British food", "stated"),
        ("food", "English", "for 20 British pounds", "omitted"),
        ("food", "English", "Chinese food", "contradicted"),
        ("food", "Indian", "near Raja Indian Cuisine", "omitted"),
        ("food", "Japanese", "It serves sushi.", "stated"),
        ("priceRange", "cheap", "low prices", "stated"),
        ("priceRange", "cheap", "the price range is low", "stated"),
        ("priceRange", "cheap", "not cheap", "omitted"),
        ("priceRange", "cheap", "expensive", "contradicted"),
        ("priceRange", "high", "high-priced", "stated"),
        ("priceRange", "high", "a high customer rating", "omitted"),
        ("priceRange", "high", "price range: more than £30", "stated"),
        ("priceRange", "moderate", "moderately priced", "stated"),
        ("priceRange", "£20-25", "between £20 and £25", "stated"),
        ("priceRange", "£20-25", "£20-25", "stated"),
        ("priceRange", "£20-25", "less than £20", "contradicted"),
        ("priceRange", "more than £30", "over 30 pounds", "stated"),
        ("customer rating", "low", "poorly rated", "stated"),
        ("customer rating", "low", "rated 1 out of 5", "stated"),
        ("customer rating", "low", "low priced", "omitted"),
        ("customer rating", "high", "It is rated highly", "stated"),
        ("customer rating", "high", "not highly rated", "contradicted"),
        ("customer rating", "5 out of 5", "a five star place", "stated"),
        ("customer rating", "5 out of 5", "1 out of 5", "contradicted"),
        ("customer rating", "1 out of 5", "1 out of 5 stars", "stated"),
        ("customer rating", "average", "an average customer rating", "stated"),
        ("customer rating", "average", "a low customer rating", "contradicted"),
        ("area", "riverside", "by the river", "stated"),
        ("area", "riverside", "in the city centre", "contradicted"),
        ("area", "riverside", "north of the city centre", "omitted"),
        ("area", "city centre", "downtown", "stated"),
        ("familyFriendly", "yes", "kids are welcome", "stated"),
        ("familyFriendly", "yes", "It is not expensive, and family friendly.", "stated"),
        ("familyFriendly", "yes", "adults only", "contradicted"),
        ("familyFriendly", "no", "not a family-friendly place", "stated"),
        ("familyFriendly", "no", "children aren't welcome", "stated"),
        ("familyFriendly", "no", "no kids", "stated"),
        ("familyFriendly", "no", "child friendly", "contradicted"),
        ("familyFriendly", "no", "a nice place", "omitted"),
    ],
)
def test_slots_by_phrase(slot: str, value: str, text: str, expected: str) -> None:
    assert outcome(slot, value, text) == expected


def test_without_equivalents_only_the_value_itself_counts() -> None:
    assert outcome("priceRange", "less than £20", "cheap", equivalents=False) == "omitted"
    assert outcome("customer rating", "high", "5 out of 5", equivalents=False) == "omitted"
    assert outcome("food", "English", "breakfast", equivalents=False) == "omitted"
    assert outcome("food", "English", "English", equivalents=False) == "stated"


def test_a_full_text_and_its_faults() -> None:
    perfect = slot_report(FULL, FULL_TEXT)
    assert perfect.score == 1.0 and perfect.errors == 0 and perfect.slots == 8
    worse = slot_report(FULL, FULL_TEXT.replace("English", "Chinese").replace("It is not family-friendly.", ""))
    assert (worse.contradicted, worse.omitted) == (("food",), ("familyFriendly",))
    assert worse.score == pytest.approx((6 - 1) / 8)
    assert slot_error_rate([(FULL, FULL_TEXT), (FULL, "")]) == 0.5
    assert slot_error_rate([]) == 0.0


def test_what_the_representation_does_not_say_is_added() -> None:
    report = slot_report(
        "name[Aromi], area[riverside]", "Aromi is a cheap Italian pub by the river near Avalon for kids."
    )
    assert report == SlotReport(("name", "area"), (), (), ("eatType", "food", "priceRange", "familyFriendly", "near"))
    assert report.score == 0.0
    assert slot_report("name[Aromi]", "Aromi is a restaurant.").added == ()


def test_listing_every_value_does_not_pay() -> None:
    everything = "Aromi cheap moderately priced expensive high rating low rating average rating riverside city centre"
    mr = "name[Aromi], priceRange[cheap], customer rating[low], area[riverside]"
    assert slot_report(mr, everything).score == 0.0


def test_loose_words_for_every_value_do_not_pay() -> None:
    hedge = "Aromi: coffee, dining; sushi, pasta, curry; budget, moderate, fancy; average, popular, poor; rivers, city"
    mr = "name[Aromi], food[Italian], priceRange[high], customer rating[low], area[riverside]"
    assert slot_report(mr, hedge).stated == ("name",)
    assert outcome("priceRange", "cheap", "affordable") == outcome("priceRange", "moderate", "affordable") == "stated"
    both = "It is family friendly. It is not family friendly."
    assert outcome("familyFriendly", "no", both) == outcome("familyFriendly", "yes", both) == "contradicted"


def test_representations_as_text_mapping_and_rubbish() -> None:
    assert parse_mr(FULL) == parse_mr(parse_mr(FULL))
    for bad in ("", "Aromi", "name[Aromi", "colour[red]", "name[Aromi] x"):
        with pytest.raises(ValueError, match="slot"):
            parse_mr(bad)


def test_the_verifier_reads_representations_in_three_forms() -> None:
    verify = build(VerifierConfig(kind="slots"))
    answers: list[Any] = [FULL, parse_mr(FULL), {"mr": FULL}, {"mr": parse_mr(FULL)}]
    for answer in answers:
        assert verify(Prompt("id", (), answer), FULL_TEXT).score == 1.0
    assert verify(Prompt("id", (), 5), FULL_TEXT).status == "infra_error"
    assert verify(Prompt("id", (), "rubbish"), FULL_TEXT).status == "infra_error"
    verdict = verify(Prompt("id", (), FULL), "The Eagle, a Chinese coffee shop.")
    assert verdict.extracted is not None and "contradicted: food" in verdict.extracted
    strict = build(VerifierConfig(kind="slots", options={"strict": True}))
    assert strict(Prompt("id", (), FULL), FULL_TEXT).score == 1.0
    assert strict(Prompt("id", (), FULL), FULL_TEXT.replace("English ", "")).score == 0.0
    exact = build(VerifierConfig(kind="slots", options={"equivalents": False}))
    assert exact(Prompt("id", (), "name[Aromi], priceRange[less than £20]"), "Aromi is cheap.").score == 0.5


@pytest.mark.skipif(not REFERENCES.is_dir(), reason="the E2E references are not at hand")
def test_human_references_state_their_slots() -> None:
    """Calibration: all references state 92.7% of their slots by this lexicon and contradict 0.9%.

    In samples read by hand, what is missing is missing in the reference: they are known to omit slots.
    """
    rows = [json.loads(line) for name in ("train", "test") for line in (REFERENCES / f"e2e_{name}.jsonl").open()][::10]
    reports = [slot_report(row["mr"], row["ref"]) for row in rows]
    slots = sum(report.slots for report in reports)
    assert sum(len(report.stated) for report in reports) / slots > 0.915
    assert sum(len(report.contradicted) for report in reports) / slots < 0.015
    assert sum(len(report.added) for report in reports) / slots < 0.003
