"""Lessons in judging: every verdict is right, every question is the constitution's own, and all fit into the model."""

import re
from collections import Counter

import pytest
from tests.primer.test_rows import read

from trivium import primer
from trivium.config import PrimerConfig, VerifierConfig
from trivium.data.records import Conversation, Message, Prompt
from trivium.errors import UserError
from trivium.feedback.judges import constitution
from trivium.feedback.verifiers import build
from trivium.text.chat import training_sequence
from trivium.text.tokenizer import Tokenizer

CONFIG = PrimerConfig(lessons=2000, letters=4)
LAWS = constitution.load("primer")
POLITE = "Gladly: "


def asked(text: str) -> tuple[str, str, list[str]]:
    """Principle, the problem's own question and the texts between the marks."""
    head, *texts = text.split("\n")
    principle = next(item for item in LAWS.principles if item.question in head)
    return principle.name, head.split(principle.question)[1].strip(), [item[1:-1] for item in texts]


def right_answers() -> dict[str, str]:
    if not ANSWERS:
        for split in primer.SPLITS:
            for row in primer.rows("lessons", split, CONFIG, 0):
                _, question, _ = asked(row["messages"][0]["content"])
                if row["task"] == "revise/right":  # what is asked for
                    ANSWERS[question] = row["messages"][1]["content"].removeprefix(POLITE)
    return ANSWERS


ANSWERS: dict[str, str] = {}


def test_every_verdict_is_right() -> None:
    verify = build(VerifierConfig(kind="primer"))
    told: Counter[tuple[str, str]] = Counter()
    for row in primer.rows("lessons", "train", CONFIG, 0):
        kind, principle = row["task"].split("/")
        question, said = (message["content"] for message in row["messages"])
        name, problem, texts = asked(question)
        assert name == principle
        if principle == "right" and kind in ("score", "critique"):
            good = {LAWS.scores[-1]: True, LAWS.scores[0]: False, "It is right.": True, "It is not right.": False}[said]
            solved = read(problem)
            assert solved is not None
            prompt = Prompt("", (Message("user", problem),), answer=solved.answer, task=solved.task)
            if good:  # a flawed working may end in a right answer, but nothing right is called wrong
                assert verify(prompt, texts[0]).score == 1.0, (problem, texts)
            told[kind, said] += 1
        elif principle == "polite" and kind == "score":
            assert (said == LAWS.scores[-1]) == texts[0].startswith(POLITE)
        elif principle == "polite" and kind == "compare":
            first, second = (text.startswith(POLITE) for text in texts)
            assert first == second or said == LAWS.labels[0 if first else 1]
        elif kind == "revise" and principle == "polite":
            assert said == (texts[0] if texts[0].startswith(POLITE) else POLITE + texts[0])
    assert min(told.values()) > 30  # both verdicts are common


def test_the_kinds_come_by_their_shares_and_one_may_be_left_out() -> None:
    config = PrimerConfig(lessons=400, lesson_kinds={"compare": 3.0, "score": 1.0})
    kinds = Counter(row["task"].split("/")[0] for row in primer.rows("lessons", "train", config, 0))
    assert set(kinds) == {"compare", "score"} and 2.0 < kinds["compare"] / kinds["score"] < 4.5
    for wrong, words in (({"score": 0.0}, "every share is zero"), ({"praise": 1.0}, "no lesson kind 'praise'")):
        with pytest.raises(UserError, match=words):
            primer.rows("lessons", "train", PrimerConfig(lesson_kinds=wrong), 0)


def test_labels_stand_in_both_places_alike() -> None:
    """Where an answer stands must be worth nothing."""
    said = Counter(
        row["messages"][1]["content"]
        for row in primer.rows("lessons", "train", PrimerConfig(lessons=1500, lesson_kinds={"compare": 1.0}), 0)
    )
    assert 0.44 < said["A"] / (said["A"] + said["B"]) < 0.56


def test_a_lesson_is_asked_as_the_judge_will_ask_and_fits_its_context() -> None:
    rows = list(primer.rows("lessons", "train", CONFIG, 0))
    texts = [text for row in rows for text in (message["content"] for message in row["messages"])]
    corpus = [row["text"] for row in primer.rows("corpus", "train", PrimerConfig(documents=300), 0)]
    tokenizer = Tokenizer.train_bpe(corpus + texts[:50], 512)
    longest = 0
    for row in rows:
        messages = tuple(Message(said["role"], said["content"]) for said in row["messages"])
        longest = max(longest, len(training_sequence(tokenizer, Conversation(messages)).tokens))
        if row["task"] == "score/right":
            principle, problem, (answer,) = asked(messages[0].content)
            law = next(item for item in LAWS.principles if item.name == principle)
            (question,) = LAWS.ask("score", law, Prompt("", (Message("user", problem),)), answer=answer)
            assert question == messages[0]
    assert longest <= 128
    assert not re.search(r"[\[\]]", "".join(right_answers().values()))


def test_settings_of_a_source() -> None:
    careless = primer.settings(CONFIG, {"forget": 0.0})
    assert careless.forget == 0.0 and CONFIG.forget == PrimerConfig().forget
    assert primer.settings(CONFIG, {}) is CONFIG
    with pytest.raises(UserError, match=r"primer: there is no option 'forgets' .did you mean 'forget'"):
        primer.settings(CONFIG, {"forgets": 0.1})
    with pytest.raises(UserError, match=r"primer: forget is 2\.0, but should be less than or equal to 1"):
        primer.settings(CONFIG, {"forget": 2.0})
