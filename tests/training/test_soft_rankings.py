"""A reward model learns from the probabilities of a judge as they were said, mixed with rankings that have none."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.config import RewardConfig
from trivium.data.records import Message, Prompt
from trivium.errors import UserError
from trivium.feedback.rankings.record import Ranking, Response
from trivium.model.decoder import Decoder, DecoderConfig
from trivium.model.scalar import scalar_decoder
from trivium.text.tokenizer import Tokenizer
from trivium.training.reward import RankedTask, Update, check_rankings, group_tasks, task_scores, tokenise

CPU = torch.device("cpu")
TOKENIZER = Tokenizer.train_bpe(["Say one. Say two. It is a long answer, or a short one."], 300)
TEXTS = ("one", "it is two", "a long answer", "a short one, or a long one")


def decoder(heads: int = 1) -> Decoder:
    body = Decoder(
        DecoderConfig(
            vocabulary_size=TOKENIZER.vocabulary_size,
            hidden_size=16,
            layers=1,
            heads=2,
            kv_heads=1,
            head_dim=8,
            mlp_size=24,
            context_length=64,
            qk_norm="head",
        )
    )
    body.initialise(torch.Generator().manual_seed(0))
    return scalar_decoder(body, heads, "normal", torch.Generator().manual_seed(1))


def ranking(number: int, tiers: tuple[int, ...], said: tuple = (), texts: tuple[str, ...] = TEXTS) -> Ranking:
    prompt = Prompt(f"p{number}", (Message("user", f"Say {number}."),))
    responses = tuple(Response(text) for text in texts[: len(tiers)])
    return Ranking(prompt, responses, tiers, "judge" if said else "ann", "ai" if said else "human", preferences=said)


def tasks(*rankings: Ranking, limit: int = 64, soft: bool = True) -> list[RankedTask]:
    return tokenise(group_tasks(rankings), TOKENIZER, limit, "soft", soft)[0]


def config(**values: object) -> RewardConfig:
    return RewardConfig(**{"rankings": [{"source": "x"}], **values})  # type: ignore[arg-type]


def update(given_: list[RankedTask], chosen: RewardConfig) -> Update:
    weights = [[[1.0 + place for place in range(len(task.rankings))]] * chosen.heads for task in given_]
    return Update(given_, weights, chosen, CPU)


def whole_loss(model: Decoder, given_: list[RankedTask], chosen: RewardConfig) -> tuple[float, torch.Tensor, dict]:
    """Loss, gradient of the heads and metrics, summed over the micro-batches of an update."""
    one = update(given_, chosen)
    model.zero_grad()
    total, told = 0.0, {}
    for part in one.micro_batches():
        loss, metrics = one.loss(model, part)
        loss.backward()
        total += float(loss.detach())
        told = {name: told.get(name, 0.0) + float(value) for name, value in metrics.items()}
    assert model.head_weight.grad is not None
    return total, model.head_weight.grad.clone(), told


@pytest.mark.parametrize(("preferences", "difference"), [("soft", math.log(0.7 / 0.3)), ("tiers", None)])
def test_it_trains_to_the_probability(preferences: str, difference: float | None) -> None:
    """0.7 is a difference of 0.8473. By tiers alone the same ranking is a certainty, and the scores part for ever."""
    chosen = config(preferences=preferences)
    given_ = tasks(ranking(1, (0, 1), ((0, 1, 0.7),)))
    model = decoder()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        optimiser.zero_grad()
        loss, _ = update(given_, chosen).loss(model, [0])
        loss.backward()
        optimiser.step()
    first, second = task_scores(model, given_, CPU).detach()[:, 0].tolist()
    if difference is None:
        assert first - second > 3
    else:
        assert first - second == pytest.approx(difference, abs=0.01)


def test_probabilities_and_tiers_stand_in_one_batch() -> None:
    """By hand: a pair at 0.8 said of the task's responses 1 and 3, and a person's order of 0 over 2."""
    given_ = tasks(
        ranking(1, (-1, 0, -1, 1), ((1, 3, 0.8),)),
        replace(ranking(1, (0, -1, 1, -1)), annotator="bob"),
        ranking(2, (1, 0)),
    )
    model = decoder()
    scores = task_scores(model, given_, CPU).detach()[:, 0].double()

    def cost(difference: torch.Tensor, p: float) -> float:
        return float(-(p * difference.sigmoid().log() + (1 - p) * (-difference).sigmoid().log()))

    expected = (
        1.0 * cost(scores[1] - scores[3], 0.8) + 2.0 * cost(scores[0] - scores[2], 1) + cost(scores[5] - scores[4], 1)
    ) / 4  # the weights are 1, 2, 1
    assert whole_loss(model, given_, config())[0] == pytest.approx(expected, abs=1e-5)
    hard = whole_loss(model, given_, config(preferences="tiers"))[0]
    assert hard == pytest.approx(
        expected + (cost(scores[1] - scores[3], 1) - cost(scores[1] - scores[3], 0.8)) / 4, abs=1e-5
    )


def test_by_pair_a_ranking_counts_as_often_as_pairs_were_said() -> None:
    """One pair of three: it weighs what a person's one pair weighs."""
    given_ = tasks(ranking(1, (0, 1, 2), ((0, 1, 0.5),)), ranking(2, (0, 1)))
    scores = task_scores(decoder(), given_, CPU).detach()[:, 0].double()
    tie = -torch.nn.functional.logsigmoid(torch.stack([scores[0] - scores[1], scores[1] - scores[0]])).mean()
    strict = -torch.nn.functional.logsigmoid(scores[3] - scores[4])
    expected = float((tie + strict) / 2)
    assert whole_loss(decoder(), given_, config(reduction="pair"))[0] == pytest.approx(expected, abs=1e-5)


PAIRS = {count: list(itertools.combinations(range(count), 2)) for count in (2, 3, 4)}
RANKINGS = st.integers(2, 4).flatmap(
    lambda count: st.tuples(
        st.just(tuple(range(count))),
        st.lists(st.none() | st.floats(0, 1), min_size=len(PAIRS[count]), max_size=len(PAIRS[count])),
    )
)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(RANKINGS, min_size=2, max_size=5),
    st.sampled_from(["ranking", "pair"]),
    st.integers(1, 200),
    st.randoms(use_true_random=False),
)
def test_neither_the_cut_nor_the_order_matters(given_, reduction, tokens, random) -> None:
    rankings = [
        ranking(
            number // 2,  # two on the same prompt are one task where they have as many responses
            tiers,
            tuple((*pair, p) for pair, p in zip(PAIRS[len(tiers)], said, strict=True) if p is not None),
        )
        for number, (tiers, said) in enumerate(given_)
    ]
    model = decoder(heads=2)
    together = config(reduction=reduction, micro_batch_tokens=10**6, heads=2)
    found = tasks(*rankings)
    loss, gradient, metrics = whole_loss(model, found, together)
    cut = config(reduction=reduction, micro_batch_tokens=tokens, heads=2)
    shuffled = list(found)
    random.shuffle(shuffled)
    other = whole_loss(model, shuffled, cut)
    assert other[0] == pytest.approx(loss, abs=1e-5)
    torch.testing.assert_close(other[1], gradient, rtol=1e-4, atol=1e-6)
    assert other[2] == pytest.approx(metrics, abs=1e-5)


def test_what_is_too_long_takes_its_pairs_along() -> None:
    long = ("one", "two", "it is " * 30)
    limit = 40
    kept = ranking(1, (0, 1, 2), ((0, 1, 0.7), (0, 2, 0.9), (1, 2, 0.9)), long)
    (task,) = tasks(kept, limit=limit)
    assert task.rankings[0].preferences == ((0, 1, 0.7),) and task.rankings[0].tiers == (0, 1, -1)
    # of these two nothing was said, although tiers name an order
    lost = replace(kept, preferences=((0, 2, 0.9), (1, 2, 0.9)))
    assert tasks(lost, limit=limit) == []
    (by_tiers,) = tasks(lost, limit=limit, soft=False)
    assert by_tiers.rankings[0].tiers == (0, 1, -1)


def test_a_loss_that_reads_no_probabilities_says_so() -> None:
    given_ = tasks(ranking(1, (0, 1), ((0, 1, 0.7),)), ranking(2, (0, 1)))
    with pytest.raises(UserError, match=r"1 of 2 rankings carry probabilities; set reward\.preferences to tiers"):
        check_rankings(given_, config(loss="plackett_luce"), "reward")
    check_rankings(given_, config(loss="plackett_luce", preferences="tiers"), "reward")
    check_rankings(given_, config(), "reward")
    one = whole_loss(decoder(), given_, config(loss="plackett_luce", preferences="tiers"))[0]
    assert one == pytest.approx(whole_loss(decoder(), given_, config(preferences="tiers"))[0], abs=1e-6)  # of two
