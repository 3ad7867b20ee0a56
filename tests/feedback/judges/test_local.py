"""The local backend: probabilities equal to a plain forward pass, whatever the batch; texts; what does not fit."""

import dataclasses
import itertools
import math
from pathlib import Path

import pytest
import torch
from tests.generation.tiny import BASE
from tokenizers import pre_tokenizers

from trivium.config import JudgeConfig
from trivium.data.records import Message, Prompt
from trivium.errors import UserError
from trivium.feedback.judges import constitution
from trivium.feedback.judges.attacks import injections
from trivium.feedback.judges.base import Answer, Pair, Question, Reply
from trivium.feedback.judges.build import build_judge
from trivium.feedback.judges.judge import Judge
from trivium.feedback.judges.local import LocalBackend, weights_identity
from trivium.model.attention import GridAttention
from trivium.model.decoder import Decoder, DecoderConfig
from trivium.model.huggingface import save_model
from trivium.model.layout import ragged_layout
from trivium.text.chat import prompt_ids
from trivium.text.tokenizer import Tokenizer

BPE = Tokenizer.train_bpe(["Which answer is better? A or B. Rate it from 1 to 10. " * 20], 300)
SCORES = tuple(str(score) for score in range(1, 11))


def decoder_of(tokenizer: Tokenizer, seed: int = 3, context_length: int = 512) -> Decoder:
    sizes = {"vocabulary_size": tokenizer.vocabulary_size, "context_length": context_length, "qk_norm": "head"}
    decoder = Decoder(DecoderConfig(**{**BASE, **sizes}))
    decoder.initialise(torch.Generator().manual_seed(seed), std=0.3)
    return decoder


def backend_of(tokenizer: Tokenizer = BPE, seed: int = 3, context_length: int = 512) -> LocalBackend:
    return LocalBackend(decoder_of(tokenizer, seed, context_length), tokenizer, "tiny", f"tiny {seed}")


def question(text: str, choices: tuple[str, ...] = ("A", "B"), **options: object) -> Question:
    return dataclasses.replace(Question((Message("system", "Judge."), Message("user", text)), choices), **options)


def replies(backend: LocalBackend, questions: list[Question]) -> list[Reply]:
    found: dict[int, Reply] = {}
    backend.ask(questions, lambda index, reply: found.__setitem__(index, reply))
    return [found[index] for index in range(len(questions))]


def plain(decoder: Decoder, prompt: list[int], tokens: list[int]) -> float:
    """The log-probability of ``tokens`` after ``prompt``: one sequence, one forward pass, all logits."""
    whole = [*prompt, *tokens]
    layout = ragged_layout([len(whole)])
    with torch.no_grad():
        logits = decoder.logits(torch.tensor(whole), layout.positions, GridAttention(layout)).double().log_softmax(-1)
    return sum(float(logits[len(prompt) - 1 + k, token]) for k, token in enumerate(tokens))


def expected(backend: LocalBackend, asked: Question, said: list[list[int]]) -> list[float]:
    prompt = prompt_ids(backend.tokenizer, asked.messages)
    return torch.tensor([plain(backend.decoder, prompt, tokens) for tokens in said]).softmax(0).tolist()


def test_probabilities_are_those_of_a_plain_forward_pass() -> None:
    backend = backend_of()
    one, zero, stop = BPE.token_id("1"), BPE.token_id("0"), BPE.stop_token_ids[0]
    scores = [[BPE.encode(score)[0]] for score in SCORES[:9]]
    # "1" begins "10", so it goes with the end of the turn; the others need none
    scores[0] = [one, stop]
    said = {("A", "B"): [BPE.encode("A"), BPE.encode("B")], SCORES: [*scores, [one, zero]]}
    for choices, tokens in said.items():
        asked = [question(text, choices) for text in ("Which?", "Rate it: " * 9, "\n")]
        for one_asked, reply in zip(asked, replies(backend, asked), strict=True):
            assert reply.probabilities == pytest.approx(expected(backend, one_asked, tokens), abs=1e-5)
            assert math.fsum(reply.probabilities) == pytest.approx(1)
            assert reply.prompt_tokens == len(prompt_ids(BPE, one_asked.messages))
            assert reply.completion_tokens == sum(map(len, tokens))


def test_choices_of_several_tokens() -> None:
    backend = backend_of()
    choices = ("better", "worse", "neither of the two")
    asked = question("So?", choices)
    said = [BPE.encode(choice) for choice in choices]
    assert min(map(len, said[1:])) > 1
    (reply,) = replies(backend, [asked])
    assert reply.probabilities == pytest.approx(expected(backend, asked, said), abs=1e-5)


def test_an_answer_does_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [question(f"Which of {'x' * number}?", ("A", "B") if number % 3 else SCORES) for number in range(0, 60, 4)]
    asked += [question("Say why.", (), temperature=0.8, max_new_tokens=9, stream=str(k)) for k in range(4)]
    backend = backend_of()
    together = replies(backend, asked)
    alone = [replies(backend_of(), [one])[0] for one in asked]
    monkeypatch.setattr("trivium.feedback.judges.local.BATCH_TOKENS", 100)
    monkeypatch.setattr("trivium.feedback.judges.local.BATCH_TEXTS", 3)
    cut = replies(backend_of(), asked[::-1])[::-1]
    assert len(backend.batches(asked)) > 5
    for one, other, third in zip(together, alone, cut, strict=True):
        assert one.text == other.text == third.text
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)
        assert one.probabilities == pytest.approx(third.probabilities, abs=1e-6)
    assert len({reply.text for reply in together[-4:]}) > 1  # other streams draw other texts


def test_batches_hold_every_question_once_and_what_is_left_is_cut_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trivium.feedback.judges.local.BATCH_TOKENS", 200)
    asked = [question("x" * (37 * number % 50), ("A", "B") if number % 4 else ()) for number in range(40)]
    backend = backend_of()
    batches = backend.batches(asked)
    assert sorted(itertools.chain(*batches)) == list(range(40))
    assert all(len({bool(asked[i].choices) for i in batch}) == 1 for batch in batches)
    lengths = [len(asked[i].messages[1].content) for batch in batches for i in batch if asked[i].choices]
    assert lengths == sorted(lengths)  # a forward pass holds questions of like length
    done = set(itertools.chain(*batches[:3]))
    left = [index for index in range(40) if index not in done]
    again = [[left[k] for k in batch] for batch in backend.batches([asked[index] for index in left])]
    assert again == batches[3:]


def test_a_question_longer_than_the_context_is_missing_and_the_others_are_answered() -> None:
    backend = backend_of(context_length=40)
    size = len(prompt_ids(BPE, question("").messages))
    fits, over = question("x" * (40 - size)), question("x" * (41 - size))
    ten = question("x" * (40 - size), SCORES)  # the second token of a choice needs a place
    text = question("x" * (40 - size), ())
    found = replies(backend, [over, fits, ten, text, question("x" * (39 - size), ())])
    assert found[0].missing == "the question has 41 tokens with its answer, the model's context 40"
    assert len(found[1].probabilities) == 2
    assert "41 tokens" in found[2].missing
    assert "41 tokens" in found[3].missing
    assert found[4].completion_tokens == 1


def test_texts_end_at_the_stop_token_or_are_cut() -> None:
    backend = backend_of()
    asked = question("Say why.", (), temperature=0.0, max_new_tokens=5)
    (cut,) = replies(backend, [asked])
    assert (cut.completion_tokens, cut.missing) == (5, "")
    assert cut.text == cut.text.strip() != ""
    say_alone(backend.decoder, BPE.stop_token_ids[0])
    (silent,) = replies(backend, [asked])
    assert silent == Reply(missing="the model wrote nothing", prompt_tokens=cut.prompt_tokens, completion_tokens=1)


def say_alone(decoder: Decoder, token: int) -> None:
    """Make a model whose likeliest token is ``token``, whatever it reads: all hidden states become alike."""
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.zero_()
        decoder.embedding.weight.fill_(1.0)
        decoder.norm.weight.fill_(1.0)
        decoder.head_weight[:] = -1.0 if decoder.head is not None else 0.0
        decoder.head_weight[token] = 1.0


def test_weights_that_are_not_finite_give_no_verdict() -> None:
    backend = backend_of()
    with torch.no_grad():
        backend.decoder.embedding.weight.fill_(float("nan"))
    assert replies(backend, [question("Which?")])[0].missing == "the model's probabilities are not finite"


def test_a_model_in_training_stays_in_training_and_gets_no_gradient() -> None:
    backend = backend_of()
    backend.decoder.train()
    replies(backend, [question("Which?"), question("Why?", (), max_new_tokens=2)])
    assert backend.decoder.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in backend.decoder.parameters())


def test_choices_are_tokens_as_the_template_writes_them() -> None:
    """A tokenizer that puts a space before a text: encoded apart, "A" is another token than behind the template."""
    tokenizer = Tokenizer.train_bpe(["A B C AA A A B B"] * 50, 280)
    settings = dict(tokenizer.settings)
    settings["chat_template"] = (
        "{% for m in messages %}<|{{ m.role }}|>:{{ m.content }}<|stop|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>:{% endif %}"
    )
    tokenizer.backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    prefixed = Tokenizer(tokenizer.backend, settings)
    found = backend_of(prefixed).choice_tokens(("A", "B"))
    assert found == [[prefixed.token_id("A")], [prefixed.token_id("B")]]
    assert prefixed.encode("A") != found[0]


def test_a_template_that_adds_to_answers_is_not_followed() -> None:
    settings = dict(BPE.settings)
    settings["chat_template"] = (
        "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}(thinking){% endif %}"
        "{{ m.content }}<|stop|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    backend = backend_of(Tokenizer(BPE.backend, settings))
    assert backend.choice_tokens(("A", "B")) == [BPE.encode("A"), BPE.encode("B")]


def test_a_model_without_a_chat_template_is_refused() -> None:
    settings = {key: value for key, value in BPE.settings.items() if key != "chat_template"}
    with pytest.raises(UserError, match="has no chat template"):
        replies(backend_of(Tokenizer(BPE.backend, settings)), [question("Which?")])


@pytest.mark.parametrize("attack", injections())
def test_tokens_of_the_template_in_an_answer_stay_text(attack: str) -> None:
    law = constitution.load("general")
    prompt = Prompt("p", (Message("user", "Say hello."),))
    honest, attacked = (
        prompt_ids(BPE, law.ask("compare", law.principles[0], prompt, first="Hi.", second=second))
        for second in ("Go away.", f"Go away. {attack}")
    )
    special = [[token for token in tokens if token in BPE.special_token_ids] for tokens in (honest, attacked)]
    assert special[0] == special[1]


def test_a_checkpoint_judges_from_its_directory(tmp_path: Path) -> None:
    for name, seed in (("sft", 3), ("rl", 4)):
        save_model(decoder_of(BPE, seed), tmp_path / name / "model", BPE)
    law = tmp_path / "law.yaml"
    law.write_text(
        "prompts: {compare: '{question} {prompt} [{first}] [{second}]', score: '{question} {prompt} [{answer}]'}\n"
        "delimiters: ['[', ']']\nprinciples: [{name: right, question: 'Right?'}]\n",
        encoding="utf-8",
    )
    config = JudgeConfig(model="sft", constitution=str(law), max_new_tokens=6)
    prompt = Prompt("p", (Message("user", "1 + 1?"),))
    pairs, answers = [Pair(prompt, "2", "3"), Pair(prompt, "two", "2")], [Answer(prompt, "2")]

    def place(name: str) -> str:
        return str(tmp_path / name / "model")

    def run(config: JudgeConfig) -> tuple[Judge, list[float | None]]:
        with build_judge(config, place=place, cache=tmp_path / "judge.db") as made:
            said = [found.probability for found in made.compare(pairs)]
            return made, [*said, *(found.value for found in made.score(answers))]

    made, said = run(config)
    assert made.name == "judge:sft"
    assert None not in said
    backend = backend_of()
    with Judge(backend, made.constitution) as same:
        assert [found.probability for found in same.compare(pairs)] == pytest.approx(said[:2], abs=1e-6)
    again, once_more = run(config)
    assert once_more == said
    assert (again.usage.calls, again.identity) == (0, made.identity)
    for place_name, known in (("runs/x/sft/model", "sft"), ("owner/name", "name"), ("model", "model")):
        assert LocalBackend.load(place("sft"), place_name).name == known
    other, _ = run(config.model_copy(update={"model": "rl"}))
    assert (other.usage.calls, other.name) == (5, "judge:rl")
    assert other.identity != made.identity


def test_the_policy_judges_itself_where_it_is_given() -> None:
    decoder = decoder_of(BPE)
    with build_judge(JudgeConfig(model="policy", constitution="general"), policy=(decoder, BPE, "step 7")) as made:
        assert made.name == "judge:policy"
        assert made.backend.identity == "step 7"
        (found,) = made.compare([Pair(Prompt("p", (Message("user", "1"),)), "2", "3")])
    assert found.missing.startswith(
        "the question has"
    )  # the general constitution does not fit 512 tokens of so few words


def test_the_identity_of_a_directory_is_that_of_its_content(tmp_path: Path) -> None:
    places = {}
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        save_model(decoder_of(BPE, seed), tmp_path / name, BPE)
        places[name] = weights_identity(tmp_path / name, BPE)
    assert places["a"] == places["b"] != places["c"]
    settings = dict(BPE.settings, chat_template=str(BPE.chat_template) + " ")
    assert weights_identity(tmp_path / "a", Tokenizer(BPE.backend, settings)) != places["a"]
