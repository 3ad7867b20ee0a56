"""The branches of a run beside each other: which they are, what taught them, what they gained and cost."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
import fixture
import judge_fixture
from feedback_fixture import put, write_feedback_run
from test_report import Page

from trivium.report import branch_charts, branches, build
from trivium.report.canvas import LIGHT
from trivium.report.loading import Run, Stage, load

RIGHT = {"kind": "numeric"}


def a_run(stages: dict[str, dict[str, Any]], summaries: dict[str, dict[str, Any]] | None = None) -> Run:
    """A run in memory, without files; every stage is finished unless its summary is empty."""
    told = summaries or {}
    made = [
        Stage(name, str(config["kind"]), name, config, told.get(name, {"seconds": 1.0}))
        for name, config in stages.items()
    ]
    return Run(Path(), "run", {"stages": stages}, "", {}, None, made, [])


def forked(**ends: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {"pretrain": {"kind": "pretrain"}, "sft": {"kind": "sft", "init": "pretrain"}, **ends}


def names(groups: list[list[branches.Branch]]) -> list[tuple[str, list[str]]]:
    return [(group[0].start.name if group[0].start else "", [b.stage.name for b in group]) for group in groups]


def test_branches_are_grouped_by_the_last_imitation_before_them() -> None:
    stages = forked(
        rl={"kind": "rl", "init": "sft", "rewards": {"right": RIGHT}},
        dpo={"kind": "dpo", "init": "sft"},
        more={"kind": "rl", "init": "dpo", "rewards": {"right": RIGHT}},  # dpo is on the way, and no end
        crowd={"kind": "sft", "init": "pretrain"},
        vote={"kind": "rl", "init": "crowd", "rewards": {"agreed": {"kind": "majority"}}},
    )
    found = branches.branches(a_run(stages))
    assert names(found) == [("sft", ["rl", "more"]), ("crowd", ["vote"])]


def test_a_chain_has_no_branches() -> None:
    assert branches.branches(a_run(forked(rl={"kind": "rl", "init": "sft"}))) == []
    apart = {"one": {"kind": "sft", "init": "a/model"}, "other": {"kind": "sft", "init": "b/model"}}
    assert branches.branches(a_run(apart)) == []  # two ends, with nothing in common


def test_a_model_taught_to_judge_is_no_branch() -> None:
    judged = {"kind": "judge", "options": {"model": "judge", "constitution": "primer"}}
    stages = forked(
        judge={"kind": "sft", "init": "sft"},
        rl={"kind": "rl", "init": "sft", "rewards": {"right": RIGHT}},
        rlaif={"kind": "rl", "init": "sft", "rewards": {"judged": judged}},
    )
    assert names(branches.branches(a_run(stages))) == [("sft", ["rl", "rlaif"])]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"kind": "rl", "rewards": {"right": RIGHT}}, ("RLVR", "a verifier")),
        ({"kind": "rl", "rewards": {"agreed": {"kind": "majority"}}}, ("Majority vote", "its own samples’ vote")),
        ({"kind": "rl", "rewards": {"x": {"kind": "judge", "options": {}}}}, ("RLAIF", "a judge’s scores")),
        (
            {"kind": "rl", "rewards": {"x": {"kind": "reward_model", "options": {"model": "people"}}}},
            ("RLHF", "a reward model of rankings"),
        ),
        (
            {"kind": "rl", "rewards": {"x": {"kind": "reward_model", "options": {"model": "machine"}}}},
            ("RLAIF", "a reward model of a judge’s rankings"),
        ),
        (
            {"kind": "rl", "rewards": {"a": RIGHT, "b": {"kind": "judge", "options": {}}, "c": {"kind": "length"}}},
            ("RLVR + RLAIF", "a verifier and a judge’s scores"),
        ),
        ({"kind": "dpo", "rankings": [{"source": "rank"}]}, ("DPO", "rankings")),
        ({"kind": "dpo", "loss": "kto", "labelled": [{"source": "x.jsonl"}]}, ("KTO", "answers labelled good or bad")),
        ({"kind": "dpo", "rankings": [{"source": "rank_ai"}]}, ("DPO", "a judge’s rankings")),
        ({"kind": "dpo", "judge": {"model": "sft"}}, ("DPO, iterated", "a judge’s pairs of its own answers")),
    ],
)
def test_what_taught_a_branch(config: dict[str, Any], expected: tuple[str, str]) -> None:
    stages = forked(
        rank={"kind": "rank", "init": "sft"},
        rank_ai={"kind": "rank", "init": "sft", "judge": {"model": "sft", "constitution": "primer"}},
        people={"kind": "reward", "init": "sft", "rankings": [{"source": "rank"}]},
        machine={"kind": "reward", "init": "sft", "rankings": [{"source": "rank_ai"}]},
        end={"init": "sft", **config},
    )
    run = a_run(stages)
    assert branches.teaching(run, run.stages[-1]) == expected


def test_a_branch_costs_what_it_needs_beside_its_start() -> None:
    """rlhf takes 5 s, its reward model 3 and the rankings 2; pretrain and sft are behind everyone's start."""
    stages = forked(
        rank={"kind": "rank", "init": "sft"},
        people={"kind": "reward", "init": "sft", "rankings": [{"source": "rank"}]},
        rlhf={
            "kind": "rl",
            "init": "sft",
            "rewards": {"x": {"kind": "reward_model", "options": {"model": "people"}}},
        },
        rl={"kind": "rl", "init": "sft", "rewards": {"right": RIGHT}},
    )
    seconds = {"pretrain": 100.0, "sft": 50.0, "rank": 2.0, "people": 3.0, "rlhf": 5.0, "rl": 7.0}
    run = a_run(stages, {name: {"seconds": value} for name, value in seconds.items()})
    rlhf, rl = branches.branches(run)[0]
    assert [stage.name for stage in rlhf.needs] == ["rank", "people"]
    assert (rlhf.seconds, rlhf.needed, rl.needed) == (5.0, 5.0, 0.0)


def test_the_kl_is_that_of_the_weights_that_were_kept() -> None:
    rows = [
        {"step": 10, "split": "train", "kl_response": 9.0},
        {"step": 10, "split": "validation", "kl_response": 1.0},
        {"step": 20, "split": "validation", "kl_response": 2.0},
        {"step": 20, "split": "train", "kl": 0.1},
    ]
    stage = Stage("rl", "rl", "RL", {}, {"seconds": 1.0}, rows)
    assert branches.kl_to_start(stage) == 2.0
    kept = Stage("rl", "rl", "RL", {}, {"seconds": 1.0, "kept_step": 10}, rows)
    assert branches.kl_to_start(kept) == 1.0
    assert branches.kl_to_start(Stage("rl", "rl", "RL", {}, {}, rows[:1])) == 9.0
    assert branches.kl_to_start(Stage("rl", "rl", "RL", {}, {}, rows[3:])) is None  # a mean over tokens
    moving = Stage("rl", "rl", "RL", {"reference": "moving"}, {"seconds": 1.0}, rows)
    assert branches.kl_to_start(moving) is None  # to a reference that came along
    assert branches.kl_to_start(Stage("dpo", "dpo", "DPO", {}, {}, [rows[3] | {"split": "validation"}])) == 0.1


def test_a_branch_that_was_not_reached_is_shown_and_says_so(tmp_path: Path) -> None:
    directory = write_feedback_run(tmp_path / "primer", finished=False)
    text = build(directory).read_text(encoding="utf-8")
    section = text[text.index('id="branches"') : text.index('id="accuracy"')]
    assert "RLHF" in section and "cut at step 60 of 60" in section
    assert "problems not evaluated" in section  # in the words of the figure


def test_differences_are_to_the_start_also_where_the_predecessor_is_another(tmp_path: Path) -> None:
    """more begins with rl, but its gain is told over sft, which taught it last by imitation: 0.952 - 0.546."""
    directory = fixture.write_run(tmp_path / "primer")
    recipe = yaml.safe_load((directory / "recipe.yaml").read_text())
    recipe["stages"]["more"] = {"kind": "rl", "init": "rl", "steps": 5, "rewards": {"right": RIGHT}}
    recipe["stages"]["beside"] = {"kind": "dpo", "init": "sft", "steps": 5}
    (directory / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    summary = json.loads((directory / "summary.json").read_text())
    for name, like in (("more", "rl"), ("beside", "sft")):
        (directory / name).mkdir()
        tasks = json.loads((directory / like / "evaluation.json").read_text())["tasks"]
        put(directory / name / "evaluation.json", {"stage": name, "tasks": tasks})
        summary["stages"][name] = {"seconds": 3.0, "tokens": 10, "steps": 5}
    put(directory / "summary.json", summary)
    run = load(directory)
    more, beside = branches.branches(run)[0]
    assert more.start is not None and more.start.name == "sft"
    assert more.against["problems"].difference == pytest.approx(0.406)
    assert beside.against["problems"].difference == 0.0
    first, second = branches.sentences(run, [[more, beside]])
    assert "RLVR +0.41" in first and "DPO 0.00 (0.00 to 0.00), no clear difference" in first
    assert second.startswith("Against DPO, the way without reinforcement learning: RLVR +0.41")
    (row,) = branches.pairs_table(run, [[more, beside]]).rows  # type: ignore[union-attr]
    assert row[0] == "DPO against RLVR" and row[-1] == "worse"


def test_the_figure_has_a_row_for_each_branch_and_the_value_beside_it(tmp_path: Path) -> None:
    run = load(judge_fixture.write_judge_run(tmp_path / "primer"))
    groups = branches.branches(run)
    for width in (9.4, 3.5):
        figure = branch_charts.branch_figure(run, groups, LIGHT, width)
        words = [text.get_text() for text in figure.axes[0].texts]
        for branch in (branch for group in groups for branch in group):
            assert branch.method in words or any(w.startswith(branch.method[:10]) for w in words), branch.method
            value = branch.stage.evaluation.get("problems", {}).get("accuracy")
            assert value is None or f"{value:.2f}" in words


def test_hostile_names_stay_text_in_the_section(tmp_path: Path) -> None:
    directory = write_feedback_run(tmp_path / "primer")
    summary = json.loads((directory / "summary.json").read_text())
    summary["stages"]["ppo"]["stopped"] = fixture.HOSTILE
    put(directory / "summary.json", summary)
    page = build(directory).read_text(encoding="utf-8")
    assert "<script" not in page and "\u202e" not in page
    assert "ended early: &lt;script&gt;" in page
    Page(page)
    drawn = "".join(re.findall(r"<svg role.*?</svg>", page, re.DOTALL))
    assert not re.search(r"#01fe|#[0-9a-f]{6}(?=[;\"])", drawn)
