"""AI feedback in the report: audits, what judges cost, majority votes, monitors, DPO and revisions."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import feedback_fixture
import fixture
import judge_fixture
from judge_fixture import spread
from test_report import Page

from trivium.report import build
from trivium.report.curves import charts
from trivium.report.feedback_sections import of_rankings
from trivium.report.judge_sections import of_audits, of_judges, of_learning, of_preferences, of_revisions
from trivium.report.judges import (
    calibration,
    contradictions,
    judge_name,
    kappas,
    missing_share,
    sentence,
    table,
    usage_table,
    usages,
)
from trivium.report.loading import Run, Stage, load
from trivium.report.monitors import comparable, lines, majority_sentence, missing, reading, trend
from trivium.report.preferences import iteration_sentence, iteration_table
from trivium.report.preferences import sentence as dpo_sentence
from trivium.report.rankings import chain_table
from trivium.report.rankings import sentence as rank_sentence
from trivium.report.revisions import better, examples
from trivium.report.revisions import sentence as revise_sentence
from trivium.report.samples import prompt_text
from trivium.report.verdict import verdict


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = judge_fixture.write_judge_run(tmp_path_factory.mktemp("runs") / "primer")
    build(directory)
    return directory


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def stage_of(kind: str = "rl", **more: Any) -> Stage:
    return Stage(kind, kind, kind, **more)


# ---- the page --------------------------------------------------------------------------------------------------------


def test_every_section_is_there(page: Page) -> None:
    for words in (
        "judge:sft agrees with the annotators on 71.0%",
        "✓ better than chance",
        "✗ no better than chance",
        "This judge is no better than chance.",
        "The audit coin finds judge:<i>rl</i> no better than chance.",
        "On 81 of 488 pairs it contradicts itself",
        "Annotators together",
        "Position bias (P(first) − 0.5)",
        "Calibration: comparing two answers",
        "300 rankings of the answers to 300 prompts, by 1 AI judge; 6 of them skipped their prompt.",
        "judge:sft was asked 3 600 times (120 more answers came from the cache), 1.9% of its answers were no verdict",
        "What the judges were asked and what that cost",
        "judged: the judge of “likes”",
        "The reward rises and a monitor falls.",
        "Share of the judge’s verdicts that were missing, over all steps: “likes” 2.0%.",
        "majority share rose from",
        "Over 3 iterations the judge’s gap between best and worst goes from 1.700 to 0.900",
        "Equal, skipped",
        "Implicit rewards",
        "By the gold score the revisions score higher than the first answers: +0.120 (95% interval +0.050 to +0.190).",
        "190 conversations were made of 200 answers; 10 had no critique or no revision.",
        "Critique under “ harmless ”",
        "a judge is measured",
        "answers are criticised and revised",
        "builds on SFT and Audit",
        "The branches compared",
        "Ranked by",
    ):
        assert words in page.words, words
    assert "#judges" in page.links and page.ids["judges"] == page.ids["monitors"] == page.ids["preferences"] == 1


def test_entries_of_the_navigation_are_called_as_the_headings_they_lead_to(html: str) -> None:
    entries = re.findall(r'<a href="#([\w-]+)">([^<]+)</a>', html.partition("<nav")[2].partition("</nav>")[0])
    assert {"judges", "monitors", "preferences", "revisions"} <= {place for place, _ in entries}
    for place, name in entries:
        heading = re.search(rf'<section id="{place}">\s*<h2>([^<]+)</h2>', html)
        assert heading and name.lower() in heading[1].lower(), place


def test_the_page_stays_sound(html: str, page: Page) -> None:
    assert max(page.ids.values()) == 1, [name for name, n in page.ids.items() if n > 1]
    assert all(link[1:] in page.ids for link in page.links if link.startswith("#"))
    assert all(figure.get("aria-label") for figure in page.figures if figure.get("aria-hidden") != "true")
    assert page.tags["table"] == page.tags["caption"] and page.tags["script"] == 0
    drawn = "".join(re.findall(r"<svg role.*?</svg>", html, re.DOTALL))
    assert not re.search(r"#01fe|#[0-9a-f]{6}(?=[;\"])", drawn)


def test_what_models_wrote_is_text(html: str, page: Page) -> None:
    assert not re.search(r"<(script|i|s|u|b|img)\b", html) and "\u202e" not in html and "\x00" not in html
    assert page.words.count("onerror=alert") >= 12  # three examples: first answer, principle, critique and revision
    assert page.tags["article"] >= 3 and "{{ 7*7 }}" in page.words


def test_stages_that_train_nothing_have_no_curves_and_no_bars(run: Path, page: Page) -> None:
    assert "No metrics were recorded for this stage." not in page.words
    loaded = load(run)
    assert {stage.name for stage in loaded.evaluated("problems")} == {"pretrain", "sft", "rl", "dpo", "vote", "judged"}
    silent = [stage.name for stage in sorted(loaded.stages, key=loaded.series)][6:]
    assert silent == ["rank", "audit", "coin", "revise"]


def test_older_runs_have_no_such_sections(tmp_path: Path) -> None:
    assert of_judges(load(fixture.write_run(tmp_path / "plain"))) is None
    assert of_judges(load(feedback_fixture.write_feedback_run(tmp_path / "ranked"))) is None


@pytest.mark.parametrize("content", ["", "null", "[]", '{"asked": [], "judge": 3, "usage": [1]}', "not json"])
def test_files_with_nothing_in_them(tmp_path: Path, content: str) -> None:
    directory = judge_fixture.write_judge_run(tmp_path / "run", whole=False)
    (directory / "summary.json").write_text(content or "{}")
    for name in ("audit/audit.json", "coin/audit.json", "revise/revisions.jsonl", "dpo/iterations.jsonl"):
        (directory / name).write_text(content)
    for name in ("dpo", "vote", "judged"):
        (directory / name / "metrics.jsonl").write_text(content)
    Page(build(directory).read_text(encoding="utf-8"))
    (directory / "recipe.yaml").unlink()
    Page(build(directory).read_text(encoding="utf-8"))


@pytest.mark.parametrize("turn", range(3))
@pytest.mark.parametrize("replacement", [None, "x", [None], {"estimate": "high"}, True])
def test_nulls_and_wrong_types_everywhere(tmp_path: Path, replacement: Any, turn: int) -> None:
    directory = judge_fixture.write_judge_run(tmp_path / "run", whole=False)
    for name in (
        "audit/audit.json",
        "coin/audit.json",
        "revise/revisions.jsonl",
        "dpo/iterations.jsonl",
        "summary.json",
    ):
        lines_of = [json.loads(line) for line in (directory / name).read_text().splitlines()]
        spoilt = [spoil(line, replacement, turn + i) for i, line in enumerate(lines_of)]
        (directory / name).write_text("".join(json.dumps(line) + "\n" for line in spoilt))
    Page(build(directory).read_text(encoding="utf-8"))


def spoil(value: Any, replacement: Any, turn: int) -> Any:
    """Every third value replaced, at all depths, another third each turn."""
    if isinstance(value, dict):
        return {
            key: replacement if (i + turn) % 3 == 0 and key != "stages" else spoil(inner, replacement, turn + i)
            for i, (key, inner) in enumerate(value.items())
        }
    return [spoil(inner, replacement, turn + i) for i, inner in enumerate(value)] if isinstance(value, list) else value


def test_a_run_that_only_audits_is_told_by_its_audit(tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "audit.json").write_text(json.dumps(judge_fixture.audit(chance=True)))
    loaded = load(tmp_path)
    assert verdict(loaded)[0].endswith("no better than chance, so that nothing should learn from it.")
    words = Page(build(tmp_path).read_text(encoding="utf-8")).words
    assert "The audit Audit finds" in words and "No stage of this run has been evaluated." in words


# ---- audits and costs ------------------------------------------------------------------------------------------------


def test_the_table_of_an_audit(run: Path) -> None:
    by_name = {stage.name: stage for stage in load(run).stages}
    found = table(by_name["audit"])
    assert found is not None
    rows = {row[0]: row[1:] for row in found.rows}
    assert found.header[1:] == [
        "Comparing two answers", "Scoring one answer", "Annotators together", "Judge on their pairs",
    ]  # fmt: skip
    assert rows["Cohen’s κ"] == [
        "0.42 (0.35 to 0.49)", "0.31 (0.24 to 0.38)", "0.55 (0.49 to 0.61)", "0.40 (0.34 to 0.46)",
    ]  # fmt: skip
    assert rows["Length bias (their difference)"] == ["+0.07 (+0.02 to +0.12)", "–", "–", "–"]
    assert rows["Pairs"] == ["488", "500", "210", "210"]
    coin = table(by_name["coin"])
    assert coin is not None and len(coin.header) == 3  # nobody to compare with
    assert [name for name, *_ in kappas(by_name["audit"])] == [*found.header[1:3], "Annotators together"]
    assert calibration({"calibration": {"bins": [{"n": 3, "predicted": 0.6, "observed": None}, None, {"n": 0}]}}) == []


def test_an_audit_without_a_verdict_is_not_called_trusted(tmp_path: Path) -> None:
    for told in ({"chance": None}, {"asked": {}}, {}):
        stage = stage_of("audit", audit=judge_fixture.audit() | told)
        (found,) = of_audits(Run(tmp_path, "x", {}, "", {}, None, [stage], []))
        assert found["trusted"] is (told == {}) and not found["chance"]
    assert sentence(stage_of("audit", audit={"judge": {"name": "j"}})).startswith("Nothing is known of how far j")
    own = judge_fixture.audit(chance=True) | {"told": None}
    assert "is no better than chance against the rankings: κ 0.010" in sentence(stage_of("audit", audit=own))


def test_usage_is_found_wherever_it_is_told(run: Path) -> None:
    by_name = {stage.name: stage for stage in load(run).stages}
    assert usages(by_name["coin"])["judge:<i>rl</i>"]["calls"] == 1000  # its file has it
    assert usages(by_name["dpo"])["judge:sft"] == pytest.approx(
        {"calls": 2400, "cached": 0, "missing": 48, "prompt_tokens": 744_000, "completion_tokens": 2400, "cost": 1.26}
        | {"seconds": 24.0}
    )
    assert usages(stage_of(summary={"usage": {"a": None, "b": {"calls": "x"}}})) == {}
    assert missing_share({"calls": 3, "cached": 1, "missing": 1}) == 0.25
    assert missing_share({"calls": 0, "missing": 0}) is None and missing_share({"calls": 4}) is None
    found = usage_table(load(run))
    assert found is not None
    assert ["Revisions: judge:sft", "400", "0", "2.0%", "124\xa0k", "400", "none", "4.0\xa0s"] in found.rows


def test_ai_rankings_are_called_so(run: Path) -> None:
    summary = {"rankings": 8, "tasks": 4, "annotators": 3, "kinds": ["ai", "human"]}
    assert rank_sentence(stage_of("rank", summary=summary)).endswith("by 3 annotators (AI, people).")
    assert rank_sentence(stage_of("rank", summary=summary | {"kinds": ["ai"]})).endswith("by 3 AI judges.")
    assert rank_sentence(stage_of("rank", summary=summary | {"kinds": None})).endswith("by 3 annotators.")
    found = chain_table(load(run))
    assert found is not None
    (row,) = found.rows
    assert row[0] == "rank/rankings.jsonl" and row[2:4] == ["300", "–"]
    assert row[4].startswith("DPO ") and row[5] == "AI judges"


def test_rankings_from_elsewhere_that_dpo_learned_from(run: Path) -> None:
    loaded = load(run)
    stages = [stage for stage in loaded.stages if stage.name != "rank"]
    found = of_rankings(Run(run, "x", {}, "", {}, loaded.lineage, stages, []))
    assert found is not None and found["chain"].rows[0][5] == "–"


# ---- the reward and its monitors -------------------------------------------------------------------------------------


def test_the_trend_by_hand() -> None:
    rising = trend([(step, float(step)) for step in range(10)])
    assert rising is not None  # steps of 1: variance 1/2, means of 3, error sqrt(2 * 0.5 / 3)
    assert (rising.start, rising.end, rising.error) == (1.0, 8.0, pytest.approx(0.57735, abs=1e-5))
    assert rising.direction == 1 and rising.words == "rose from 1.00 to 8.00"
    swinging = trend([(step, float(step % 2)) for step in range(10)])
    assert swinging is not None and swinging.direction == 0
    assert trend([(0, 1.0)] * 9) is None


def rl(reward: list[float], monitor: list[float], split: str = "train") -> Stage:
    rows = [
        {"step": i, "split": split, "reward": r, "monitor/gold": m}
        for i, (r, m) in enumerate(zip(reward, monitor, strict=True))
    ]
    return stage_of(metrics=rows)


UP, DOWN, FLAT = [0.1 * i for i in range(10)], [1 - 0.1 * i for i in range(10)], [0.5] * 10


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_warning_where_the_reward_rises_and_a_monitor_falls_and_nowhere_else(split: str) -> None:
    said, warning = reading(rl(UP, DOWN, split))
    assert warning and said.startswith("The reward rose from 0.10 to 0.80 while “gold” fell from 0.90 to 0.20")
    for reward, monitor in ((UP, UP), (UP, FLAT), (DOWN, DOWN), (FLAT, DOWN)):
        assert not reading(rl(reward, monitor, split))[1]
    assert reading(rl(UP[:4], DOWN[:4])) == (
        "There are too few steps to tell how the reward and the monitors moved.", False,
    )  # fmt: skip
    assert reading(stage_of(metrics=[{"step": 1, "reward": 1.0}])) == ("", False)
    assert reading(stage_of(metrics=[{"step": 1, "monitor/gold": 1.0}])) == ("", False)


def test_one_axis_only_where_one_scale_serves_all() -> None:
    assert comparable(lines(rl(UP, DOWN)))
    assert not comparable(lines(rl([3 * value for value in UP], DOWN)))


def test_votes_that_grow_surer_and_not_righter() -> None:
    def voting(share: list[float], right: list[float]) -> str:
        rows = [
            {"step": i, "split": "train", "majority/share": s, "majority/abstained": 0.1} | {RIGHT: r}
            for i, (s, r) in enumerate(zip(share, right, strict=True))
        ]
        return majority_sentence(stage_of(metrics=rows))

    assert "abstained did not clearly change, from 0.10 to 0.10" in voting(UP, UP)
    assert "surer and the labels worse" in voting(UP, DOWN) and "worse" not in voting(UP, UP)
    assert "too few steps" in voting(UP[:3], UP[:3]) and majority_sentence(stage_of()) == ""


RIGHT = "majority/label_accuracy/gold"


def test_missing_verdicts_are_averaged_by_judge() -> None:
    rows = [{"step": 1, "judge/a/missing": 0.1, "judge/b/c/missing": 0.0}, {"step": 2, "judge/a/missing": 0.3}]
    assert missing(stage_of(metrics=rows)) == [("a", pytest.approx(0.2)), ("b/c", 0.0)]


def test_monitors_beside_another_kind_of_stage_are_left_to_it(run: Path) -> None:
    assert [entry["label"] for entry in of_learning(load(run))] == ["vote", "judged"]


# ---- DPO and revisions -----------------------------------------------------------------------------------------------


def test_the_curves_of_dpo(run: Path) -> None:
    by_name = {stage.name: stage for stage in load(run).stages}
    drawn = {chart.title: chart for chart in charts(by_name["dpo"], 0)}
    assert [curve.name for curve in drawn["Implicit rewards"].curves] == ["chosen", "rejected"]
    assert drawn["Loss"].unit == "mean over what was ranked" and drawn["Loss"].main
    assert [curve.name for curve in drawn["Log-probabilities"].curves] == ["chosen", "rejected"]
    assert [curve.name for curve in drawn["Pairs in order"].curves] == ["training", "held out"]
    single = stage_of(metrics=[{"step": 1, "monitor/<i>": 0.5}, {"step": 1, "split": "validation", "monitor/<i>": 0.4}])
    (monitor,) = charts(single, 0)
    assert [curve.name for curve in monitor.curves] == ["<i>", "held out"]


def test_iterations_from_the_summary_where_the_file_is_gone(run: Path, tmp_path: Path) -> None:
    directory = judge_fixture.write_judge_run(tmp_path / "run", whole=False)
    (directory / "dpo" / "iterations.jsonl").unlink()
    path = directory / "summary.json"
    value = json.loads(path.read_text())
    value["stages"]["dpo"]["iterations"] = [*judge_fixture.iterations(), None, {"iteration": "x"}]
    path.write_text(json.dumps(value))
    (first,), (second,) = of_preferences(load(run)), of_preferences(load(directory))
    assert first["table"] == second["table"] and len(second["table"].rows) == 4
    assert first["table"].rows[3][:2] == ["afterwards", "200"] and first["table"].rows[3][-2:] == ["0.630", "0.900"]
    gap, _, monitored = (chart["chart"] for chart in first["charts"])
    assert [x for x, _ in gap.curves[0].points] == [1, 2, 3] and monitored.curves[0].points[-1] == (4, 0.63)
    assert "“gold”, from 0.460 to 0.630." in first["told"]
    assert first["table"].rows[0] == ["1", "200", "150", "45", "5", "1.700", "48", "40", "0.460", "0.900"]


def test_odd_iterations() -> None:
    one = stage_of("dpo", iterations=[{"iteration": 1, "gap": None, "monitor": None}])
    assert iteration_sentence(one) == "One iteration, in which the judge’s gap between best and worst is –."
    found = iteration_table(one)
    assert found is not None and found.rows == [["1"]] and iteration_table(stage_of("dpo")) is None


def test_what_is_said_of_implicit_rewards() -> None:
    def said(chosen: float, rejected: float) -> str:
        row = {"step": 1, "accuracy": 0.8, "chosen_reward": chosen, "rejected_reward": rejected}
        return dpo_sentence(stage_of("dpo", metrics=[row, row | {"split": "validation", "accuracy": 0.1}]))

    assert said(0.2, -0.1).startswith("At the end of training 0.80 of the pairs are in order")
    assert "Both fell" in said(-0.1, -0.2) and "Both fell" not in said(0.1, -0.2)
    assert dpo_sentence(stage_of("dpo")) == "No preferences have been learned from yet."


@pytest.mark.parametrize(
    ("low", "high", "claim", "mark"),
    [(0.1, 0.3, "score higher", True), (-0.1, 0.3, "cannot be told apart", None), (-0.3, -0.1, "score lower", False)],
)
def test_revisions_are_called_better_as_far_as_the_interval_carries(
    low: float, high: float, claim: str, mark: bool | None
) -> None:
    change = {"estimate": (low + high) / 2, "low": low, "high": high}
    stage = stage_of("revise", summary={"conversations": 3, "gold": {"difference": change, "revised": spread(0, 1)}})
    assert claim in revise_sentence(stage) and better(stage) is mark


def test_examples_are_three_that_have_something_to_read(run: Path) -> None:
    by_name = {stage.name: stage for stage in load(run).stages}
    found = examples(by_name["revise"])
    assert len(found) == 3 and all(len(example.steps) == 2 for example in found)
    assert found == examples(stage_of("revise", revisions=by_name["revise"].revisions[::-1]))  # nobody picked them
    assert prompt_text({"id": "x", "messages": [{"role": "user", "content": "What is 2?"}]}) == "What is 2?"
    bare = stage_of("revise", revisions=[{"steps": [{"critique": "c"}]}, {"steps": "x"}, {}])
    (example,) = examples(bare)
    assert (example.first, example.steps[0].revision, example.scores) == ("", "", "")
    assert revise_sentence(stage_of("revise")) == "No revisions yet."


def test_a_judge_is_called_as_in_its_rankings() -> None:
    local = stage_of("rank", config={"judge": {"backend": "local", "model": "/runs/first/judge/model"}})
    served = stage_of("rank", config={"judge": {"backend": "openai", "model": "owner/name"}})
    found = [judge_name(stage) for stage in (local, served, stage_of())]
    assert found == ["judge:judge", "judge:owner/name", "the judge"]


def test_who_was_not_asked_in_both_orders_contradicts_nothing() -> None:
    orders, compared = {"both_orders": True}, {"compare": {"n": 8}}
    found = [
        contradictions(stage_of("audit", audit={"contradictions": 0, "judge": judge, "asked": asked}))
        for judge, asked in ((orders, compared), ({"both_orders": False}, compared), (orders, {"score": {"n": 8}}))
    ]
    assert found == ["On 0 of 8 pairs it contradicts itself when the answers change places.", "", ""]


def test_an_unfinished_revise_stage_shows_what_it_has(tmp_path: Path) -> None:
    stage = stage_of("revise", revisions=judge_fixture.revisions())
    (found,) = of_revisions(Run(tmp_path, "x", {}, "", {}, None, [stage], []))
    assert found["table"] is None and len(found["examples"]) == 3
