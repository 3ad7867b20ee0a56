"""Stages that learn adapters: the model beneath stays as it is, a cut changes nothing, and peft opens what is left."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.stages.ppo import QUICK, learned
from tests.stages.test_resume import PATIENCE, assert_same_bits, command, kill_after, metrics, start_command
from tests.stages.test_reward_stage import SETTINGS, WORLD, rankings
from tests.stages.tiny import link_models, run_stage, two_processes
from tests.stages.worker import cut_stage

import trivium.stages.rl
import trivium.stages.sft
from trivium.config import DPOConfig, RewardConfig
from trivium.errors import UserError
from trivium.feedback.rankings.formats.native import write_rankings
from trivium.feedback.reward_model import RewardModel
from trivium.model.decoder import Decoder
from trivium.model.huggingface import load_model
from trivium.preflight import check_stage
from trivium.recipe import load
from trivium.stages import run_stage as run_one
from trivium.training.loop import Loop

pytestmark = pytest.mark.timeout(3 * PATIENCE)
LORA: dict[str, Any] = {"rank": 4, "alpha": 8}
SETTING: dict[str, dict[str, Any]] = {
    "sft": {"sft.lora": LORA, "sft.optimizer": {"lr": 1e-2}},
    "rl": {"rl.lora": LORA, "rl.reference": "frozen", "rl.log_every": 1},
}
REWARD_CONFIG = {key: value for key, value in SETTINGS.items() if key != "heads"}


@pytest.fixture
def decoders(monkeypatch: pytest.MonkeyPatch) -> list[Decoder]:
    """The decoders of the loops of this process."""
    made: list[Decoder] = []
    begin: Callable[..., None] = Loop.__init__

    def note(loop: Loop, directory: Path, decoder: Decoder, *given: Any, **more: Any) -> None:
        made.append(decoder)
        begin(loop, directory, decoder, *given, **more)

    monkeypatch.setattr(Loop, "__init__", note)
    return made


@pytest.fixture(scope="module")
def done(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders in which a stage ran with adapters and without a break; ``STAGE.json``: its summary."""
    made = {}
    for stage, settings in SETTING.items():
        made[stage] = folder = link_models(finished, tmp_path_factory.mktemp(stage), stage)
        (folder / f"{stage}.json").write_text(json.dumps(run_stage(folder, stage, settings)))
    return made


def before(folder: Path, stage: str) -> Path:
    """The model that ``stage`` began with."""
    return folder / {"sft": "pretrain", "rl": "sft"}[stage] / "model"


def sums(base: Path, adapter: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """W + alpha / rank B A by hand, of every tensor of ``base``."""
    told = json.loads((adapter / "adapter_config.json").read_text())
    parts = load_file(adapter / "adapter_model.safetensors")
    for name, value in load_file(base / "model.safetensors").items():
        module = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{module}.lora_A.weight" in parts:
            product = parts[f"{module}.lora_B.weight"] @ parts[f"{module}.lora_A.weight"]
            assert product.abs().max() > 0
            value = value + told["lora_alpha"] / told["r"] * product
        yield name, value


@pytest.mark.parametrize("stage", SETTING)
def test_the_model_beneath_keeps_its_bits(finished: Path, tmp_path: Path, stage: str, decoders: list[Decoder]) -> None:
    folder = link_models(finished, tmp_path, stage)
    run_stage(folder, stage, SETTING[stage])
    (decoder,) = decoders
    expected = dict(load_model(before(folder, stage)).named_parameters())
    frozen = {n: value for n, value in decoder.named_parameters() if ".lora_" not in n}
    assert len(frozen) == len(expected) and not any(value.requires_grad for value in frozen.values())
    for name, value in frozen.items():
        assert value.data.numpy().tobytes() == expected[name.replace(".base_layer", "")].data.numpy().tobytes(), name


@pytest.mark.parametrize("stage", SETTING)
def test_the_model_is_what_was_before_and_the_adapter_together(done: dict[str, Path], stage: str) -> None:
    folder = done[stage]
    model = load_file(folder / stage / "model/model.safetensors")
    for name, value in sums(before(folder, stage), folder / stage / "adapter"):
        torch.testing.assert_close(model[name], value, atol=1e-6, rtol=0, msg=name)


@pytest.mark.parametrize("stage", SETTING)
def test_peft_opens_the_adapter_of_a_stage(done: dict[str, Path], stage: str) -> None:
    """The directory names the model it is for, and the two together are STAGE/model."""
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    opened = peft.AutoPeftModelForCausalLM.from_pretrained(done[stage] / stage / "adapter", dtype=torch.float32)
    merged = transformers.AutoModelForCausalLM.from_pretrained(done[stage] / stage / "model", dtype=torch.float32)
    tokens = torch.arange(4, 40)[None]
    with torch.no_grad():
        torch.testing.assert_close(opened(tokens).logits, merged(tokens).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("stage", SETTING)
def test_the_summary_tells_what_learns_and_what_it_takes(done: dict[str, Path], finished: Path, stage: str) -> None:
    """By hand: a matrix (out, in) gets 4 (out + in) numbers. q, o 32x32; k, v 16x32; gate, up (m, 32), down (32, m)."""
    numbers = json.loads((done[stage] / f"{stage}.json").read_text())
    mlp = load_model(finished / "sft/model").config.mlp_size
    trainable = 2 * 4 * (2 * 64 + 2 * 48 + 3 * (mlp + 32))
    whole = sum(value.numel() for value in load_file(finished / "sft/model/model.safetensors").values())
    assert numbers["trainable"] == trainable and numbers["parameters"] == whole + trainable
    memory = numbers["memory"]
    assert memory["weights"] == 4 * (whole + trainable)  # of rl too: no second copy as a reference
    assert memory["gradients"] == 4 * trainable
    steps = 4 * 2 * 7 * 2  # two moments of each number, and a count of steps for each matrix
    assert memory["optimizer"] == 8 * trainable + steps


@pytest.mark.parametrize("stage", SETTING)
def test_checkpoints_hold_what_learns_and_no_more(done: dict[str, Path], stage: str) -> None:
    saved = load_file(next((done[stage] / stage / "checkpoints").glob("*/tensors.safetensors")))
    assert all(".lora_" in name for name in saved)
    assert len(saved) == 2 * 7 * 2 * 4  # A and B, each with two moments and a count


def test_the_reference_is_the_policy_that_was_passed_in(done: dict[str, Path], finished: Path, tmp_path: Path) -> None:
    """The KL to the adapters switched off is that to a copy: as if the reference were held beside."""
    lines = [line for line in metrics(done["rl"] / "rl") if line["split"] == "train"]
    assert abs(lines[0]["kl"]) < 1e-10 and lines[-1]["kl"] > 1e-4

    def copied(policy: Decoder, config: Any) -> Decoder:
        return load_model(before(folder, "rl")).requires_grad_(False).eval()

    folder = link_models(finished, tmp_path, "rl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trivium.stages.rl, "reference_of", copied)
        run_stage(folder, "rl", SETTING["rl"])
    beside = [line for line in metrics(folder / "rl") if line["split"] == "train"]
    assert [line["kl"] for line in beside] == [line["kl"] for line in lines]
    assert [line["loss"] for line in beside] == [line["loss"] for line in lines]


@pytest.mark.parametrize("stage", SETTING)
def test_cut_and_resumed_it_ends_in_the_same_bits(
    done: dict[str, Path], finished: Path, tmp_path: Path, stage: str
) -> None:
    folder = link_models(finished, tmp_path, stage)
    cut_stage(folder, stage, SETTING[stage])
    assert not (folder / stage / "model").exists() and not (folder / stage / "adapter").exists()
    run_stage(folder, stage, SETTING[stage])
    assert_same_bits(folder / stage, done[stage] / stage)
    adapter = "adapter/adapter_model.safetensors"
    assert (folder / stage / adapter).read_bytes() == (done[stage] / stage / adapter).read_bytes()


@pytest.mark.slow
def test_killed_it_ends_in_the_same_bits(done: dict[str, Path], finished: Path, tmp_path: Path) -> None:
    run, arguments = command(finished, tmp_path, "rl")
    arguments += ["rl.lora.rank=4", "rl.lora.alpha=8", "rl.reference=frozen", "rl.log_every=1"]
    process = start_command(*arguments)
    kill_after(process, 4, run / "rl/metrics.jsonl")
    again = start_command(*arguments)
    output = again.communicate(timeout=PATIENCE)[0]
    assert again.returncode == 0, output
    assert_same_bits(run / "rl", done["rl"] / "rl")


@pytest.mark.slow
def test_two_processes_give_what_one_gives_and_either_resumes(
    done: dict[str, Path], finished: Path, tmp_path: Path
) -> None:
    """sft is cut by two and finished by two; rl is begun by one, goes on with two, which are cut, and ends with one."""
    folders, given = {}, {}
    for stage, settings in SETTING.items():
        folders[stage] = link_models(finished, tmp_path / f"at-{stage}", stage)
        given[stage] = tmp_path / f"{stage}.json"
        given[stage].write_text(json.dumps(settings))
    sft, rl = str(folders["sft"]), str(folders["rl"])
    two_processes("sft", sft, f"cut:{given['sft']}", "sft", sft, str(given["sft"]), "rl", rl, f"cut:{given['rl']}")
    run_stage(folders["rl"], "rl", SETTING["rl"])
    for stage, folder in folders.items():
        for one, two in zip(metrics(done[stage] / stage), metrics(folder / stage), strict=True):
            assert two == pytest.approx(one, abs=1e-5), stage
        for file in ("model/model.safetensors", "adapter/adapter_model.safetensors"):
            expected, found = load_file(done[stage] / stage / file), load_file(folder / stage / file)
            assert expected.keys() == found.keys()
            for name, value in expected.items():
                torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5, msg=f"{stage} {name}")


def test_the_best_weights_keep_their_own_adapter(finished: Path, judges: dict[str, str], tmp_path: Path) -> None:
    """A watched stage leaves the model of its best step, and the adapter is that model's."""
    folder = link_models(finished, tmp_path, "rl")
    numbers = run_stage(folder, "rl", learned(judges) | SETTING["rl"] | {"rl.evaluate_every": 2})
    assert numbers["kept_step"] is not None
    model = load_file(folder / "rl/model/model.safetensors")
    if numbers["kept_step"] == 0:  # B is zero then, and no product is
        assert not any(
            value.any()
            for name, value in load_file(folder / "rl/adapter/adapter_model.safetensors").items()
            if ".lora_B." in name
        )
        return
    for name, value in sums(before(folder, "rl"), folder / "rl/adapter"):
        torch.testing.assert_close(model[name], value, atol=1e-6, rtol=0, msg=name)
    assert not (folder / "rl/best").exists()


def test_the_critic_of_ppo_learns_as_a_whole(finished: Path, tmp_path: Path) -> None:
    folder = link_models(finished, tmp_path, "rl")
    numbers = run_stage(folder, "rl", QUICK | {"rl.lora": LORA, "rl.checkpoint_every": 1})
    saved = load_file(max((folder / "rl/checkpoints").glob("*/tensors.safetensors")))
    own = {name for name in saved if name.startswith("model.")}
    critic = {name.removeprefix("critic.model.") for name in saved if name.startswith("critic.model.")}
    whole = {name for name, _ in load_model(finished / "sft/model").named_parameters() if not name.startswith("head.")}
    assert own and all(".lora_" in name for name in own)
    assert critic == whole | {"score.weight"}
    assert numbers["memory"]["gradients"] > 4 * numbers["trainable"]


# ---- rankings -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rankings") / "rankings.jsonl"
    write_rankings(path, rankings())
    return path


def test_a_reward_model_of_adapters_opens_in_peft_and_scores_alike(
    finished: Path, source: Path, tmp_path: Path, decoders: list[Decoder]
) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    init = finished / "sft/model"
    values = SETTINGS | {"init": str(init), "rankings": [{"source": str(source)}], "steps": 40, "lora": LORA}
    numbers = run_one(RewardConfig(**values), tmp_path / "reward", recipe=WORLD)
    matrices = numbers["trainable"] - 2 * 32  # the two heads learn beside the adapters
    assert matrices == sum(v.numel() for n, v in decoders[0].named_parameters() if ".lora_" in n)
    assert numbers["metric"]["value"] > 0.7  # shorter is better, which is easy to learn
    expected = dict(load_model(init).named_parameters())
    body = {n.replace(".base_layer", ""): v for n, v in decoders[0].named_parameters() if ".lora_" not in n}
    frozen = {name: value for name, value in body.items() if name != "score.weight"}
    assert frozen.keys() == {name for name in expected if not name.startswith("head.")}
    assert all(torch.equal(value, expected[name]) for name, value in frozen.items())
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(init, num_labels=2, dtype=torch.float32)
    opened = peft.PeftModel.from_pretrained(theirs, tmp_path / "reward/adapter")
    model = RewardModel.load(tmp_path / "reward/model")
    item = (rankings()[0].prompt.messages, "a short one", True)
    (tokens,) = model.tokens([item])
    with torch.no_grad():
        scores = opened(torch.tensor([tokens])).logits
    torch.testing.assert_close(scores, model.score([item]), atol=1e-5, rtol=0)


def test_dpo_learns_adapters_from_pairs(finished: Path, source: Path, tmp_path: Path, decoders: list[Decoder]) -> None:
    """Its reference is the model beneath: the first loss is ln 2, since both are the same function to the bit."""
    init = finished / "sft/model"
    settings = {key: value for key, value in SETTINGS.items() if key not in ("heads", "test_share")}
    values = settings | {"init": str(init), "rankings": [{"source": str(source)}], "steps": 20, "lora": LORA}
    numbers = run_one(DPOConfig(**values), tmp_path / "dpo", recipe=WORLD)
    losses = [line["loss"] for line in metrics(tmp_path / "dpo") if line["split"] == "train"]
    assert losses[0] == pytest.approx(0.693147, abs=1e-6) and losses[-1] < 0.69
    assert numbers["trainable"] < numbers["parameters"] / 5
    model = load_file(tmp_path / "dpo/model/model.safetensors")
    for name, value in sums(init, tmp_path / "dpo/adapter"):
        torch.testing.assert_close(model[name], value, atol=1e-6, rtol=0, msg=name)


# ---- what is refused, and what is left over -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"lora": {"targets": []}}, "name at least one matrix"),
        ({"lora": {"targets": ["q", "q"]}}, "each once"),
        ({"lora": {}, "reference": "moving"}, "set the reference to frozen or none"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_spent(settings: dict[str, Any], sentence: str) -> None:
    recipe = load("primer", {f"rl.{key}": value for key, value in settings.items()})
    with pytest.raises(UserError, match=sentence):
        check_stage("rl", recipe.stages["rl"])


def test_without_peft_the_recipe_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trivium.preflight.adapters.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"sft.lora needs the package peft: pip install 'trivium\[lora\]'"):
        check_stage("sft", load("primer", {"sft.lora.rank": 4}).stages["sft"])


def test_a_stage_that_runs_again_without_adapters_leaves_none(finished: Path, tmp_path: Path) -> None:
    folder = link_models(finished, tmp_path, "sft")
    short = {"sft.steps": 1, "sft.checkpoint_every": 0, "sft.evaluate_every": 0}
    run_stage(folder, "sft", SETTING["sft"] | short)
    assert (folder / "sft/adapter/adapter_config.json").is_file()
    for path in (folder / "sft/checkpoints").glob("*/*"):
        path.unlink()
    for path in (folder / "sft/checkpoints").glob("*"):
        path.rmdir()
    run_stage(folder, "sft", short)
    assert not (folder / "sft/adapter").exists()
