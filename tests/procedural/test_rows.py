"""Rows of procedural sources: splits, determinism, exhaustion, options, and the way into records."""

import hashlib
import json
import logging
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium import procedural
from trivium.config import RecipeConfig, SourceConfig, VerifierConfig
from trivium.data import sources
from trivium.errors import UserError
from trivium.feedback.verifiers import KINDS, build
from trivium.procedural import SPLITS, TASKS
from trivium.procedural.base import split_of

# blake2b of the first 20 problems and demonstrations of all tasks, levels 1 to 3, seed 7: the same on every machine.
GOLDEN = "2da0c7faed3ca8f6f39e38264b696555"


def made(part: str | None = None, kind: str = "problems", split: str = "train", seed: int = 0, **options) -> list[dict]:
    return list(procedural.rows(kind, split, procedural.settings(part, options), seed))


def first_rows() -> str:
    rows = [made(kind=kind, seed=7, levels=[1, 3], rows=20) for kind in procedural.KINDS]
    return hashlib.blake2b(json.dumps(rows).encode(), digest_size=16).hexdigest()


def test_equal_seeds_give_equal_bytes_on_any_machine() -> None:
    assert first_rows() == GOLDEN, "raise procedural.VERSION: what the generators make has changed"
    script = "from tests.procedural.test_rows import first_rows; print(first_rows())"
    for hash_seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": hash_seed, "PATH": ""}
        found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
        assert found.stdout.strip() == GOLDEN, found.stderr


def test_other_seeds_and_offsets_give_other_rows() -> None:
    one = {row["id"] for row in made("arithmetic", rows=50, levels=[4, 4])}
    assert not one & {row["id"] for row in made("arithmetic", seed=1, rows=50, levels=[4, 4])}
    options = procedural.settings("arithmetic", {"rows": 50, "levels": [4, 4], "seed": 1})
    assert not one & {row["id"] for row in procedural.rows("problems", "train", options, 0)}


def test_more_rows_are_the_same_rows_and_then_others() -> None:
    assert made(levels=[1, 2], rows=60)[:25] == made(levels=[1, 2], rows=25)


@settings(max_examples=12, deadline=None)
@given(seeds=st.lists(st.integers(0, 2**31), min_size=3, max_size=3), high=st.integers(1, 5), count=st.integers(1, 60))
def test_splits_are_disjoint_whatever_seed_level_and_number(seeds: list[int], high: int, count: int) -> None:
    keys, prompts = [], []
    for split, seed in zip(SPLITS, seeds, strict=True):
        rows = made(split=split, seed=seed, levels=[1, high], rows=count)
        keys.append({(row["task"], row["metadata"]["key"]) for row in rows})
        prompts.append({row["messages"][0]["content"] for row in rows})
        assert len(prompts[-1]) == len(rows) == len({row["id"] for row in rows})
    for one, two in ((0, 1), (0, 2), (1, 2)):
        assert not keys[one] & keys[two] and not prompts[one] & prompts[two]


def test_demonstrations_keep_to_their_split() -> None:
    shown = {row["messages"][0]["content"] for row in made("bases", kind="demonstrations", rows=300)}
    asked = {row["messages"][0]["content"] for split in SPLITS[1:] for row in made("bases", split=split, rows=300)}
    assert shown and asked and not shown & asked


def test_shares_of_the_splits() -> None:
    found = [split_of("x", str(number)) for number in range(20_000)]
    assert found.count("train") / 20_000 == pytest.approx(0.8, abs=0.015)
    assert found.count("test") / 20_000 == pytest.approx(0.1, abs=0.01)


def test_an_exhausted_level_gives_fewer_rows_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "trivium.data"):
        rows = made("bases", rows=500)  # 64 numbers, there and back
    assert 90 < len(rows) < 128
    assert f"no more than {len(rows)} of the 500 rows" in caplog.text
    every = [row["metadata"]["key"] for split in SPLITS for row in made("bases", split=split, rows=500)]
    assert len(set(every)) == 64 and len(every) == 128
    caplog.clear()
    assert len(made(rows=800, tasks={"bases": 1.0, "arithmetic": 1.0})) == 800 and not caplog.text  # the rest fills up


def test_tasks_and_levels_come_in_their_shares() -> None:
    rows = made(rows=1200, levels=[2, 3], tasks={"sorting": 3.0, "recall": 1.0, "sudoku": 0.0})
    assert sum(row["task"] == "sorting" for row in rows) == pytest.approx(900, abs=60)
    assert {row["task"] for row in rows} == {"sorting", "recall"}
    assert sum(row["metadata"]["level"] == 3 for row in rows) == pytest.approx(600, abs=70)


@pytest.mark.parametrize("marker", ["####", "Answer:", None])
@pytest.mark.parametrize("name", list(TASKS))
def test_demonstrations_are_judged_right(name: str, marker: str | None) -> None:
    """The response of a demonstration, judged on the problem of the same prompt."""
    verifier = build(VerifierConfig(kind="procedural", options={"marker": marker}))
    levels = [1, len(TASKS[name].levels)]
    recipe = RecipeConfig.model_validate({"name": "x", "stages": {}})
    source = SourceConfig(source="procedural", part=name, options={"levels": levels, "rows": 12, "marker": marker})
    (problems,) = sources.prompts([source], recipe)
    for problem in problems:
        said = problem.answer if marker is None else f"It is so. {marker} {problem.answer}"
        verdict = verifier(problem, said)
        assert (verdict.score, verdict.status) == (1.0, "ok"), verdict
        assert verifier(problem, said + (" 1 1" if marker is None else f" {marker} 1")).score == 0.0
    (conversations,) = sources.conversations([source], recipe)
    assert len(conversations) == 12
    documents = list(sources.documents([source], recipe))
    assert all(document.text.count(marker or "\n") >= 1 for document in documents)
    if marker is not None:
        assert all(marker in conversation.messages[-1].content for conversation in conversations)


def test_the_prompt_says_how_to_answer_unless_told_not_to() -> None:
    told, plain = made("sorting", rows=1)[0], made("sorting", rows=1, instructions=False)[0]
    assert told["messages"][0]["content"] == plain["messages"][0]["content"] + (
        "\nEnd with #### and the numbers in order, with spaces between them."
    )
    assert json.loads(json.dumps(told)) == told


@pytest.mark.parametrize(
    ("part", "options", "why"),
    [
        ("countdwn", {}, "there is no part 'countdwn'; choose from sorting"),
        ("sorting", {"levels": [0, 1]}, "sorting has the levels 1 to 5"),
        ("sorting", {"levels": [3, 2]}, "levels are [3, 2]"),
        ("sorting", {"levels": [1, 6]}, "sorting has the levels 1 to 5"),
        ("sorting", {"levels": 3}, "levels is 3, but should be a list"),
        ("sorting", {"row": 3}, "there is no option 'row' (did you mean 'rows'?)"),
        ("sorting", {"rows": 0}, "rows is 0, but should be greater than or equal to 1"),
        ("sorting", {"marker": ""}, "marker is '', but should have at least 1 character"),
        ("sorting", {"tasks": {"sorting": 1.0}}, "remove one of them"),
        (None, {"tasks": {"sort": 1.0}}, "there is no task 'sort'"),
        (None, {"tasks": {"sorting": -1.0}}, "must be 0 or more"),
        (None, {"tasks": {"sorting": 0.0}}, "all shares are 0"),
    ],
)
def test_bad_options_are_one_sentence(part: str | None, options: dict, why: str) -> None:
    with pytest.raises(UserError, match="procedural: ") as caught:
        procedural.settings(part, options)
    assert why in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError):
        sources.check_made(SourceConfig(source="procedural", part=part, options=options))


def test_bad_splits_and_maps_are_refused() -> None:
    for wrong in ({"split": "dev"}, {"fields": {"prompt": "q"}}, {"adapter": "e2e"}):
        with pytest.raises(UserError, match="procedural: "):
            sources.check_made(SourceConfig(source="procedural", part="sorting", **wrong))
    with pytest.raises(UserError, match="no split 'dev'"):
        procedural.rows("problems", "dev", procedural.settings("sorting", {}), 0)


def test_the_fingerprint_covers_what_the_rows_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    source = SourceConfig(source="procedural", part="sorting")
    recipe = RecipeConfig.model_validate({"name": "x", "stages": {}})
    was = sources.fingerprint([source], recipe)
    assert was == sources.fingerprint([source], recipe)
    assert was != sources.fingerprint([source], recipe.model_copy(update={"seed": 1}))
    assert was != sources.fingerprint([source.model_copy(update={"options": {"levels": [1, 2]}})], recipe)
    monkeypatch.setattr(procedural, "VERSION", 2)
    assert was != sources.fingerprint([source], recipe)


def test_what_is_no_procedural_problem_is_our_failure() -> None:
    sample = KINDS["procedural"].sample
    assert sample is not None
    verifier = build(VerifierConfig(kind="procedural"))
    assert verifier(sample.prompt, sample.right).score == 1.0
    wrong = verifier(sample.prompt, sample.wrong)
    assert (wrong.score, wrong.status) == (0.0, "ok") and wrong.detail == "its value is 22"
    assert verifier(sample.prompt, "6*(4+3)").status == "unparseable"
    from dataclasses import replace

    for broken in (
        replace(sample.prompt, task="add"),
        replace(sample.prompt, metadata={}),
        replace(sample.prompt, metadata={"problem": {}}),
        replace(sample.prompt, metadata={"problem": {"numbers": 3, "target": 42}}),
    ):
        assert verifier(broken, sample.right).status == "infra_error"
