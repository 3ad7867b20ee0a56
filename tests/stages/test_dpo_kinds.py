"""The dpo stage with its other losses and sources: labels, rewards, online; the KL by sampling, the kept reference."""

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.stages.test_dpo import ROUNDS, SETTINGS, assert_same_bits, iterated, pairs, rows, train
from tests.stages.test_dpo import offline as on_rankings
from tests.stages.test_resume import PATIENCE, kill_and_repeat
from tests.stages.test_reward_stage import WORLD, Cut, rankings
from tests.stages.tiny import metrics, two_processes, write_recipe

import trivium.stages.divergence as divergence
import trivium.stages.dpo as stage
import trivium.stages.lesson as lesson
from trivium.config import DPOConfig
from trivium.errors import UserError
from trivium.feedback.rankings.formats.native import write_rankings
from trivium.preflight import check_dpo, check_stage
from trivium.stages import run_stage
from trivium.stages.answers import Answers
from trivium.training.loop import Loop

pytestmark = pytest.mark.timeout(3 * PATIENCE)
KTO: dict[str, Any] = {"loss": "kto", "rankings": [], "kl_prompts": 3, "sampling": {"max_new_tokens": 6}}
ONLINE: dict[str, Any] = {
    "judge": None,
    "rewards": {"short": {"kind": "length", "options": {"target": 3}, "weight": 2.0}},
    "iterations": 8,
    "pairs": "all",
    "tasks": 6,
    "kl_prompts": 4,
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rankings") / "rankings.jsonl"
    write_rankings(path, rankings())
    return path


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short answers are good, three answers a prompt; prompts as text and as messages, labels in several spellings."""
    path, draw = tmp_path_factory.mktemp("labelled") / "labelled.jsonl", random.Random(3)
    with path.open("w") as file:
        for task in range(40):
            question = f"what is {task} + 1?"
            asked = question if task % 2 else [{"role": "user", "content": question}]
            for number in range(3):
                text = "a" * draw.randint(1, 9) + f" {task}"
                good = len(text) < 7
                label = [good, int(good), str(good)][number]
                file.write(json.dumps({"prompt": asked, "completion": text, "label": label}) + "\n")
    return path


def offline(finished: Path, source: Path, **changes: Any) -> DPOConfig:
    """The stage on rankings, or under ``KTO`` on labels."""
    more = {"labelled": [{"source": str(source)}], **KTO} if changes.get("loss") == "kto" else {}
    return on_rankings(finished, source, **{**more, **changes})


@pytest.fixture(scope="module")
def kto(finished: Path, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """kto on labels, without a break."""
    place = tmp_path_factory.mktemp("kto") / "dpo"
    return place, run_stage(offline(finished, labelled, loss="kto"), place, recipe=WORLD)


@pytest.fixture(scope="module")
def online(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A round a step, scored by a verifier, without a break."""
    place = tmp_path_factory.mktemp("online") / "dpo"
    return place, run_stage(iterated(finished, **ONLINE), place, recipe=WORLD)


# ---- losses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({"loss": "ipo"}, 25.0),  # (0 - 1 / (2 * 0.1)) squared
        pytest.param({"loss": "hinge"}, 1.0, marks=pytest.mark.slow),
        pytest.param({"loss": "apo_zero"}, 1.0, marks=pytest.mark.slow),  # s(0) + s(0)
        ({"loss": "plackett_luce", "beta": 0.5}, None),
        ({"loss": "simpo", "beta": 2.0}, None),
        ({"loss": "orpo", "beta": 5.0}, None),
        pytest.param({"loss": "sigmoid", "reference": "none"}, None, marks=pytest.mark.slow),
        pytest.param({"loss": "sigmoid", "ties": "davidson", "sft_weight": 0.2}, None, marks=pytest.mark.slow),
    ],
    ids=lambda value: str(value.get("loss")) if isinstance(value, dict) else "",
)
def test_each_loss_learns(
    finished: Path, source: Path, tmp_path: Path, changes: dict[str, Any], first: float | None
) -> None:
    """More pairs are the right way round than at the beginning, and the loss has fallen."""
    run_stage(offline(finished, source, steps=25, **changes), tmp_path / "dpo", recipe=WORLD)
    lines = train(tmp_path / "dpo")
    assert first is None or lines[0]["loss"] == pytest.approx(first, rel=1e-4)
    ends = [[sum(line[name] for line in part) / 5 for part in (lines[:5], lines[-5:])] for name in ("loss", "margin")]
    assert ends[0][1] < ends[0][0] and ends[1][1] > ends[1][0]
    compared = offline(finished, source, **changes).compared
    assert (tmp_path / "dpo/reference.json").is_file() == compared
    assert ("nll" in lines[0]) == (changes["loss"] == "orpo" or "sft_weight" in changes)


def test_kto_learns_from_labels(kto: tuple[Path, dict[str, Any]]) -> None:
    place, summary = kto
    assert summary["labelled"] == 120 and summary["tasks"] == 40 and summary["rankings"] == 0
    assert summary["preference_loss"] == "kto" and 80 < summary["labels"] <= 120
    lines = metrics(place)
    names = {"accuracy", "baseline", "margin", "chosen_reward", "rejected_reward", "chosen_length", "rejected_length"}
    assert all(names <= line.keys() for line in lines) and train(place)[0]["loss"] == pytest.approx(0.5, abs=1e-5)
    assert train(place)[0]["chosen_length"] < train(place)[0]["rejected_length"]


@pytest.mark.slow
def test_kto_learns_from_rankings_too(finished: Path, source: Path, labelled: Path, tmp_path: Path) -> None:
    changes = {"loss": "kto", "rankings": [{"source": str(source)}], "kl_prompts": 0, "sampling": {}}
    summary = run_stage(offline(finished, labelled, steps=25, **changes), tmp_path / "dpo", recipe=WORLD)
    assert summary["rankings"] == 80 and summary["tasks"] == 80 and summary["validation"]["accuracy"] > 0.6
    assert summary["validation"]["margin"] > 0


# ---- the KL by sampling, and the kept reference ---------------------------------------------------------------------


@pytest.mark.parametrize("lora", [None, {"rank": 4}], ids=["all weights", "adapters"])
def test_the_kl_is_that_to_where_the_stage_began(
    finished: Path, source: Path, tmp_path: Path, lora: dict[str, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0 before anything is learned, although answers are sampled, and more later. With adapters no copy is held."""
    if lora is not None:
        pytest.importorskip("peft")
        monkeypatch.setattr(divergence, "copy", None)  # whoever would hold a copy fails
    begin = Loop.__init__
    monkeypatch.setattr(
        Loop, "__init__", lambda loop, *given, **named: begin(loop, *given, **{**named, "validate_first": True})
    )
    changes = {"kl_prompts": 5, "sampling": {"max_new_tokens": 8}, "steps": 24, "evaluate_every": 8, "lora": lora}
    summary = run_stage(offline(finished, source, **changes), tmp_path / "dpo", recipe=WORLD)
    found = [line["kl"] for line in metrics(tmp_path / "dpo") if line["split"] == "validation"]
    assert len(found) == 4 and found[0] == pytest.approx(0.0, abs=1e-6) and found[3] > 0.005
    assert summary["memory"]["weights"] == 4 * summary["parameters"] * (2 if lora is None else 1)  # float32, the copy
    lengths = [line["response_length"] for line in metrics(tmp_path / "dpo") if line["split"] == "validation"]
    assert all(1 <= length <= 8 for length in lengths)


def test_a_resumed_stage_reads_the_reference_that_it_kept(
    finished: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, read = offline(finished, source), lesson.read_reference
    calls: list[int] = []
    monkeypatch.setattr(lesson, "read_reference", lambda *given: (calls.append(1), read(*given))[1])
    with monkeypatch.context() as patch:
        patch.setattr(stage, "save_result", lambda *_: (_ for _ in ()).throw(Cut))
        with pytest.raises(Cut):
            run_stage(config, tmp_path / "dpo", recipe=WORLD)
    run_stage(config, tmp_path / "dpo", recipe=WORLD)
    assert len(calls) == 1
    # of other answers, or of a file that is broken, it is read anew
    path = tmp_path / "dpo/reference.json"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    run_stage(config, tmp_path / "dpo", recipe=WORLD)
    assert len(calls) == 2 and path.read_text() == whole
    run_stage(config.model_copy(update={"validation_share": 0.4}), tmp_path / "dpo", recipe=WORLD)
    assert len(calls) == 3 and path.read_text() != whole


# ---- rounds by a reward ---------------------------------------------------------------------------------------------


def test_what_online_rounds_leave(online: tuple[Path, dict[str, Any]]) -> None:
    place, summary = online
    told = summary["iterations"]
    assert [row["iteration"] for row in told] == list(range(1, 9)) and all("usage" not in row for row in told)
    for row in told:
        found = pairs(place, row["iteration"])
        assert row["score"] == pytest.approx(2 * row["rewards"]["short"], abs=0.5) and 0 <= row["score"] <= 2
        assert row["pairs"] == sum(len(one.pairs) for one in found) and row["tasks"] == 6
        for one in found:
            assert (one.kind, one.annotator, one.metadata["rewards"]) == ("simulated", "reward:short", {"short": 2.0})
            scores = [response.metadata["score"] for response in one.responses]
            assert all(scores[i] > scores[j] for i, j in one.pairs) and all(
                scores[i] == pytest.approx(scores[j]) for i, j in one.ties
            )
    assert any(len(one.responses) == 3 for number in range(1, 9) for one in pairs(place, number))
    # each step is the first of a round: its reference is the policy as it is
    assert all(abs(line["margin"]) < 1e-5 for line in train(place))
    assert summary["generated"] == sum(row["generated"] for row in told) > 8 * 6 * 3
    assert summary["validation"]["kl"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_reward_is_learned_online(finished: Path, tmp_path: Path, seed: int) -> None:
    """The score rises over 40 updates of 120 prompts. Fewer prompts or larger steps drown in noise: the notebook."""
    more = {
        "steps": 40,
        "iterations": 40,
        "tasks": 120,
        "responses": 4,
        "batch_size": 120,
        "kl_prompts": 0,
        "beta": 0.3,
    }
    config = iterated(finished, **{**ONLINE, **more, "optimizer": {"lr": 1e-3, "weight_decay": 0.0}})
    run_stage(config, tmp_path / "dpo", recipe=WORLD.model_copy(update={"seed": seed}))
    scores = [row["score"] for row in rows(tmp_path / "dpo")]
    assert sum(scores[-5:]) / 5 > sum(scores[:5]) / 5 + 0.03


def test_a_budget_of_generated_tokens_ends_the_rounds(finished: Path, tmp_path: Path) -> None:
    config = iterated(finished, **{**ONLINE, "budget": {"generated": 200}})
    summary = run_stage(config, tmp_path / "dpo", recipe=WORLD)
    assert summary["steps"] == len(summary["iterations"]) < 8 and summary["generated"] >= 200
    assert "generated tokens was spent" in summary["stopped"]
    assert summary["generated"] - summary["iterations"][-1]["generated"] < 200


def test_after_an_early_end_the_monitors_say_something_of_the_prompts_that_come_next(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[int] = []
    asked = Answers.asked
    monkeypatch.setattr(Answers, "asked", lambda self, turn, *rest: turns.append(turn) or asked(self, turn, *rest))  # type: ignore[func-returns-value]
    monitor = {"m": {"kind": "length", "options": {"target": 3}}}
    changes = {"budget": {"generated": 200}, "kl_prompts": 0, "monitor": monitor}
    summary = run_stage(iterated(finished, **{**ONLINE, **changes}), tmp_path / "dpo", recipe=WORLD)
    assert turns == list(range(len(summary["iterations"]) + 1)) and summary["after"]["tasks"] > 0


def test_an_update_holds_each_prompt_once_where_there_are_few(
    finished: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    update = stage.update
    monkeypatch.setattr(stage, "update", lambda *given: seen.append(given[3]) or update(*given))  # type: ignore[func-returns-value]
    few = tmp_path / "few.jsonl"
    write_rankings(few, rankings()[:12])
    run_stage(offline(finished, few, batch_size=500, steps=2, validation_share=0), tmp_path / "dpo", recipe=WORLD)
    assert all(len(step) == len(set(step)) > 1 for step in seen) and sorted(seen[0]) == sorted(seen[1])


@pytest.mark.parametrize(
    "loss", ["kto", *(pytest.param(name, marks=pytest.mark.slow) for name in ("plackett_luce", "simpo"))]
)
def test_rounds_take_any_loss(finished: Path, tmp_path: Path, loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And are resumed within a round, with what the policy of its beginning said, under other prompts too."""
    values = {**ONLINE, "iterations": 2, "tasks": 10, "loss": loss, "kl_prompts": 0}
    whole = run_stage(iterated(finished, **values), tmp_path / "whole/dpo", recipe=WORLD)
    log = Loop._log

    def after_six(loop: Loop, step: int) -> None:
        log(loop, step)
        if step == 6:
            raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_log", after_six)
        with pytest.raises(Cut):
            run_stage(iterated(finished, **values), tmp_path / "cut/dpo", recipe=WORLD)
    again = run_stage(iterated(finished, **values), tmp_path / "cut/dpo", recipe=WORLD)
    for path in ("model/model.safetensors", "iterations/001.jsonl", "iterations/002.jsonl", "iterations.jsonl"):
        assert (tmp_path / "cut/dpo" / path).read_bytes() == (tmp_path / "whole/dpo" / path).read_bytes(), path
    assert metrics(tmp_path / "cut/dpo") == metrics(tmp_path / "whole/dpo")
    assert again["generated"] == whole["generated"]
    kept = pairs(tmp_path / "whole/dpo", 2)[0].metadata
    assert ("reference_log_probs" in kept) == (loss != "simpo") and ("mismatched_log_probs" in kept) == (loss == "kto")


# ---- killed, and shared by ranks ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kto", "online"])
def test_killed_at_a_random_point_the_command_ends_in_the_same_bits(
    finished: Path,
    labelled: Path,
    kto: tuple[Path, dict[str, Any]],
    online: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    kind: str,
) -> None:
    own = {**KTO, "labelled": [{"source": str(labelled)}]} if kind == "kto" else {**ROUNDS, **ONLINE}
    recipe = write_recipe(tmp_path, {"stages.dpo": SETTINGS | own | {"init": str(finished / "sft/model")}})
    arguments, place = ["dpo", str(recipe), "-d", str(tmp_path / "run"), "-q"], tmp_path / "run/dpo"
    kill_and_repeat(arguments, place, 6)
    assert_same_bits(place, kto[0] if kind == "kto" else online[0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kto", "online"])
def test_two_processes_give_the_numbers_of_one(
    finished: Path,
    labelled: Path,
    kto: tuple[Path, dict[str, Any]],
    online: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    kind: str,
) -> None:
    """The baseline, the reference, the KL by sampling and the reward, shared by two ranks."""
    two_processes(kind, str(finished), str(labelled), str(tmp_path), module="tests.stages.test_dpo_kinds")
    whole = kto[0] if kind == "kto" else online[0]
    for expected, found in zip(metrics(whole), metrics(tmp_path / "dpo"), strict=True):
        assert found == pytest.approx(expected, abs=2e-4)


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"loss": "ipo", "label_smoothing": 0.1}, "label_smoothing is for the loss sigmoid or robust, but dpo.loss is"),
        ({"target_margin": 1.0}, "target_margin is for the loss simpo"),
        ({"desirable_weight": 2.0}, "desirable_weight is for the loss kto"),
        ({"kto_baseline": "none"}, "kto_baseline is for the loss kto"),
        ({"labelled": [{"source": "x.jsonl"}]}, "labelled is for the loss kto"),
        ({"loss": "hinge", "ties": "soft"}, "ties is for the loss sigmoid or plackett_luce"),
        ({"loss": "plackett_luce", "ties": "davidson"}, "ties is davidson, which is for pairs"),
        ({"ties": "rao_kupper", "tie_parameter": 1.0}, "rao_kupper needs a theta above 1"),
        ({"tie_parameter": 2.0}, "tie_parameter is for rao_kupper and davidson, but dpo.ties is ignore"),
        ({"loss": "ipo", "preferences": "soft"}, "preferences is soft, but the loss ipo learns from tiers alone"),
        ({"loss": "simpo", "length_normalised": False}, "length_normalised is false, but simpo takes means"),
        ({"loss": "kto", "length_normalised": True}, "length_normalised is true, but kto measures"),
        ({"loss": "orpo", "reference": "start"}, "reference is start, but orpo knows no reference"),
        ({"loss": "kto", "reference": "none"}, "kto_baseline is a KL to the reference; set kto_baseline to none"),
        ({"kl_prompts": 3, "validation_share": 0}, "kl_prompts takes prompts that are held out"),
        ({"loss": "kto", "labelled": [{"source": "x.jsonl", "weight": 2.0}]}, "labelled.0.weight is 2.0"),
        ({"loss": "kto", "labelled": [{"source": "primer"}]}, "labelled.0: primer makes no labelled answers; name a"),
        ({"loss": "kto", "labelled": [{"source": "x.jsonl", "adapter": "e2e"}]}, "labelled.0: .* adapter e2e makes no"),
        (
            {"loss": "kto", "rankings": [], "labelled": [{"source": "x.jsonl"}], "rewards": {"a": {"kind": "primer"}}},
            "dpo.labelled and dpo.rewards are both set",
        ),
    ],
)
def test_keys_that_nothing_reads_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        check_dpo(on_rankings(Path("x"), Path("y.jsonl"), **changes), "dpo")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"optimizer": {"muon_lr": 0.5}}, "dpo.optimizer.muon_lr is for optimizer.name: muon, but that is adamw"),
        ({"optimizer": {"muon_momentum": 0.5}}, "dpo.optimizer.muon_momentum is for"),
        ({"schedule": {"decay": 0.7}}, "dpo.schedule.decay is for schedule.kind: wsd, but that is cosine"),
        (
            {"schedule": {"kind": "constant", "final": 0.7}},
            "dpo.schedule.final is 0.7, but a constant rate .*or at 0.1",
        ),
    ],
)
def test_keys_of_another_optimiser_or_schedule_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        check_stage("dpo", on_rankings(Path("x"), Path("y.jsonl"), **changes))


def test_a_budget_that_nothing_reaches_is_refused() -> None:
    with pytest.raises(UserError, match=r"budget.generated is 10, but the steps of this dpo stage generate nothing"):
        check_stage("dpo", on_rankings(Path("x"), Path("y.jsonl"), budget={"generated": 10}))


@pytest.mark.parametrize(
    ("rewards", "told"),
    [
        ({"a": {"kind": "environment"}}, "rewards.a is an environment's score, but the answers here have none|no env"),
        ({"a": {"kind": "majority"}}, "dpo.responses is 2, but dpo.rewards.a is a majority vote"),
        ({"a": {"kind": "judge", "options": {"nonsense": 1}}}, "dpo.rewards.a: judge: there is no option"),
    ],
)
def test_rewards_that_cannot_score_rounds_are_refused(rewards: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        check_dpo(iterated(Path("x"), judge=None, rewards=rewards, responses=2), "dpo")


def test_rows_without_a_label_or_a_second_prompt_are_told(finished: Path, tmp_path: Path) -> None:
    path, values = tmp_path / "rows.jsonl", {"loss": "kto", "kl_prompts": 0, "sampling": {}, "validation_share": 0}
    path.write_text('{"prompt": "a", "completion": "b", "good": 1}\n')
    with pytest.raises(UserError, match=r"rows.jsonl, line 1: no field for the label .* fields: \{label: prompt\}"):
        run_stage(offline(finished, path, **values), tmp_path / "dpo", recipe=WORLD)
    path.write_text('{"prompt": "a", "completion": "b", "label": null}\n')
    with pytest.raises(UserError, match="expected true or false in field 'label', found None: repair the row"):
        run_stage(offline(finished, path, **values), tmp_path / "dpo", recipe=WORLD)
    path.write_text('{"prompt": "a", "completion": "b", "label": "so so"}\n')
    with pytest.raises(UserError, match="expected true or false in field 'label', found 'so so'"):
        run_stage(offline(finished, path, **values), tmp_path / "dpo", recipe=WORLD)
    mapped = [{"source": str(path), "fields": {"prompt": "q", "completion": "says", "label": "thumb"}}]
    for prompts, share, left_out in (("ab", 0.5, "1 prompt is"), ("a", 0, "0 prompts are")):
        path.write_text("".join(f'{{"q": "{prompt}", "says": "b", "thumb": true}}\n' for prompt in prompts))
        config = offline(finished, path, **values | {"validation_share": share, "labelled": mapped})
        with pytest.raises(UserError, match=f"needs two different prompts .* there is one .{left_out} held out.; set"):
            run_stage(config, tmp_path / "dpo", recipe=WORLD)
    config = offline(finished, path, **values, labelled=mapped, kto_baseline="none", steps=1)
    assert run_stage(config, tmp_path / "dpo", recipe=WORLD)["labels"] == 1


if __name__ == "__main__":
    which, chain, file, folder = sys.argv[1:]
    chosen = offline(Path(chain), Path(file), loss="kto") if which == "kto" else iterated(Path(chain), **ONLINE)
    run_stage(chosen, Path(folder) / "dpo", recipe=WORLD)
    import torch.distributed

    torch.distributed.destroy_process_group()
