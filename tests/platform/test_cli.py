import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click import Group

from tests.platform.conftest import FakeStages
from trivium import cli
from trivium.run import stages_of_kind


def call(*arguments: str) -> int:
    """The exit code of a command in this process."""
    try:
        cli.main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def commands(group: Group, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, command in group.commands.items():
        found += [(*prefix, name)] + (commands(command, (*prefix, name)) if isinstance(command, Group) else [])
    return found


def test_the_commands_of_the_design_are_there() -> None:
    names = {command[0] for command in commands(cli.cli)} | set(cli._Group.elsewhere)
    expected = {"run", "pretrain", "sft", "rl", "eval", "generate", "chat", "report", "recipes", "verifiers"}
    assert expected <= names


@pytest.mark.parametrize("command", commands(cli.cli), ids=" ".join)
def test_every_help_has_an_example(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*command, "--help") == 0
    out = capsys.readouterr().out
    assert "Example" in out.rstrip().splitlines()[-2] or "Example" in out.rstrip().splitlines()[-3] or "Example:" in out
    assert f"trivium {command[0]}" in out


@pytest.mark.parametrize("kind", ["pretrain", "sft", "reward", "dpo", "rl"])
def test_the_example_of_a_stage_names_a_recipe_that_can_be(kind: str) -> None:
    command = cli.cli.commands[kind]
    assert isinstance(command, cli._Command)
    _, name, recipe, *overrides = command.example.split()
    assert name == kind
    assert recipe.endswith(".yaml") or stages_of_kind(recipe, kind, overrides)


def test_help_is_quick() -> None:
    """In processor time, so that a busy machine does not fail it; what loads at start is held elsewhere too."""
    spent = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-m", "trivium", "--help"], check=True, capture_output=True)
        after = os.times()
        spent.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(spent) < 0.5


def test_run_says_what_it_did(fake: FakeStages, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", str(tiny), "rl.steps=7", "-d", "out") == 0
    captured = capsys.readouterr()
    assert captured.out == "report: out/report.html\n"
    lines = captured.err.splitlines()
    assert lines[0].startswith("pretrain: 5 steps, 12.3k tokens in 2 s; loss 0.5; problems 20.0% [10.0, 95.0]")
    assert lines[2].startswith("rl: 7 steps") and "+50.0 points over sft" in lines[2]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "primmer"], "error: unknown recipe 'primmer' (did you mean 'primer'?)"),
        (["run", "rl.stepz=1"], "error: recipe primer: stages.rl has no key 'stepz' (did you mean 'steps'?)"),
        (["run", "--frsh"], "error: No such option"),
        (["runn"], "error: No such command"),
        (["rl"], "error: Missing argument 'RECIPE'"),
        (["sft", "shakespeare"], "error: recipe shakespeare has no stage of kind sft"),
        (["recipes", "show", "nothing"], "error: unknown recipe 'nothing'"),
        (["eval", "nowhere"], "error: nowhere is no run directory"),
    ],
)
def test_mistakes_are_one_sentence(
    fake: FakeStages, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*arguments) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(sentence)
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not Path("runs").exists()


def test_what_is_no_model_is_said_with_what_to_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter, model = tmp_path / "sft" / "adapter", tmp_path / "sft" / "model"
    for place, name in ((adapter, "adapter_config.json"), (model, "config.json"), (tmp_path, "recipe.yaml")):
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("{}")
    about_adapter = (
        f"error: {adapter} holds an adapter, not a whole model; name the model that it was merged into ({model})"
    )
    about_run = f"error: {tmp_path} is a run; name one of its models: {model}"
    for arguments, told in (
        (["generate", str(adapter), "-p", "x"], about_adapter),
        (["eval", str(adapter)], about_adapter),
        (["generate", str(tmp_path), "-p", "x"], about_run),
    ):
        assert call(*arguments) == 1
        assert capsys.readouterr().err.startswith(told)


@pytest.mark.parametrize(
    ("init", "told"), [("run/sft/adapter", "holds an adapter"), ("./run", "is a run; none of its")]
)
def test_a_start_that_is_no_model_is_refused_before_anything_is_spent(
    fake: FakeStages, tiny: Path, init: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("run/sft/adapter").mkdir(parents=True)
    Path("run/recipe.yaml").write_text("name: run")
    Path("run/sft/adapter/adapter_config.json").write_text("{}")
    assert call("run", str(tiny), f"sft.init={init}") == 1
    assert f"stages.sft.init: {Path(init)} {told}" in capsys.readouterr().err
    assert fake.calls == []


def test_a_stage_command_runs_that_stage(fake: FakeStages, tiny: Path) -> None:
    assert call("pretrain", str(tiny)) == 0
    assert call("sft", str(tiny), "sft.steps=2") == 0
    assert fake.calls == ["pretrain", "sft"]


def test_ctrl_c_says_how_to_go_on(fake: FakeStages, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake.interrupt = "rl"
    assert call("run", str(tiny), "problems.limit=[a b]".replace("[a b]", "9"), "--fresh") == 130
    assert f"stopped; `trivium run {tiny} problems.limit=9` resumes" in capsys.readouterr().err
    assert call("run", str(tiny), "problems.limit=9") == 0
    assert fake.resumed == ["rl"]


def test_eval_prints_json(fake: FakeStages, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", str(tiny)) == 0
    capsys.readouterr()
    assert call("eval", "runs/tiny", "--stage", "rl") == 0
    assert json.loads(capsys.readouterr().out)["rl"]["problems"]["accuracy"] == 0.9


def test_recipes_and_verifiers(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("recipes") == 0
    assert "primer" in capsys.readouterr().out
    assert call("recipes", "show", "primer", "rl.steps=3") == 0
    assert "steps: 3 " in capsys.readouterr().out
    assert call("verifiers") == 0
    assert "numeric" in capsys.readouterr().out


def test_under_torchrun_one_rank_prints(
    fake: FakeStages, tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("run", str(tiny), "-q") == 0
    capsys.readouterr()
    monkeypatch.setenv("RANK", "1")
    assert call("run", str(tiny), "-q") == 0
    assert capsys.readouterr().out == ""
