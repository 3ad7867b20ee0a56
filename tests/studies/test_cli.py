"""``trivium study``: the list, what is printed, and a mistake as one sentence."""

import json
from pathlib import Path
from typing import Any

import pytest

from trivium.cli import main
from trivium.studies import load, runner


def test_without_a_name_the_studies_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["study"])
    said = capsys.readouterr().out
    for name in load.names():
        assert f"{name} " in said
    assert "worth" in said or "how far" in said  # the question of feedback


def test_options_arrive_and_the_findings_are_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given: dict[str, Any] = {}

    def run_study(name: str, overrides: list[str], directory: Path | None, **options: Any) -> Path:
        given.update(options, name=name, overrides=overrides, directory=directory)
        (tmp_path / "findings.md").write_text("Nothing is certain.\n")
        rows = [{"status": status} for status in ("finished", *failed)]
        (tmp_path / "results.json").write_text(json.dumps({"study": {"name": "s"}, "rows": rows}))
        return tmp_path / "report.html"

    failed: list[str] = []
    monkeypatch.setattr(runner, "run_study", run_study)
    main(["study", "feedback", "budget.tokens=5", "--seeds", "3,4", "--at-once", "2", "-d", str(tmp_path), "-q"])
    assert given["name"] == "feedback"
    assert given["overrides"] == ["budget.tokens=5"]
    assert given["seeds"] == [3, 4]
    assert given["at_once"] == 2
    assert given["directory"] == tmp_path
    assert given["quiet"]
    said = capsys.readouterr().out
    assert "Nothing is certain." in said
    assert f"report: {tmp_path / 'report.html'}" in said
    failed.append("failed")
    with pytest.raises(SystemExit, match="1"):
        main(["study", "feedback", "-d", str(tmp_path)])
    assert "1 of 2 rows have failed" in capsys.readouterr().err


def test_only_the_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built: list[Path] = []
    monkeypatch.setattr(runner, "report", lambda place: built.append(place) or place / "report.html")
    monkeypatch.setattr(runner, "run_study", lambda *_, **__: pytest.fail("it ran"))
    (tmp_path / "results.json").write_text("{}")
    main(["study", "feedback", "--report-only", "-d", str(tmp_path)])
    assert built == [tmp_path]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["study", "feedbak"], "did you mean 'feedback'"),
        (["study", "budget.tokens=5"], "is no study"),
        (["study", "feedback", "rl.steps=5"], "recipe.rl.steps"),
        (["study", "feedback", "--seeds", "a"], "whole numbers"),
        (["study", "feedback", "--seeds", "0,1,0"], "name it once"),
        (["study", "missing.yaml"], "missing.yaml does not exist"),
        (["study", "feedback", "arms.dop.overrides.dpo.beta=0.2"], "no arm 'dop' (did you mean 'dpo'?)"),
        (["study", "feedback", "--report-only", "-d", "nowhere"], "has no results.json"),
        (["study", "feedback", "--report-only", "--seeds", "0"], "leave out --seeds"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
