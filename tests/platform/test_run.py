import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import trivium
from tests.platform.conftest import FakeStages
from trivium import files
from trivium.errors import UserError
from trivium.report.loading import load
from trivium.report.page import _chain_link

Read = Callable[[Path], Any]


def test_a_run_leaves_everything_the_design_names(fake: FakeStages, tiny: Path, read: Read) -> None:
    result = trivium.run(tiny)
    assert fake.calls == fake.evaluations == ["pretrain", "sft", "rl"]
    assert result.directory == Path("runs/tiny")
    assert result.report == Path("runs/tiny/report.html")
    assert result.summary == read(result.directory / "summary.json")
    assert list(result.summary["stages"]) == ["pretrain", "sft", "rl"]
    rl = result.summary["stages"]["rl"]
    assert rl["seconds"] == 1.5 and rl["evaluation"]["problems"]["accuracy"] == 0.9
    assert "results" not in rl["evaluation"]["problems"]
    assert read(result.directory / "rl/evaluation.json")["tasks"]["problems"]["results"]
    assert result.summary["seconds"] >= 4.5
    comparisons = result.summary["comparisons"]["problems"]
    assert [(c["from"], c["to"], round(c["difference"], 6)) for c in comparisons] == [
        ("pretrain", "sft", 0.2),
        ("sft", "rl", 0.5),
    ]
    assert all(c["low"] <= c["difference"] <= c["high"] for c in comparisons)


def test_lineage_names_parents_and_contents(fake: FakeStages, tiny: Path, read: Read) -> None:
    place = trivium.run(tiny).directory
    artifacts = read(place / "lineage.json")["artifacts"]
    assert [entry["parents"] for entry in artifacts.values()] == [[], ["pretrain"], ["sft"]]
    assert artifacts["pretrain"]["inputs"][0]["path"] == "text.txt"
    assert artifacts["pretrain"]["inputs"][0]["sha256"] == files.sha256(Path("text.txt"))
    made = {item["path"]: item["sha256"] for item in artifacts["pretrain"]["outputs"]}
    used = {item["path"]: item["sha256"] for item in artifacts["sft"]["inputs"]}
    assert used == made == {str(place / "pretrain/model/model.safetensors"): next(iter(made.values()))}
    assert {"config_hash", "code", "started", "finished"} <= set(artifacts["rl"])


def test_again_runs_nothing(fake: FakeStages, tiny: Path) -> None:
    first = trivium.run(tiny)
    second = trivium.run(tiny)
    assert len(fake.calls) == len(fake.evaluations) == 3
    assert second.summary["stages"] == first.summary["stages"]


def test_the_run_directory_is_a_recipe(fake: FakeStages, tiny: Path) -> None:
    trivium.run(tiny, ["rl.steps=9"], "runs/mine")
    result = trivium.run("runs/mine")
    assert result.directory == Path("runs/mine")
    assert len(fake.calls) == 3


@pytest.mark.parametrize(
    ("override", "again"),
    [
        ("rl.steps=9", ["rl"]),
        ("sft.optimizer.lr=0.5", ["sft", "rl"]),
        ("seed=1", ["pretrain", "sft", "rl"]),
        ("primer.forget=0.1", ["sft", "rl"]),  # pretrain reads a text, and only its settings matter to it
        ("rl.checkpoint_every=1", []),
        ("device=cpu", []),
        ("problems.limit=3", []),
    ],
)
def test_what_changed_and_what_follows_from_it_runs_again(
    fake: FakeStages, tiny: Path, override: str, again: list[str]
) -> None:
    trivium.run(tiny)
    fake.calls.clear()
    result = trivium.run(tiny, [override])
    # The fake sft does not read the primer, so its model stays the same; rl reads the primer itself.
    assert fake.calls == again
    assert sorted(path.name for path in result.directory.glob("old/*")) == sorted(f"{name}-1" for name in again)
    assert all((result.directory / "old" / f"{name}-1" / "model").is_dir() for name in again)


def test_another_text_under_the_same_name_runs_again(fake: FakeStages, tiny: Path) -> None:
    trivium.run(tiny)
    Path("text.txt").write_text("another text")
    fake.calls.clear()
    trivium.run(tiny)
    # The fake model does not depend on the text, so what follows has the same inputs as before.
    assert fake.calls == ["pretrain"]


def test_changed_tasks_are_evaluated_without_training(fake: FakeStages, tiny: Path) -> None:
    trivium.run(tiny)
    fake.calls.clear()
    fake.evaluations.clear()
    trivium.run(tiny, ["problems.limit=7"])
    assert fake.calls == []
    assert fake.evaluations == ["pretrain", "sft", "rl"]


def test_a_cut_stage_is_resumed_with_its_checkpoints(fake: FakeStages, tiny: Path, read: Read) -> None:
    fake.interrupt = "sft"
    with pytest.raises(KeyboardInterrupt):
        trivium.run(tiny)
    assert read(Path("runs/tiny/lineage.json"))["artifacts"]["sft"]["status"] == "started"
    result = trivium.run(tiny)
    assert fake.calls == ["pretrain", "sft", "sft", "rl"]
    assert fake.resumed == ["sft"]
    assert not (result.directory / "old").exists()


def test_a_cut_stage_with_other_settings_begins_anew_and_keeps_the_old(
    fake: FakeStages, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.interrupt = "sft"
    with pytest.raises(KeyboardInterrupt):
        trivium.run(tiny)
    trivium.run(tiny, ["sft.batch_size=2"])
    assert fake.resumed == []
    assert (Path("runs/tiny/old/sft-1/checkpoints")).is_dir()
    assert "config.batch_size: 64 -> 2" in capsys.readouterr().err


def test_what_a_stage_had_made_comes_back_where_other_settings_are_refused_at_once(
    fake: FakeStages, tiny: Path, read: Read
) -> None:
    """A file that cannot be read, rankings without a pair: told by the stage, before it has learned anything."""
    done = trivium.run(tiny)
    weights = (done.directory / "rl/model/model.safetensors").read_text()
    fake.interrupt, fake.fail = "rl", UserError("rl: nothing to learn from")
    with pytest.raises(UserError, match="nothing to learn from"):
        trivium.run(tiny, ["rl.steps=9"])
    assert (done.directory / "rl/model/model.safetensors").read_text() == weights
    assert not list((done.directory / "old").iterdir())
    assert read(done.directory / "lineage.json")["artifacts"]["rl"]["status"] == "outdated"
    fake.calls.clear()
    assert trivium.run(tiny).summary == done.summary and fake.calls == []
    trivium.run(tiny, ["rl.steps=9"])
    assert fake.calls == ["rl"]


def test_cut_between_stage_and_evaluation(fake: FakeStages, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import trivium.evaluation.evaluate as module

    def cut(context: Any, model: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "evaluate_stage", cut)
        with pytest.raises(KeyboardInterrupt):
            trivium.run(tiny)
    trivium.run(tiny)
    assert fake.calls == ["pretrain", "sft", "rl"]
    assert fake.evaluations == ["pretrain", "sft", "rl"]


def test_files_of_unknown_origin_are_moved_not_mixed(fake: FakeStages, tiny: Path) -> None:
    fake.interrupt = "sft"
    with pytest.raises(KeyboardInterrupt):
        trivium.run(tiny)
    (Path("runs/tiny/rl")).mkdir()
    (Path("runs/tiny/rl/metrics.jsonl")).write_text("{}")
    trivium.run(tiny)
    assert (Path("runs/tiny/old/rl-1/metrics.jsonl")).is_file()


def test_single_stages(fake: FakeStages, tiny: Path) -> None:
    with pytest.raises(UserError, match="stage rl starts from sft, which has not finished"):
        trivium.run(tiny, stages=["rl"])
    trivium.run(tiny, stages=["pretrain"])
    assert fake.calls == ["pretrain"]
    trivium.run(tiny, stages=["sft"])
    assert fake.calls == ["pretrain", "sft"]
    with pytest.raises(UserError, match=r"no stage 'slt' \(did you mean 'sft'\?\)"):
        trivium.run(tiny, stages=["slt"])


def test_a_directory_of_another_recipe_is_refused(fake: FakeStages, tiny: Path) -> None:
    trivium.run(tiny)
    other = tiny.with_name("other.yaml")
    other.write_text(tiny.read_text().replace("name: tiny", "name: other"))
    with pytest.raises(UserError, match="holds a run of recipe tiny, not other; choose another directory") as caught:
        trivium.run(other, directory="runs/tiny")
    assert "--fresh" in str(caught.value)
    result = trivium.run(other, directory="runs/tiny", fresh=True)
    assert result.summary["recipe"] == "other"
    assert (Path("runs/tiny.old-1/rl/model")).is_dir()


def test_a_directory_that_is_no_run_is_refused(fake: FakeStages, tiny: Path) -> None:
    Path("mine/sft").mkdir(parents=True)
    with pytest.raises(UserError, match="not empty and holds no run"):
        trivium.run(tiny, directory="mine")
    with pytest.raises(UserError, match="is a file"):
        trivium.run(tiny, directory="text.txt")
    assert fake.calls == []


def test_what_is_missing_is_told_before_anything_runs(fake: FakeStages, tiny: Path) -> None:
    with pytest.raises(UserError, match=r"stages\.pretrain\.data\.0\.source: there is no file or folder nowhere\.txt"):
        trivium.run(tiny, ["pretrain.data.0.source=nowhere.txt"])
    with pytest.raises(UserError, match=r"evaluation\.problems\.verifier: .*numeric"):
        trivium.run(tiny, ["problems.verifier.kind=numerik"])
    assert fake.calls == []


def test_two_processes_in_one_directory(fake: FakeStages, tiny: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom trivium.files import lock\n"
        "with lock(Path('runs/tiny')):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"in use by process {holder.pid}"):
            trivium.run(tiny)
        holder.kill()
    trivium.run(tiny)


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device", "x.bin"), RuntimeError("io error: No space left on device")],
)
def test_a_full_disk_is_one_sentence_and_loses_nothing(fake: FakeStages, tiny: Path, error: Exception) -> None:
    fake.interrupt, fake.fail = "sft", error
    with pytest.raises(UserError, match="the disk is full"):
        trivium.run(tiny)
    trivium.run(tiny)
    assert fake.calls == ["pretrain", "sft", "sft", "rl"]
    assert fake.resumed == ["sft"]


def test_damaged_lineage(fake: FakeStages, tiny: Path) -> None:
    trivium.run(tiny)
    Path("runs/tiny/lineage.json").write_text('{"artifacts":')
    with pytest.raises(UserError, match=r"lineage\.json is damaged"):
        trivium.run(tiny)


def test_a_first_stage_from_elsewhere_is_compared_with_its_base(fake: FakeStages, tiny: Path) -> None:
    Path("qwen").mkdir()
    Path("qwen/model.safetensors").write_text("weights")
    path = tiny.with_name("rl.yaml")
    path.write_text(
        "name: rl-only\nstages: {rl: {init: ./qwen, prompts: [{source: primer}], rewards: {r: {kind: primer}}}}\n"
        "evaluation: {problems: {prompts: [{source: primer}], verifier: {kind: primer}}}\n"
    )
    result = trivium.run(path)
    assert fake.evaluations == ["base", "rl"]
    assert list(result.summary["stages"]) == ["base", "rl"]
    assert result.summary["comparisons"]["problems"][0]["from"] == "base"
    trivium.run(path)
    assert fake.evaluations == ["base", "rl"]
    Path("qwen/model.safetensors").write_text("other weights")
    trivium.run(path)
    assert fake.evaluations == ["base", "rl", "base", "rl"]
    assert fake.calls == ["rl", "rl"]


def test_all_stages_that_start_from_one_model_elsewhere_are_compared_with_it(fake: FakeStages, tiny: Path) -> None:
    for name in ("qwen", "other"):
        Path(name).mkdir()
        Path(name, "model.safetensors").write_text(name)
    stage = "{kind: rl, init: ./%s, prompts: [{source: primer}], rewards: {r: {kind: primer}}}"
    stages = "".join(f"  {name}: {stage % init}\n" for name, init in (("a", "qwen"), ("b", "qwen"), ("c", "other")))
    path = tiny.with_name("two.yaml")
    path.write_text(
        f"name: two\nstages:\n{stages}"
        "evaluation: {problems: {prompts: [{source: primer}], verifier: {kind: primer}}}\n"
    )
    result = trivium.run(path)
    compared = [(one["from"], one["to"]) for one in result.summary["comparisons"]["problems"]]
    assert compared == [("base", "a"), ("base", "b")]  # c starts from another
    drawn = load(result.directory)
    links = [_chain_link(drawn, one, "problems") for one in drawn.stages]
    assert [(link["follows"], link["builds_on"]) for link in links[1:]] == [(True, ""), (False, "Base"), (False, "")]


def test_evaluate_again_and_elsewhere(fake: FakeStages, tiny: Path, read: Read) -> None:
    with pytest.raises(UserError, match="--recipe"):
        trivium.evaluate("runs/tiny")
    trivium.run(tiny)
    fake.evaluations.clear()
    numbers = trivium.evaluate("runs/tiny", ["problems.samples=4"], stages=["rl"])
    assert fake.evaluations == ["rl"]
    assert numbers["rl"]["problems"]["accuracy"] == 0.9
    with pytest.raises(UserError, match=r"rl\.steps"):
        trivium.evaluate("runs/tiny", ["rl.steps=99"])
    numbers = trivium.evaluate("runs/tiny/rl/model", recipe=tiny)
    assert list(numbers) == ["tiny-rl"]
    assert read(Path("runs/evaluations/tiny-rl/evaluation.json"))["tasks"]
    assert len(fake.calls) == 3


def test_a_user_function_is_an_input(fake: FakeStages, tiny: Path) -> None:
    Path("rewards.py").write_text("def score(prompt, response):\n    return 1.0\n")
    override = ["rl.rewards.right={kind: function, options: {path: 'rewards.py:score'}}"]
    trivium.run(tiny, override)
    fake.calls.clear()
    trivium.run(tiny, override)
    assert fake.calls == []
    Path("rewards.py").write_text("from helper import SCORE\ndef score(prompt, response):\n    return SCORE\n")
    Path("helper.py").write_text("import numbers_of.mine\nSCORE = 0.0\n")
    Path("numbers_of").mkdir()
    Path("numbers_of/mine.py").write_text("")
    trivium.run(tiny, override)
    assert fake.calls == ["rl"]
    for imported in (Path("helper.py"), Path("numbers_of/mine.py")):  # also what it imports, and what that does
        imported.write_text(f"{imported.read_text()}# changed\n")
        trivium.run(tiny, override)
    assert fake.calls == ["rl"] * 3


def test_configuration_object(fake: FakeStages, tiny: Path) -> None:
    from trivium import recipe

    result = trivium.run(recipe.load(tiny), {"rl.steps": 7}, "runs/object", quiet=True)
    assert result.summary["stages"]["rl"]["steps"] == 7


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("pretrain.data.0.source=typo.txt", "no file or folder typo.txt"),
        ("problems.verifier.kind=numerik", "numeric"),
        ("pretrain.model.heads=3", "must be a multiple of model.heads = 3"),
        ("rl.sampling.temperature=0", "greedy rollouts"),
    ],
)
def test_a_refused_override_leaves_the_run_as_it_is(fake: FakeStages, tiny: Path, override: str, sentence: str) -> None:
    place = trivium.run(tiny).directory
    before = {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}
    with pytest.raises(UserError, match=sentence):
        trivium.run(tiny, [override])
    with pytest.raises(UserError, match=sentence):
        trivium.run(tiny, [override], fresh=True)
    assert {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()} == before
    with pytest.raises(UserError, match="run that stage first"):
        trivium.run(tiny, stages=["sft"], directory="new")
    assert not Path("new").exists()


def test_two_data_sets_in_one_folder_are_refused_before_anything_runs(fake: FakeStages, tiny: Path) -> None:
    Path("math").mkdir()
    for name in ("gsm8k_train.jsonl", "mawps_train.jsonl"):
        (Path("math") / name).write_text('{"text": "x"}\n')
    with pytest.raises(UserError, match=r"pretrain\.data\.0: math: split 'train' matches files of 2 data sets"):
        trivium.run(tiny, ["pretrain.data.0.source=math", "pretrain.data.0.split=train"])
    assert fake.calls == []


def test_other_tasks_for_a_run_stay_apart(
    fake: FakeStages, tiny: Path, read: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    place = trivium.run(tiny).directory
    kept = ("recipe.yaml", "summary.json", "lineage.json", "rl/evaluation.json", "report.html")
    before = {name: (place / name).read_bytes() for name in kept}
    capsys.readouterr()
    numbers = trivium.evaluate(place, ["problems.limit=3"], stages=["rl"])
    assert list(numbers) == ["rl"] and numbers["rl"]["problems"]["accuracy"] == 0.9
    assert {name: (place / name).read_bytes() for name in kept} == before
    assert read(place / "evaluations/rl/evaluation.json")["tasks"]["problems"]["results"]
    said = capsys.readouterr().err
    assert "evaluation.problems.limit: 500 -> 3" in said and "runs/tiny/evaluations" in said
    fake.evaluations.clear()
    trivium.run(tiny)
    assert fake.evaluations == []


def test_a_redone_evaluation_is_not_told_as_training(
    fake: FakeStages, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trivium.run(tiny)
    capsys.readouterr()
    trivium.run(tiny, ["problems.limit=7"])
    said = capsys.readouterr().err
    assert "sft: evaluated again in 0 s; problems 40.0%" in said
    assert "steps" not in said and "loss" not in said


def test_numbers_of_an_outdated_stage_leave_the_summary(
    fake: FakeStages, tiny: Path, read: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    place = trivium.run(tiny).directory
    result = trivium.run(tiny, ["sft.steps=9"], stages=["sft"])
    assert list(result.summary["stages"]) == ["pretrain", "sft"]
    assert [(c["from"], c["to"]) for c in result.summary["comparisons"]["problems"]] == [("pretrain", "sft")]
    assert read(place / "lineage.json")["artifacts"]["rl"]["status"] == "outdated"
    assert "rl was made from other settings or inputs" in capsys.readouterr().err
    assert (place / "rl/model").is_dir() and (place / "rl/evaluation.json").is_file()
    with pytest.raises(UserError, match="no finished stage"):
        trivium.evaluate(place, stages=["rl"])
    assert list(trivium.run(place, stages=["sft"]).summary["stages"]) == ["pretrain", "sft"]
    fake.calls.clear()
    assert list(trivium.run(place).summary["stages"]) == ["pretrain", "sft", "rl"]
    assert fake.calls == ["rl"] and (place / "old/rl-1/model").is_dir()


def test_an_outdated_stage_counts_again_when_its_inputs_are_back(fake: FakeStages, tiny: Path) -> None:
    for stages in (["sft"], None):
        first = trivium.run(tiny)
        trivium.run(tiny, ["sft.steps=9"], stages=["sft"])
        fake.calls.clear()
        again = trivium.run(tiny, stages=stages)
        assert fake.calls == ["sft"]
        assert again.summary["stages"]["rl"] == first.summary["stages"]["rl"]
        assert not (again.directory / "old/rl-1").exists()


def test_a_stage_alone_that_changes_nothing_keeps_the_others(fake: FakeStages, tiny: Path) -> None:
    trivium.run(tiny)
    assert list(trivium.run(tiny, stages=["sft"]).summary["stages"]) == ["pretrain", "sft", "rl"]
    assert len(fake.calls) == 3


def test_models_of_the_wrong_kind_are_refused_before_anything_runs(
    fake: FakeStages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import trivium.model.huggingface
    import trivium.preflight

    kinds = {"writer": 0, "judge": 1}
    for name in kinds:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")

    class Config:
        def __init__(self, path: Path) -> None:
            self.scalar_heads = kinds[path.name]

    monkeypatch.setattr(trivium.model.huggingface, "read_config", Config)
    learned = {"kind": "reward_model", "options": {"model": str(tmp_path / "writer")}}
    stage = {
        "prompts": [{"source": "primer"}],
        "rewards": {"r": {"kind": "primer"}},
        "validation": [{"source": "primer"}],
    }
    for changes, message in (
        ({"init": str(tmp_path / "judge")}, "is a reward model"),
        ({"init": str(tmp_path / "writer"), "rewards": {"r": learned}}, "is a language model and gives no scores"),
    ):
        recipe = {"name": "wrong", "stages": {"rl": {**stage, **changes}}}
        path = tmp_path / "wrong.yaml"
        path.write_text(yaml.safe_dump(recipe))
        with pytest.raises(UserError, match=message):
            trivium.run(str(path), directory=tmp_path / "run", quiet=True)
    assert not fake.calls and not (tmp_path / "run").exists()
