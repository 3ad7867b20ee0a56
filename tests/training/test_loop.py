"""The loop that all stages share, on a tiny decoder."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.generation.tiny import decoder_of
from tests.training.tiny import CPU, assert_equal_gradients, make_loop, sequences
from torch import Tensor

from trivium.config import OptimizerConfig, ScheduleConfig
from trivium.data.records import TokenSequence
from trivium.errors import UserError
from trivium.model.decoder import Decoder
from trivium.objectives.imitation import imitation_loss
from trivium.training import checkpoint
from trivium.training.loop import Loop
from trivium.training.optimizer import build_optimizers, schedule_factor
from trivium.training.scoring import log_probs_of, total_nats
from trivium.training.shares import own_micro_batches

DATA = sequences(8)
TOTAL = sum(sequence.loss_tokens for sequence in DATA)


def imitate(decoder: Decoder, data: list[TokenSequence] = DATA) -> Any:
    return lambda part: imitation_loss(log_probs_of(decoder, [data[item] for item in part], CPU), TOTAL)


def run(loop: Loop, losses: dict[int, float] | None = None, budget: int = 40) -> list[dict[str, float]]:
    """All steps on the same data; ``losses`` multiplies the loss of a step. Returns the metrics of each update."""
    results = []
    for step in loop.steps():
        plain = imitate(loop.decoder)
        factor = (losses or {}).get(step, 1.0)
        cut = own_micro_batches([len(sequence.tokens) for sequence in DATA], budget)
        results.append(loop.update(cut, lambda part: (plain(part)[0] * factor, {}), tokens=TOTAL))  # noqa: B023
    return results


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(decoder: Decoder) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in decoder.parameters()]


# ---- gradients -------------------------------------------------------------------------------------------------------


def imitation_gradients(cut: list[list[int]], data: list[TokenSequence], checkpointing: bool = False) -> list[Tensor]:
    decoder = decoder_of()
    decoder.gradient_checkpointing = checkpointing
    for part in cut:
        imitate(decoder, data)(part)[0].backward()
    return [parameter.grad for parameter in decoder.parameters() if parameter.grad is not None]


def test_gradients_do_not_depend_on_the_cut() -> None:
    """Micro-batches of 1, of 3 and all; any order; one of the sequences carries no loss at all."""
    expected = imitation_gradients([list(range(8))], DATA)
    assert DATA[1].loss_tokens == 0
    assert_equal_gradients(imitation_gradients([[item] for item in range(8)], DATA), expected)
    assert_equal_gradients(imitation_gradients([[0, 1, 2], [3, 4, 5], [6, 7]], DATA), expected)
    assert_equal_gradients(imitation_gradients([list(range(8))], DATA[::-1]), expected)
    assert_equal_gradients(imitation_gradients([list(range(8)), []], DATA), expected)


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    one = imitation_gradients([list(range(8))], DATA)
    for value, other in zip(one, imitation_gradients([list(range(8))], DATA, checkpointing=True), strict=True):
        assert torch.equal(value, other)


def test_a_micro_batch_without_loss_tokens_gives_zero() -> None:
    assert all((value == 0).all() for value in imitation_gradients([[1], []], DATA))


def test_nats_do_not_depend_on_the_cut() -> None:
    decoder = decoder_of()
    with torch.no_grad():
        found = [total_nats(decoder, DATA, budget, CPU) for budget in (1, 30, 10**6)]
        assert found[0] == pytest.approx(-log_probs_of(decoder, DATA, CPU).sum().item(), rel=1e-6)
    assert found == pytest.approx([found[0]] * 3, rel=1e-6)


# ---- updates ---------------------------------------------------------------------------------------------------------


def test_the_loss_falls_and_is_logged(tmp_path: Path) -> None:
    results = run(make_loop(tmp_path, decoder_of(), steps=8, optimizer={"lr": 0.02}))
    assert results[-1]["loss"] < results[0]["loss"] - 0.1
    logged = lines(tmp_path)
    assert [line["loss"] for line in logged] == [result["loss"] for result in results]
    assert [line["tokens"] for line in logged] == [TOTAL * step for step in range(1, 9)]


@pytest.mark.parametrize("setting", [{"gradient_checkpointing": True}, {"micro_batch_tokens": 1}])
def test_settings_that_must_not_change_the_result(tmp_path: Path, setting: dict[str, Any]) -> None:
    plain = run(make_loop(tmp_path / "plain", decoder_of()))
    other = run(make_loop(tmp_path / "other", decoder_of(), **setting), budget=setting.get("micro_batch_tokens", 40))
    assert [result["loss"] for result in other] == pytest.approx([result["loss"] for result in plain], abs=1e-5)


def test_bfloat16_keeps_weights_and_moments_in_float32(tmp_path: Path) -> None:
    exact = run(make_loop(tmp_path / "exact", decoder_of(), steps=6))
    decoder = decoder_of()
    loop = make_loop(tmp_path / "rough", decoder, steps=6, precision="bfloat16")
    rough = run(loop)
    assert [result["loss"] for result in rough] == pytest.approx([result["loss"] for result in exact], abs=0.05)
    assert rough[0]["loss"] != exact[0]["loss"]
    assert {parameter.dtype for parameter in decoder.parameters()} == {torch.float32}
    assert {value.dtype for value in checkpoint.optimizer_tensors(decoder, loop.optimizers).values()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_compiled_blocks_give_the_same_losses(tmp_path: Path) -> None:
    plain = run(make_loop(tmp_path / "plain", decoder_of()))
    compiled = run(make_loop(tmp_path / "compiled", decoder_of(), compile=True))
    assert [result["loss"] for result in compiled] == pytest.approx([result["loss"] for result in plain], abs=1e-4)


def test_clipping_bounds_the_step_and_reports_the_norm_before(tmp_path: Path) -> None:
    norms = [run(make_loop(tmp_path / str(clip), decoder_of(), steps=1, clip=clip))[0] for clip in (0.0, 0.01)]
    assert norms[0]["gradient_norm"] == norms[1]["gradient_norm"] > 0.1
    seen = []
    loop = make_loop(tmp_path / "seen", decoder_of(), steps=1, clip=0.01)
    loop.optimizers[0].register_step_pre_hook(
        lambda optimizer, *_: seen.append([p.grad.norm() for group in optimizer.param_groups for p in group["params"]])
    )
    run(loop)
    assert torch.stack(seen[-1]).norm().item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_step_is_skipped_and_counted(tmp_path: Path, bad: float) -> None:
    """Weights and moments are those of a run in which the step's update did not happen."""
    decoder = decoder_of()
    before = weights(decoder)
    loop = make_loop(tmp_path, decoder, steps=3)
    seen: list[list[Tensor]] = []
    for step in loop.steps():
        factor = bad if step == 1 else 1.0
        loop.update([[0]], lambda part: (imitate(decoder)(part)[0] * factor, {}), tokens=1)  # noqa: B023
        seen.append(weights(decoder))
    assert not all(map(torch.equal, before, seen[0]))
    assert all(map(torch.equal, seen[0], seen[1]))
    assert not all(map(torch.equal, seen[1], seen[2]))
    logged = lines(tmp_path)
    assert [line["skipped"] for line in logged] == [0, 1, 1]
    assert logged[1]["loss"] is None and logged[1]["gradient_norm"] is None  # JSON has no NaN
    assert loop.summary("loss", {})["skipped"] == 1
    loop.last["train"] = {"loss": bad}  # as where the last step was such a one
    assert loop.summary("loss", {})["metric"]["value"] is None is loop.summary("loss", {})["train"]["loss"]


def test_too_many_non_finite_steps_in_a_row_end_the_run(tmp_path: Path) -> None:
    loop = make_loop(tmp_path / "mixed", decoder_of(), steps=6, max_nonfinite=3)
    run(loop, {1: math.nan, 2: math.nan, 4: math.nan, 5: math.nan})
    assert loop.skipped == 4
    with pytest.raises(UserError, match=r"3 updates in a row .* not finite"):
        run(make_loop(tmp_path / "bad", decoder_of(), steps=6, max_nonfinite=3), dict.fromkeys((1, 2, 3), math.nan))


def test_a_stage_that_learned_nothing_does_not_finish(tmp_path: Path) -> None:
    """Fewer steps than ``max_nonfinite``, none of which has a finite gradient."""
    with pytest.raises(UserError, match="none of its 2 updates had a finite gradient"):
        run(make_loop(tmp_path, decoder_of(), steps=2, max_nonfinite=5), dict.fromkeys((0, 1), math.nan))


def test_skipped_steps_in_a_row_are_counted_across_a_resume(tmp_path: Path) -> None:
    """A checkpoint is whole even if no update has happened yet."""
    bad = dict.fromkeys(range(6), math.nan)
    loop = make_loop(tmp_path, decoder_of(), steps=6, max_nonfinite=4, checkpoint_every=2)
    with pytest.raises(UserError, match="update 4"):
        run(loop, bad)
    again = make_loop(tmp_path, decoder_of(), steps=6, max_nonfinite=4, checkpoint_every=2)
    with pytest.raises(UserError, match=r"4 updates in a row .*update 4"):
        run(again, bad)


# ---- logging, validation, checkpoints --------------------------------------------------------------------------------


def test_a_line_is_the_mean_of_its_window(tmp_path: Path) -> None:
    results = run(make_loop(tmp_path, decoder_of(), steps=5, log_every=2))
    logged = lines(tmp_path)
    assert [line["step"] for line in logged] == [2, 4, 5]
    assert logged[0]["loss"] == pytest.approx((results[0]["loss"] + results[1]["loss"]) / 2)
    assert logged[2]["loss"] == results[4]["loss"]
    assert set(logged[0]["timing"]) == {"seconds", "tokens_per_second"}


@pytest.mark.parametrize(("every", "steps"), [(2, [2, 4, 5]), (0, [5]), (9, [5])])
def test_validation_comes_when_due_and_at_the_end(tmp_path: Path, every: int, steps: list[int]) -> None:
    decoder = decoder_of()
    modes: list[tuple[bool, bool]] = []

    def validate() -> dict[str, float]:
        modes.append((decoder.training, torch.is_grad_enabled()))
        return {"loss": 1.5}

    loop = make_loop(tmp_path, decoder, steps=5, evaluate_every=every, validate=validate)
    for _ in loop.steps():
        assert decoder.training
    found = [line for line in lines(tmp_path) if line["split"] == "validation"]
    assert [line["step"] for line in found] == steps and modes == [(False, False)] * len(steps)
    assert loop.summary("loss", {"more": 2})["metric"] == {"name": "loss", "value": 1.5, "better": "lower"}


@pytest.mark.parametrize(("every", "keep", "found"), [(2, 1, [7]), (2, 3, [4, 6, 7]), (0, 5, [7]), (3, 2, [6, 7])])
def test_only_the_newest_checkpoints_are_kept(tmp_path: Path, every: int, keep: int, found: list[int]) -> None:
    run(make_loop(tmp_path, decoder_of(), steps=7, checkpoint_every=every, keep_checkpoints=keep))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [f"step-{step:08d}" for step in found]


def test_a_loop_goes_on_where_the_newest_whole_checkpoint_stands(tmp_path: Path) -> None:
    """What a crash leaves half written is not taken for a checkpoint, and later lines of the metrics are cut off."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    options: dict[str, Any] = {"steps": 6, "checkpoint_every": 2, "log_every": 3, "optimizer": {"name": "muon"}}
    loop = make_loop(cut, decoder_of(), **options)
    for step in loop.steps():
        loop.update([[0]], imitate(loop.decoder), tokens=TOTAL)
        if step == 4:
            break
    uncut = make_loop(whole, decoder_of(), **options)
    for _ in uncut.steps():
        uncut.update([[0]], imitate(uncut.decoder), tokens=TOTAL)
    (cut / "checkpoints/.step-00000006.partial").mkdir()
    (cut / "checkpoints/step-rubbish").mkdir()
    (cut / "metrics.jsonl").open("a").write('{"step": 5, "half a li')
    again = make_loop(cut, decoder_of(seed=9), **options)
    steps = []
    for step in again.steps():
        steps.append(step)
        again.update([[0]], imitate(again.decoder), tokens=TOTAL)
    assert steps == [4, 5]
    name = "checkpoints/step-00000006/tensors.safetensors"
    assert (cut / name).read_bytes() == (whole / name).read_bytes()
    strip = [{**line, "timing": None} for line in lines(cut)]
    assert strip == [{**line, "timing": None} for line in lines(whole)]


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path) -> None:
    run(make_loop(tmp_path, decoder_of("plain"), steps=2))
    for kind in ("grouped-query", "tied"):
        with pytest.raises(UserError, match=r"another model or optimiser.*new run directory"):
            run(make_loop(tmp_path, decoder_of(kind), steps=4))
    with pytest.raises(UserError, match="another model or optimiser"):
        run(make_loop(tmp_path, decoder_of("plain"), steps=4, optimizer={"name": "muon"}))


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("I/O error: No space left on device (os error 28)")]
)
def test_a_full_disk_is_one_sentence_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    run(make_loop(tmp_path, decoder_of(), steps=2))
    earlier = (tmp_path / "checkpoints/step-00000002/tensors.safetensors").read_bytes()

    def full(_: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        with pytest.raises(UserError, match=r"the disk is full.*again"):
            run(make_loop(tmp_path, decoder_of(), steps=4))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]
    assert (tmp_path / "checkpoints/step-00000002/tensors.safetensors").read_bytes() == earlier
    run(make_loop(tmp_path, decoder_of(), steps=4))
    assert checkpoint.latest_step(tmp_path / "checkpoints") == 4


def test_checkpoints_hold_no_pickle(tmp_path: Path) -> None:
    reference = copy.deepcopy(decoder_of())
    run(make_loop(tmp_path, decoder_of(), steps=2, reference=reference))
    names = {path.name for path in (tmp_path / "checkpoints/step-00000002").iterdir()}
    assert names == {"tensors.safetensors", "state.json"}


# ---- optimiser and schedule ------------------------------------------------------------------------------------------


def test_decay_touches_matrices_alone() -> None:
    decoder = decoder_of()
    (optimizer,) = build_optimizers(decoder, OptimizerConfig(weight_decay=0.3))
    names = {id(parameter): name for name, parameter in decoder.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.3 if parameter.ndim == 2 else 0.0), names[id(parameter)]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest() -> None:
    """Embedding and head are matrices too, but tables of vectors: orthogonalising them makes no sense."""
    decoder = decoder_of("plain")
    muon, adamw = build_optimizers(decoder, OptimizerConfig(name="muon", muon_lr=0.05, lr=0.01))
    names = {id(parameter): name for name, parameter in decoder.named_parameters()}
    by_muon = {names[id(parameter)] for group in muon.param_groups for parameter in group["params"]}
    by_adamw = {names[id(parameter)] for group in adamw.param_groups for parameter in group["params"]}
    assert by_muon == {name for name, value in decoder.named_parameters() if value.ndim == 2 and "blocks." in name}
    assert by_muon | by_adamw == set(names.values()) and not by_muon & by_adamw
    assert {"embedding.weight", "head.weight"} <= by_adamw
    assert muon.param_groups[0]["peak_lr"] == 0.05 and adamw.param_groups[0]["peak_lr"] == 0.01


def test_learning_rates_of_both_optimizers_follow_the_schedule(tmp_path: Path) -> None:
    schedule = {"kind": "linear", "warmup": 1, "final": 0.0}
    loop = make_loop(tmp_path, decoder_of(), steps=3, optimizer={"name": "muon", "lr": 0.01}, schedule=schedule)
    results = run(loop)
    assert [result["learning_rate"] for result in results] == pytest.approx([0.005, 0.01, 0.0])
    assert loop.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0)


def factors(**schedule: Any) -> list[float]:
    return [schedule_factor(step, 11, ScheduleConfig(**schedule)) for step in range(11)]


def test_schedule_shapes() -> None:
    assert factors(kind="constant", warmup=4) == pytest.approx([0.2, 0.4, 0.6, 0.8] + [1.0] * 7)
    assert factors(kind="linear", warmup=0, final=0.0) == pytest.approx([1 - step / 10 for step in range(11)])
    cosine = [0.1 + 0.9 * (1 + math.cos(math.pi * step / 10)) / 2 for step in range(11)]
    assert factors(kind="cosine", warmup=0, final=0.1) == pytest.approx(cosine)
    stable = factors(kind="wsd", warmup=0, final=0.0, decay=0.5)
    assert stable == pytest.approx([1.0] * 6 + [0.8, 0.6, 0.4, 0.2, 0.0])


@pytest.mark.parametrize("kind", ["constant", "cosine", "linear", "wsd"])
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("warmup", [0, 1, 7, 50])
def test_a_schedule_of_any_length_stays_within_its_bounds(kind: Any, steps: int, warmup: int) -> None:
    config = ScheduleConfig(kind=kind, warmup=warmup, final=0.1)
    values = [schedule_factor(step, steps, config) for step in range(steps)]
    assert all(0 < value <= 1 for value in values)
    if kind != "constant" and 0 < warmup < steps - 1:
        assert values[warmup] == 1.0 and values[-1] == pytest.approx(0.1)


def test_every_rank_gets_as_many_micro_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank with fewer would leave the others waiting; together they hold every item once."""
    monkeypatch.setenv("WORLD_SIZE", "3")
    for sizes in ([5, 9, 1, 1, 30, 2, 8], [4], []):
        shares = []
        for rank in range(3):
            monkeypatch.setenv("RANK", str(rank))
            shares.append(own_micro_batches(sizes, 10))
        assert len({len(share) for share in shares}) == 1 and shares[0] != []
        assert sorted(item for share in shares for part in share for item in part) == list(range(len(sizes)))
