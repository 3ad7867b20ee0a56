"""The engine against a plain forward pass of each sequence by itself."""

import random
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.generation.tiny import KINDS, decoder_of, plain_greedy, plain_logits

from trivium.data.ragged import batch_groups
from trivium.errors import UserError
from trivium.generation.engine import Engine
from trivium.generation.sampling import SamplingSettings
from trivium.generation.scheduler import Completion, Request
from trivium.model.attention import GridAttention
from trivium.model.head import filter_logits, token_log_probs

STOPS = (3, 7, 12, 16, 20)
GREEDY = SamplingSettings(temperature=0.0, max_new_tokens=9, stop_token_ids=STOPS)
SAMPLED = SamplingSettings(max_new_tokens=12, stop_token_ids=(3, 7))


def ragged_requests(count: int, seed: int = 0, responses: int = 1) -> list[Request]:
    """Prompts of 1 to 20 tokens, some longer than others by much."""
    draw = random.Random(seed)
    return [
        Request(tuple(draw.randrange(23) for _ in range(draw.choice([1, 2, 3, 8, 20]))), f"r{number}", responses)
        for number in range(count)
    ]


def flat(completions: list[list[Completion]]) -> list[Completion]:
    return [completion for group in completions for completion in group]


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_equals_a_plain_forward(kind: str) -> None:
    """Tokens equal, log-probabilities to 1e-5, for ragged prompts that finish at different times in few slots."""
    decoder, requests = decoder_of(kind), ragged_requests(9)
    completions = flat(Engine(decoder, slots=4).generate(requests, GREEDY))
    for request, completion in zip(requests, completions, strict=True):
        assert completion.tokens == plain_greedy(decoder, request.prompt, 9, STOPS)
        logits = plain_logits(decoder, [*request.prompt, *completion.tokens])[len(request.prompt) - 1 : -1]
        expected = logits.log_softmax(-1).gather(1, torch.tensor(completion.tokens)[:, None]).squeeze(1)
        torch.testing.assert_close(torch.tensor(completion.log_probs), expected, rtol=0, atol=1e-5)
        assert completion.finish_reason == ("stop" if completion.tokens[-1] in STOPS else "length")
    assert len({len(completion.tokens) for completion in completions}) > 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("choice", [{}, {"temperature": 0.7}, {"top_k": 4}, {"top_p": 0.6, "temperature": 1.3}])
def test_log_probs_as_sampled_are_the_trainers(kind: str, choice: dict[str, float]) -> None:
    """Temperature, top-k and top-p are part of the behaviour policy, here and where the policy is trained."""
    decoder, requests = decoder_of(kind), ragged_requests(5, responses=3)
    chosen = SamplingSettings(max_new_tokens=10, stop_token_ids=(3,), **choice)  # type: ignore[arg-type]
    completions = Engine(decoder, slots=6).generate(requests, chosen)
    pairs = zip(requests, completions, strict=True)
    batch = batch_groups([(request.prompt, [item.tokens for item in group]) for request, group in pairs])
    with torch.no_grad():
        found, _ = decoder(
            batch.tokens,
            batch.layout.positions,
            GridAttention(batch.layout),
            lambda hidden, weight: token_log_probs(
                hidden[batch.sources], weight, batch.targets, chosen.temperature, chosen.top_k, chosen.top_p
            ),
        )
    sampled = torch.tensor([value for item in flat(completions) for value in item.log_probs])
    torch.testing.assert_close(sampled, found, rtol=0, atol=1e-5)


@settings(max_examples=15)
@given(slots=st.integers(1, 40), prefill=st.integers(1, 60), seed=st.integers(0, 3), order=st.randoms())
def test_a_rollout_does_not_depend_on_its_company(slots: int, prefill: int, seed: int, order: random.Random) -> None:
    """Slots (fewer than a group included), prefill portions, order and the other requests change no token."""
    decoder, requests = decoder_of("sliding window"), ragged_requests(7, seed, responses=3)
    alone = {request.id: Engine(decoder).generate([request], SAMPLED, seed=5)[0] for request in requests}
    chosen = order.sample(requests, order.randint(1, len(requests)))
    together = Engine(decoder, slots=slots, prefill_tokens=prefill).generate(chosen, SAMPLED, seed=5)
    for request, group in zip(chosen, together, strict=True):
        assert [item.tokens for item in group] == [item.tokens for item in alone[request.id]]
        for one, other in zip(group, alone[request.id], strict=True):
            assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)
            assert one.finish_reason == other.finish_reason


def test_one_engine_used_again_is_like_a_new_one() -> None:
    """The cache is kept between calls; what an earlier call left in it is never seen."""
    decoder, first, second = decoder_of(), ragged_requests(6, 1, responses=2), ragged_requests(6, 2, responses=2)
    engine = Engine(decoder, slots=5)
    engine.generate(first, SAMPLED)
    again = engine.generate(second, SAMPLED)
    assert [item.tokens for item in flat(again)] == [
        item.tokens for item in flat(Engine(decoder, slots=5).generate(second, SAMPLED))
    ]


def test_responses_seeds_and_requests_draw_numbers_of_their_own() -> None:
    decoder, request = decoder_of(), Request((1, 2), "a", 8)
    engine = Engine(decoder)
    group = engine.generate([request], SAMPLED, seed=1)[0]
    assert len({tuple(item.tokens) for item in group}) > 4
    other_seed = engine.generate([request], SAMPLED, seed=2)[0]
    other_name = engine.generate([Request((1, 2), "b", 8)], SAMPLED, seed=1)[0]
    assert [item.tokens for item in group] != [item.tokens for item in other_seed]
    assert [item.tokens for item in group] != [item.tokens for item in other_name]
    fewer = engine.generate([Request((1, 2), "a", 3)], SAMPLED, seed=1)[0]
    assert [item.tokens for item in fewer] == [item.tokens for item in group[:3]]


@pytest.mark.parametrize(
    "choice", [{}, {"temperature": 0.6}, {"top_k": 5}, {"top_p": 0.7}, {"top_k": 8, "top_p": 0.8, "temperature": 1.5}]
)
def test_the_sampled_distribution(choice: dict[str, float]) -> None:
    """Chi-square of 4,000 first tokens; the seed is fixed, so it passes always or never."""
    decoder, count = decoder_of(), 4000
    chosen = SamplingSettings(max_new_tokens=1, **choice)  # type: ignore[arg-type]
    group = Engine(decoder, slots=count).generate([Request((4, 9, 2), "a", count)], chosen, seed=11)[0]
    found = Counter(item.tokens[0] for item in group)
    logits = plain_logits(decoder, [4, 9, 2])[-1:] / chosen.temperature
    expected = filter_logits(logits, chosen.top_k, chosen.top_p).softmax(-1)[0] * count
    assert all(expected[token] > 0 for token in found)
    cells = [(found[token], mean) for token, mean in enumerate(expected.tolist()) if mean >= 5]
    rest = [(found[token], mean) for token, mean in enumerate(expected.tolist()) if 0 < mean < 5]
    if rest:
        cells.append((sum(seen for seen, _ in rest), sum(mean for _, mean in rest)))
    chi_square = sum((seen - mean) ** 2 / mean for seen, mean in cells)
    free = len(cells) - 1
    assert chi_square < free + 4 * (2 * free) ** 0.5  # four standard deviations of a chi-square


def test_the_stop_token_is_kept_and_ends_the_response() -> None:
    completions = flat(Engine(decoder_of()).generate(ragged_requests(20, responses=2), SAMPLED))
    assert {item.finish_reason for item in completions} == {"stop", "length"}
    for item in completions:
        assert len(item.tokens) == len(item.log_probs)
        assert all(token not in (3, 7) for token in item.tokens[:-1])
        assert (item.tokens[-1] in (3, 7)) == (item.finish_reason == "stop")
        assert item.finish_reason == "stop" or len(item.tokens) == 12


def test_stop_strings_end_where_they_appear() -> None:
    """One letter a token, a to h in turn; a string that spans tokens is found too."""
    decode = lambda tokens: "".join("abcdefgh"[token % 8] for token in tokens)  # noqa: E731
    chosen = SamplingSettings(max_new_tokens=20, stop_strings=("b", "cd"))
    completions = flat(Engine(decoder_of(), decode=decode).generate(ragged_requests(15, responses=3), chosen))
    stopped = [decode(item.tokens) for item in completions if item.finish_reason == "stop"]
    assert any(text.endswith("cd") for text in stopped) and any(text.endswith("b") for text in stopped)
    for item in completions:
        text = decode(item.tokens)
        assert "b" not in text[:-1] and "cd" not in text[:-1]
        assert item.finish_reason == ("stop" if text.endswith(("b", "cd")) else "length")
    with pytest.raises(UserError, match="tokenizer"):
        Engine(decoder_of()).generate(ragged_requests(1), chosen)


def test_a_request_may_ask_for_fewer_tokens_and_never_gets_more_than_the_context() -> None:
    decoder = decoder_of()
    requests = [Request((1,), "few", 1, max_new_tokens=2), Request(tuple(range(20)) * 2, "long")]
    few, long = flat(Engine(decoder).generate(requests, SamplingSettings(temperature=0.0, max_new_tokens=1000)))
    assert len(few.tokens) == 2 and few.finish_reason == "length"
    assert len(long.tokens) == 48 - 40 and long.finish_reason == "length"
    assert long.tokens == plain_greedy(decoder, tuple(range(20)) * 2, 8)


def test_bad_prompts_are_one_sentence() -> None:
    engine = Engine(decoder_of())
    with pytest.raises(UserError, match="48 tokens and the model's context 48"):
        engine.generate([Request((1,) * 48, "long")], GREEDY)
    with pytest.raises(UserError, match="empty"):
        engine.generate([Request((), "nothing")], GREEDY)
    assert engine.generate([], GREEDY) == []


def test_no_copy_of_the_weights_is_held() -> None:
    """An update shows in the next token, and the version is written on what was sampled."""
    decoder, request = decoder_of(), Request((1, 2, 3), "a")
    engine = Engine(decoder)
    engine.version = 7
    before = engine.generate([request], GREEDY)[0][0]
    assert before.weight_version == 7
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) * 0.3)
    after = engine.generate([request], GREEDY)[0][0]
    assert after.tokens == plain_greedy(decoder, (1, 2, 3), 9, STOPS) != before.tokens


def test_the_decoder_comes_back_in_the_mode_it_had() -> None:
    decoder = decoder_of().train()
    Engine(decoder).generate(ragged_requests(2), GREEDY)
    assert decoder.training


def test_every_token_is_told_as_it_is_drawn() -> None:
    told: dict[str, list[int]] = {}
    engine = Engine(decoder_of(), slots=2)
    requests = ragged_requests(5)
    completions = flat(
        engine.generate(
            requests, SAMPLED, on_token=lambda request, _, token: told.setdefault(request.id, []).append(token)
        )
    )
    assert told == {request.id: item.tokens for request, item in zip(requests, completions, strict=True)}


def test_bfloat16_decoding_is_near() -> None:
    decoder, requests = decoder_of(), ragged_requests(6)
    exact = flat(Engine(decoder).generate(requests, GREEDY))
    rough = flat(Engine(decoder, autocast=torch.bfloat16).generate(requests, GREEDY))
    for one, other in zip(exact, rough, strict=True):
        assert other.log_probs[0] == pytest.approx(one.log_probs[0], abs=0.2)
