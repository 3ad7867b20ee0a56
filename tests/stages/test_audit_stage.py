"""The audit stage: a judge measured in a run, from files or a ranking stage, without a model to start from."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from trivium import run
from trivium.data.records import Message, Prompt
from trivium.errors import UserError
from trivium.feedback.rankings.formats.native import write_rankings
from trivium.feedback.rankings.record import Ranking, Response

# The fake judge prefers the longer answer.
TEXTS = (
    "an answer that goes on and on, much longer than any of the others",
    "short",
    "an answer between the two others",
)


def rankings(prompts: int, orders: dict[str, tuple[int, ...]]) -> list[Ranking]:
    return [
        Ranking(
            Prompt(f"p{number}", (Message("user", f"question {number}"),), answer="short"),
            tuple(Response(f"{text} {number}") for text in TEXTS),
            tiers,
            name,
        )
        for number in range(prompts)
        for name, tiers in orders.items()
    ]


def recipe(folder: Path, **changes: Any) -> Path:
    write_rankings(folder / "people.jsonl", rankings(8, {"x": (0, 2, 1), "y": (0, 2, 1), "z": (0, 1, 2)}))
    audit = {"judge": {"backend": "fake", "model": "stub"}, "rankings": [{"source": str(folder / "people.jsonl")}]}
    values = {
        "name": "audited",
        "device": "cpu",
        "stages": {"audit": {**audit, **changes}},
        "evaluation": {"problems": {"prompts": [{"source": "primer", "part": "problems", "split": "test"}]}},
    }
    values["evaluation"]["problems"]["verifier"] = {"kind": "primer"}
    path = folder / "audited.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run" / "audit" / "audit.json").read_text())


def test_a_run_that_only_audits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It starts from no model and evaluates none; a second run does nothing; a lost result costs no new call."""
    path = recipe(tmp_path)
    result = run(str(path), directory=tmp_path / "run")
    report = read(tmp_path)
    measured = report["asked"]["compare"]
    assert (measured["n"], measured["missing"], report["reference"], report["chance"]) == (24, 0, "rankings", False)
    # x and y prefer the longer throughout; z puts the short one above the one between
    assert measured["agreement"]["estimate"] == pytest.approx((1 + 1 + 2 / 3) / 3)
    assert measured["length"]["judge"]["estimate"] == 1.0
    assert report["annotators"]["n"] == 24 and report["annotators"]["annotators"] == 3
    # named both ways, x and y agree wholly, each with z on 2 of 3 (chance 1/2): 1, 1/3, 1/3
    assert report["annotators"]["kappa"]["estimate"] == pytest.approx((1 + 2 / 3) / 3)
    assert report["judge"].keys() == {"name", "identity", "constitution", "principles", "both_orders"}
    stage = result.summary["stages"]["audit"]
    assert stage["metric"] == {"name": "kappa", "value": measured["kappa"]["estimate"], "better": "higher"}
    assert stage["usage"] == report["usage"] and stage["usage"]["calls"] > 0
    assert "evaluation" not in stage and result.summary["comparisons"] == {"problems": []}
    assert "audit: 24 pairs judged by judge:stub (kappa" in capsys.readouterr().err

    before = (tmp_path / "run" / "audit" / "audit.json").stat().st_mtime_ns
    run(str(path), directory=tmp_path / "run")
    assert (tmp_path / "run" / "audit" / "audit.json").stat().st_mtime_ns == before

    (tmp_path / "run" / "audit" / "audit.json").unlink()
    run(str(path), directory=tmp_path / "run")
    again = read(tmp_path)
    assert again["usage"]["calls"] == 0 and again["usage"]["cached"] == report["usage"]["calls"]
    assert again["asked"] == report["asked"]


def test_gold_scores_and_both_ways_of_asking(tmp_path: Path) -> None:
    """Gold prefers the short answer, so a judge that prefers the longer is inverted, however it is asked."""
    path = recipe(tmp_path, gold={"kind": "length", "options": {"target": 0, "unit": "characters", "penalty": 0.01}})
    run(str(path), {"audit.ask": ["compare", "score"], "audit.pairs": 10}, directory=tmp_path / "run")
    report = read(tmp_path)
    assert report["reference"] == "gold" and report["unscored"] == 0
    for measured in report["asked"].values():
        assert measured["n"] == 10 and measured["kappa"]["estimate"] == measured["agreement"]["estimate"] * 2 - 1 == -1
    assert report["chance"] and "no better than chance" in report["told"]


def test_a_budget_ends_it_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    path = recipe(tmp_path)
    with pytest.raises(UserError, match="budget"):
        run(str(path), {"audit.judge.budget_tokens": 3000}, directory=tmp_path / "run")
    run(str(path), {"audit.judge.budget_tokens": 10**9}, directory=tmp_path / "run")
    usage = read(tmp_path)["usage"]
    assert usage["cached"] > 0 and usage["calls"] > 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rankings": []}, "audit.rankings is empty"),
        ({"ask": []}, "audit.ask"),
        ({"ask": ["score"], "judge": {"backend": "fake", "model": "m", "tie_margin": 0.1}}, "tie_margin is set"),
        ({"judge": {"backend": "fake", "model": "m", "url": "http://x"}}, "url is for a server"),
        ({"judge": {"backend": "fake", "model": "m", "temperature": 0.5}}, "temperature is set"),
        ({"judge": {"backend": "fake", "model": "m", "constitution": "nothing"}}, "no constitution nothing"),
        ({"gold": {"kind": "primmer"}}, "primmer"),
    ],
)
def test_what_cannot_be_audited_is_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        run(str(recipe(tmp_path, **changes)), directory=tmp_path / "run")
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_a_judge_is_no_reference_for_itself(tmp_path: Path) -> None:
    path = recipe(tmp_path)
    write_rankings(tmp_path / "people.jsonl", rankings(3, {"judge:stub": (0, 1, 2)}))
    with pytest.raises(UserError, match="anybody but judge:stub"):
        run(str(path), directory=tmp_path / "run")
