"""What is refused or told before RL learns from a judge or a vote: audits, options, places."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from tests.stages.test_rlaif import FAKE, VOTE, Overrides, run
from tests.stages.tiny import write_recipe

from trivium.config import (
    JudgeConfig,
    LessonsConfig,
    PretrainConfig,
    RankConfig,
    RankingSourceConfig,
    RewardConfig,
    RLConfig,
    SFTConfig,
    SourceConfig,
    VerifierConfig,
)
from trivium.data.records import Message, Prompt
from trivium.errors import UserError
from trivium.feedback.judges.build import build_judge
from trivium.feedback.rewards import RewardFunction
from trivium.preflight import check_judge, check_section, check_stage, watched
from trivium.progress import Progress
from trivium.recipe import load

# ---- trust before use --------------------------------------------------------------------------------------------


class Heard(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def start(finished: Path, folder: Path, **options: Any) -> tuple[list[str], str]:
    """What is said at the start of a stage that is stopped when it would sample; and the sentence that ended it."""
    heard, stopped = Heard(), ""
    rewards = {"liked": {"kind": "judge", "options": FAKE["rl.rewards"]["liked"]["options"] | options}}
    with (
        patch("tests.stages.tiny.Progress", lambda: heard),
        patch("trivium.stages.sampler.Sampler.sample", side_effect=UserError("sampling")),
    ):
        try:
            run(finished, folder, {"rl.rewards": rewards, "rl.watch.enabled": False})
        except UserError as error:
            stopped = str(error)
    return heard.notes, stopped


def audit(folder: Path, chance: bool, model: str = "longer", **kappas: float) -> str:
    asked = {how: {"kappa": {"estimate": low, "low": low, "high": low}} for how, low in kappas.items()}
    with build_judge(JudgeConfig(backend="fake", model=model)) as judge:
        about = {"name": judge.name, "identity": judge.identity}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "audit.json").write_text(json.dumps({"judge": about, "chance": chance, "asked": asked}))
    return str(folder / "audit.json")


def test_a_judge_nobody_has_measured_is_told(finished: Path, tmp_path: Path) -> None:
    (note,), stopped = start(finished, tmp_path)
    assert note.startswith("liked: nobody has measured the judge judge:longer; `trivium judge audit` or a stage")
    assert stopped == "sampling"


def test_the_audit_of_another_judge_is_told(finished: Path, tmp_path: Path) -> None:
    (note,), stopped = start(finished, tmp_path, audit=audit(tmp_path / "a", chance=True, model="someone"))
    assert "is of another one (judge:someone" in note and stopped == "sampling"


def test_a_good_audit_is_silent(finished: Path, tmp_path: Path) -> None:
    assert start(finished, tmp_path, audit=audit(tmp_path / "a", chance=False)) == ([], "sampling")
    assert start(finished, tmp_path / "b", audit=str(Path(audit(tmp_path / "c", chance=False)).parent))[0] == []


def test_a_judge_at_chance_is_refused_unless_told(finished: Path, tmp_path: Path) -> None:
    place = audit(tmp_path / "a", chance=True)
    notes, stopped = start(finished, tmp_path / "b", audit=place)
    assert notes == [] and "liked: the judge judge:longer is no better than chance" in stopped
    assert stopped.endswith("set options.trust to true")
    (note,), stopped = start(finished, tmp_path / "c", audit=place, trust=True)
    assert "no better than chance" in note and stopped == "sampling"


def test_a_judge_whose_scores_are_the_reward_is_measured_by_its_scores(finished: Path, tmp_path: Path) -> None:
    place = audit(tmp_path / "a", chance=True, compare=0.0, score=0.4)
    assert start(finished, tmp_path / "b", audit=place) == ([], "sampling")
    _, stopped = start(finished, tmp_path / "d", audit=audit(tmp_path / "c", chance=False, compare=0.4, score=0.0))
    assert "liked: the judge judge:longer is no better than chance" in stopped
    (note,), stopped = start(finished, tmp_path / "f", audit=audit(tmp_path / "e", chance=False, compare=0.4))
    assert "measured how the judge judge:longer compares" in note and stopped == "sampling"


@pytest.mark.parametrize("text", ["", "[]", '{"judge": {}}', '{"judge": 3, "chance": true}'])
def test_what_is_no_audit_is_one_sentence(finished: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "audit.json").write_text(text)
    _, stopped = start(finished, tmp_path / "b", audit=str(tmp_path / "audit.json"))
    assert stopped.startswith("liked: ") and "audit" in stopped and stopped != "sampling"


# ---- before anything is spent ------------------------------------------------------------------------------------


def judged_by(**options: Any) -> Overrides:
    return {"rl.rewards": {"liked": {"kind": "judge", "options": {"model": "sft", **options}}}}


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"rl.rewards": {"agreed": VOTE}, "rl.group_size": 2}, r"rl.group_size is 2.*at least 3 answers"),
        ({"rl.rewards": {"a": VOTE, "b": VOTE}}, "rewards.b is a second majority vote"),
        ({"rl.rewards": {"a": VOTE}, "rl.preset": "reinforce++"}, r"batch_zscore.*compare within groups"),
        (
            {"rl.rewards": {"a": {"kind": "majority", "options": {"share": 1}}}},
            "majority: there is no option 'share'",
        ),
        ({"rl.rewards": {"a": VOTE}, "rl.watch.enabled": True}, r"watch.samples is 1.*at least 3"),
        ({"rl.monitor": {"m": {"kind": "primer", "weight": 2.0}}}, "monitor.m.weight is 2.0"),
        (judged_by(modle="x"), "rewards.liked: judge: there is no option 'modle' .did you mean 'model'"),
        (judged_by(model="policy"), r"rewards.liked.options.model is policy, the model that learns"),
        (judged_by(tie_margin=0.2), "rewards.liked.options.tie_margin is set, but nothing here depends"),
        (judged_by(constitution="nowhere.yaml"), "rewards.liked.options.constitution"),
        (
            {"rl.watch.held_out": {"kind": "judge", "options": {}}, "rl.watch.enabled": True},
            "held_out: judge: model is missing",
        ),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, overrides: Overrides, sentence: str) -> None:
    recipe = load(str(write_recipe(tmp_path, overrides)))
    with pytest.raises(UserError, match=sentence):
        check_stage("rl", recipe.stages["rl"])


RANKINGS = RankingSourceConfig(source="rankings.jsonl")
VOTES, JUDGES = {"kind": "majority"}, {"kind": "judge", "options": {"model": "sft"}}


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"rl.rewards": {"a": VOTES, "b": JUDGES}, "rl.watch.held_out": JUDGES}, ""),
        ({"rl.monitor": {"m": VOTES}}, r"rl.monitor.m: a majority vote needs a group.*rl's rewards alone"),
        ({"rl.monitor": {"m": JUDGES}}, "rl.monitor.m: a judge scores only as a part"),
        ({"rl.watch.held_out": VOTES}, "held_out: a majority vote"),
        ({"rl.watch.gold": JUDGES}, "gold: a judge scores only"),
        ({"rl.rewards": {"b": {"kind": "judge", "options": {"audit": "no.json"}}}}, "no stage or file no.json"),
    ],
)
def test_where_votes_and_judges_may_stand(tmp_path: Path, overrides: Overrides, sentence: str) -> None:
    values = load(str(write_recipe(tmp_path))).stages["rl"].model_dump()
    for key, value in overrides.items():
        (values["watch"] if "watch" in key else values)[key.split(".")[-1]] = value
    config = RLConfig.model_validate(values)
    if not sentence:
        check_section("stages.rl", config, ["sft"])
        assert watched(config)
        return
    with pytest.raises(UserError, match=sentence):
        check_section("stages.rl", config, ["sft"])


def test_only_demonstrations_come_from_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is named like the stage is not looked at; prompts, which no stage makes, are not taken on trust."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "revise").mkdir()
    (tmp_path / "revise" / "notes.bin").write_text("no data")
    made, stages = [SourceConfig(source="revise")], ["revise", "lessons", "next"]
    check_section("stages.next", SFTConfig(data=made), stages)
    lost = [SourceConfig(source="lessons")]
    for config in (
        SFTConfig(data=made, validation=lost),
        RLConfig(prompts=lost, rewards={"right": VerifierConfig(kind="primer")}),
        PretrainConfig(data=lost),
    ):
        with pytest.raises(UserError, match="lessons is a stage, but only the data of"):
            check_section("stages.next", config, stages)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (LessonsConfig(rankings=[]), "next.rankings is empty"),
        (
            LessonsConfig(rankings=[RANKINGS], constitution="nowhere.yaml"),
            "next.constitution: there is no constitution",
        ),
        (RankConfig(prompts=[]), "next.prompts is empty"),
        (JudgeConfig(backend="openai", model="m", url="127.0.0.1:8000/v1"), "next.url.*is no address"),
        (JudgeConfig(backend="openai", model="m", url="https://me:word@h/v1"), "password.*written to logs"),
    ],
)
def test_what_could_not_run_is_told_at_the_start(config: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as told:
        check_judge(config, "next") if isinstance(config, JudgeConfig) else check_stage("next", config)
    assert "word" not in str(told.value).replace("password", "")


def test_a_share_that_is_not_used_limits_nothing() -> None:
    """With rankings to test with, no share of the prompts is held out for the test."""
    check_stage("next", RewardConfig(rankings=[RANKINGS], test=[RANKINGS], validation_share=0.85))
    with pytest.raises(UserError, match="leave no prompts"):
        check_stage("next", RewardConfig(rankings=[RANKINGS], validation_share=0.85))


def test_prompts_reach_a_judge_without_their_answers() -> None:
    seen = []

    class Sealed(Prompt):
        def __getattribute__(self, name: str) -> Any:
            assert name not in ("answer", "metadata")
            return super().__getattribute__(name)

    reward = RewardFunction({"liked": VerifierConfig.model_validate(FAKE["rl.rewards"]["liked"])})
    (judge,) = reward.parts.values()
    with patch.object(judge.judge, "score", lambda answers: seen.extend(answers) or []):  # type: ignore[union-attr]
        judge.verdicts([(Sealed("p", (Message("user", "q"),), answer="85"), _Text("r"))])
    assert seen[0].prompt == Prompt("p", (Message("user", "q"),)) and seen[0].text == "r"
    reward.close()


class _Text:
    finish_reason = "stop"

    def __init__(self, text: str) -> None:
        self.text = text
