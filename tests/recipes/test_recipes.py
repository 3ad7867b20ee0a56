"""Every shipped recipe runs whole, with a few steps of each stage, on the data it is made for."""

import json
from pathlib import Path

import pytest
import torch

import trivium

TINY = {
    "pretrain.steps": 2,
    "pretrain.batch_tokens": 1024,
    "pretrain.model.size": "nano",
    "sft.steps": 2,
    "sft.batch_size": 4,
    "rl.steps": 2,
    "rl.prompts_per_step": 2,
    "rl.group_size": 4,
    "rl.sampling.max_new_tokens": 12,
    "rank.tasks": 40,
    "rank.sampling.max_new_tokens": 12,
    "reward.steps": 2,
    "reward.batch_size": 4,
    "reward_held_out.steps": 2,
    "reward_held_out.batch_size": 4,
    "dpo.steps": 2,
    "dpo.batch_size": 4,
    "dpo.kl_prompts": 2,
    "dpo.validation_share": 0.3,
    "dpo.sampling.max_new_tokens": 12,
    "ppo.steps": 2,
    "ppo.prompts_per_step": 4,
    "ppo.validation.0.limit": 4,
    "ppo.sampling.max_new_tokens": 12,
    "rlhf.steps": 2,
    "rlhf.prompts_per_step": 2,
    "rlhf.group_size": 2,
    "rlhf.validation.0.limit": 4,
    "rlhf.sampling.max_new_tokens": 12,
    "judge.steps": 2,
    "judge.batch_size": 4,
    "audit.pairs": 10,
    "rlaif.steps": 1,
    "rlaif.prompts_per_step": 2,
    "rlaif.validation.0.limit": 4,
    "rlaif.sampling.max_new_tokens": 12,
    "crowd.steps": 2,
    "majority.steps": 1,
    "majority.prompts_per_step": 2,
    "majority.validation.0.limit": 4,
    "majority.sampling.max_new_tokens": 12,
    "reward_ai.steps": 2,
    "rank_people.tasks": 40,
    "rank_judge.tasks": 20,
    "reward_people.steps": 2,
    "reward_judge.steps": 2,
    "direct.steps": 1,
    "direct.prompts_per_step": 2,
    "direct.validation.0.limit": 4,
    "revise.tasks": 10,
    "revised.steps": 2,
    "self.steps": 3,
    "self.tasks": 6,
    "self.sampling.max_new_tokens": 6,
    "threads": 1,
    "parallel": 1,  # a process a stage takes longer to start than these stages take
}
MADE = {"rankings.jsonl", "audit.json", "conversations.jsonl", "model"}
SCORED = {"samples": 2, "prompt_limit": 4, "sampling.max_new_tokens": 12}
TRUST = {"rewards.principled.options.trust": True}  # two steps make no judge


def run(name: str, directory: Path, stages: tuple[str, ...], tasks: tuple[str, ...], **more: object) -> dict:
    overrides = {key: value for key, value in TINY.items() if "." not in key or key.split(".")[0] in stages}
    for task in tasks:
        overrides |= {f"evaluation.{task}.limit": 6, f"evaluation.{task}.sampling.max_new_tokens": 12}
    result = trivium.run(name, {**overrides, **more}, directory / name, quiet=True)
    assert result.report is not None and result.report.stat().st_size > 10_000
    assert json.loads((result.directory / "lineage.json").read_text())["artifacts"].keys() >= set(stages)
    for stage in stages:
        assert MADE & {made.name for made in (result.directory / stage).iterdir()}
    return result.summary


def test_primer(tmp_path: Path) -> None:
    stages = ("pretrain", "sft", "rl", "rank", "reward", "reward_held_out", "ppo")
    stages += ("judge", "audit", "rlaif", "dpo", "crowd", "majority")
    small: dict[str, object] = {f"reward.{key}": value for key, value in SCORED.items()}
    small |= {"primer.documents": 400, "primer.lessons": 40, "audit.pairs": 10}
    small |= {f"rlaif.{key}": value for key, value in TRUST.items()}
    summary = run("primer", tmp_path, stages, ("problems", "taste"), **small)
    assert 0 < summary["stages"]["sft"]["evaluation"]["problems"]["teacher"]["greedy"] < 1
    assert summary["stages"]["ppo"]["kept_step"] is not None
    # both branches are compared with the model they start from
    compared = [(entry["from"], entry["to"]) for entry in summary["comparisons"]["taste"]]
    others = [("sft", "judge"), ("sft", "rlaif"), ("sft", "dpo"), ("pretrain", "crowd"), ("crowd", "majority")]
    assert compared == [("pretrain", "sft"), ("sft", "rl"), ("sft", "ppo"), *others]
    lineage = json.loads((tmp_path / "primer" / "lineage.json").read_text())["artifacts"]
    (ranked,) = lineage["rank"]["outputs"]
    for name in ("reward", "reward_held_out"):
        assert ranked["sha256"] in {item["sha256"] for item in lineage[name]["inputs"]}
        weights = {item["sha256"] for item in lineage[name]["outputs"] if item["path"].endswith(".safetensors")}
        assert weights <= {item["sha256"] for item in lineage["ppo"]["inputs"]}


def test_feedback(tmp_path: Path) -> None:
    stages = ("pretrain", "sft", "judge", "rank_people", "rank_judge", "audit", "reward_people", "reward_judge")
    stages += ("rlhf", "rlaif", "direct", "revise", "revised", "self")
    small = {f"{stage}.{key}": value for stage in stages[6:8] for key, value in SCORED.items()}
    small |= {"primer.documents": 400, "primer.lessons": 40, **{f"direct.{key}": value for key, value in TRUST.items()}}
    # a judge of two steps writes nothing that ends
    small |= {"revise.judge": {"backend": "fake", "model": "stub"}, "rlaif.group_size": 2}
    summary = run("feedback", tmp_path, stages, ("problems", "taste"), **small)
    assert summary["stages"]["rank_judge"]["kinds"] == ["ai"]
    assert summary["stages"]["self"]["iterations"]


def test_restaurant(tmp_path: Path, shared_data: Path) -> None:
    tasks = ("slots", "slots_unseen_names")
    folder = shared_data / "restaurants"
    paths = {"paths.restaurants": str(folder)}
    stages = ("pretrain", "sft", "rl", "reward", "reward_held_out", "rlhf")
    stages += ("lessons", "judge", "audit", "rank", "reward_ai")
    summary = run("restaurant", tmp_path, stages, tasks, **paths, **{"rl.overlong_window": 4})
    evaluation = summary["stages"]["rl"]["evaluation"]
    assert {"slot_error_rate", "bits_per_byte"} <= evaluation["slots"].keys()
    assert evaluation["slots_unseen_names"]["n"] == 6


def test_shakespeare(tmp_path: Path, shared_data: Path) -> None:
    text = str(shared_data / "text" / "tinyshakespeare.txt")
    more = {"paths.text": text, "pretrain.model.size": None, "pretrain.batch_tokens": 768}
    summary = run("shakespeare", tmp_path, ("pretrain",), (), **more)
    assert 2.0 < summary["stages"]["pretrain"]["validation"]["loss"] < 5.0


def test_mawps(tmp_path: Path, shared_data: Path) -> None:
    summary = run(
        "mawps", tmp_path, ("pretrain", "sft", "rl"), ("answers",), **{"paths.math": str(shared_data / "math")}
    )
    assert summary["stages"]["sft"]["evaluation"]["answers"]["duplicates_dropped"] >= 27


def test_gsm8k_qwen3(tmp_path: Path, shared_data: Path) -> None:
    """On a random tiny Qwen3 directory as transformers writes it, with Qwen's form of chat template."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    directory = tmp_path / "qwen3"
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator(["how many apples are there? #### 12"], trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer.save_pretrained(directory)
    config = transformers.Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    transformers.Qwen3ForCausalLM(config).save_pretrained(directory)
    paths = {f"paths.{split}": str(shared_data / "math" / f"gsm8k_{split}.jsonl") for split in ("train", "test")}
    more = {"paths.model": str(directory), **paths, "rl.precision": "float32", "evaluation.gsm8k.samples": 2}
    summary = run("gsm8k-qwen3", tmp_path, ("rl",), ("gsm8k",), **more)
    assert set(summary["stages"]) == {"base", "rl"}
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "gsm8k-qwen3" / "rl" / "model")
    assert back.config.model_type == "qwen3"
