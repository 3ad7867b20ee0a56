"""What the report says of adapters, memory, budgets, and of how preferences were learned."""

import json
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
import fixture
from feedback_fixture import put
from test_report import Page

from trivium.report import build, preferences, tables
from trivium.report.curves import charts
from trivium.report.loading import Run, Stage, load
from trivium.report.page import key_numbers

MEMORY = {"weights": 3_479_040, "gradients": 120_320, "optimizer": 240_640}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SFT learned adapters, rl was ended by its budget, and four things got worse."""
    directory = fixture.write_run(tmp_path_factory.mktemp("runs") / "primer")
    recipe = yaml.safe_load((directory / "recipe.yaml").read_text())
    recipe["stages"]["sft"]["lora"] = {"rank": 4}
    (directory / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    summary = json.loads((directory / "summary.json").read_text())
    summary["stages"]["sft"] |= {"parameters": 869_760, "trainable": 30_080, "memory": MEMORY}
    reason = "the budget of 5,000 generated tokens was spent after 41 steps"
    summary["stages"]["rl"] |= {"generated": 5_120, "steps": 41, "stopped": reason}
    entry = {"stage": "rl", "than": "sft", "how": "greedy", "measure": "accuracy", "n": 500}
    entry |= {"difference": -0.1, "low": -0.15, "high": -0.05}
    summary["regressions"] = [entry | {"task": f"task {i}"} for i in range(4)]
    put(directory / "summary.json", summary)
    return directory


@pytest.fixture(scope="module")
def page(directory: Path) -> Page:
    return Page(build(directory).read_text(encoding="utf-8"))


def test_adapters_are_shown_with_their_share_and_their_memory(directory: Path, page: Page) -> None:
    """30,080 of 869,760 parameters are 3.458...%."""
    (row,) = tables.memory_table(load(directory)).rows  # type: ignore[union-attr]
    assert row[:5] == ["SFT", "adapters of rank 4", "870\u00a0k", "30.1\u00a0k", "3.46%"]
    assert row[5:] == ["3.48\u00a0MB", "120\u00a0kB", "241\u00a0kB"]
    assert page.ids["adapters"] == 1 and "3.46%" in page.words


def test_a_stage_that_its_budget_ended_says_so(directory: Path, page: Page) -> None:
    assert "ended early: the budget of 5,000 generated tokens was spent after 41 steps" in page.words
    costs = tables.cost_table(load(directory))
    rl = dict(zip(costs.header, costs.rows[-1], strict=True))
    assert (rl["Steps"], rl["Generated"]) == ("41 of 60", "5\u202f120")


def test_many_regressions_are_folded(page: Page) -> None:
    assert "4 times a stage is certainly worse than one it goes back to" in page.words
    assert "RL is worse than SFT on task 3: greedy accuracy -10.0 points" in page.words


def test_a_run_that_told_nothing_of_it_has_no_table_and_no_column(tmp_path: Path) -> None:
    run = load(fixture.write_run(tmp_path / "primer", ("sft",)))
    assert tables.memory_table(run) is None and not tables.has_adapters(run)
    assert "Generated" not in tables.cost_table(run).header


def preference_stage(**config: object) -> Stage:
    """Twenty steps whose chosen reward is -step / 10, with a validation every tenth."""
    rows = [
        {"step": step, "split": "train", "chosen_reward": -step / 10, "accuracy": 0.5 + step / 100, "loss": 0.7}
        for step in range(1, 21)
    ]
    rows += [{"step": step, "split": "validation", "kl": step / 5, "response_length": 12.0} for step in (10, 20)]
    return Stage("dpo", "dpo", "DPO", {"init": "sft", **config}, {"seconds": 1.0}, rows)


def test_how_preferences_moved() -> None:
    """A tenth of twenty steps is two: chosen rewards -0.1 and -0.2 at first (mean -0.15), -1.9 and -2.0 at last."""
    table = preferences.measures_table(preference_stage())
    assert table is not None
    cells = {row[0]: row[1:] for row in table.rows}
    assert cells["Implicit reward of chosen answers"] == ["−0.150", "−1.950", "–", "–"]
    assert cells["KL to the start (nats a response)"] == ["–", "–", "2.00", "4.00"]
    assert "Margin of the implicit rewards" not in cells
    assert preferences.measures_table(Stage("dpo", "dpo", "DPO")) is None


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"loss": "sigmoid", "beta": 0.1}, "The loss is sigmoid with β 0.1, against sft as the reference."),
        ({"loss": "simpo", "beta": 2.0}, "The loss is simpo with β 2, with no reference."),
        ({"loss": "ipo", "beta": 0.1, "reference": "none"}, "The loss is ipo with β 0.1, with no reference."),
        (
            {"loss": "orpo", "beta": 0.1},
            "The loss is orpo with β 0.1, with no reference; the best answers are imitated beside it, with weight 1.",
        ),
        (
            {"loss": "sigmoid", "beta": 0.1, "sft_weight": 0.5},
            "The loss is sigmoid with β 0.1, against sft as the reference; the best answers are imitated beside it, "
            "with weight 0.5.",
        ),
        ({}, ""),  # a run of before there was a choice
    ],
)
def test_what_a_preference_stage_learned_by(config: dict[str, object], expected: str) -> None:
    assert preferences.way_sentence(preference_stage(**config)) == expected


def test_the_kl_of_preferences_is_of_a_response_and_that_of_rl_of_a_token() -> None:
    units = {chart.title: chart.unit for chart in charts(preference_stage(), 0)}
    assert units["KL to the start"] == "nats a response, by sampling"
    rl = Stage("rl", "rl", "RL", metrics=[{"step": 1, "kl": 0.1}])
    assert [chart.unit for chart in charts(rl, 0)] == ["nats per token"]


def test_seconds_of_stages_that_ran_side_by_side_are_not_called_the_time() -> None:
    for parallel, name in ((1, "time"), (2, "time of all stages")):
        run = Run(Path(), "run", {"parallel": parallel}, "", {"seconds": 75.0}, None, [], [])
        assert dict(key_numbers(run, None))[name] == "1\u00a0min 15\u00a0s"
