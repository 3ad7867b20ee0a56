"""The parts of the report: what the sentence claims, which samples are shown, how curves are thinned."""

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import fixture

from trivium.report.canvas import COLOURS
from trivium.report.curves import charts, running_mean, thin
from trivium.report.loading import Run, Stage, load
from trivium.report.samples import FEW, QUOTAS, select
from trivium.report.tables import evaluation_table, lineage_table
from trivium.report.verdict import differences, right_by_id, verdict
from trivium.report.wording import clean, decimal, duration, signed


def task(accuracy: float, half: float, teacher: dict[str, float] | None = None, **more: Any) -> dict[str, Any]:
    numbers = {"n": 200, "accuracy": accuracy, "low": accuracy - half, "high": accuracy + half}
    return {**numbers, "teacher": teacher, **more}


def run_of(tmp_path: Path, comparisons: list[dict[str, Any]] | None = None, **stages: dict[str, Any]) -> Run:
    known = [
        Stage(n, n, {"sft": "SFT", "rl": "RL"}[n], summary={"x": 1}, evaluation={"t": v}) for n, v in stages.items()
    ]
    summary = {"comparisons": {"t": comparisons or []}, "stages": dict.fromkeys(stages)}
    return Run(tmp_path, "x", {"evaluation": {"t": {}}, "seed": 0}, "", summary, None, known, [])


@pytest.mark.parametrize(
    ("accuracy", "teacher", "claim"),
    [
        (0.97, {"greedy": 0.55, "sampled": 0.6}, "RL beats its teacher: 0.97 against 0.55"),
        (0.58, {"greedy": 0.55, "sampled": 0.5}, "RL cannot be told apart from its teacher"),
        (0.70, {"greedy": 0.55, "sampled": 0.8}, "RL cannot be told apart from its teacher"),
        (0.40, {"greedy": 0.55, "sampled": 0.5}, "RL stays below its teacher"),
    ],
)
def test_the_sentence_claims_what_the_interval_carries(
    tmp_path: Path, accuracy: float, teacher: dict[str, float], claim: str
) -> None:
    run = run_of(tmp_path, sft=task(0.54, 0.05, teacher), rl=task(accuracy, 0.05, teacher))
    assert verdict(run)[0].startswith(claim)


@pytest.mark.parametrize(
    "section",
    [
        {"judge": {"model": "judge", "constitution": "primer"}},
        {"rewards": {"liked": {"kind": "judge", "options": {"model": "judge"}}}},
    ],
)
def test_a_model_that_judges_others_is_not_what_the_run_is_about(tmp_path: Path, section: dict[str, Any]) -> None:
    names = ("judge", "crowd", "rlaif")
    stages = [
        Stage(name, "sft", name, config={"init": "elsewhere"}, evaluation={"t": task(accuracy, 0.05)})
        for name, accuracy in zip(names, (0.4, 0.6, 0.8), strict=True)
    ]
    recipe = {"evaluation": {"t": {}}, "seed": 0, "stages": {"rlaif": section, "broken": [None, 3, {"kind": "judge"}]}}
    run = Run(tmp_path, "x", recipe, "", {"comparisons": {}, "stages": dict.fromkeys(names)}, None, stages, [])
    assert [stage.name for stage in run.leaves("t")] == ["crowd", "rlaif", "judge"]
    run.recipe["stages"] = None
    assert [stage.name for stage in run.leaves("t")] == ["judge", "crowd", "rlaif"]


@pytest.mark.parametrize(
    ("low", "high", "claim"),
    [(0.1, 0.3, "is better than SFT"), (-0.1, 0.3, "cannot be told apart from SFT"), (-0.3, -0.1, "is worse than SFT")],
)
def test_without_a_teacher_the_stages_are_compared(tmp_path: Path, low: float, high: float, claim: str) -> None:
    entry = {"from": "sft", "to": "rl", "difference": (low + high) / 2, "low": low, "high": high}
    run = run_of(tmp_path, [entry], sft=task(0.5, 0.05), rl=task(0.5 + (low + high) / 2, 0.05))
    assert verdict(run)[0].startswith(f"RL {claim}")


def test_differences_are_computed_where_the_summary_has_none(tmp_path: Path) -> None:
    directory = fixture.write_run(tmp_path / "run")
    told = differences(load(directory), "problems")
    (directory / "summary.json").unlink()
    assert differences(load(directory), "problems") == told
    assert [(d.before, d.after) for d in told] == [("Pre-training", "SFT"), ("SFT", "RL")]


def test_an_answer_that_could_not_be_judged_is_neither_right_nor_wrong(tmp_path: Path) -> None:
    rows = [{"id": i, "score": float(i == 1), "status": "infra_error" if i == 2 else "ok"} for i in range(3)]
    run = run_of(tmp_path, rl=task(0.5, 0.1, results=rows))
    assert right_by_id(run, run.stages[0], "t") == {"0": False, "1": True}


def test_samples_are_mixed_counted_and_stable(tmp_path: Path) -> None:
    run = load(fixture.write_run(tmp_path / "run"))
    first, again = select(run, "problems"), select(run, "problems")
    assert first is not None and first == again
    assert len(first.samples) == sum(QUOTAS.values())
    assert sum(first.counts.values()) == fixture.PROBLEMS
    groups = {sample.group for sample in first.samples}
    assert {"fixed", "wrong", "right"} <= groups
    for sample in first.samples:
        *_, before, last = sample.answers
        expected = {"fixed": (False, True), "wrong": (False, False), "right": (True, True), "broken": (True, False)}
        assert (before.right, last.right) == expected[sample.group]
    few = select(run, "larger numbers", FEW)
    assert few is not None and len(few.samples) == sum(FEW.values())


def test_one_stage_alone_has_samples_too(tmp_path: Path) -> None:
    run = load(fixture.write_run(tmp_path / "run", ("rl",)))
    selection = select(run, "problems")
    assert selection is not None and set(selection.names.values()) == {"right", "wrong"}


def test_unknown_numbers_of_a_task_and_of_metrics_are_shown(tmp_path: Path) -> None:
    run = load(fixture.write_run(tmp_path / "run"))
    rows = {row[0]: row[1:] for row in evaluation_table(run, "problems").rows}
    assert rows["Slot error rate"] == ["0.610", "0.180", "0.050"]
    drawn = charts(Stage("rl", "rl", "RL", metrics=[{"step": 1, "brand_new": 2.0, "loss": 1.0}]), 0)
    assert {chart.title: chart.main for chart in drawn} == {"Loss": False, "Brand new": False}


def test_a_base_model_comes_before_the_stages(tmp_path: Path) -> None:
    directory = fixture.write_run(tmp_path / "run")
    (directory / "pretrain").rename(directory / "base")
    assert load(directory).stages[0].label == "Base"


def test_lineage_shows_short_hashes_and_no_folders() -> None:
    table = lineage_table(fixture.lineage(("pretrain", "sft")))
    assert table is not None
    text = str(table.rows)
    assert "model.safetensors" in text and "runs/primer" not in text and "and 3 more" in text
    assert not any(len(word) > 40 for row in table.rows for cell in row for word in cell.split())


def test_thin_keeps_means_and_ends() -> None:
    points = [(float(i), float(i)) for i in range(1000)]
    thinned = thin(points, 10)
    assert len(thinned) == 10 and thinned[-1] == (999.0, 949.5)
    assert thin([(2.0, 1.0), (1.0, 5.0), (2.0, 3.0)]) == [(1.0, 5.0), (2.0, 3.0)]  # resumed: the last word counts
    assert running_mean([0.0, 3.0, 6.0], 3) == [1.5, 3.0, 4.5]


def test_wording() -> None:
    assert (decimal(None), decimal(float("nan")), decimal(14.23), decimal(-0.5)) == ("–", "–", "14.2", "−0.500")
    assert (signed(-0.001), signed(0.25)) == ("0.00", "+0.25")
    assert duration(3600) == "1\u00a0h 0\u00a0min"
    assert clean("a\x00b\u202ec\ud800") == "a\ufffdb\ufffdc\ufffd"
    assert clean("x" * 20, 5) == "xxxxx … (15 more characters)"


@pytest.mark.parametrize("scheme", [0, 1])
def test_colours_stand_out(scheme: int) -> None:
    """At least 3:1 for series, 4.5:1 for text, against the surface they are drawn on."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    surface = luminance(COLOURS["surface"][scheme])
    for name, pair in COLOURS.items():
        if name in ("surface", "grid"):
            continue
        first, second = sorted([luminance(pair[scheme]), surface])
        assert (second + 0.05) / (first + 0.05) >= (4.5 if name in ("ink", "muted") else 3.0), name
