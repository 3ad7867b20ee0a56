"""The page of a study: complete, self-contained, safe against hostile text, calm about what is missing."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.studies.results_fixture import of_arms, of_curves, on_axis
from trivium.errors import UserError
from trivium.studies.page import build, findings


def built(directory: Path, results: dict[str, Any]) -> str:
    (directory / "results.json").write_text(json.dumps(results), encoding="utf-8")
    path = build(directory)
    assert path == directory / "report.html"
    return path.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Its words, the ids in it, and what it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.ids += [given["id"]] if given.get("id") else []  # type: ignore[list-item]
        self.fetched += [str(given[key]) for key in ("src", "href") if given.get(key, "#")[:1] not in ("#",)]  # type: ignore[index]
        assert tag != "script"

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_stands_alone_and_says_everything(tmp_path: Path) -> None:
    text = built(tmp_path, of_arms())
    page = Page(text)
    said = re.sub(r"\s+", " ", " ".join(page.words))
    assert set(page.fetched) <= {"data:,"}
    assert len(page.ids) == len(set(page.ids))
    assert re.sub(r"\s+", " ", findings(tmp_path)) in said
    for words in (
        "What each kind of feedback is worth",
        "Which arm is best?",
        "RL beats SFT.",
        "Supported",
        "p corrected for 6 comparisons (Holm)",
        "certainly better",
        "no tokens left",
        "1 failed",
        "13 min 32 s",
        "trivium study arms --seeds 0,1,2,3,4 --at-once 2",
        "x86_64",
        "Share of the budget",
    ):
        assert words in said.replace("\u00a0", " "), words
    assert re.search(r'<table class="plain words">\s*<caption>Seeds by what became of them', text)  # it scrolls


def test_beside_it_lie_findings_figures_and_numbers(tmp_path: Path) -> None:
    built(tmp_path, of_curves())
    text = (tmp_path / "findings.md").read_text(encoding="utf-8")
    assert findings(tmp_path) in text
    assert "![The main figure](figure.svg)" in text
    assert "| large |" in text
    assert (tmp_path / "figure.svg").read_text(encoding="utf-8").startswith("<svg")
    assert (tmp_path / "figure.png").read_bytes()[:4] == b"\x89PNG"
    numbers = json.loads((tmp_path / "analysis.json").read_text(encoding="utf-8"))
    assert numbers["claim"]["outcome"] == "supported"
    (one,) = numbers["measures"]["bon/best"]["comparisons"]
    assert one["certain"] is True
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "analysis.json",
        "figure.png",
        "figure.svg",
        "findings.md",
        "report.html",
        "results.json",
    ]


def test_equal_results_give_an_equal_page(tmp_path: Path) -> None:
    names = ("report.html", "figure.svg", "figure.png", "findings.md", "analysis.json")
    built(tmp_path, on_axis())
    first = {name: (tmp_path / name).read_bytes() for name in names}
    built(tmp_path, on_axis())
    assert {name: (tmp_path / name).read_bytes() for name in names} == first


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    hostile = "</style><script>alert(1)</script>"
    results = of_arms(title=hostile, question=hostile, claim=hostile, name=hostile)
    for row in results["rows"]:
        if row["status"] != "finished":
            row["reason"] = hostile
    text = built(tmp_path, results)  # Page asserts that there is no script
    Page(text)
    assert "<script" not in text


def test_one_seed_is_said(tmp_path: Path) -> None:
    text = built(tmp_path, of_arms([0]))
    assert "one seed: nothing is tested" in text
    assert "certainly" not in text


def test_a_study_that_has_only_begun(tmp_path: Path) -> None:
    results = of_arms()
    assert "Nothing has been measured yet." in built(tmp_path, {**results, "rows": []})
    for row in results["rows"]:
        row.update(status="missing", measures={}, cost={}, reason="")
    text = built(tmp_path, results)
    assert "There is nothing to compare." in text
    assert "5 missing" in text


def test_half_a_token_is_not_printed(tmp_path: Path) -> None:
    results = of_arms([0, 1])
    for row in results["rows"]:
        row["cost"] = {"tokens": 6079 + row["seed"]}
    text = built(tmp_path, results)
    assert "<td>6\u202f080</td>" in text and "079.5" not in text


def test_no_results_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="trivium study NAME -d"):
        build(tmp_path)


@pytest.mark.parametrize("name", ["$x_{$", "x" * 200, "a\x07|\n<b>", ""])
@pytest.mark.parametrize("results", [of_arms, on_axis, of_curves])
def test_any_name_of_an_arm_can_be_drawn(tmp_path: Path, results: Any, name: str) -> None:
    """A $ begins no formula, a long name leaves room for the figure, and the SVG stays XML."""
    found = results(seeds=(0, 1))
    arm = found["rows"][0]["arm"]
    found["study"]["arms"] = {name if one == arm else one: about for one, about in found["study"]["arms"].items()}
    for row in found["rows"]:
        if row["arm"] == arm:
            row |= {"arm": name, "label": row["label"].replace(arm, name), "model": f"$_{{$ {row['model']}"}
    Page(built(tmp_path, found))
    ElementTree.parse(tmp_path / "figure.svg")


def test_the_command_names_the_overrides(tmp_path: Path) -> None:
    text = built(tmp_path, {**of_arms(), "given": ["my study.yaml", "recipe.rl.steps=5"]})
    said = " ".join(Page(text).words)
    assert "trivium study 'my study.yaml' recipe.rl.steps=5 --seeds 0,1,2,3,4 --at-once 2" in said
