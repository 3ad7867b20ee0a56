import csv
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from trivium.cli import cli, main
from trivium.config import RankingSourceConfig, RecipeConfig, SourceConfig
from trivium.data import sources
from trivium.data.records import Message, Prompt
from trivium.feedback.rankings import commands, formats
from trivium.feedback.rankings.export import (
    annotators_csv,
    csv_line,
    demonstrations,
    preference_pairs,
    rankings_csv,
    rankings_jsonl,
)
from trivium.feedback.rankings.record import Ranking, Response
from trivium.feedback.rankings.sources import read_rankings
from trivium.feedback.rankings.store import Store


def ranking(*tiers: int, annotator: str = "ann", **more) -> Ranking:
    prompt = Prompt("p", (Message("system", "Be brief."), Message("user", "Question?")))
    responses = tuple(Response(f"answer {number}") for number in range(len(tiers)))
    return Ranking(prompt, responses, tuple(tiers), annotator, **more)


def answers(*rankings: Ranking, **options) -> list[str]:
    return [row["messages"][-1]["content"] for row in demonstrations(rankings, **options)]


def test_demonstrations() -> None:
    assert answers(ranking(1, 0, 0)) == ["answer 1", "answer 2"]
    assert answers(ranking(1, 0, 0), ties=False) == []
    assert answers(ranking(1, 0), ties=False) == ["answer 1"]
    assert answers(ranking(1, 0, edited="better", edited_from=1)) == ["better", "answer 1"]
    assert answers(ranking(1, 0, edited="better"), top=False) == ["better"]
    assert answers(ranking(1, 0, edited="better"), edited=False) == ["answer 1"]
    assert answers(ranking(1, 0, all_bad=True, edited="better")) == ["better"]
    assert answers(ranking(-1, -1, skipped="unclear"), ranking(-1, -1, all_bad=True)) == []
    assert answers(ranking(0, 1, annotator="x"), ranking(0, 1, annotator="y")) == ["answer 0"]  # once
    old = ranking(0, 1, id="old")
    assert answers(old, ranking(1, 0, id="new", supersedes="old")) == ["answer 1"]


def test_answers_that_were_cut_off_are_no_demonstrations() -> None:
    prompt = Prompt("p", (Message("user", "?"),))
    cut = Ranking(prompt, (Response("cut", finish_reason="length"), Response("b")), (0, 1), "ann")
    assert answers(cut) == [] and answers(cut, cut=True) == ["cut"]


def test_demonstrations_are_read_as_conversations(tmp_path: Path) -> None:
    rows = list(demonstrations([ranking(1, 0, edited="better")]))
    path = tmp_path / "demonstrations.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (found,) = sources.conversations([SourceConfig(source=str(path))], RecipeConfig(name="t", stages={}))
    assert [message.role for message in found[0].messages] == ["system", "user", "assistant"]
    assert found[0].messages[-1].content == "better" and rows[0]["from"] == "edited"


def test_pairs() -> None:
    pairs = list(preference_pairs([ranking(0, 1, 1), ranking(0, 0), ranking(-1, -1, skipped="no")]))
    assert [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in pairs] == [
        ("answer 0", "answer 1"),
        ("answer 0", "answer 2"),
    ]
    old = ranking(0, 1, id="old")
    (row,) = preference_pairs([old, ranking(1, 0, id="new", supersedes="old")])
    assert row["chosen"][0]["content"] == "answer 1"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "  ="])
def test_cells_that_are_formulas_are_neutralised(start: str) -> None:
    text = f"{start}HYPERLINK(1)"
    (cells,) = csv.reader(io.StringIO(csv_line([text, "fine", -1, "a=b"]), newline=""))
    assert cells == [f"'{text}", "fine", "-1", "a=b"]


def test_rankings_csv() -> None:
    prompt = Prompt("p", (Message("user", "=cmd()"),))
    one = Ranking(prompt, (Response("+1"), Response('a, "b"\nc')), (0, -1), "@ann", displayed=(1, 0), all_bad=True)
    lines = list(csv.DictReader(io.StringIO("".join(rankings_csv([one])), newline="")))
    assert [line["response"] for line in lines] == ["'+1", 'a, "b"\nc']
    assert [line["tier"] for line in lines] == ["0", "-1"] and [line["displayed"] for line in lines] == ["1", "0"]
    assert lines[0]["annotator"] == "'@ann" and lines[0]["prompt"] == "user: =cmd()"


def test_annotators_csv() -> None:
    given = [ranking(0, 1, task="t"), ranking(0, 1, annotator="=bob", task="t", seconds=4.0)]
    lines = list(csv.DictReader(io.StringIO("".join(annotators_csv(given, {"t": (1, 0)})), newline="")))
    assert [line["annotator"] for line in lines] == ["'=bob", "ann"]
    assert lines[0]["agreement"] == "1.0" and lines[0]["gold_accuracy"] == "0.0" and lines[0]["median_seconds"] == "4.0"


# ---- the commands ----------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "given.jsonl"
    given = [ranking(0, 1, annotator=name, criterion=criterion, task=f"t-{criterion}")
             for name in ("ada", "bob") for criterion in ("brief", "polite")]  # fmt: skip
    path.write_text("".join(rankings_jsonl(given)))
    return path


def run(*arguments: object) -> str:
    result = CliRunner().invoke(cli, ["rankings", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_import_export_and_back(tmp_path: Path, file: Path) -> None:
    store = tmp_path / "rankings.db"
    assert "4 new rankings, 0 were there" in run("import", store, file)
    assert "0 new rankings, 4 were there" in run("import", store, file)
    run("export", store, tmp_path / "again.jsonl")
    ours, theirs = (read_rankings([RankingSourceConfig(source=str(path))]) for path in (file, tmp_path / "again.jsonl"))
    assert ours == theirs
    assert "2 rows" in run("export", tmp_path, tmp_path / "pairs.jsonl", "--as", "trl", "--criterion", "brief")
    row = json.loads((tmp_path / "pairs.jsonl").read_text().splitlines()[0])
    assert set(row) == {"prompt", "chosen", "rejected"}
    for form, rows in (("demonstrations", 1), ("csv", 8), ("annotators", 2)):
        assert f"{rows} rows" in run("export", store, tmp_path / "out", "--as", form)


def test_agreement_of_a_file_and_a_store_with_gold(tmp_path: Path, file: Path) -> None:
    text = run("agreement", file)
    assert "4 rankings of 2 tasks by 2 annotators" in text and "brief" in text and "ada" in text
    assert json.loads(run("agreement", file, "--json", "--criterion", "brief"))["tasks"] == 1
    one = ranking(1, 0)
    with Store.open(tmp_path / "rankings.db") as store:
        task = store.add_task(one.prompt, one.responses, gold=(0, 1))
        store.add_rankings([ranking(1, 0, task=task)])
    report = json.loads(run("agreement", tmp_path, "--json"))
    assert report["gold"]["pairs"] == 1 and report["gold"]["accuracy"] == 0.0
    assert "gold: accuracy 0.000" in run("agreement", tmp_path)


@pytest.mark.parametrize("form", ["trivium", "trl", "demonstrations", "csv", "annotators"])
def test_half_of_a_surrogate_pair_is_exported(tmp_path: Path, form: str) -> None:
    prompt = Prompt("p", (Message("user", "half \ud83d"),))
    given = Ranking(prompt, (Response("a \ud83d"), Response("b")), (0, 1), "ann")
    (tmp_path / "given.jsonl").write_text("".join(rankings_jsonl([given])))
    run("export", tmp_path / "given.jsonl", tmp_path / "out", "--as", form)
    assert (tmp_path / "out").read_text().count("\n") >= 1


def test_names_with_brackets_are_shown_as_they_are(tmp_path: Path) -> None:
    given = [ranking(0, 1, annotator=name, criterion="[/x]") for name in ("mira [de]", "[red]")]
    (tmp_path / "given.jsonl").write_text("".join(rankings_jsonl(given)))
    shown = run("agreement", tmp_path / "given.jsonl")
    assert "mira [de]" in shown and "[red]" in shown and "[/x]" in shown


def test_options_of_a_format(tmp_path: Path) -> None:
    path = tmp_path / "hh.jsonl"
    row = {"chosen": "\n\nHuman: Hi\n\nAssistant: a", "rejected": "\n\nHuman: Hi\n\nAssistant: b"}
    path.write_text(json.dumps(row) + "\n")
    run("export", path, tmp_path / "out.jsonl", "--format", "hh", "-o", "annotator=crowd")
    assert json.loads((tmp_path / "out.jsonl").read_text())["annotator"] == "crowd"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["agreement", "missing.jsonl"], "no such store, file or folder"),
        (["agreement", "given.jsonl", "--criterion", "nice"], "its criteria are brief, polite"),
        (["import", "new.db", "given.jsonl", "--criterion", "nice"], "its criteria are brief, polite"),
        (["export", "given.jsonl", "out", "-o", "k"], "KEY=VALUE"),
        (["export", "given.jsonl", "out", "-o", "k=4"], "has no option 'k'"),
        (["export", "given.jsonl", "out", "--as", "demonstrations", "--edited-only"], "nothing to export"),
    ],
)
def test_mistakes_get_one_sentence(
    arguments: list[str], sentence: str, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(file.parent)
    with pytest.raises(SystemExit) as stopped:
        main(["rankings", *arguments])
    error = capsys.readouterr().err
    assert stopped.value.code == 1 and sentence in error and error.count("\n") == 1
    assert not (file.parent / "new.db").exists() and not (file.parent / "out").exists()


def test_help_has_an_example_and_names_every_format() -> None:
    for name in ("import", "export", "agreement"):
        assert f"trivium rankings {name}" in run(name, "--help").split("Example")[1]
    assert set(commands.FORMATS) == set(formats.FORMATS)
