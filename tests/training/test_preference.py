"""Pairs of answers as direct preference optimisation learns from them: which, with what weight, and however cut."""

import copy
import dataclasses
import math
import random

import pytest
import torch
from tests.generation.tiny import decoder_of, plain_logits
from tests.training.test_policy import moved
from tests.training.tiny import CPU, assert_equal_gradients
from torch import Tensor

from trivium.config import DPOConfig
from trivium.data.records import Message, Prompt
from trivium.feedback.rankings.record import Ranking, Response
from trivium.model.decoder import Decoder
from trivium.text.tokenizer import Tokenizer
from trivium.training.preference import LogProbs, PairedTask, held_out, paired_tasks
from trivium.training.preference_update import Update, answer_log_probs, fixed_log_probs
from trivium.training.reward import RankedTask, held_out_metrics

NOWHERE = RankedTask(Prompt("p", (Message("user", "?"),)), (), ())
PROMPT = Prompt("p", (Message("user", "abc"),))


def config(**values: object) -> DPOConfig:
    return DPOConfig.model_validate({"rankings": [{"source": "somewhere.jsonl"}], **values})


def tasks_of(count: int = 6, seed: int = 0) -> list[PairedTask]:
    """Ragged prompts with 2 to 5 answers, one of them empty, and pairs of uneven weight."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        prompt = tuple(draw.randrange(23) for _ in range(1 + 3 * number))
        answers = [tuple(draw.randrange(23) for _ in range(1 + draw.randrange(9))) for _ in range(2 + number % 4)]
        if number == 3:
            answers[1] = ()
        pairs = {(i, j): draw.random() + 0.1 for i in range(len(answers)) for j in range(i) if draw.random() < 0.7}
        made.append(PairedTask(NOWHERE, prompt, tuple(answers), pairs or {(0, 1): 1.0}))
    return made


def gradients(decoder: Decoder, update: Update, share: bool = True) -> tuple[list[Tensor], dict[str, float]]:
    decoder.zero_grad()
    totals: dict[str, float] = {}
    for part in update.micro_batches():
        loss, metrics = update.loss(decoder, part, share)
        loss.backward()
        for name, value in {"loss": loss.detach(), **metrics}.items():
            totals[name] = totals.get(name, 0.0) + float(value)
    return [parameter.grad.clone() for parameter in decoder.parameters() if parameter.grad is not None], totals


def reference_of(decoder: Decoder, tasks: list[PairedTask]) -> list[list[float]]:
    return fixed_log_probs(decoder, tasks, 10**6, CPU)


# ---- which pairs, with what weight ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train_character(["abcdefghij"])


def text_of(tokenizer: Tokenizer, task: PairedTask) -> list[str]:
    return [tokenizer.decode(answer, skip_special=False) for answer in task.answers]


def pairs_of(
    tokenizer: Tokenizer, *rankings: Ranking, limit: int = 100, **values: object
) -> list[dict[tuple[str, str], float]]:
    """Of each task: (chosen, rejected) as texts, and what the pair counts."""
    tasks, _ = paired_tasks(rankings, tokenizer, limit, config(**values))
    return [
        {(text_of(tokenizer, task)[i], text_of(tokenizer, task)[j]): weight for (i, j), weight in task.pairs.items()}
        for task in tasks
    ]


def ranking(texts: str, tiers: tuple[int, ...], who: str = "ann", **values: object) -> Ranking:
    return Ranking(PROMPT, tuple(Response(text) for text in texts.split()), tiers, who, **values)  # type: ignore[arg-type]


def test_all_strict_pairs_and_no_other(tokenizer: Tokenizer) -> None:
    """a best, b and c tied, d unranked, e last: five pairs, each a fifth of the ranking."""
    stop = "<|stop|>"
    (found,) = pairs_of(tokenizer, ranking("a b c d e", (0, 1, 1, -1, 2)))
    expected = [("a", "b"), ("a", "c"), ("a", "e"), ("b", "e"), ("c", "e")]
    assert found == pytest.approx({(one + stop, other + stop): 0.2 for one, other in expected})


def test_a_ranking_counts_one_whatever_the_number_of_its_pairs(tokenizer: Tokenizer) -> None:
    tasks, _ = paired_tasks([ranking("a b c", (0, 1, 2)), ranking("d e", (1, 0))], tokenizer, 100, config())
    assert [task.weight for task in tasks] == pytest.approx([1.0, 1.0])
    # two annotators of one task: what both say adds up, what they say against each other stays two pairs
    both = ranking("a b c", (0, 1, 2)), ranking("a b c", (0, 2, 1), "bob")
    (task,), _ = paired_tasks(both, tokenizer, 100, config())
    assert task.pairs == pytest.approx({(0, 1): 2 / 3, (0, 2): 2 / 3, (1, 2): 1 / 3, (2, 1): 1 / 3})
    assert len(task.answers) == 3 and task.weight == pytest.approx(2.0)


def test_rankings_without_a_strict_pair_are_no_task(tokenizer: Tokenizer) -> None:
    tied, bad = ranking("a b", (0, 0)), ranking("a c", (-1, -1), all_bad=True)
    skipped = ranking("a d", (-1, -1), skipped="unclear")
    alike = Ranking(PROMPT, (Response("e"), Response("e")), (0, 1), "ann")
    assert paired_tasks([tied, bad, skipped, alike], tokenizer, 100, config()) == ([], 0)


def test_equal_answers_are_read_once_and_are_no_pair(tokenizer: Tokenizer) -> None:
    texts = (Response("a"), Response("b"), Response("a"))
    (task,), _ = paired_tasks([Ranking(PROMPT, texts, (0, 1, 2), "ann")], tokenizer, 100, config())
    assert len(task.answers) == 2 and task.pairs == pytest.approx({(0, 1): 0.5, (1, 0): 0.5})


def test_a_judges_ranking_counts_by_its_probabilities_or_its_tiers(tokenizer: Tokenizer) -> None:
    sure, unsure = (
        ranking("a b", (0, 1), "judge", kind="ai", preferences=((0, 1, probability),)) for probability in (0.99, 0.6)
    )
    by_tiers = [pairs_of(tokenizer, one, preferences="tiers") for one in (sure, unsure)]
    assert by_tiers[0] == by_tiers[1] == pairs_of(tokenizer, ranking("a b", (0, 1)))
    assert pairs_of(tokenizer, sure, loss="ipo") == pairs_of(tokenizer, unsure, loss="ipo") == by_tiers[0]
    tasks, _ = paired_tasks([unsure], tokenizer, 100, config())
    assert [(task.pairs, task.soft) for task in tasks] == [({}, {(0, 1, 0.6): 1.0})]


def test_the_stop_token_belongs_to_a_finished_answer_alone(tokenizer: Tokenizer) -> None:
    cut = Ranking(PROMPT, (Response("ab"), Response("cd", finish_reason="length")), (0, 1), "ann")
    (task,), _ = paired_tasks([cut], tokenizer, 100, config())
    assert text_of(tokenizer, task) == ["ab<|stop|>", "cd"]
    assert tokenizer.decode(task.prompt, skip_special=False) == "<|user|>abc<|stop|><|assistant|>"


def test_what_does_not_fit_is_dropped_with_its_pairs_and_counted(tokenizer: Tokenizer) -> None:
    """The prompt has 6 tokens, "abcd" and its stop token 5."""
    given = ranking("a abcd b", (0, 1, 2))
    (whole,), none = paired_tasks([given], tokenizer, 11, config())
    (task,), dropped = paired_tasks([given], tokenizer, 10, config())
    assert (none, dropped) == (0, 1) and len(whole.answers) == 3
    assert text_of(tokenizer, task) == ["a<|stop|>", "b<|stop|>"] and task.pairs == {(0, 1): 1.0}
    assert paired_tasks([ranking("a abcd", (0, 1))], tokenizer, 10, config()) == ([], 1)


def test_the_split_is_by_conversation() -> None:
    tasks = [
        dataclasses.replace(tasks_of(2)[1], task=RankedTask(Prompt(str(n), (Message("user", f"{n}"),)), (), ()))
        for n in range(400)
    ]
    share = [held_out(task, 0.25) for task in tasks]
    assert sum(share) / 400 == pytest.approx(0.25, abs=0.07)
    assert share == [held_out(task, 0.25) for task in tasks] and not any(held_out(task, 0.0) for task in tasks)
    assert all(more for less, more in zip(share, [held_out(task, 0.5) for task in tasks], strict=True) if less)


# ---- log-probabilities and the loss ---------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [True, False])
def test_sums_are_those_of_each_answer_alone(share: bool) -> None:
    decoder, tasks = decoder_of(), tasks_of()
    found = answer_log_probs(decoder, tasks, CPU, share).tolist()
    expected = []
    for task in tasks:
        for answer in task.answers:
            logits = plain_logits(decoder, [*task.prompt, *answer]).double().log_softmax(-1)
            first = len(task.prompt) - 1
            expected.append(sum(float(logits[first + place, token]) for place, token in enumerate(answer)))
    assert found == pytest.approx(expected, abs=1e-4)
    assert expected[sum(len(task.answers) for task in tasks[:3]) + 1] == 0.0


def test_the_reference_is_the_policy_at_first() -> None:
    """The margin of every pair is 0 up to rounding, in whatever batches the reference was read."""
    decoder, tasks = decoder_of(), tasks_of()
    for budget in (1, 50, 10**6):
        reference = fixed_log_probs(decoder, tasks, budget, CPU)
        assert [len(of_task) for of_task in reference] == [len(task.answers) for task in tasks]
        _, metrics = gradients(decoder, Update(tasks, reference, config(), CPU))
        assert metrics["loss"] == pytest.approx(math.log(2), abs=1e-6)
        assert metrics["margin"] == pytest.approx(0.0, abs=1e-6)


def shuffled(
    tasks: list[PairedTask], reference: list[list[float]], seed: int
) -> tuple[list[PairedTask], list[LogProbs]]:
    """The same tasks in another order, each with its answers in another."""
    draw = random.Random(seed)
    made, fixed = [], []
    for number in draw.sample(range(len(tasks)), len(tasks)):
        task, order = tasks[number], draw.sample(range(len(tasks[number].answers)), len(tasks[number].answers))
        pairs = [((order.index(i), order.index(j)), weight) for (i, j), weight in task.pairs.items()]
        answers = tuple(task.answers[place] for place in order)
        made.append(dataclasses.replace(task, answers=answers, pairs=dict(draw.sample(pairs, len(pairs)))))
        fixed.append([reference[number][place] for place in order])
    return made, fixed


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradients_do_not_depend_on_the_cut(smoothing: float) -> None:
    """Micro-batches of one task, of some and of all; any order of tasks and answers; prompts shared or written out."""
    decoder, tasks = decoder_of(), tasks_of()
    reference = reference_of(moved(decoder), tasks)
    values = {"beta": 0.3, "label_smoothing": smoothing}
    expected, numbers = gradients(decoder, Update(tasks, reference, config(**values, micro_batch_tokens=10**6), CPU))
    for budget, share, order in ((1, True, 0), (60, True, 0), (10**6, False, 0), (60, False, 1), (1, True, 2)):
        chosen, fixed = shuffled(tasks, reference, order) if order else (tasks, reference)
        update = Update(chosen, fixed, config(**values, micro_batch_tokens=budget), CPU)
        assert budget > 1 or len(update.micro_batches()) == len(tasks)
        found, metrics = gradients(decoder, update, share)
        assert_equal_gradients(found, expected)
        assert metrics == pytest.approx(numbers, abs=1e-5)


def test_the_update_is_the_loss_of_its_pairs() -> None:
    """Against a loop over the pairs, each by itself."""
    decoder, tasks = decoder_of(), tasks_of(4, seed=2)
    reference = reference_of(moved(decoder), tasks)
    now = iter(answer_log_probs(decoder, tasks, CPU).tolist())
    total, weights = 0.0, 0.0
    for task, fixed in zip(tasks, reference, strict=True):
        own = [next(now) for _ in task.answers]
        for (i, j), weight in task.pairs.items():
            margin = 0.3 * ((own[i] - fixed[i]) - (own[j] - fixed[j]))
            total += weight * math.log1p(math.exp(-margin))
            weights += weight
    found = held_out_metrics(decoder, Update(tasks, reference, config(beta=0.3, micro_batch_tokens=40), CPU))
    assert found["loss"] == pytest.approx(total / weights, abs=1e-5)
    assert found.keys() == {
        *("loss", "accuracy", "margin", "chosen_reward", "rejected_reward", "chosen_log_prob", "rejected_log_prob"),
        *("chosen_length", "rejected_length"),
    }


def test_an_empty_share_has_a_gradient_of_zero() -> None:
    """A rank without tasks takes part in the forward and the backward pass."""
    decoder, tasks = decoder_of(), tasks_of(2)
    loss, metrics = Update(tasks, reference_of(decoder, tasks), config(), CPU).loss(decoder, [])
    decoder.zero_grad()
    loss.backward()
    assert float(loss.detach()) == 0.0 and all(float(value) == 0.0 for value in metrics.values())
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in decoder.parameters())


def test_learning_moves_the_answers_apart_and_leaves_the_reference() -> None:
    decoder, tasks = decoder_of(), tasks_of()
    tasks = [dataclasses.replace(task, pairs={(0, 1): 1.0}) for task in tasks]
    before = copy.deepcopy(decoder)
    update = Update(tasks, reference_of(decoder, tasks), config(), CPU)
    optimizer = torch.optim.SGD(decoder.parameters(), lr=0.02)
    for _ in range(10):
        gradients(decoder, update)
        optimizer.step()
    _, metrics = gradients(decoder, update)
    assert metrics["accuracy"] == pytest.approx(1.0) and metrics["margin"] > 0.1
    assert metrics["chosen_reward"] > metrics["rejected_reward"]
    assert update.reference == reference_of(before, tasks)
