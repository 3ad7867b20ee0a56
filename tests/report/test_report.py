"""The page as a whole: complete, self-contained, safe against hostile text, calm about missing files."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import fixture

from trivium.errors import UserError
from trivium.report import build, main_figure

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Collects what the tests ask for, and fails where tags are not closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.links: list[str] = []
        self.figures: list[dict[str, str | None]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags[tag] += 1
        self.ids.update([values["id"]] if values.get("id") else [])
        self.links += [str(values[key]) for key in ("href", "src", "xlink:href") if key in values]
        if tag == "svg":
            self.figures.append(values)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = fixture.write_run(tmp_path_factory.mktemp("runs") / "primer")
    build(directory)
    return directory


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_sentence_and_every_section_are_there(page: Page) -> None:
    assert "RL beats its teacher: 0.95 against 0.55 (95% interval of the difference +0.38 to +0.42)." in page.words
    for words in (
        "pass@k",
        "majority@k",
        "Differences between stages",
        "Accuracy by sub-task",
        "The chain of stages",
        "KL to the reference",
        "Groups without spread",
        "Clip share",
        "Truncated responses",
        "Samples side by side",
        "fixed by RL",
        "Slot error rate",
        "Bits per byte of the references",
        "Lineage",
        "Environment",
        "trivium run recipe.yaml",
        "The resolved recipe",
        "larger numbers",
    ):
        assert words in page.words, words
    assert page.tags["h1"] == 1


def test_nothing_is_fetched_and_nothing_runs(html: str, page: Page) -> None:
    assert page.tags["script"] == page.tags["img"] == page.tags["iframe"] == 0
    assert all(link.startswith("#") or link == "data:," for link in page.links)
    assert not re.search(r"@import|url\((?!#)", html)
    assert "default-src 'none'" in html


def test_hostile_text_is_shown_and_not_obeyed(html: str, page: Page) -> None:
    assert "<script" not in html and "onerror=alert" in page.words
    assert "{{ 7*7 }}" in page.words  # shown as written, not evaluated
    assert "\u202e" not in html and "\x00" not in html


def test_hostile_names_are_escaped_in_figures_too(tmp_path: Path) -> None:
    directory = fixture.write_run(tmp_path / "primer", ("sft",))
    path = directory / "sft" / "evaluation.json"
    value = json.loads(path.read_text())
    task = value["tasks"].pop("problems")
    task["by_task"] = {'<script>1</script>"$x^': task["by_task"]["add"], "two": task["by_task"]["sort"]}
    value["tasks"] = {'</svg><script>alert("t")</script>': task}
    path.write_text(json.dumps(value))
    (directory / "summary.json").unlink()
    text = build(directory).read_text(encoding="utf-8")
    assert "<script" not in text
    Page(text)


def test_the_page_is_accessible(html: str, page: Page) -> None:
    assert max(page.ids.values()) == 1, [name for name, n in page.ids.items() if n > 1]
    figures = [figure for figure in page.figures if figure.get("aria-hidden") != "true"]
    assert len(figures) > 20
    assert all(figure.get("role") == "img" and figure.get("aria-label") for figure in figures)
    assert page.tags["table"] == page.tags["caption"]
    assert 'lang="en"' in html and "width=device-width" in html
    assert "Bar chart of accuracy on problems by stage" in html


def test_colours_follow_the_page(html: str) -> None:
    assert "prefers-color-scheme: dark" in html
    drawn = "".join(re.findall(r"<svg role.*?</svg>", html, re.DOTALL))
    assert "var(--ink)" in drawn and "var(--series-2)" in drawn and "var(--chart-font)" in drawn
    assert not re.search(r"#01fe|#[0-9a-f]{6}(?=[;\"])", drawn)  # no fixed colour is left


def test_equal_files_give_an_equal_page_in_another_process(run: Path, html: str, tmp_path: Path) -> None:
    copy = tmp_path / "primer"
    shutil.copytree(run, copy)
    (copy / "report.html").unlink()
    code = "import sys, trivium.report; trivium.report.build(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(copy)], check=True)
    assert (copy / "report.html").read_text(encoding="utf-8") == html
    assert not list(copy.glob(".*.part"))


def test_importing_the_report_loads_no_plotting_library() -> None:
    code = "import sys, trivium.report; assert not {'matplotlib', 'jinja2', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_cut_run_is_reported_as_such(tmp_path: Path) -> None:
    directory = fixture.write_run(tmp_path / "cut", ("pretrain", "sft"))
    (directory / "lineage.json").unlink()
    (directory / "summary.json").write_text('{"recipe": "primer", "stages": {"pretrain": {"seconds": 3.0}}}')
    (directory / "sft" / "evaluation.json").unlink()
    metrics = directory / "sft" / "metrics.jsonl"
    metrics.write_text(metrics.read_text()[:-25])
    words = Page(build(directory).read_text(encoding="utf-8")).words
    assert "cut at step 290 of 300" in words or "cut at step 300 of 300" in words
    assert "not run yet" in words and "lineage.json is missing" in words
    assert "sft/metrics.jsonl: 1 unreadable line(s) left out" in words
    assert "This run has no lineage yet." in words
    assert "The run is not finished; still to do or cut: SFT, RL." in words


def test_a_run_of_one_line_of_metrics_still_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "pretrain").mkdir()
    (tmp_path / "pretrain" / "metrics.jsonl").write_text('{"step": 1, "loss": NaN, "tokens": 5}\n{"step": 1}\n[]\n')
    words = Page(build(tmp_path).read_text(encoding="utf-8")).words
    assert "Nothing has been evaluated yet." in words and "The recipe of this run is missing." in words


def test_odd_values_do_not_break_the_page(tmp_path: Path) -> None:
    directory = fixture.write_run(tmp_path / "odd", ("rl",))
    path = directory / "rl" / "evaluation.json"
    value = json.loads(path.read_text())
    odd = {"baseline": None, "teacher": None, "by_task": None, "pass_at_k": None, "score": "high", "results": None}
    value["tasks"]["problems"] |= odd | {"low": None, "high": None, "extra": {"deep": {"er": 3}, "list": [1]}}
    path.write_text(json.dumps(value))
    (directory / "lineage.json").write_text('[{"artifact": "a", "parents": ["b"], "inputs": {"x": "ff"}}, 3]')
    words = Page(build(directory).read_text(encoding="utf-8")).words
    assert "Extra/deep/er" in words


def test_no_run_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run directory"):
        build(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no run"):
        build(tmp_path)


def test_main_figure(run: Path, tmp_path: Path) -> None:
    svg = main_figure(run, tmp_path / "figures" / "main.svg")
    root = ElementTree.parse(svg).getroot()
    assert root.tag.endswith("svg")
    text = svg.read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in text and "Teacher’s ceiling" in text
    assert "<dc:date>" not in text and "<script" not in text
    again = main_figure(run, tmp_path / "again.svg")
    assert again.read_bytes() == svg.read_bytes()
    png = main_figure(run, tmp_path / "main.png")
    assert png.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="svg or"):
        main_figure(run, tmp_path / "main.gif")


def test_main_figure_without_an_evaluation(tmp_path: Path) -> None:
    directory = fixture.write_run(tmp_path / "empty", ())
    with pytest.raises(UserError, match="no evaluation"):
        main_figure(directory, tmp_path / "main.svg")


def test_an_outdated_stage_is_left_out_and_said(tmp_path: Path) -> None:
    directory = fixture.write_run(tmp_path / "run")
    lineage = json.loads((directory / "lineage.json").read_text())
    lineage["artifacts"]["rl"]["status"] = "outdated"
    (directory / "lineage.json").write_text(json.dumps(lineage))
    summary = json.loads((directory / "summary.json").read_text())
    del summary["stages"]["rl"]
    (directory / "summary.json").write_text(json.dumps(summary))
    build(directory)
    words = Page((directory / "report.html").read_text(encoding="utf-8")).words
    assert "rl is left out: the settings or inputs it was made from have changed since" in words
    assert "RL beats its teacher" not in words and "Clip share" not in words
