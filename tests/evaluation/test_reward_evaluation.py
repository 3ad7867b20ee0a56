"""The numbers of a reward model by hand: pairs, ties, calibration, length baseline, ceiling; and scores that stand."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.data.records import Message, Prompt
from trivium.evaluation.reward_model import (
    Scored,
    by_margin,
    ceiling,
    cluster_interval,
    collect,
    describe,
    evaluate,
    longer_wins,
    policy_variance,
    reliability,
)
from trivium.feedback.rankings.record import Ranking, Response
from trivium.feedback.reward_model import RewardModel
from trivium.model.decoder import Decoder, DecoderConfig
from trivium.model.scalar import scalar_decoder
from trivium.text.tokenizer import Tokenizer
from trivium.training.reward import RankedTask, group_tasks


def sigmoid(difference: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-difference))


def ranking(
    question: str, texts: Sequence[str], tiers: Sequence[int], who: str = "ann", criterion: str = "overall", **more
) -> Ranking:
    prompt = Prompt(question, (Message("user", question),), **more)
    return Ranking(prompt, tuple(map(Response, texts)), tuple(tiers), who, criterion=criterion)


def task(*rankings: Ranking) -> RankedTask:
    (made,) = group_tasks(rankings)
    return made


def scored(made: RankedTask, scores: Sequence[float]) -> Scored:
    return Scored(made, np.array(scores), np.array(scores)[:, None])


def test_pairs_by_hand() -> None:
    """A above B above C; the model has A = B above C: one half, two right. The longer one is better in one of three."""
    item = scored(task(ranking("q", ["a", "bbb", "cc"], [0, 1, 2])), [1.0, 1.0, 0.0])
    pairs = collect([item], sigmoid, 1.0)
    assert pairs.right == [0.5, 1.0, 1.0] and pairs.length_right == [0.0, 0.0, 1.0]
    assert collect([item], sigmoid, -1.0).length_right == [1.0, 1.0, 0.0]
    assert pairs.probability == pytest.approx([0.5, 0.731059, 0.731059], abs=1e-6)
    told = describe(pairs, 0)
    assert told["n"] == 3 and told["rankings"] == told["prompts"] == 1 and told["tied"] == 0
    assert told["accuracy"] == pytest.approx(2.5 / 3)
    assert told["log_loss"] == pytest.approx((math.log(2) + 2 * 0.313262) / 3, abs=1e-6)
    assert told["length_accuracy"] == pytest.approx(1 / 3)
    assert told["difference"]["estimate"] == pytest.approx(1.5 / 3)
    assert told["tau_b"] == pytest.approx(2 / math.sqrt(6))


def test_tied_and_unranked_responses_are_judged_by_nothing() -> None:
    item = scored(task(ranking("q", ["a", "b", "c", "d"], [0, 0, 1, -1])), [3.0, -3.0, 0.0, math.nan])
    pairs = collect([item], sigmoid, 1.0)
    assert pairs.right == [1.0, 0.0] and pairs.tied == 1
    assert describe(pairs, 0)["tau_b"] == pytest.approx(0.0)
    nothing = evaluate([scored(task(ranking("q", ["a", "b"], [0, 0])), [1.0, 0.0])], sigmoid, True, 0)
    assert nothing["pairs"]["n"] == 0 and nothing["pairs"]["tied"] == 1 and nothing["reliability"] == []
    for key in ("accuracy", "low", "log_loss", "ece", "tau_b", "length_accuracy"):
        assert nothing["pairs"][key] is None
    assert nothing["ceiling"] == {"overall": None} and nothing["by_margin"] == []


def test_calibration_by_hand() -> None:
    """Five pairs at 0.75 of which four are right, and one at 0.95 that is wrong (the model gives it 0.05)."""
    gap = lambda probability: math.log(probability / (1 - probability))  # noqa: E731
    items = [
        scored(task(ranking(f"q{number}", ["a", "b"], [0, 1])), [gap(chance), 0.0])
        for number, chance in enumerate([0.76, 0.76, 0.76, 0.76, 0.24, 0.04])
    ]
    pairs = collect(items, sigmoid, 1.0)
    first, second = reliability(pairs)
    assert (first["low"], first["n"]) == (pytest.approx(0.75), 5) and (second["low"], second["n"]) == (0.95, 1)
    assert (first["predicted"], first["observed"]) == (pytest.approx(0.76), pytest.approx(0.8))
    assert (second["predicted"], second["observed"]) == (pytest.approx(0.96), 0.0)
    assert describe(pairs, 0)["ece"] == pytest.approx((5 * 0.04 + 0.96) / 6)
    margins = by_margin(pairs)
    assert sum(entry["n"] for entry in margins) == 6
    assert margins[-1]["accuracy"] == 0.0 and margins[-1]["high"] == pytest.approx(gap(0.96))


def test_heads_vote_with_their_probabilities() -> None:
    made = task(ranking("q", ["a", "b"], [0, 1]))
    item = Scored(made, np.array([0.5, 0.0]), np.array([[2.0, 0.0], [0.0, 1.0]]))
    assert collect([item], sigmoid, 1.0).probability == pytest.approx([(sigmoid(2.0) + sigmoid(-1.0)) / 2])


def test_length_direction_is_learned_where_the_model_learned() -> None:
    longer = [task(ranking("q", ["aa", "b"], [0, 1])), task(ranking("r", ["aa", "b", "ccc"], [1, 2, 0]))]
    shorter = [task(ranking("q", ["aa", "b"], [1, 0]))]
    assert longer_wins(longer) and not longer_wins(shorter)
    assert evaluate([scored(longer[0], [0.0, 1.0])], sigmoid, longer_wins(longer), 0)["baseline"] == "longer"


def test_intervals_come_from_whole_conversations() -> None:
    """A hundred pairs of one prompt are one observation; the pooled share is over pairs."""
    alone = cluster_interval([1.0] * 60 + [0.0] * 40, [7] * 100, 0, "pairs")
    assert alone == {"estimate": 0.6, "low": 0.6, "high": 0.6}
    spread = cluster_interval([1.0] * 60 + [0.0] * 40, list(range(100)), 0, "pairs")
    assert 0.49 < spread["low"] < 0.53 and 0.67 < spread["high"] < 0.71  # 0.6 ± 1.96 * 0.049
    grouped = cluster_interval([1.0] * 60 + [0.0] * 40, [number // 10 for number in range(100)], 0, "pairs")
    assert grouped["high"] - grouped["low"] > 2.5 * (spread["high"] - spread["low"])
    assert cluster_interval([], [], 0, "pairs") == {"estimate": None, "low": None, "high": None}


def test_branches_of_a_conversation_are_one_cluster() -> None:
    opening = (Message("user", "hi"), Message("assistant", "yes?"))
    items = []
    for text in ("more", "less"):
        prompt = Prompt(text, (*opening, Message("user", text)))
        made = task(Ranking(prompt, (Response("a"), Response("b")), (0, 1), "ann"))
        items.append(scored(made, [1.0, 0.0]))
    pairs = collect(items, sigmoid, 1.0)
    assert pairs.cluster == [0, 0] and len(pairs.prompts) == 2


def test_the_ceiling_is_one_annotator_against_the_others() -> None:
    """Three say A over B, C says B over A: each of the three is right about the others, the fourth is wrong."""
    said = [("a", [0, 1]), ("b", [0, 1]), ("c", [0, 1]), ("d", [1, 0])]
    made = task(*(ranking("q", ["x", "y"], tiers, who) for who, tiers in said))
    found = ceiling([scored(made, [1.0, 0.0])], "overall", 0)
    assert found is not None and found["n"] == 4 and found["accuracy"] == 0.75
    assert found["model"]["accuracy"] == 1.0 and found["difference"]["estimate"] == 0.25
    # two against one: for either of the two the others are undecided
    made = task(*(ranking("q", ["x", "y"], tiers, who) for who, tiers in said[1:]))
    found = ceiling([scored(made, [0.0, 1.0])], "overall", 0)
    assert found is not None and found["n"] == 1 and found["accuracy"] == 0.0 and found["model"]["accuracy"] == 0.0
    # a tie of one's own is half right; what one says twice is no word of another
    made = task(ranking("q", ["x", "y"], [0, 0], "a"), ranking("q", ["x", "y"], [0, 1], "b"))
    found = ceiling([scored(made, [1.0, 0.0])], "overall", 0)
    assert found is not None and (found["n"], found["accuracy"]) == (1, 0.5)
    # who was asked about the same two in another way is none of the others
    three, others = said[1:], [("e", [1, 0]), ("f", [1, 0])]
    asked = [replace(ranking("q", ["x", "y"], tiers, who), task="one") for who, tiers in three]
    asked += [replace(ranking("q", ["x", "y"], tiers, who), task="two") for who, tiers in others]
    found = ceiling([scored(task(*asked), [1.0, 0.0])], "overall", 0)
    assert found is not None and (found["n"], found["accuracy"]) == (3, pytest.approx(2 / 3))
    made = task(ranking("q", ["x", "y"], [0, 1], "a"), ranking("q", ["x", "y"], [1, 0], "a"))
    assert ceiling([scored(made, [1.0, 0.0])], "overall", 0) is None


def test_criteria_and_sections_apart() -> None:
    kind = task(ranking("q", ["a", "b"], [0, 1], "x", "kind"), ranking("q", ["a", "b"], [1, 0], "x", "true"))
    other = task(ranking("r", ["a", "b"], [0, 1], "x", "kind", task="Chat"))
    third = task(ranking("s", ["a", "b"], [1, 0], "x", "kind", metadata={"section": "Safety"}))
    items = [scored(one, [1.0, 0.0]) for one in (kind, other, third)]
    told = evaluate(items, sigmoid, True, 0)
    assert {name: (part["n"], part["accuracy"]) for name, part in told["by_criterion"].items()} == {
        "kind": (3, pytest.approx(2 / 3)),
        "true": (1, 0.0),
    }
    assert {name: (part["n"], part["accuracy"]) for name, part in told["sections"].items()} == {
        "Chat": (1, 1.0),
        "Safety": (1, 0.0),
    }
    assert told["pairs"]["n"] == 4 and told["pairs"]["prompts"] == 3
    assert evaluate(items, sigmoid, True, 0) == told


def test_variance_under_the_policy() -> None:
    told = policy_variance([[1.0, 3.0], [5.0, 7.0]])
    assert told == {"prompts": 2, "samples": 4, "mean": 4.0, "std_within": 1.0, "std_between": 2.0, "std": 5**0.5}
    assert policy_variance([]) is None


@lru_cache
def small_model() -> RewardModel:
    tokenizer = Tokenizer.train_bpe(["what is good? this is good, that is not\n"] * 3, 300)
    shape = DecoderConfig(tokenizer.vocabulary_size, 32, 2, 4, 2, 8, 48, 128, qk_norm="head", tie_embeddings=True)
    decoder = Decoder(shape)
    decoder.initialise(torch.Generator().manual_seed(0), 0.3)
    return RewardModel(scalar_decoder(decoder, 2, generator=torch.Generator().manual_seed(1)), tokenizer)


ITEMS = st.tuples(st.text("agdhi ?s\n", max_size=20), st.text("agdhi ?s\n", max_size=20), st.booleans())


@settings(max_examples=25)
@given(items=st.lists(ITEMS, min_size=1, max_size=7), budget=st.integers(1, 120), data=st.data())
def test_scores_do_not_depend_on_the_batch(
    items: list[tuple[str, str, bool]], budget: int, data: st.DataObject
) -> None:
    """Neither on what is scored beside an item, nor on its place, nor on lengths that would be padding elsewhere."""
    model = small_model()
    asked = [((Message("user", question),), answer, finished) for question, answer, finished in items]
    together = model.score(asked)
    alone = torch.cat([model.score([item]) for item in asked])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    order = data.draw(st.permutations(range(len(asked))))
    cut = RewardModel(model.decoder, model.tokenizer, budget_tokens=budget)
    torch.testing.assert_close(cut.score([asked[place] for place in order]), alone[list(order)], rtol=0, atol=1e-5)
