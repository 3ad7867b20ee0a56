"""Constitutions: what a file may say, what it may not, and what changes the fingerprint."""

from pathlib import Path
from typing import Any

import pytest

from trivium.data.records import Message, Prompt
from trivium.errors import UserError
from trivium.feedback.judges import constitution, prompts
from trivium.feedback.judges.constitution import from_data
from trivium.strict_yaml import parse_yaml, write_yaml

PROMPT = Prompt("p", (Message("user", "2 + 2?"),))
ONE: dict[str, Any] = {"principles": [{"name": "right", "question": "Is it right?"}]}
PAIR = {"prompt": "1 + 1?", "first": "2", "second": "3", "better": "first"}
SCORED = {"prompt": "1 + 1?", "answer": "2", "score": 9}


def with_examples(*examples: dict[str, Any]) -> dict[str, Any]:
    return {"principles": [{"name": "right", "question": "Is it right?", "examples": list(examples)}]}


@pytest.mark.parametrize("name", constitution.names())
def test_every_shipped_constitution_can_be_asked_in_every_way(name: str) -> None:
    law = constitution.load(name)
    assert law.name == name
    assert sum(law.weights) == pytest.approx(1)
    for principle in law.principles:
        for kind, texts in prompts.TEXTS.items():
            asked = law.ask(kind, principle, PROMPT, **dict.fromkeys(texts, "four"))
            assert asked[-1].content.count("four") == len(texts)
            assert "{" not in asked[-1].content


def test_the_shipped_ones_are_there() -> None:
    assert {"general", "restaurant"} <= set(constitution.names())
    assert len(constitution.load("general").principles) == 5
    assert [p.name for p in constitution.load("restaurant").principles] == ["informativeness", "naturalness", "quality"]


def test_a_file_is_read_and_named_after_itself(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(write_yaml({**ONE, "scale": 5, "labels": ["1", "2"]}), encoding="utf-8")
    law = constitution.load(path)
    assert (law.name, law.scale, law.labels, law.scores) == ("mine", 5, ("1", "2"), ("1", "2", "3", "4", "5"))
    assert law.delimiters == prompts.DELIMITERS
    assert law.system == prompts.SYSTEM


def test_examples_come_before_the_question_as_turns() -> None:
    law = from_data(with_examples(PAIR, SCORED, PAIR | {"better": "second"}) | {"labels": ["X", "Y"]}, "test")
    (principle,) = law.principles
    compared = law.ask("compare", principle, PROMPT, first="4", second="5")
    assert [message.role for message in compared] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert [message.content for message in compared if message.role == "assistant"] == ["X", "Y"]
    assert prompts.materials(compared[1].content, law.delimiters) == ["1 + 1?", "2", "3"]
    assert prompts.materials(compared[-1].content, law.delimiters) == ["2 + 2?", "4", "5"]
    assert "Reply with X or Y" in compared[-1].content
    scored = law.ask("score", principle, PROMPT, answer="4")
    assert [message.content for message in scored if message.role == "assistant"] == ["9"]
    assert [message.role for message in law.ask("critique", principle, PROMPT, answer="4")] == ["system", "user"]


def test_short_templates_make_short_questions() -> None:
    data = {
        "prompts": {"compare": "{question} {prompt}\n[{first}]\n[{second}]", "score": "{prompt} [{answer}] 1-{scale}?"},
        "delimiters": ["[", "]"],
        "scale": 3,
        **ONE,
    }
    law = from_data(data, "test")
    (message,) = law.ask("compare", law.principles[0], PROMPT, first="4] B", second="[5]")
    assert message == Message("user", "Is it right? 2 + 2?\n[4) B]\n[(5)]")
    (message,) = law.ask("score", law.principles[0], PROMPT, answer="4")
    assert message.content == "2 + 2? [4] 1-3?"
    assert "[\n4\n]" in law.ask("critique", law.principles[0], PROMPT, answer="4")[-1].content


@pytest.mark.parametrize(
    ("system", "templates", "expected"),
    [
        ("absent", None, prompts.SYSTEM),
        (None, None, ""),
        ("Judge.", None, "Judge."),
        ("absent", {"score": "{open}{answer}{close}"}, ""),
        ("Judge.", {"score": "{open}{answer}{close}"}, "Judge."),
    ],
)
def test_the_system_message(system: str | None, templates: dict[str, str] | None, expected: str) -> None:
    data = ONE | ({} if system == "absent" else {"system": system}) | ({"prompts": templates} if templates else {})
    assert from_data(data, "test").system == expected


def changed(key: str, value: Any) -> dict[str, Any]:
    return {"principles": [{"name": "right", "question": "Is it right?", key: value}]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "test is a list, but must be a mapping with name, scale"),
        ({"principels": []}, r"test has no key 'principels' \(did you mean 'principles'\?\)"),
        ({}, "test: there are no principles"),
        ({"principles": []}, "test: there are no principles"),
        ({"principles": ["right"]}, "principle 1 is a text, but must be a mapping with name, question"),
        (changed("wieght", 1), r"principle 1 has no key 'wieght' \(did you mean 'weight'\?\)"),
        (changed("weight", 0), r"principle 1 \(right\): weight is 0, but must be a number above 0"),
        (changed("weight", -1.0), "weight is -1.0"),
        (changed("weight", float("inf")), "weight is inf"),
        (changed("weight", float("nan")), "weight is nan"),
        (changed("weight", True), "weight is True"),
        (changed("question", " "), "question is a text, but must be a text|question is"),
        ({"principles": [{"name": "right"}]}, "principle 1: question is missing"),
        ({"principles": ONE["principles"] * 2}, "principle 2: the name 'right' stands twice"),
        (ONE | {"scale": 1}, "scale is 1, but must be a whole number from 2 to 100"),
        (ONE | {"scale": "ten"}, "scale is 'ten'"),
        (ONE | {"labels": ["A", "A"]}, "labels is .*, but must be two different texts"),
        (ONE | {"labels": ["A", 2]}, "labels is"),
        (ONE | {"delimiters": ["<", "<"]}, "hold one another"),
        (ONE | {"delimiters": ["[", "[/"]}, "hold one another"),
        (ONE | {"delimiters": ["<", " "]}, "two texts with a visible character"),
        (ONE | {"delimiters": ["<{mark}", "{mark}>"]}, r"\{mark\} needs a text before it and a sign after it"),
        (ONE | {"delimiters": ["{first}", "]"]}, r"delimiters holds \{first\}"),
        (ONE | {"prompts": {"rank": "x"}}, "prompts has no key 'rank'"),
        (ONE | {"prompts": {"score": 3}}, "score is a number, but must be a text"),
        (ONE | {"prompts": {"score": "Rate it."}}, r"template score has to hold \{answer\} once, and holds it 0 times"),
        (ONE | {"prompts": {"score": "{open}{answer}{close} {answer}"}}, "holds it 2 times"),
        (ONE | {"prompts": {"score": "Rate {answer}"}}, r"does not put \{answer\} between the delimiters"),
        (
            ONE | {"prompts": {"score": "{open}{answer}{close} {anwser}"}},
            r"holds \{anwser\}, but knows \{question\}.*\{close\}$",
        ),
        (
            {
                "principles": [{"name": name, "question": "?"} for name in "ab"],
                "prompts": {"score": "{open}{answer}{close}"},
            },
            r"template score has no \{question\}",
        ),
        (ONE | {"system": "Hi {first}"}, r"system holds \{first\}"),
        (ONE | {"system": 3}, "system is a number"),
        (changed("examples", {"prompt": "x"}), "examples is a mapping, but must be a list"),
        (with_examples(PAIR | {"better": "A"}), "example 1: better is 'A', but must be first or second"),
        (with_examples(SCORED | {"score": 11}), "score is 11, but must be a whole number from 1 to 10"),
        (with_examples({"prompt": "x", "answer": "y"}), "example 1: score is missing"),
        (with_examples(PAIR | {"score": 1}), "has no key 'score'"),
    ],
)
def test_a_mistake_is_a_sentence_that_names_the_file_and_the_key(data: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        from_data(data, "test")
    assert str(caught.value).startswith("test")


def test_a_file_that_is_not_there_or_no_yaml(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"there is no constitution genral: .* one of general, .*did you mean 'general'"
    ):
        constitution.load("genral")
    with pytest.raises(UserError, match=r"there is no constitution genral.yaml: .* one of general, [^?]*$"):
        constitution.load("genral.yaml")
    (tmp_path / "bad.yaml").write_text("principles: [", encoding="utf-8")
    with pytest.raises(UserError, match=r"bad.yaml, line"):
        constitution.load(tmp_path / "bad.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"binary.yaml is no UTF-8 text"):
        constitution.load(tmp_path / "binary.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        constitution.load(tmp_path)


def test_the_fingerprint_changes_with_everything_that_is_asked() -> None:
    plain = from_data(ONE, "test", "x")
    others = [
        from_data(changed("weight", 2), "test", "x"),
        from_data(changed("question", "Is it true?"), "test", "x"),
        from_data(with_examples(PAIR), "test", "x"),
        from_data(ONE | {"scale": 9}, "test", "x"),
        from_data(ONE | {"labels": ["1", "2"]}, "test", "x"),
        from_data(ONE | {"system": None}, "test", "x"),
        from_data(ONE | {"delimiters": ["[", "]"]}, "test", "x"),
        from_data(ONE | {"prompts": {"score": "{open}{answer}{close}"}, "system": prompts.SYSTEM}, "test", "x"),
    ]
    assert len({law.fingerprint for law in [plain, *others]}) == 9
    assert from_data(ONE, "elsewhere", "x").fingerprint == plain.fingerprint


def test_the_constitution_of_the_page_is_valid_and_has_every_key() -> None:
    page = (Path(__file__).parents[3] / "docs" / "judges.md").read_text(encoding="utf-8")
    code = next(part.split("```")[0] for part in page.split("```\n") if part.startswith("name: tutor"))
    data = parse_yaml(code, "docs/judges.md")
    assert set(data) == set(constitution.KEYS)
    assert set(data["principles"][0]) == set(constitution.PRINCIPLE_KEYS)
    law = from_data(data, "docs/judges.md")
    compared = law.ask("compare", law.principles[0], PROMPT, first="4", second="5")
    assert prompts.materials(compared[-1].content, law.delimiters) == ["2 + 2?", "4", "5"]
    for name in prompts.names("".join(prompts.TEMPLATES.values())):
        assert f"`{{{name}}}`" in page, f"docs/judges.md does not name {{{name}}}"
