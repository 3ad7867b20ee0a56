import errno
import os
from pathlib import Path

import pytest

from trivium import files, lineage
from trivium.data.records import Message, Prompt
from trivium.errors import UserError
from trivium.feedback.rankings.record import Ranking, Response
from trivium.feedback.rankings.store import Store


def test_write_replaces_whole_files_and_leaves_nothing_beside(tmp_path: Path) -> None:
    place = tmp_path / "folder" / "x.json"
    files.write_json(place, {"a": 1})
    files.write_json(place, {"a": [2]})
    assert files.read_json(place) == {"a": [2]}
    assert os.listdir(place.parent) == ["x.json"]
    assert files.read_json(tmp_path / "absent.json") is None


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "x.txt"
    files.write_text(place, "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"disk is full while writing .*x\.txt"):
        files.write_text(place, "new")
    assert place.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.txt"]


def test_set_aside_never_overwrites(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / "sft").mkdir()
        (tmp_path / "sft" / "n").write_text(str(number))
        files.set_aside(tmp_path / "sft", tmp_path / "old" / "sft")
    assert [(tmp_path / "old" / f"sft-{n}" / "n").read_text() for n in (1, 2)] == ["1", "2"]


def test_fingerprint_goes_by_content_not_by_place(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("same")
    (tmp_path / "b").write_text("same")
    (tmp_path / "c").write_text("other")
    one, two, three = (lineage.Hasher().files("data", tmp_path / name) for name in "abc")
    assert lineage.fingerprint({}, one) == lineage.fingerprint({}, two) != lineage.fingerprint({}, three)
    assert lineage.fingerprint({"x": 1, "y": 2}, one) == lineage.fingerprint({"y": 2, "x": 1}, one)


def test_unchanged_files_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "a"
    place.write_text("text")
    recorded = {"artifacts": {"s": {"inputs": lineage.records(lineage.Hasher().files("data", place))}}}
    monkeypatch.setattr(lineage, "sha256", lambda path: pytest.fail("read again"))
    assert lineage.Hasher(recorded).files("data", place)[0].sha256 == files_hash("text")


def test_a_store_counts_by_its_rankings(tmp_path: Path) -> None:
    """One more ranking, still in the journal, is another input; a new annotator is none. A server is read too."""
    place = tmp_path / "rankings.db"
    section = {"kind": "reward", "init": "nothing", "rankings": [{"source": str(place)}]}

    def read(source: str = str(place)) -> list[tuple[str, str]]:
        found = lineage.inputs_of({**section, "rankings": [{"source": source}]}, {}, lineage.Hasher())
        return [(item.role, item.sha256) for item in found]

    assert read() == []
    with Store.open(place) as store:
        store.add_rankings([ranking("one")])
        before = read()
        store.add_annotator("ann")
        assert read() == before == read(str(tmp_path)) == read(f"sqlite:///{place}")
        store.add_rankings([ranking("two")])
        after = read()
    assert len(after) == 1 and after[0][0] == "rankings" and after != before and read() == after


@pytest.mark.parametrize(
    "section",
    [
        {"kind": "sft", "init": "none", "data": [{"source": "made"}], "validation": [{"source": "data"}]},
        {"kind": "reward", "init": "none", "rankings": [{"source": "made"}], "prompts": [{"source": "data"}]},
    ],
)
def test_a_stage_named_like_a_folder_is_the_stage(
    section: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in a folder of that name is no input; a folder that is named beside it, where no stage can be, is."""
    for name in ("made", "data"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").write_text(name)
    (tmp_path / "of-stage.jsonl").write_text("of the stage")
    monkeypatch.chdir(tmp_path)
    made = {"made": tmp_path / "of-stage.jsonl", "data": tmp_path / "of-stage.jsonl"}
    found = lineage.inputs_of(section, made, lineage.Hasher())
    assert {Path(item.path).name for item in found} == {"of-stage.jsonl", "rows.jsonl"}
    assert [Path(item.path).parent.name for item in found if item.role == "data"] == ["data"]


@pytest.mark.parametrize("key", lineage.JUDGES_UPKEEP)
def test_what_a_judge_may_cost_changes_no_stage(key: str) -> None:
    """So a stage that its budget has stopped goes on with a larger one, wherever the judge stands."""
    options = {"model": "sft"}
    for judge in (
        {"judge": {**options, "constitution": "general"}},
        {"rewards": {"j": {"kind": "judge", "options": options}}},
    ):
        changed = {name: {**value, key: 7} for name, value in judge.items() if name == "judge"} or {
            "rewards": {"j": {"kind": "judge", "options": {**options, key: 7}}}
        }
        assert lineage._effective(changed) == lineage._effective(judge)
    other = {"rewards": {"j": {"kind": "judge", "options": {"model": "rl"}}}}
    assert lineage._effective(other) == other
    function = {"rewards": {"j": {"kind": "function", "options": {key: 7}}}}
    assert lineage._effective(function) == function


def ranking(question: str) -> Ranking:
    prompt = Prompt(question, (Message("user", question),))
    return Ranking(prompt, (Response("a"), Response("b")), (0, 1), "x", kind="simulated")


def files_hash(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


def test_files_that_exchange_their_names_are_other_inputs(tmp_path: Path) -> None:
    """A folder may be moved; which of its files is called train, and which text lies under which key, is content."""
    made: dict[str, str] = {}
    for place, (train, test) in {"a": "12", "moved": "12", "exchanged": "21"}.items():
        (tmp_path / place).mkdir()
        (tmp_path / place / "train.jsonl").write_text(train)
        (tmp_path / place / "test.jsonl").write_text(test)
        made[place] = lineage.fingerprint({}, lineage.Hasher().files("data", tmp_path / place))
    assert made["a"] == made["moved"] != made["exchanged"]

    def of(rankings: str, test: str) -> str:
        section = {"kind": "reward", "rankings": [{"source": rankings}], "test": [{"source": test}]}
        return lineage.fingerprint({}, lineage.inputs_of(section, {}, lineage.Hasher()))

    one, two = (str(tmp_path / "a" / f"{name}.jsonl") for name in ("train", "test"))
    assert of(one, two) != of(two, one)


def test_what_a_tool_looks_up_is_an_input(tmp_path: Path) -> None:
    passages = tmp_path / "passages.txt"
    section = {"kind": "rl", "environment": {"kind": "tools", "options": {"documents": str(passages)}}}
    passages.write_text("The capital of France is Paris.")
    (found,) = lineage.inputs_of(section, {}, lineage.Hasher())
    assert (found.role, found.path) == ("data", str(passages))
