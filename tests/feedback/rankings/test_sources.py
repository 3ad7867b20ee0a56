import json
from pathlib import Path

import pytest

from trivium.config import RankingSourceConfig
from trivium.data import files
from trivium.data.files import Row
from trivium.data.records import Message, Prompt
from trivium.errors import UserError
from trivium.feedback.rankings.formats.native import write_rankings
from trivium.feedback.rankings.grouping import effective, prompt_share, task_key
from trivium.feedback.rankings.record import Ranking, Response
from trivium.feedback.rankings.sources import read_all, read_rankings, shown
from trivium.feedback.rankings.store import Store


def ranking(number: int, **more) -> Ranking:
    prompt = Prompt(f"p{number}", (Message("user", f"Question {number}?"),))
    values = {"tiers": (0, 1), "annotator": "ann", "id": f"r{number}", **more}
    return Ranking(prompt, (Response("a"), Response("b")), **values)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rankings.jsonl"
    mixed = [
        ranking(n, criterion="brief" if n % 2 else "polite", kind="ai" if n % 5 == 0 else "human") for n in range(200)
    ]
    write_rankings(path, mixed)
    return path


def test_filters(file: Path) -> None:
    def read(**settings) -> list[Ranking]:
        return read_rankings([RankingSourceConfig(source=file.name, **settings)], base=file.parent)

    assert len(read()) == 200
    assert {r.criterion for r in read(criterion="brief")} == {"brief"} and len(read(criterion="brief")) == 100
    assert {r.kind for r in read(kinds=["ai"])} == {"ai"} and len(read(kinds=["ai"])) == 40
    assert [r.id for r in read(limit=3)] == ["r0", "r1", "r2"]
    assert len(read(criterion="brief", kinds=["ai"], limit=7)) == 7


def test_portions_share_no_prompt_and_lose_none(file: Path) -> None:
    parts = [
        read_rankings([RankingSourceConfig(source=str(file), portion=portion)])
        for portion in ((0.0, 0.25), (0.25, 0.5), (0.5, 1.0))
    ]
    prompts = [{r.prompt.messages for r in part} for part in parts]
    assert sum(map(len, parts)) == len(set().union(*prompts)) == 200
    assert 30 < len(parts[0]) < 70 and 70 < len(parts[2]) < 130


def test_the_share_goes_by_how_a_conversation_opens() -> None:
    opening = (Message("system", "Be kind."), Message("user", "Hi"))
    share = prompt_share(Prompt("x", opening))
    assert share == prompt_share(Prompt("y", (*opening, Message("assistant", "Hello"), Message("user", "More"))))
    assert share != prompt_share(Prompt("x", (Message("system", "Be kind."), Message("user", "Ho"))))
    shares = [prompt_share(Prompt("", (Message("user", str(number)),))) for number in range(2000)]
    assert min(shares) >= 0 and max(shares) < 1 and abs(sum(shares) / 2000 - 0.5) < 0.03


def test_nothing_left_says_what_was_filtered_away(file: Path) -> None:
    def message(**settings) -> str:
        with pytest.raises(UserError) as error:
            read_rankings([RankingSourceConfig(source=str(file), **settings)])
        return str(error.value)

    assert "200 rankings, 0 under the criterion 'nice' (its criteria are brief, polite)" in message(criterion="nice")
    assert "0 of the kind simulated" in message(kinds=["simulated"])
    assert "0 in the portion [0.0, 1e-06]" in message(portion=(0.0, 1e-6))
    assert "within 0 and 1" in message(portion=(0.5, 0.5)) and "within 0 and 1" in message(portion=(0.0, 1.5))
    file.write_text("")
    assert "holds no rankings; rank some first" in message()


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    for source in ("no/such/file.jsonl", "missing.jsonl"):
        with pytest.raises(UserError, match="no such store, file or folder"):
            read_rankings([RankingSourceConfig(source=source)], base=tmp_path)
    with pytest.raises(UserError):
        read_rankings([RankingSourceConfig(source="missing.db")], base=tmp_path)
    assert not (tmp_path / "missing.db").exists()  # reading makes no store


def test_messages_hide_passwords() -> None:
    assert shown("postgresql://mira:s3cret@db/x") == "postgresql://mira:***@db/x"
    assert shown("postgresql://mira@db/x") == "postgresql://mira@db/x" and shown("a/b.jsonl") == "a/b.jsonl"


def test_a_limit_stops_reading(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "?", "chosen": "a", "rejected": "b"}\n' * 2 + "broken\n")
    config = RankingSourceConfig(source=str(path), adapter="trl", limit=2)
    assert len(read_rankings([config])) == 2


def test_corrected_rankings_are_left_out(tmp_path: Path) -> None:
    first, second = ranking(1, id="old"), ranking(1, id="new", supersedes="old")
    assert effective([first, second]) == [second]
    write_rankings(tmp_path / "r.jsonl", [first, second])
    config = RankingSourceConfig(source=str(tmp_path / "r.jsonl"))
    assert [r.id for r in read_rankings([config])] == ["new"]
    assert [r.id for r in read_all(config)] == ["old", "new"]


def test_stores(tmp_path: Path) -> None:
    given = [ranking(1, id="old"), ranking(1, id="new", supersedes="old"), ranking(2, id="", kind="simulated")]
    with Store.open(tmp_path / "run" / "rankings.db") as store:
        store.add_rankings(given)
    for source in ("run", "run/rankings.db", f"sqlite:///{tmp_path}/run/rankings.db"):
        found = read_rankings([RankingSourceConfig(source=source)], base=tmp_path)
        assert found == [given[1], given[2].with_id()]
    (human,) = read_rankings([RankingSourceConfig(source="run", kinds=["human"])], base=tmp_path)
    assert human.id == "new"
    with pytest.raises(UserError, match="needs no adapter"):
        read_rankings([RankingSourceConfig(source="run", adapter="trl")], base=tmp_path)


def test_folders_and_splits(tmp_path: Path) -> None:
    for name in ("train", "test"):
        row = {"prompt": name, "chosen": "a", "rejected": "b"}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    assert len(read_rankings([RankingSourceConfig(source=str(tmp_path))])) == 2
    (found,) = read_rankings([RankingSourceConfig(source=str(tmp_path), options={"split": "test"})])
    assert found.prompt.messages[0].content == "test"


def test_hub_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def read_hub(name: str, part: str | None, split: str):
        asked.append((name, part, split))
        yield Row({"prompt": "?", "chosen": "a", "rejected": "b", "subset": "hep-go"}, "row 1")

    monkeypatch.setattr(files, "read_hub", read_hub)
    options = {"split": "filtered"}
    (found,) = read_rankings([RankingSourceConfig(source="allenai/reward-bench:x", options=options)], base=tmp_path)
    assert asked == [("allenai/reward-bench", "x", "filtered")] and found.prompt.task == "reasoning"


def test_task_key() -> None:
    assert task_key(ranking(1)) == task_key(ranking(1, annotator="other", tiers=(1, 0)))
    keys = {task_key(r) for r in (ranking(1), ranking(2), ranking(1, criterion="brief"), ranking(1, task="t"))}
    assert len(keys) == 4 and "t" in keys
