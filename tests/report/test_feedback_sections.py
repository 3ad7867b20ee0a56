"""Rankings, reward models and the over-optimisation watch in the report."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import feedback_fixture
import fixture
from test_report import Page

from trivium.report import build
from trivium.report.curves import _limits, tick
from trivium.report.feedback_sections import of_rankings, of_watches
from trivium.report.loading import Run, Stage, load
from trivium.report.overoptimisation import against_kl, fit_sentence, sentences, watched
from trivium.report.rankings import chain_table
from trivium.report.reward_model import best_of_n, sentence, table
from trivium.report.samples import select
from trivium.report.verdict import differences, verdict


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = feedback_fixture.write_feedback_run(tmp_path_factory.mktemp("runs") / "primer")
    build(directory)
    return directory


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page((run / "report.html").read_text(encoding="utf-8"))


def test_every_section_is_there(page: Page) -> None:
    for words in (
        "1 600 rankings of the answers to 400 prompts, by 4 annotators (simulated), who agree on 0.74",
        "On 1 860 held-out pairs of answers it prefers the one that the annotators preferred in 0.73",
        "better than a choice by length alone",
        "One annotator against the others",
        "Model less annotator",
        "By length alone (the longer wins)",
        "Scores of answers that the policy samples vary by 0.80",
        "Calibration error (ECE)",
        "Accuracy by margin",
        "Best-of-n",
        "Which rankings changed which model",
        "Over-optimised: the held-out score peaked at step",
        "The watch ended the stage there.",
        "The gold score, which took no part in the decision",
        "Against the KL",
        "From SFT (0.55 of “problems”): RL +0.41 (+0.36 to +0.45); RLHF +0.41",
        "The branches compared",
        "PPO against SFT",
        "builds on SFT and Reward model",
    ):
        assert words in page.words, words
    assert "#watch" in page.links and "#rankings" in page.links


def test_the_page_stays_sound(run: Path, page: Page) -> None:
    assert max(page.ids.values()) == 1, [name for name, n in page.ids.items() if n > 1]
    assert all(figure.get("aria-label") for figure in page.figures if figure.get("aria-hidden") != "true")
    assert page.tags["table"] == page.tags["caption"]
    drawn = "".join(re.findall(r"<svg role.*?</svg>", (run / "report.html").read_text(encoding="utf-8"), re.DOTALL))
    assert not re.search(r"#01fe|#[0-9a-f]{6}(?=[;\"])", drawn)


def test_runs_without_these_stages_have_no_such_sections(tmp_path: Path) -> None:
    loaded = load(fixture.write_run(tmp_path / "run"))
    assert of_rankings(loaded) is None and of_watches(loaded) == []


def test_branches(run: Path) -> None:
    loaded = load(run)
    by_name = {stage.name: stage for stage in loaded.stages}
    assert [stage.name for stage in loaded.evaluated("problems")] == ["pretrain", "sft", "rl", "ppo"]
    assert [stage.name for stage in loaded.leaves("problems")] == ["rl", "ppo"]
    assert loaded.before(by_name["ppo"]) is loaded.before(by_name["rl"]) is by_name["sft"]
    assert loaded.before(by_name["pretrain"]) is None
    assert verdict(loaded)[0].startswith("RL beats its teacher")
    selection = select(loaded, "problems")
    assert selection is not None and (selection.before, selection.after) == ("SFT", "RL")


def test_differences_follow_the_branches_without_a_summary(tmp_path: Path) -> None:
    directory = feedback_fixture.write_feedback_run(tmp_path / "run")
    told = differences(load(directory), "problems")
    (directory / "summary.json").unlink()
    assert differences(load(directory), "problems") == told
    assert [(d.before, d.after) for d in told] == [("Pre-training", "SFT"), ("SFT", "RL"), ("SFT", "PPO")]


def test_a_task_without_right_and_wrong_is_told_by_its_mean_score(tmp_path: Path) -> None:
    directory = fixture.write_run(tmp_path / "run", ("sft", "rl"))
    for stage, value in (("sft", -0.2), ("rl", 1.3)):
        path = directory / stage / "evaluation.json"
        written = json.loads(path.read_text())
        rows = [{"id": str(i), "score": value + 0.01 * i, "status": "ok"} for i in range(9)]
        told = {"score": value + 0.04, "score_low": value, "score_high": value + 0.1, "results": rows}
        written["tasks"] = {"taste": {"n": 9, "accuracy": None, "low": None, "high": None, "by_task": {}, **told}}
        path.write_text(json.dumps(written))
    (directory / "summary.json").unlink()
    loaded = load(directory)
    (difference,) = differences(loaded, "taste")
    assert difference.difference == pytest.approx(1.5)
    page = Page(build(directory).read_text(encoding="utf-8"))
    assert "Mean score of greedy answers" in page.words and "95% interval (bootstrap)" in page.words
    assert "RL is better than SFT: 1.34 against −0.16" in page.words
    assert "Wilson" not in page.words and "#samples" not in page.links


def test_the_stages_that_answer_take_the_first_colours(run: Path) -> None:
    loaded = load(run)
    assert {stage.name: loaded.series(stage) for stage in loaded.stages} == {
        "pretrain": 0, "sft": 1, "rl": 2, "ppo": 3, "rank": 4, "reward": 5,
    }  # fmt: skip


def test_a_circle_of_stages_is_no_endless_loop(tmp_path: Path) -> None:
    stages = [Stage("a", "sft", "A", {"init": "b"}), Stage("b", "sft", "B", {"init": "a"})]
    loaded = Run(tmp_path, "x", {}, "", {}, None, stages, [])
    assert loaded.before(stages[0], "t") is None


# ---- the watch -------------------------------------------------------------------------------------------------------


def observed(
    proxy: list[float], held_out: list[float] | None, gold: list[float] | None = None, se: float = 0.0, **more: Any
) -> Stage:
    rows = [{"step": 10 * i, "proxy": value, "kl": float(i)} for i, value in enumerate(proxy)]
    for name, values in (("held_out", held_out), ("gold", gold)):
        for row, value in zip(rows, values or [], strict=False):
            row |= {name: value, f"{name}_se": se}
    judge = "held_out" if held_out else "gold" if gold else None
    return Stage("rl", "rl", "RL", watch={"observations": rows, "judge": judge, **more})


RISING = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
FALLING = [0.0, 0.5, 0.9, 0.4, 0.3, 0.2]


def test_over_optimisation_is_said() -> None:
    found = sentences(observed(RISING, FALLING, kept_step=20))
    assert found == [
        "Over-optimised: the held-out score peaked at step 20 (0.900) and fell by 0.700 until step 50, while the proxy "
        "rose from 2.000 to 5.000: the checkpoint of step 20 was kept."
    ]


@pytest.mark.parametrize("se", [0.0, 0.1])
def test_a_rise_is_no_over_optimisation(se: float) -> None:
    assert sentences(observed(RISING, RISING, se=se))[0].startswith("No clear sign of over-optimisation")


def test_a_fall_within_the_noise_is_not_claimed() -> None:
    assert sentences(observed(RISING, FALLING, se=0.4))[0].startswith("No clear sign of over-optimisation")
    assert sentences(observed(RISING, [0, 0.9, 0.9, 0.9, 0.9, 0.5]))[0].startswith("No clear sign")  # one observation
    reason = "held-out score 0.2 at step 50 is 0.7 below its best (0.9 at step 20) while the proxy rose from 2 to 5"
    perhaps, ended = sentences(observed(RISING, FALLING, se=0.4, stopped=reason))
    assert perhaps.startswith("Perhaps over-optimised") and ended == "The watch ended the stage there."


def test_other_endings() -> None:
    lost = observed([5.0, 4.0, 3.0, 2.0, 1.0, 0.0], FALLING)
    assert sentences(lost)[0].startswith("No over-optimisation, but training that lost ground")
    assert "cannot be seen" in sentences(observed(RISING, None))[0]
    budget = "the KL to the reference, 9 nats a response at step 50, exceeds the budget of 5"
    assert budget in sentences(observed(RISING, RISING, stopped=budget))[1]
    assert "never rose above its start" in sentences(observed(RISING, [-value for value in RISING]))[0]


def test_the_gold_score_at_the_kept_step() -> None:
    gold = [0.0, 0.5, 0.8, 0.7, 0.6, 0.5]
    assert sentences(observed(RISING, FALLING, gold, kept_step=20))[1].endswith("and is the one that was kept.")
    assert "the kept step 30 has 0.700 (−0.100)" in sentences(observed(RISING, FALLING, gold, kept_step=30))[1]
    assert "(within its noise)" in sentences(observed(RISING, FALLING, gold, se=0.2, kept_step=30))[1]


def test_the_common_scale() -> None:
    stage = observed([1.0, 3.0, 2.0], [10.0, 30.0, 50.0])
    found = watched(stage)
    assert found is not None and not found.in_deviations  # each by its own largest change
    assert [[y for _, y, _ in score.points] for score in found.scores] == [[0, 1, 0.5], [0, 0.5, 1]]
    stage.watch["observations"][0] |= {"proxy_std": 2.0, "held_out_std": 10.0}
    found = watched(stage)
    assert found is not None and found.in_deviations
    assert [[y for _, y, _ in score.points] for score in found.scores] == [[0, 1, 0.5], [0, 2, 4]]


@pytest.mark.parametrize(
    "watch",
    [
        {},
        {"observations": None},
        {"observations": [3, {"step": "x"}, {"step": 1, "proxy": 1.0}]},
        {"observations": [{"step": 0, "proxy": None}, {"step": 1, "proxy": "high"}]},
        {"observations": [{"step": 0}, {"step": 1}], "judge": 7, "best_step": "x", "stopped": 5},
    ],
)
def test_a_watch_with_nothing_to_show(watch: dict[str, Any]) -> None:
    stage = Stage("rl", "rl", "RL", watch=watch)
    assert watched(stage) is None and "cannot be seen" in sentences(stage)[0]


def test_few_points_have_a_chart_against_the_kl_and_no_fit() -> None:
    found = watched(observed(RISING[:4], FALLING[:4]))
    assert found is not None
    against = against_kl(found, 0)
    assert against is not None and against.fit is None and "too few points" in against.sentence
    no_judge = watched(observed(RISING, None))
    assert no_judge is not None and against_kl(no_judge, 0) is None


def test_what_the_fit_cannot_tell_is_said() -> None:
    fit = {"rl": {"peak_kl": {"estimate": 4.0, "low": 3.0, "high": None}, "r2": 0.5}, "better": None, "falls": None}
    assert "cannot be told" in fit_sentence(fit, "gold score", "rl")
    assert "3.00 to ∞" in fit_sentence(fit | {"falls": True}, "gold score", "rl")
    assert "does not turn down" in fit_sentence(fit | {"falls": False}, "gold score", "rl")


# ---- rankings and reward models --------------------------------------------------------------------------------------


def test_the_way_from_a_ranking_to_the_weights(run: Path) -> None:
    loaded = load(run)
    found = chain_table(loaded)
    assert found is not None and len(found.rows) == 1
    artifacts = loaded.lineage["artifacts"]
    (row,) = found.rows
    hashes = [artifacts["rank"]["outputs"][0]["sha256"], artifacts["reward"]["outputs"][2]["sha256"]]
    assert row[:3] == ["rank/rankings.jsonl", hashes[0][:10], "1\u202f600"]
    assert row[3] == f"Reward model {hashes[1][:10]}" and row[4].startswith("PPO ")
    for artifact in artifacts.values():
        artifact["parents"] = []
    again = chain_table(loaded)  # the hashes alone tell as much
    assert again is not None and again.rows == found.rows
    artifacts["rank"]["outputs"] = []
    by_folder = chain_table(loaded)
    assert by_folder is not None and by_folder.rows == found.rows
    artifacts["ppo"]["inputs"] = []
    alone = chain_table(loaded)
    assert alone is not None and alone.rows[0][4] == "–"


def test_the_sentence_on_a_reward_model_claims_what_the_interval_carries() -> None:
    def said(low: float, high: float) -> str:
        pairs = {"n": 10, "accuracy": 0.6, "length_accuracy": 0.5, "difference": {"estimate": 0.1}}
        pairs["difference"] |= {"low": low, "high": high}  # type: ignore[operator]
        return sentence(Stage("reward", "reward", "R", judging={"pairs": pairs}))

    assert ", better than a choice by length alone" in said(0.05, 0.15)
    assert ", no clear difference from a choice by length alone" in said(-0.05, 0.15)
    assert ", worse than a choice by length alone" in said(-0.15, -0.05)
    assert (
        sentence(Stage("reward", "reward", "R", judging={"pairs": None})) == "The reward model has not been evaluated."
    )


def test_odd_evaluations_of_a_reward_model(tmp_path: Path) -> None:
    directory = feedback_fixture.write_feedback_run(tmp_path / "odd", finished=False)
    path = directory / "reward" / "evaluation.json"
    value = json.loads(path.read_text())
    value |= {"reliability": [None, {"n": 0}], "by_margin": "x", "ceiling": None, "sections": None, "best_of_n": None}
    value["by_criterion"] = {"<script>alert(1)</script>": value["pairs"], "b": {}}
    path.write_text(json.dumps(value))
    (directory / "ppo" / "watch.json").write_text("[]")
    text = build(directory).read_text(encoding="utf-8")
    assert "<script" not in text
    assert "#watch" not in Page(text).links
    assert best_of_n(Stage("r", "reward", "R", judging={"best_of_n": {"n": [1], "kl": [0.0]}})) is None
    assert table(Stage("r", "reward", "R", judging={"kind": "reward"})) is None


def test_a_run_without_rankings_yet(tmp_path: Path) -> None:
    directory = feedback_fixture.write_feedback_run(tmp_path / "run", watch=False)
    summary = json.loads((directory / "summary.json").read_text())
    for name in ("rank", "reward", "ppo"):
        del summary["stages"][name]
        for path in (directory / name).iterdir():
            path.unlink()
    (directory / "summary.json").write_text(json.dumps(summary))
    loaded = load(directory)
    assert of_rankings(loaded) is None and of_watches(loaded) == []
    assert "The run is not finished; still to do or cut: Rankings, Reward model, PPO." in verdict(loaded)[1]


# ---- curves ----------------------------------------------------------------------------------------------------------


def test_a_share_that_is_always_zero_lies_on_the_axis() -> None:
    assert _limits(0, 0) == (0, 1)
    assert _limits(0.0, 0.01) == (0, pytest.approx(0.0108))
    assert _limits(2.0, 2.0) == (0, pytest.approx(2.16)) and _limits(-2.0, -2.0) == (pytest.approx(-2.16), 0)
    assert _limits(0.8, 1.0) == (None, None) and _limits(-1.0, 1.0) == (None, None)
    assert all(len(tick(value, 0)) <= 6 for value in (0.00025, -0.0005, 120000, 9999, 0.125, 1.5e-7))
