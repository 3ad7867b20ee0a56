import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from trivium.config import RankingSourceConfig, RecipeConfig, SourceConfig
from trivium.data import files, sources
from trivium.data.files import Row
from trivium.data.records import Message, Prompt
from trivium.errors import UserError
from trivium.feedback.rankings import formats
from trivium.feedback.rankings.formats import captions, native, trl
from trivium.feedback.rankings.record import Ranking, Response, dense_tiers
from trivium.feedback.rankings.sources import read_rankings


def read(rows: Sequence[dict[str, Any]], name: str | None = None, **options: Any) -> list[Ranking]:
    return list(formats.read((Row(row, f"file, line {n}") for n, row in enumerate(rows, 1)), name, options))


def refused(row: dict[str, Any], name: str | None, *parts: str, **options: Any) -> None:
    """The row is refused, and the message names file, line and each of ``parts``."""
    with pytest.raises(UserError) as error:
        read([row], name, **options)
    for part in ("file, line 1", *parts):
        assert part in str(error.value)


# ---- the record itself -----------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
SOME = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
NUMBER = st.floats(0, 3, allow_nan=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=3,
)
METADATA = st.dictionaries(TEXT, JSON, max_size=2)
PROMPTS = st.builds(
    Prompt,
    id=SOME,
    messages=st.lists(
        st.builds(Message, st.sampled_from(["system", "user", "assistant"]), TEXT), min_size=1, max_size=3
    ).map(tuple),
    answer=JSON,
    task=TEXT,
    metadata=METADATA,
)
RESPONSES = st.builds(
    Response, TEXT, model=TEXT, checkpoint=TEXT, sampling=METADATA, metadata=METADATA,
    finish_reason=st.sampled_from(["stop", "length"]),
)  # fmt: skip


def preferences_of(tiers: Sequence[int]) -> st.SearchStrategy[Any]:
    """Probabilities of some of the pairs of ranked responses."""
    ranked = [number for number, tier in enumerate(tiers) if tier >= 0]
    pairs = list(combinations(ranked, 2))
    chosen = st.lists(st.sampled_from(pairs), unique=True) if pairs else st.just([])
    return chosen.flatmap(
        lambda found: st.tuples(*(st.floats(0, 1).map(lambda p, pair=pair: (*pair, p)) for pair in found))
    )


@st.composite
def rankings(draw: st.DrawFn) -> Ranking:
    number = draw(st.integers(2, 5))
    skipped = draw(st.none() | TEXT)
    tiers = dense_tiers(draw(st.lists(st.integers(-1, 3), min_size=number, max_size=number)))
    ranked = sum(tier >= 0 for tier in tiers) > 1
    return Ranking(
        prompt=draw(PROMPTS),
        responses=tuple(draw(st.lists(RESPONSES, min_size=number, max_size=number))),
        tiers=tiers if skipped is None else (-1,) * number,
        annotator=draw(SOME),
        kind=draw(st.sampled_from(["human", "ai", "simulated"])),
        criterion=draw(TEXT),
        displayed=tuple(draw(st.just([]) | st.permutations(range(number)))),
        time=draw(TEXT),
        id=draw(TEXT),
        all_bad=not ranked or draw(st.booleans()),
        skipped=skipped,
        flags=tuple(draw(st.lists(TEXT, max_size=2))),
        strength=draw(st.none() | NUMBER),
        note=draw(TEXT),
        edited=draw(st.none() | SOME.filter(str.strip)),
        edited_from=draw(st.none() | st.integers(0, number - 1)),
        supersedes=draw(st.none() | TEXT),
        task=draw(TEXT),
        seconds=draw(st.none() | NUMBER),
        metadata=draw(METADATA),
        preferences=draw(preferences_of(tiers)) if skipped is None else (),
    )


@given(st.lists(rankings(), min_size=1, max_size=3))
def test_native_round_trip_loses_nothing(given_: list[Ranking]) -> None:
    rows = [json.loads(native.line(ranking)) for ranking in given_]
    again = list(native.read((Row(row, "line") for row in rows), {}))
    assert again == given_
    assert [native.line(ranking) for ranking in again] == [native.line(ranking) for ranking in given_]


def test_probabilities_of_pairs(tmp_path: Path) -> None:
    """They are read from JSON and Parquet, which has one type for a list; ids without them are what they were."""
    prompt, answers = Prompt("p", (Message("user", "?"),)), (Response("a"), Response("b"), Response("c"))
    plain = Ranking(prompt, answers, (0, 1, 1), "judge", "ai")
    assert plain.with_id().id == "7a515d4caaf1566ce5fe27eff600ee04"
    soft = replace(plain, preferences=((0, 1, 1), (1, 2, 0.45))).with_id()
    assert soft.id != plain.with_id().id
    row = json.loads(native.line(soft))
    assert row["preferences"] == [[0, 1, 1.0], [1, 2, 0.45]]
    row["preferences"] = [[0.0, 1.0, 1.0], [1.0, 2.0, 0.45]]
    assert read([row]) == [soft] and read([row])[0].with_id().id == replace(soft, id="").with_id().id
    assert "preferences" not in json.loads(native.line(plain))


@pytest.mark.parametrize(
    "text", ["\u2028 \x85 \r\n \x00", "\ud83d half of a pair", "<script>alert(1)</script>", "=1+1"]
)
def test_native_files_keep_odd_texts(tmp_path: Path, text: str) -> None:
    prompt = Prompt("p", (Message("user", text),), answer="")
    ranking = Ranking(prompt, (Response(text), Response("")), (0, 0), "ann", note=text, id="1")
    native.write_rankings(tmp_path / "rankings.jsonl", [ranking, ranking])
    assert read_rankings([RankingSourceConfig(source=str(tmp_path / "rankings.jsonl"))]) == [ranking, ranking]


def test_native_errors_say_what_and_where() -> None:
    good = {"prompt": {"messages": [{"role": "user", "content": "?"}]}, "responses": ["a", "b"], "tiers": [0, 1]}
    refused(good, None, "'annotator' is missing")
    refused({**good, "annotator": "x", "tiers": [0, 2]}, None, "skip a number")
    refused({**good, "annotator": "x", "tiers": [0, "1"]}, None, "whole numbers")
    refused({**good, "annotator": "x", "tiers": [0, 1, 2]}, None, "3 tiers for 2 responses")
    refused({**good, "annotator": "x", "responses": ["a"], "tiers": [0]}, None, "1 response;")
    refused({**good, "annotator": "x", "tiers": [-1, -1]}, None, "fewer than two")
    refused({**good, "annotator": "x", "rank": 1}, None, "no field 'rank'")
    for preferences, told in [
        ([[0, 2, 0.5]], "numbers 0 to 1"),
        ([[1, 0, 0.5]], "lower one first"),
        ([[0, 0, 0.5]], "lower one first"),
        ([[0, 1, 0.5], [0, 1, 0.4]], "twice"),
        ([[0, 1, 1.5]], "probability 1.5; use 0 to 1"),
        ([[0, 1, -0.1]], "use 0 to 1"),
        ([[0, 1, float("nan")]], "use 0 to 1"),
        ([[0, 1, 10**400]], "use 0 to 1"),
        ([[0, 1, "0.5"]], "two response numbers and a probability"),
        ([[0, 1, True]], "two response numbers and a probability"),
        ([[0.5, 1, 0.5]], "two response numbers and a probability"),
        ([[float("inf"), 1, 0.5]], "two response numbers and a probability"),
        ([[0, 1]], "two response numbers and a probability"),
        ([0.8], "two response numbers and a probability"),
        ({"0": 1}, "preferences must be a list"),
    ]:
        refused({**good, "annotator": "x", "preferences": preferences}, None, told)
    three = {**good, "annotator": "x", "responses": ["a", "b", "c"], "tiers": [0, 1, -1]}
    refused({**three, "preferences": [[1, 2, 0.5]]}, None, "unranked")
    nothing = {"tiers": [-1, -1], "skipped": "unclear", "preferences": [[0, 1, 0.5]]}
    refused({**good, "annotator": "x", **nothing}, None, "unranked")
    refused({**good, "annotator": "x", "prompt": "?"}, None, "messages")
    assert read([{**good, "annotator": "x", "note": None}])[0].id  # parquet fills in None; an id is made


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("annotator", 5),
        ("all_bad", "false"),
        ("seconds", "12"),
        ("seconds", True),
        ("strength", "2"),
        ("note", {"a": 1}),
        ("flags", [1]),
        ("edited", 5),
        ("edited_from", 1.0),
        ("supersedes", 7),
        ("metadata", []),
        ("responses", ["a", {"text": "b", "model": 5}]),
        ("responses", ["a", {"text": "b", "sampling": [1]}]),
        ("prompt", {"messages": [{"role": "user", "content": "?"}], "metadata": "x"}),
    ],
)
def test_native_fields_of_another_type_are_refused(field: str, value: Any) -> None:
    prompt = {"messages": [{"role": "user", "content": "?"}]}
    refused({"prompt": prompt, "responses": ["a", "b"], "tiers": [0, 1], "annotator": "x", field: value}, None, "must")


def test_none_in_a_response_is_left_out() -> None:
    prompt = {"messages": [{"role": "user", "content": "?"}], "task": None}
    row = {"prompt": prompt, "responses": ["a", {"text": "b", "checkpoint": None}], "tiers": [0, 1], "annotator": "x"}
    (ranking,) = read([row])
    assert (ranking.responses[1], ranking.prompt.task) == (Response("b"), "")


# ---- which format ----------------------------------------------------------------------------------------------------


def test_unknown_fields_formats_and_options() -> None:
    refused({"text": "x"}, None, "(text)", "rankme, oasst", "name one")
    refused({"mr": 1}, "rankme", "no option 'size'", "batch", size=3)
    refused({"scene": "x", "captions": []}, None, "option k", "a number such as 4", k="four")
    refused({"scene": "x", "captions": []}, None, "option k", k=True)
    assert read([]) == []


# ---- RankME ----------------------------------------------------------------------------------------------------------

RANKME = {
    "batch": "stp2_rankME_inf",
    "criterion": "inf",
    "rater": "rater7",
    "mr": "name[The Mill], area[riverside]",
    "responses": ["The Mill is by the river.", "The Mill.", "It is by the river, The Mill."],
    "systems": ["one", "two", "three"],
    "magnitudes": [100.0, 75.0, 100.0],
}


def test_rankme() -> None:
    first, second, other = read([RANKME, {**RANKME, "rater": "rater8"}, {**RANKME, "batch": "stp1"}])
    assert first.tiers == (0, 1, 0) and first.criterion == "informativeness" and first.kind == "human"
    assert first.metadata == {"magnitudes": [100.0, 75.0, 100.0], "batch": "stp2_rankME_inf"}
    assert [response.model for response in first.responses] == ["one", "two", "three"]
    assert first.task == second.task != other.task
    assert first.prompt.messages == (Message("user", RANKME["mr"]),)
    assert first.prompt.answer["mr"] == {"name": "The Mill", "area": "riverside"}
    assert len(read([RANKME, {**RANKME, "batch": "stp1"}], batch="stp1")) == 1


def test_rankme_errors() -> None:
    refused({**RANKME, "mr": "The Mill"}, None, "'mr'", "name[The Mill]")
    refused({**RANKME, "magnitudes": [1.0, 2.0]}, None, "'magnitudes'", "3 responses")
    refused({**RANKME, "magnitudes": [1.0, "2", 3.0]}, None, "'magnitudes'", "a number")
    refused({**RANKME, "magnitudes": [1.0, float("nan"), 3.0]}, None, "'magnitudes'")
    refused({**RANKME, "systems": ["one"]}, None, "'systems'")
    refused({**RANKME, "rater": None}, None, "'rater' is missing")
    refused({**RANKME, "responses": "The Mill"}, None, "'responses'", "a list")


def test_rankme_from_csv(tmp_path: Path) -> None:
    path = tmp_path / "rankme.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(RANKME))
        writer.writeheader()
        writer.writerow({key: json.dumps(value) if isinstance(value, list) else value for key, value in RANKME.items()})
    (ranking,) = read_rankings([RankingSourceConfig(source=str(path))])
    assert ranking.tiers == (0, 1, 0)


def test_rankme_real(shared_data: Path) -> None:
    folder = shared_data / "restaurants"
    found = read_rankings([RankingSourceConfig(source=str(folder / "rankme_rankings.jsonl"))])
    assert len(found) == len({ranking.id for ranking in found}) == 1800
    assert {ranking.criterion for ranking in found} == {"informativeness", "naturalness", "quality"}
    tasks: dict[str, set[str]] = {}
    for ranking in found:
        tasks.setdefault(ranking.task, set()).add(ranking.annotator)
    assert len(tasks) == 600 and all(len(raters) == 3 for raters in tasks.values())
    # The same prompts as the adapter of the restaurants makes: same words, same ids.
    config = [SourceConfig(source=str(folder), adapter="e2e", split=split) for split in ("train", "validation", "test")]
    config.append(SourceConfig(source=str(folder), adapter="e2e", split="unseen_names"))
    known = {prompt.id for part in sources.prompts(config, RecipeConfig(name="test", stages={})) for prompt in part}
    assert {ranking.prompt.id for ranking in found} <= known


# ---- Open-Assistant --------------------------------------------------------------------------------------------------


def message(text: str, role: str, *replies: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"message_id": f"m-{text}", "text": text, "role": role, "replies": list(replies), **more}


def tree() -> dict[str, Any]:
    deeper = message("more", "prompter", *(message(f"b{k}", "assistant", rank=n) for k, n in enumerate((2, 0, 0))))
    answers = [
        message("a1", "assistant", rank=1),
        message("a0", "assistant", {**deeper, "rank": 0}, message("other", "prompter", rank=1), rank=0),
        message("a?", "assistant"),
    ]
    return {"message_tree_id": "t", "tree_state": "ready_for_export", "prompt": message("hi", "prompter", *answers)}


def test_oasst() -> None:
    first, second = read([tree()])
    assert first.tiers == (1, 0, -1) and [r.text for r in first.responses] == ["a1", "a0", "a?"]
    assert first.prompt.messages == (Message("user", "hi"),)
    assert second.tiers == (1, 0, 0)  # ranks 2, 0, 0: a tie stays one, and tiers are dense
    assert [(m.role, m.content) for m in second.prompt.messages] == [
        ("user", "hi"),
        ("assistant", "a0"),
        ("user", "more"),
    ]


def test_oasst_messages_in_rows() -> None:
    rows: list[dict[str, Any]] = []

    def flatten(node: dict[str, Any], parent: str | None) -> None:
        rows.append({key: value for key, value in node.items() if key != "replies"} | {"parent_id": parent})
        for reply in node["replies"]:
            flatten(reply, node["message_id"])

    flatten(tree()["prompt"], None)
    found = read(rows)
    assert [(r.tiers, r.prompt.messages) for r in found] == [(r.tiers, r.prompt.messages) for r in read([tree()])]
    refused({**rows[0], "parent_id": "gone"}, None, "'parent_id'", "'gone'")
    with pytest.raises(UserError, match="line 2: field 'message_id': 'm-hi' was there before"):
        read([rows[0], rows[0]])


def test_oasst_leaves_out_what_is_not_ranked() -> None:
    one = message("hi", "prompter", message("a", "assistant", rank=0), message("b", "assistant"))
    assert read([{"prompt": one}]) == []
    spoken_twice = message("a", "assistant", *(message(x, "assistant", rank=n) for n, x in enumerate("bc")))
    assert read([{"prompt": message("hi", "prompter", spoken_twice)}]) == []  # nobody asked in between
    prompters = message("hi", "prompter", message("a", "assistant", rank=0), message("again", "prompter", rank=1))
    assert read([{"prompt": prompters}]) == []
    gone = message("hi", "prompter", *(message(x, "assistant", rank=n, deleted=x == "b") for n, x in enumerate("abc")))
    (ranking,) = read([{"prompt": gone}])
    assert [response.text for response in ranking.responses] == ["a", "c"] and ranking.tiers == (0, 1)


def test_oasst_errors_and_depth() -> None:
    refused({"prompt": message("hi", "user")}, None, "m-hi", "'role'", "prompter or assistant")
    refused({"prompt": message("hi", "prompter", message("a", "assistant", rank=-1))}, None, "m-a", "'rank'")
    refused({"prompt": {"replies": [], "role": "prompter"}}, None, "'text'")
    refused({"prompt": {"replies": [7], "role": "prompter", "text": "hi"}}, None, "a message")
    deep = message("x", "prompter")
    for number in range(3000):
        deep = message("x", "assistant" if number % 2 == 0 else "prompter", deep)
    assert read([{"prompt": deep}]) == []


def test_oasst_real(shared_data: Path) -> None:
    source = str(shared_data / "preferences" / "oasst_en_100_trees.jsonl")
    found = read_rankings([RankingSourceConfig(source=source)])
    complete = [ranking for ranking in found if -1 not in ranking.tiers]
    assert len(complete) == 211 and len(found) == 212
    assert {len(ranking.responses) for ranking in found} == {2, 3, 4, 5, 6, 8, 9}
    assert all(ranking.prompt.messages[-1].role == "user" for ranking in found)
    halves = [
        {r.prompt.metadata["tree"] for r in read_rankings([RankingSourceConfig(source=source, portion=portion)])}
        for portion in ((0.0, 0.5), (0.5, 1.0))
    ]
    assert not halves[0] & halves[1] and min(map(len, halves)) > 30  # branches of a tree stay together


# ---- Anthropic HH ----------------------------------------------------------------------------------------------------

ASKED = "\n\nHuman: What is 2+2?\n\nAssistant: 4\n\nHuman: And 3+3?"


def hh(chosen: str, rejected: str) -> dict[str, Any]:
    return {"chosen": chosen, "rejected": rejected}


def test_hh() -> None:
    (ranking,) = read([hh(f"{ASKED}\n\nAssistant: It is 6.", f"{ASKED}\n\nAssistant: It is 7.")])
    assert [m.content for m in ranking.prompt.messages] == ["What is 2+2?", "4", "And 3+3?"]
    assert [r.text for r in ranking.responses] == ["It is 6.", "It is 7."] and ranking.tiers == (0, 1)
    assert ranking.responses[0].metadata == {}


def test_hh_dialogues_that_part_earlier() -> None:
    chosen = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant: See you"
    rejected = "\n\nHuman: Hi\n\nAssistant: What?"
    (ranking,) = read([hh(chosen, rejected)])
    assert ranking.prompt.messages == (Message("user", "Hi"),)
    assert [r.text for r in ranking.responses] == ["Hello\n\nHuman: Bye\n\nAssistant: See you", "What?"]
    assert [r.metadata for r in ranking.responses] == [{"turns": 3}, {}]
    assert read([hh(chosen, rejected)], later_turns="drop") == []
    # They part at a turn of the human: the prompt ends with the last one both share.
    (other,) = read([hh(f"{ASKED}\n\nAssistant: 6", f"{ASKED} Quick!\n\nAssistant: 6")])
    assert [m.content for m in other.prompt.messages] == ["What is 2+2?"]


def test_hh_empty_and_equal_answers_stay() -> None:
    (ranking,) = read([hh(f"{ASKED}\n\nAssistant:", f"{ASKED}\n\nAssistant: 7")])
    assert ranking.responses[0].text == ""
    (same,) = read([hh(f"{ASKED}\n\nAssistant: 7", f"{ASKED}\n\nAssistant: 7")])
    assert same.tiers == (0, 1) and [r.text for r in same.responses] == ["7", "7"]


def test_hh_errors() -> None:
    refused(hh("hello", "you"), None, "'chosen'", "Human:")
    refused(hh("\n\nHuman: a\n\nAssistant: b", "\n\nHuman: c\n\nAssistant: b"), None, "'rejected'", "begins as chosen")
    refused(hh(ASKED, ASKED), None, "'rejected'")
    refused({"chosen": "\n\nHuman: a\n\nAssistant: b"}, "hh", "'rejected' is missing")
    with pytest.raises(UserError, match="keep or drop"):
        read([hh(ASKED, ASKED)], later_turns="cut")


# ---- TRL -------------------------------------------------------------------------------------------------------------


def ranking_of(*tiers: int, messages: int = 1) -> Ranking:
    asked = tuple(Message("user" if n % 2 == 0 else "assistant", f"m{n}") for n in range(messages))
    return Ranking(Prompt("p", asked), tuple(Response(f"r{n}") for n in range(len(tiers))), tuple(tiers), "ann")


def test_trl_has_one_row_a_strict_pair() -> None:
    rows = list(trl.rows([ranking_of(0, 1, 0, -1), ranking_of(0, 0)], conversational=False))
    assert rows == [
        {"prompt": "m0", "chosen": "r0", "rejected": "r1"},
        {"prompt": "m0", "chosen": "r2", "rejected": "r1"},
    ]
    (row,) = trl.rows([ranking_of(1, 0, messages=3)])
    assert row["chosen"] == [{"role": "assistant", "content": "r1"}] and len(row["prompt"]) == 3
    with pytest.raises(UserError, match="conversational"):
        list(trl.rows([ranking_of(0, 1, messages=3)], conversational=False))


@pytest.mark.parametrize("conversational", [False, True])
def test_trl_there_and_back(conversational: bool) -> None:
    found = read(list(trl.rows([ranking_of(0, 1, 2)], conversational)))
    assert [tuple(r.text for r in f.responses) for f in found] == [("r0", "r1"), ("r0", "r2"), ("r1", "r2")]
    assert all(f.prompt.messages == (Message("user", "m0"),) and f.tiers == (0, 1) for f in found)


def test_trl_without_a_prompt_field() -> None:
    both = [[{"role": "user", "content": "?"}, {"role": "assistant", "content": x}] for x in "ab"]
    (ranking,) = read([{"chosen": both[0], "rejected": both[1]}])
    assert ranking.prompt.messages == (Message("user", "?"),) and [r.text for r in ranking.responses] == ["a", "b"]
    other = [{"role": "user", "content": "!"}, both[1][1]]
    refused({"chosen": both[0], "rejected": other}, None, "'rejected'", "differs from chosen")
    refused({"prompt": "?", "chosen": "a"}, "trl", "'rejected' is missing")
    refused({"prompt": "?", "chosen": "a", "rejected": 7}, None, "'rejected'", "found 7")
    refused({"prompt": [{"role": "robot", "content": "?"}], "chosen": "a", "rejected": "b"}, None, "'prompt'", "user")
    refused({"prompt": both[0], "chosen": "a", "rejected": "b"}, None, "field")
    refused({"prompt": "?", "chosen": "a", "rejected": "b"}, None, "kind", kind="robot")


def test_trl_from_csv_and_parquet(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = [{"prompt": "?", "chosen": "a, b", "rejected": "c"}]
    (tmp_path / "pairs.csv").write_text('prompt,chosen,rejected\n?,"a, b",c\n', encoding="utf-8")
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    for name in ("pairs.csv", "pairs.parquet"):
        (ranking,) = read_rankings([RankingSourceConfig(source=str(tmp_path / name))])
        assert [response.text for response in ranking.responses] == ["a, b", "c"]


# ---- RewardBench -----------------------------------------------------------------------------------------------------


def test_rewardbench() -> None:
    row = {"prompt": "?", "chosen": "a", "rejected": "b", "subset": "hep-go", "chosen_model": "m", "id": 7}
    (ranking,) = read([row])
    assert ranking.tiers == (0, 1) and ranking.prompt.task == "reasoning"
    assert ranking.prompt.metadata == {"subset": "hep-go"} and ranking.responses[0].model == "m"
    (new,) = read([{**row, "subset": "Factuality", "chosen": ["a"], "rejected": ["b", "c", "d"]}])
    assert new.prompt.task == "Factuality" and new.tiers == (0, 1, 1, 1)
    refused({**row, "chosen": []}, None, "'chosen'")
    refused({**row, "subset": 3}, None, "'subset'", "expected text")


# ---- caption contests ------------------------------------------------------------------------------------------------


def scene(*scores: tuple[float, float]) -> dict[str, Any]:
    entries = [{"text": f"c{n}", "score": s, "precision": p, "votes": 9} for n, (s, p) in enumerate(scores)]
    return {"contest": 1, "scene": "A cat.", "captions": entries}


def test_captions_near_each_other_are_tied() -> None:
    (ranking,) = read([scene((2.0, 0.05), (1.5, 0.05), (1.52, 0.05))], k=3)
    tier_of = {r.text: tier for r, tier in zip(ranking.responses, ranking.tiers, strict=True)}
    assert tier_of == {"c0": 0, "c1": 1, "c2": 1}
    assert ranking.prompt.messages[0].content.endswith("A cat.") and ranking.criterion == "funny"
    (strict,) = read([scene((2.0, 0.05), (1.5, 0.05), (1.52, 0.05))], k=3, errors=0)
    assert len(set(strict.tiers)) == 3


def test_captions_whose_ties_are_not_transitive_never_meet() -> None:
    """0 and 1 are near, 1 and 2 are near, 0 and 2 are not: no tiers say that."""
    chain = [captions.Caption(f"c{n}", score, 0.1, {}) for n, score in enumerate((2.0, 1.8, 1.6))]
    assert captions.tiers(chain, 1.96) is None
    assert captions.tiers(chain[:2], 1.96) == (0, 0) and captions.tiers(chain[::2], 1.96) == (0, 1)
    for seed in range(5):
        found = read([scene((2.0, 0.1), (1.8, 0.1), (1.6, 0.1))], k=3, seed=seed)
        assert all(len(ranking.responses) == 2 for ranking in found)


def test_captions_errors_and_options() -> None:
    refused(scene((2.0, -0.1)), None, "caption 0", "'precision'")
    refused({"scene": "x", "captions": [{"text": "a", "score": "high", "precision": 0.1}]}, None, "'score'")
    refused({"scene": "x", "captions": [3]}, None, "caption 0")
    with pytest.raises(UserError, match=r"option k .* at least 2"):
        read([scene((2.0, 0.1))], k=1)
    with pytest.raises(UserError, match="scene"):
        read([scene((2.0, 0.1))], wording="Write a caption.")


def test_captions_real(shared_data: Path) -> None:
    config = RankingSourceConfig(source=str(shared_data / "preferences" / "caption_contests.jsonl"))
    found = read_rankings([config])
    assert len(found) == 32 * 50 and all(len(ranking.responses) == 4 for ranking in found)
    assert found == read_rankings([config])
    assert found != read_rankings([config.model_copy(update={"options": {"seed": 1}})])
    texts = [(ranking.prompt.id, response.text) for ranking in found for response in ranking.responses]
    assert len(texts) == len(set(texts))
    for ranking in found[:300]:
        numbers = [response.metadata for response in ranking.responses]
        for (a, one), (b, other) in pairwise(zip(ranking.tiers, numbers, strict=True)):
            apart = abs(one["score"] - other["score"]) / (one["precision"] ** 2 + other["precision"] ** 2) ** 0.5
            assert (a == b) == (apart <= 1.96)
            assert a == b or (a < b) == (one["score"] > other["score"])


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "?", "chosen": "a", "rejected": "b"}\n{"prompt": "?", "chosen": 1, "rejected": "b"}\n')
    with pytest.raises(UserError, match=r"pairs\.jsonl, line 2: field 'chosen'.*repair the row"):
        read_rankings([RankingSourceConfig(source=str(path))])
    assert len(list(files.read_path(path))) == 2
