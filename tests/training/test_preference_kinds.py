"""Every loss of the dpo stage over ragged tasks: what is made of rankings and labels, and that cuts change nothing."""

import dataclasses
import math
import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.generation.tiny import decoder_of
from tests.training.test_policy import moved
from tests.training.test_preference import NOWHERE, PROMPT, config, gradients, ranking, text_of
from tests.training.tiny import CPU, assert_equal_gradients

from trivium.config import DPOConfig
from trivium.data.records import LabelledAnswer, Message, Prompt
from trivium.feedback.rankings.record import Ranking
from trivium.model.decoder import Decoder
from trivium.text.tokenizer import Tokenizer
from trivium.training.preference import PairedTask, labelled_tasks, paired_tasks, with_others
from trivium.training.preference_update import Update, answer_log_probs, fixed_log_probs
from trivium.training.reward import RankedTask, held_out_metrics

STOP = "<|stop|>"
LOSSES: list[dict[str, Any]] = [
    {"loss": "sigmoid"},
    {"loss": "sigmoid", "ties": "davidson", "tie_parameter": 0.7, "sft_weight": 0.5},
    {"loss": "sigmoid", "ties": "soft", "length_normalised": True},
    {"loss": "sigmoid", "reference": "none"},
    {"loss": "robust", "label_smoothing": 0.1},
    {"loss": "ipo"},
    {"loss": "hinge"},
    {"loss": "apo_zero"},
    {"loss": "apo_down"},
    {"loss": "simpo"},
    {"loss": "orpo"},
    {"loss": "kto"},
    {"loss": "kto", "kto_baseline": "none", "sft_weight": 0.2},
    {"loss": "plackett_luce"},
    {"loss": "plackett_luce", "ties": "soft", "length_normalised": True, "sft_weight": 1.0},
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train_character(["abcdefghij"])


def tasks_of(values: dict[str, Any], count: int = 7, seed: int = 0) -> list[PairedTask]:
    """Ragged prompts with 3 to 5 answers of 1 to 9 tokens, of which everything is said that the loss reads."""
    draw, loss = random.Random(seed), values["loss"]
    made = []
    for number in range(count):
        prompt = tuple(draw.randrange(23) for _ in range(2 + 3 * number))
        answers = tuple(tuple(draw.randrange(23) for _ in range(1 + draw.randrange(9))) for _ in range(3 + number % 3))
        tiers = [draw.randrange(3) for _ in answers]
        tiers[:2] = [0, 1]
        said: dict[str, Any] = {"best": {0: 1.0, 2: 0.5}}
        if loss == "kto":
            said["labels"] = {(n, draw.random() < 0.5): 0.2 + draw.random() for n in range(len(answers))}
        elif loss == "plackett_luce":
            said["lists"] = (tuple(enumerate(tiers)), ((0, 1), (2, 0)))
        else:
            said["pairs"] = {(0, 1): 0.2 + draw.random(), (2, 0): 0.5}
            if values.get("ties", "ignore") != "ignore":
                said["ties"] = {(1, 2): draw.random()}
            if loss == "sigmoid":
                said["soft"] = {(1, 2, 0.8): draw.random()}
        made.append(PairedTask(NOWHERE, prompt, answers, **said))
    return with_others(made, 100) if loss == "kto" and values.get("kto_baseline") != "none" else made


def update_of(decoder: Decoder, tasks: list[PairedTask], chosen: DPOConfig, order: list[int] | None = None) -> Update:
    """The update of ``tasks`` with the log-probabilities of a reference that the policy has moved away from."""
    reference = fixed_log_probs(decoder, tasks, 10**6, CPU)
    elsewhere = fixed_log_probs(decoder, [task.mismatched() for task in tasks], 10**6, CPU) if tasks[0].other else []
    places = order or list(range(len(tasks)))
    turned = [elsewhere[n] for n in places] if elsewhere else [[]] * len(places)
    return Update([tasks[n] for n in places], [reference[n] for n in places], chosen, CPU, turned)


@pytest.mark.parametrize("values", LOSSES, ids=lambda values: "-".join(map(str, values.values())))
def test_gradients_do_not_depend_on_the_cut(values: dict[str, Any]) -> None:
    """Micro-batches of one task, of some and of all; another order; prompts shared or written out."""
    reference = decoder_of()
    policy, tasks = moved(reference), tasks_of(values)
    whole = update_of(reference, tasks, config(**values, micro_batch_tokens=10**6))
    expected, numbers = gradients(policy, whole)
    order = random.Random(1).sample(range(len(tasks)), len(tasks))
    for budget, share, places in ((1, True, None), (60, True, None), (10**6, False, None), (60, True, order)):
        update = update_of(reference, tasks, config(**values, micro_batch_tokens=budget), places)
        assert budget > 1 or len(update.micro_batches()) == len(tasks)
        found, metrics = gradients(policy, update, share)
        assert_equal_gradients(found, expected)
        assert metrics == pytest.approx(numbers, abs=1e-5)
    assert {"accuracy", "margin", "chosen_reward", "rejected_reward", "chosen_length", "rejected_length"} <= set(
        numbers
    )
    assert ("nll" in numbers) == bool(whole.config.imitation)


@pytest.mark.parametrize("values", LOSSES, ids=lambda values: "-".join(map(str, values.values())))
def test_an_empty_share_has_a_gradient_of_zero(values: dict[str, Any]) -> None:
    policy = decoder_of()
    loss, metrics = update_of(policy, tasks_of(values), config(**values)).loss(policy, [])
    policy.zero_grad()
    loss.backward()
    assert float(loss.detach()) == 0.0 and all(float(value) == 0.0 for value in metrics.values())
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in policy.parameters())


# ---- what each family costs, against a loop over what was said ------------------------------------------------------


def test_kto_measures_rewards_from_one_baseline() -> None:
    """Against the formula, with the baseline of the whole update, whatever the micro-batches."""
    reference = decoder_of()
    values = {"loss": "kto", "beta": 0.3, "desirable_weight": 1.5, "undesirable_weight": 0.5}
    tasks, policy = tasks_of(values), moved(reference)
    update = update_of(reference, tasks, config(**values, micro_batch_tokens=1))
    now, before = (answer_log_probs(model, tasks, CPU).tolist() for model in (policy, reference))
    turned = [task.mismatched() for task in tasks]
    ratios = (answer_log_probs(policy, turned, CPU) - answer_log_probs(reference, turned, CPU)).detach()
    baseline = max(0.0, float(ratios.mean()))
    total, weights, start, good_reward, good_weight = 0.0, 0.0, 0, 0.0, 0.0
    for task in tasks:
        for (n, good), weight in task.labels.items():
            ratio = now[start + n] - before[start + n]
            towards = ratio - baseline if good else baseline - ratio
            total += weight * (1.5 if good else 0.5) / (1 + math.exp(0.3 * towards))
            weights += weight
            good_reward, good_weight = good_reward + good * weight * 0.3 * ratio, good_weight + good * weight
        start += len(task.answers)
    found = held_out_metrics(policy, update)
    assert found["loss"] == pytest.approx(total / weights, abs=1e-5)
    assert found["baseline"] == pytest.approx(baseline, abs=1e-5)
    assert found["chosen_reward"] == pytest.approx(good_reward / good_weight, abs=1e-5)
    assert found["margin"] == pytest.approx(found["chosen_reward"] - found["rejected_reward"], abs=1e-6)
    assert baseline > 0.01  # else nothing was shown of it


def test_the_imitated_answers_are_averaged_over_all_their_tokens() -> None:
    policy = decoder_of()
    values = {"loss": "simpo", "sft_weight": 2.0}
    tasks = tasks_of(values)
    update = update_of(policy, tasks, config(**values, micro_batch_tokens=50))
    now, start, total, tokens = answer_log_probs(policy, tasks, CPU).tolist(), 0, 0.0, 0.0
    for task in tasks:
        total -= sum(weight * now[start + n] for n, weight in task.best.items())
        tokens += sum(weight * len(task.answers[n]) for n, weight in task.best.items())
        start += len(task.answers)
    found = held_out_metrics(policy, update)
    plain = held_out_metrics(policy, update_of(policy, tasks, config(loss="simpo")))
    assert found["nll"] == pytest.approx(total / tokens, abs=1e-5)
    assert found["loss"] == pytest.approx(plain["loss"] + 2 * total / tokens, abs=1e-5)


def test_a_policy_that_is_the_reference() -> None:
    """ln 2 a pair; ln 2! and ln 3! for lists of two and three; 1/2 an answer, for a KL of 0."""
    policy = decoder_of()
    pair = PairedTask(NOWHERE, (1, 2), ((3,), (4, 5), (6,)), pairs={(0, 1): 1.0})
    lists = dataclasses.replace(pair, pairs={}, lists=(((0, 0), (1, 1)), ((0, 2), (1, 1), (2, 0))))
    labels = dataclasses.replace(pair, pairs={}, labels={(0, True): 1.0, (1, False): 1.0}, other=(7, 8))
    for task, values, expected in (
        (pair, {"loss": "sigmoid"}, math.log(2)),
        (lists, {"loss": "plackett_luce"}, (math.log(2) + math.log(6)) / 2),
        (labels, {"loss": "kto"}, 0.5),
        (pair, {"loss": "ipo", "beta": 0.5}, 1.0),  # (0 - 1/(2 * 0.5)) squared
        (pair, {"loss": "hinge"}, 1.0),
    ):
        assert held_out_metrics(policy, update_of(policy, [task], config(**values)))["loss"] == pytest.approx(
            expected, abs=1e-5
        )


# ---- what is made of rankings and labels ----------------------------------------------------------------------------


def test_the_best_tier_is_good_and_the_last_one_bad(tokenizer: Tokenizer) -> None:
    """a and b best, c in the middle, d unranked, e last: three labels, a third of the ranking each."""
    (task,), _ = paired_tasks([ranking("a b c d e", (0, 0, 1, -1, 2))], tokenizer, 100, config(loss="kto"))
    assert text_of(tokenizer, task) == ["a" + STOP, "b" + STOP, "e" + STOP]
    assert task.labels == pytest.approx({(0, True): 1 / 3, (1, True): 1 / 3, (2, False): 1 / 3})
    assert task.weight == pytest.approx(1.0) and not task.pairs


def test_none_acceptable_is_bad_for_all(tokenizer: Tokenizer) -> None:
    bad = [ranking("a b", (-1, -1), all_bad=True), ranking("c d", (0, 1), all_bad=True)]
    tasks, _ = paired_tasks(bad, tokenizer, 100, config(loss="kto", sft_weight=1.0))
    assert [task.labels for task in tasks] == [{(0, False): 0.5, (1, False): 0.5}] * 2
    assert not any(task.best for task in tasks)
    # of those that were not ranked too, and of one that is left alone
    some = [ranking("a b c", (0, 1, -1), all_bad=True), ranking(f"a {'b' * 99}", (-1, -1), all_bad=True)]
    tasks, too_long = paired_tasks(some, tokenizer, 60, config(loss="kto"))
    assert [set(task.labels) for task in tasks] == [{(0, False), (1, False), (2, False)}, {(0, False)}]
    assert too_long == 1
    # of a lone tier nothing is known
    assert paired_tasks([ranking("a b", (0, 0))], tokenizer, 100, config(loss="kto")) == ([], 0)


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        ("LONG b c", {(0, False): 1.0}),
        ("a b LONG", {(0, True): 1.0}),
        ("a LONG c", {(0, True): 0.5, (1, False): 0.5}),
        ("LONG b LONG", None),
    ],
)
def test_what_lies_between_stays_unsaid_where_the_best_or_the_last_is_too_long(
    tokenizer: Tokenizer, texts: str, labels: dict[tuple[int, bool], float] | None
) -> None:
    given_ = ranking(texts.replace("LONG", "d" * 99), (0, 1, 2))
    tasks, too_long = paired_tasks([given_], tokenizer, 60, config(loss="kto", sft_weight=1.0))
    assert too_long == texts.count("LONG") and [task.labels for task in tasks] == ([] if labels is None else [labels])
    assert all(task.best == {n: 1.0 for n, good in task.labels if good} for task in tasks)


def test_the_second_best_is_not_imitated_in_place_of_what_is_too_long(tokenizer: Tokenizer) -> None:
    given_ = ranking(f"{'d' * 99} b c", (0, 1, 2))
    (task,), _ = paired_tasks([given_], tokenizer, 60, config(sft_weight=1.0))
    assert task.pairs == {(0, 1): 1.0} and not task.best


def test_rankings_stay_whole_for_plackett_luce(tokenizer: Tokenizer) -> None:
    given_ = [ranking("a b c d", (1, 0, 1, -1)), ranking("a b c d", (0, 1, 2, -1), "bob")]
    (task,), _ = paired_tasks(given_, tokenizer, 100, config(loss="plackett_luce"))
    assert task.lists == (((0, 1), (1, 0), (2, 1)), ((0, 0), (1, 1), (2, 2)))
    assert len(task.answers) == 3 and task.weight == 2
    tied = [ranking("a b", (0, 0))]
    assert paired_tasks(tied, tokenizer, 100, config(loss="plackett_luce")) == ([], 0)
    (task,), _ = paired_tasks(tied, tokenizer, 100, config(loss="plackett_luce", ties="soft"))
    assert task.lists == (((0, 0), (1, 0)),)
    # one text in two tiers contradicts itself: its pairs would cancel, and in a list it has no place
    assert paired_tasks([ranking("a a", (0, 1))], tokenizer, 100, config(loss="plackett_luce")) == ([], 0)
    (task,), _ = paired_tasks([ranking("a b a c", (0, 1, 2, 3))], tokenizer, 100, config(loss="plackett_luce"))
    assert [text_of(tokenizer, task)[n] for n, _ in task.lists[0]] == ["b" + STOP, "c" + STOP]


def test_ties_count_by_option(tokenizer: Tokenizer) -> None:
    """a over b and c, which are tied: two strict pairs and a tie, a third each."""
    given_ = ranking("a b c", (0, 1, 1))
    (ignored,), _ = paired_tasks([given_], tokenizer, 100, config())
    (counted,), _ = paired_tasks([given_], tokenizer, 100, config(ties="rao_kupper"))
    assert ignored.pairs == pytest.approx({(0, 1): 0.5, (0, 2): 0.5}) and not ignored.ties
    assert counted.pairs == pytest.approx({(0, 1): 1 / 3, (0, 2): 1 / 3})
    assert counted.ties == pytest.approx({(1, 2): 1 / 3})


def test_what_is_imitated(tokenizer: Tokenizer) -> None:
    """The best tier, shared out; not of a ranking that orders nothing, nor what did not fit."""
    given_ = [ranking("a b c", (0, 0, 1)), ranking("a b c", (2, 0, 1), "bob")]
    (task,), _ = paired_tasks(given_, tokenizer, 100, config(sft_weight=1.0))
    assert task.best == pytest.approx({0: 0.5, 1: 1.5})
    assert not paired_tasks(given_, tokenizer, 100, config())[0][0].best
    # the second tier was there, though it does not fit; and a ranking that says nothing has nothing to imitate
    cut = ranking(f"a b {'d' * 99}", (0, 0, 1))
    (task,), _ = paired_tasks([cut], tokenizer, 60, config(sft_weight=1.0, ties="soft"))
    assert task.best == pytest.approx({0: 0.5, 1: 0.5})
    given_ = [ranking("a b a", (0, -1, 1)), ranking("a b a", (1, 0, -1), "bob")]
    (task,), _ = paired_tasks(given_, tokenizer, 100, config(sft_weight=1.0))
    assert [text_of(tokenizer, task)[n] for n in task.best] == ["b" + STOP]


def test_an_answer_without_tokens_has_no_mean(tokenizer: Tokenizer) -> None:
    cut = dataclasses.replace(ranking("a b c", (0, 1, 2)))
    responses = (dataclasses.replace(cut.responses[0], text="", finish_reason="length"), *cut.responses[1:])
    empty = Ranking(PROMPT, responses, (0, 1, 2), "ann")
    (task,), _ = paired_tasks([empty], tokenizer, 100, config(loss="simpo"))
    assert text_of(tokenizer, task) == ["b" + STOP, "c" + STOP] and task.pairs == {(0, 1): 1.0}
    assert len(paired_tasks([empty], tokenizer, 100, config())[0][0].answers) == 3


def test_labelled_answers_of_a_prompt_are_one_task(tokenizer: Tokenizer) -> None:
    other = Prompt("q", (Message("user", "fgh"),))
    rows = [
        (PROMPT, "a", True),
        (other, "b", False),
        (PROMPT, "c", False),
        (PROMPT, "a", True),
        (PROMPT, "abcdef", True),
    ]
    tasks, too_long = labelled_tasks([LabelledAnswer(*row) for row in rows], tokenizer, 12)
    assert too_long == 1 and [text_of(tokenizer, task) for task in tasks] == [["a" + STOP, "c" + STOP], ["b" + STOP]]
    assert [task.labels for task in tasks] == [{(0, True): 2.0, (1, False): 1.0}, {(0, False): 1.0}]
    assert [task.best for task in tasks] == [{0: 2.0}, {}]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.integers(3, 6))
def test_answers_are_turned_to_a_prompt_that_is_not_theirs(prompts: list[int], limit: int) -> None:
    """Prompts 0, 11, 222, 3333: another one that leaves room, the next of them, or none where there is none."""
    none = RankedTask(PROMPT, (), ())
    tasks = [PairedTask(none, (number,) * (number + 1), ((9, 9),)) for number in prompts]
    for place, (task, found) in enumerate(zip(tasks, with_others(tasks, limit), strict=True)):
        fitting = [p for p in (*prompts[place + 1 :], *prompts[:place]) if p != prompts[place] and p + 3 <= limit]
        assert found.other == ((fitting[0],) * (fitting[0] + 1) if fitting else ())
        assert found.answers == task.answers and found.mismatched().prompt == found.other


def test_the_baseline_needs_no_gradient_and_is_read_once() -> None:
    policy = decoder_of()
    tasks = tasks_of({"loss": "kto"})
    update = update_of(moved(policy), tasks, config(loss="kto", micro_batch_tokens=1))
    first, _ = update.loss(policy, [0])
    before = update.baseline
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.5)
    update.loss(policy, [1])
    assert update.baseline is before and before is not None and not before.requires_grad and first.requires_grad
