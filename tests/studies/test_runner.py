"""A study at work, with jobs that write what real ones write in milliseconds; and real processes at the end."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.stages.tiny import RECIPE
from trivium import files
from trivium.errors import UserError
from trivium.recipe import load as load_recipe
from trivium.stages import PRODUCTS
from trivium.studies import runner as running
from trivium.studies.nodes import least
from trivium.studies.processes import Processes, last_words

STUDY: dict[str, Any] = {
    "name": "small",
    "question": "which is better?",
    "recipe": "primer",
    "shared": ["pretrain", "sft"],
    "seeds": [0, 1],
    "models": ["rl"],
    "measures": {"accuracy": {"task": "problems"}, "loss": {"of": "metric.value"}},
    "arms": {"a": {"overrides": {"rl.preset": "grpo"}}, "b": {"overrides": {"rl.preset": "rloo"}}},
}


@dataclass
class FakeJobs:
    """In place of processes. ``tokens`` a stage uses if no budget ends it; ``fails``: stages that fail, by preset."""

    tokens: dict[str, int] = field(default_factory=dict)
    fails: set[str] = field(default_factory=set)
    ran: list[str] = field(default_factory=list)

    def run(self, processes: Processes, arguments: Sequence[str], log: Path) -> int:
        if arguments[0] == "measure":
            request = files.read_json(Path(arguments[1]))
            self.ran.append(f"measure {request['stage']}")
            assert (Path(request["model"]) / "model.safetensors").is_file()
            items = {"p": 1.0, "q": 0.0}
            found = {name: {"value": 0.5, "items": items} for name in request["measures"]}
            files.write_json(Path(arguments[1]).with_name("result.json"), {"measures": found, "answer_tokens": 3.0})
            return 0
        folder = Path(arguments[1])
        recipe = load_recipe(folder)
        ((name, stage),) = recipe.stages.items()
        self.ran.append(name)
        if name in self.fails or getattr(stage, "preset", None) in self.fails:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(f"note: about to fail\nerror: {name}: it cannot be done; try something else\n")
            return 1
        self._finish(folder, name, stage)
        return 0

    def _finish(self, folder: Path, name: str, stage: Any) -> None:
        tokens, limit = self.tokens.get(name, 100), getattr(stage, "budget", None)
        summary: dict[str, Any] = {"seconds": 2.0, "tokens": tokens, "generated": 7, "metric": {"value": 0.25}}
        if limit is not None and limit.tokens is not None and limit.tokens < tokens:
            summary |= {"tokens": limit.tokens, "stopped": f"the budget of {limit.tokens} tokens trained on was spent"}
        product = folder / name / PRODUCTS[stage.kind]
        product.mkdir(parents=True)
        (product / "model.safetensors").write_text("weights")
        files.write_json(folder / "summary.json", {"stages": {name: summary}})
        made = {"status": "finished", "code": {"version": "0.1.0", "commit": "d92b8aa7f0", "modified": False}}
        files.write_json(folder / "lineage.json", {"artifacts": {name: made}})


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeJobs:
    """Fake processes and report, in an empty working directory."""
    fake = FakeJobs()
    monkeypatch.setattr(Processes, "run", lambda self, arguments, log: fake.run(self, arguments, log))
    monkeypatch.setattr(running, "report", lambda directory: directory / "report.html")
    monkeypatch.chdir(tmp_path)
    return fake


def run(changes: Mapping[str, Any] | None = None, directory: str = "studies/small", **more: Any) -> dict[str, Any]:
    Path("study.yaml").write_text(yaml.safe_dump({**STUDY, **(changes or {})}))
    more = {"at_once": 1, "quiet": True} | more
    running.run_study("study.yaml", None, directory, **more)
    found: dict[str, Any] = files.read_json(Path(directory) / "results.json")
    return found


def rows(found: dict[str, Any]) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["label"], row["seed"]): row for row in found["rows"]}


def test_every_arm_and_seed_has_a_row_with_its_measures(jobs: FakeJobs) -> None:
    found = run()
    assert list(rows(found)) == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    row = found["rows"][0]
    assert row["status"] == "finished"
    assert row["measures"] == {
        "accuracy": {"value": 0.5, "items": {"p": 1.0, "q": 0.0}},
        "loss": {"value": 0.25, "items": {}},
    }
    # pretrain and sft are shared: rl alone is paid
    cost = {"tokens": 100, "generated": 7, "seconds": 2.0, "shared_seconds": 4.0, "answer_tokens": 3.0}
    assert row["cost"] == cost
    assert found["seeds"] == [0, 1]
    assert jobs.ran.count("pretrain") == jobs.ran.count("sft") == 2
    assert jobs.ran.count("rl") == 4


def test_what_is_finished_is_not_done_again_here_nor_in_another_study(jobs: FakeJobs) -> None:
    run()
    before = list(jobs.ran)
    run()
    run({"name": "other"}, "studies/other")
    assert jobs.ran == before
    run({"name": "third", "arms": {"c": {"overrides": {"rl.preset": "grpo", "rl.steps": 3}}}}, "studies/third")
    assert jobs.ran[len(before) :] == ["rl", "measure rl"] * 2


def test_rows_say_what_made_their_stages(jobs: FakeJobs) -> None:
    assert {tuple(row["code"]) for row in run()["rows"]} == {("d92b8aa",)}


def test_several_at_a_time_come_to_the_same(jobs: FakeJobs) -> None:
    one = run()["rows"]
    many = run(None, "elsewhere/small", at_once=4)["rows"]
    for row in (*one, *many):
        row.pop("nodes")
    assert one == many


def test_a_failed_stage_fails_the_arms_that_need_it_with_its_reason(jobs: FakeJobs) -> None:
    jobs.fails = {"rloo"}
    found = rows(run())
    assert found["a", 0]["status"] == "finished"
    assert found["b", 0]["status"] == "failed"
    assert found["b", 0]["reason"] == "rl: it cannot be done; try something else"
    assert found["b", 0]["measures"] == {}
    jobs.fails, before = set(), len(jobs.ran)
    assert rows(run())["b", 1]["status"] == "finished"
    assert jobs.ran[before:] == ["rl", "measure rl"] * 2  # the arm that failed, in both seeds, and nothing else


def test_a_budget_is_of_the_arms_own_stages_and_ends_one(jobs: FakeJobs) -> None:
    """150 tokens: rank uses 60 of them, reward 50, so that ppo is given 40."""
    jobs.tokens = {"rank": 60, "reward": 50, "reward_held_out": 0, "ppo": 100, "pretrain": 9999}
    found = run({"models": ["ppo"], "budget": {"tokens": 150}, "arms": {"a": {}}, "seeds": [0]})
    (row,) = found["rows"]
    assert row["status"] == "ended_by_budget"
    assert "40" in row["reason"]
    assert row["cost"]["tokens"] == 150
    assert row["measures"]["accuracy"]["value"] == 0.5  # it is measured all the same


def test_an_arm_whose_budget_is_gone_is_told_apart(jobs: FakeJobs) -> None:
    jobs.tokens = {"rank": 200}
    (row,) = run({"models": ["ppo"], "budget": {"tokens": 150}, "arms": {"a": {}}, "seeds": [0]})["rows"]
    assert row["status"] == "out_of_budget"
    assert row["reason"].startswith("the budget of 150 tokens was spent before reward")
    assert row["measures"] == {}
    assert "ppo" not in jobs.ran


def test_a_budget_that_ended_nothing_leaves_the_stage_what_it_is(jobs: FakeJobs) -> None:
    """With a larger budget, or none, the same stages are taken again; with a smaller one that bites they are not."""
    one = {"arms": {"a": {}}, "seeds": [0]}
    run({**one, "budget": {"tokens": 150}})
    before = len(jobs.ran)
    run({**one, "budget": {"tokens": 5000}})
    run(one)
    assert len(jobs.ran) == before
    (row,) = run({**one, "budget": {"tokens": 80}})["rows"]
    assert row["status"] == "ended_by_budget"
    assert jobs.ran[before:] == ["rl", "measure rl"]


def test_results_are_there_after_every_job(jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    statuses: list[list[str]] = []
    write = running.results.write

    def spy(plan: Any, outcomes: Any, directory: Path, *more: Any) -> None:
        write(plan, outcomes, directory, *more)
        statuses.append([row["status"] for row in files.read_json(directory / "results.json")["rows"]])

    monkeypatch.setattr(running.results, "write", spy)
    run({"seeds": [0]})
    assert statuses[0] == ["missing", "missing"]
    assert ["finished", "missing"] in statuses
    assert statuses[-1] == ["finished", "finished"]


def test_what_was_found_stands_until_it_is_looked_at_again(jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut at once, the command given again leaves the results of before; other overrides leave none of them."""
    before = run()["rows"]
    monkeypatch.setattr(running, "in_order", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run()
    found = files.read_json(Path("studies/small/results.json"))["rows"]
    assert found == before and {row["status"] for row in found} == {"finished"}
    with pytest.raises(KeyboardInterrupt):
        run({"budget": {"tokens": 10_000}})
    assert {row["status"] for row in files.read_json(Path("studies/small/results.json"))["rows"]} == {"missing"}
    assert files.read_json(Path("studies/small/old/1/results.json"))["rows"] == before  # those are kept apart


def test_stages_side_by_side_do_not_spend_the_budget_twice(jobs: FakeJobs) -> None:
    """reward and dpo go back to rank alone: each is given the 90 tokens that it leaves, and both spend them."""
    jobs.tokens = {"rank": 10, "reward": 80, "dpo": 70}
    by = {"kind": "reward_model", "options": {"model": "reward"}}
    arms = {"both": {"models": ["dpo"], "best_of": {"n": 2, "by": by}}, "dpo": {"models": ["dpo"]}}
    found = rows(run({"budget": {"tokens": 100}, "arms": arms, "seeds": [0], "measures": {"a": {"task": "problems"}}}))
    assert found["dpo", 0]["status"] == "finished"
    assert found["both", 0]["status"] == "out_of_budget" and found["both", 0]["measures"] == {}
    assert found["both", 0]["reason"] == "its stages spent 160 tokens of the budget of 100"


def test_a_node_of_a_killed_study_is_waited_for(jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it left behind ends its step first: until then the run is in use, though no study holds the node."""
    slept: list[float] = []
    with ExitStack() as left_behind:

        def locked(stage: str) -> None:
            (node,) = Path("studies/nodes").glob(f"{stage}-*")
            left_behind.enter_context(files.lock(node))

        jobs.fails = {"pretrain"}
        run({"seeds": [0]})
        locked("pretrain")
        jobs.fails = set()
        monkeypatch.setattr("trivium.studies.nodes.time.sleep", lambda s: (slept.append(s), left_behind.close()))
        assert {row["status"] for row in run({"seeds": [0]})["rows"]} == {"finished"}
    assert slept


def test_curves_are_gains_over_the_start(jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    finish = FakeJobs._finish

    def with_curve(self: FakeJobs, folder: Path, name: str, stage: Any) -> None:
        finish(self, folder, name, stage)
        curve = {"n": [1, 2], "kl": [0.0, 0.2], "proxy": [0.5, 1.5], "gold": [2.0, 2.25]}
        files.write_json(folder / name / "evaluation.json", {"best_of_n": curve})

    monkeypatch.setattr(FakeJobs, "_finish", with_curve)
    curves = {"bon": {"stage": "reward", "kind": "best_of_n"}}
    (row,) = run({"models": [], "measures": {}, "curves": curves, "arms": {"a": {}}, "seeds": [0]})["rows"]
    points = [{"kl": 0.0, "proxy": 0.0, "gold": 0.0}, {"kl": 0.2, "proxy": 1.0, "gold": 0.25}]
    assert row["curves"] == {"bon": {"kind": "best_of_n", "points": points}}


def test_another_studys_directory_is_refused(jobs: FakeJobs) -> None:
    run({"seeds": [0]})
    with pytest.raises(UserError, match="holds the study small"):
        run({"name": "other"})
    Path("studies/small/results.json").write_text('{"rows": []}')
    with pytest.raises(UserError, match="holds no results of a study"):
        run({"seeds": [0]})


def test_results_of_a_recipe_that_was_edited_are_set_aside(jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The study is the same to the letter; the recipe that it names has other contents."""
    recipe = yaml.safe_load(resources.files("trivium.recipes").joinpath("primer.yaml").read_text())
    Path("mine.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    before = run({"recipe": "mine.yaml"})["rows"]
    recipe["stages"]["sft"]["steps"] = 9
    Path("mine.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    monkeypatch.setattr(running, "in_order", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run({"recipe": "mine.yaml"})
    assert {row["status"] for row in files.read_json(Path("studies/small/results.json"))["rows"]} == {"missing"}
    assert files.read_json(Path("studies/small/old/1/results.json"))["rows"] == before


def test_the_smaller_budget_counts() -> None:
    assert least({"tokens": 10, "generated": 5, "seconds": None}, {"tokens": 4.0, "seconds": 1.5}) == {
        "tokens": 4,
        "generated": 5,
        "seconds": 1.5,
    }


def test_the_reason_of_a_failure_is_the_last_thing_said(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("one\nerror: two; do three\n\n")
    assert last_words(log, 1) == "two; do three"
    assert last_words(log, -signal.SIGKILL) == "it was ended by signal 9 (SIGKILL)"
    assert "said nothing" in last_words(tmp_path / "none", 3)


# ---- real processes --------------------------------------------------------------------------------------------------

TINY = {
    "name": "tiny",
    "question": "does it run?",
    "recipe": "recipe.yaml",
    "shared": ["pretrain"],
    "seeds": [0],
    "models": ["sft"],
    "measures": {"loss": {"of": "metric.value"}},
    "arms": {"a": {}, "b": {"overrides": {"sft.steps": 5}}},
}


def start(folder: Path, steps: int) -> "subprocess.Popen[str]":
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False))  # stages are in order
    study = {**TINY, "overrides": {"pretrain.steps": steps, "pretrain.checkpoint_every": 20}}
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    command = [sys.executable, "-m", "trivium", "study", "study.yaml", "--at-once", "2"]
    return subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def wait_for(folder: Path, pattern: str, seconds: float = 120) -> Path:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := sorted(folder.glob(pattern)):
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"no {pattern} in {folder}")


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGKILL])
def test_a_study_that_is_cut_goes_on_to_the_same_bits(tmp_path: Path, blow: signal.Signals) -> None:
    """Cut by Ctrl-C, or killed: what it had started ends too, and the same command comes to what an uncut one does."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    assert start(whole, 60).wait(300) == 0
    process = start(cut, 60)
    wait_for(cut, "runs/studies/nodes/pretrain-*/pretrain/checkpoints/step-*")
    process.send_signal(blow)
    process.wait(120)
    assert process.returncode == (130 if blow == signal.SIGINT else -signal.SIGKILL)
    node = wait_for(cut, "runs/studies/nodes/pretrain-*")
    until = time.monotonic() + 60
    while time.monotonic() < until:  # the lock of the node's run is free once its process is gone
        try:
            with files.lock(node):
                break
        except files.InUse:
            time.sleep(0.1)
    else:
        raise AssertionError("the node's process goes on without its study")
    assert start(cut, 60).wait(300) == 0
    found = [json.loads((folder / "runs/studies/tiny/results.json").read_text())["rows"] for folder in (whole, cut)]
    assert [row["measures"] for row in found[0]] == [row["measures"] for row in found[1]]
    assert all(row["status"] == "finished" for row in found[1])
    weights = [sorted(folder.glob("runs/studies/nodes/*/*/model/model.safetensors")) for folder in (whole, cut)]
    assert [path.relative_to(whole) for path in weights[0]] == [path.relative_to(cut) for path in weights[1]]
    assert [files.sha256(path) for path in weights[0]] == [files.sha256(path) for path in weights[1]]


def test_an_interrupt_reaches_a_process_that_is_just_being_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    processes, heard, handlers = Processes(), [], []

    class Started:
        def __init__(self, *_: Any, **__: Any) -> None:
            handlers.append(threading.Thread(target=processes.interrupt))
            handlers[0].start()
            handlers[0].join(0.1)

        def poll(self) -> None:
            return None

        def send_signal(self, number: int) -> None:
            heard.append(number)

        def wait(self) -> int:
            handlers[0].join(5)
            return -signal.SIGINT

    monkeypatch.setattr(subprocess, "Popen", Started)
    processes.run(["run", "."], tmp_path / "log.txt")
    assert heard == [signal.SIGINT]


def test_what_was_given_is_written_down(jobs: FakeJobs) -> None:
    run()
    running.run_study("study.yaml", ["recipe.rl.steps=5"], "studies/small", at_once=1, quiet=True)
    assert files.read_json(Path("studies/small/results.json"))["given"] == ["study.yaml", "recipe.rl.steps=5"]


def test_the_best_are_chosen_again_when_the_code_that_chooses_has_changed(jobs: FakeJobs, tmp_path: Path) -> None:
    code = tmp_path / "taste.py"
    code.write_text("def score(answer):\n    return 1.0\n")
    by = {"kind": "function", "options": {"path": f"{code}:score"}}
    changes = {"arms": {"a": {"best_of": {"n": 2, "by": by}}}, "seeds": [0]}
    run(changes)
    before = len(jobs.ran)
    code.write_text("def score(answer):\n    return 0.5\n")
    run(changes)
    assert jobs.ran[before:] == ["measure rl"]


def test_a_model_is_measured_again_when_a_file_of_training_data_has_changed(jobs: FakeJobs, tmp_path: Path) -> None:
    """What is left out of the task may be other prompts now, also for an arm that does not learn from the file."""
    data = tmp_path / "more.jsonl"
    line = json.dumps({"messages": [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}]})
    data.write_text(f"{line}\n")
    more = {"kind": "sft", "init": "sft", "data": [{"source": str(data)}], "steps": 1}
    changes = {"overrides": {"stages.more": more}, "arms": {"a": {}, "b": {"models": ["more"]}}, "seeds": [0]}
    run(changes)
    before = len(jobs.ran)
    run(changes)
    assert len(jobs.ran) == before
    data.write_text(f"{line}\n{line}\n")
    run(changes)
    assert sorted(jobs.ran[before:]) == ["measure more", "measure rl", "more"]
