"""TRL's trainers at float32 and without gradient checkpointing, which is how they are fastest on a CPU.

A callback ends each repetition where the trainer ends its step, so a repetition is one whole step of ``train()``.
"""

from typing import Any

from benchmarks.job import ALPHA, BETA, GROUP, LEARNING_RATE, PROMPTS, RANK, Job, new_tokens_limit, reward
from benchmarks.worker import Turn

STEPS = 10_000  # more than anyone measures
ANSWERS = ("chosen", "rejected")
REPEATS = 200  # copies of the step's rows, so that an epoch does not end with every step


def arguments(job: Job) -> dict[str, Any]:
    return {
        "output_dir": f"{job.directory}/trl",
        "max_steps": STEPS,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def each_step(turn: Turn, result: dict[str, Any]) -> Any:
    from transformers import TrainerCallback

    class EachStep(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            turn()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            turn(**{key: value() if callable(value) else value for key, value in result.items()})

    return EachStep()


def sft(job: Job, turn: Turn, packing: bool = False, adapter: str = "") -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    result: dict[str, Any] = {"tokens": sum(len(one["tokens"]) for one in job.conversations)}

    class Watched(SFTTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(model, inputs, *args, **kwargs)
            result["loss"], result["computed"] = loss.detach().item, inputs["input_ids"].numel()
            return loss

    rows = [{"input_ids": one["tokens"], "labels": one["labels"]} for one in job.conversations]
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype="float32")
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter, is_trainable=True)
    trainer = Watched(
        model=model,
        args=SFTConfig(
            **arguments(job),
            per_device_train_batch_size=len(rows),
            packing=packing,
            shuffle_dataset=False,
            max_length=512,
            train_sampling_strategy="sequential",
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(job.model),
        callbacks=[each_step(turn, result)],
    )
    prepared = trainer.train_dataset  # the packs, or the rows, of one step
    trainer.args.per_device_train_batch_size = trainer._train_batch_size = len(prepared)
    trainer.train_dataset = prepared.select(list(range(len(prepared))) * REPEATS)
    trainer.train()


def sft_packed(job: Job, turn: Turn) -> None:
    sft(job, turn, packing=True)


def lora(job: Job, turn: Turn) -> None:
    """With the adapters that Trivium's stage draws, in peft's form: from others, the losses would part."""
    import torch

    from trivium.config import LoRAConfig
    from trivium.model.adapter_files import save_adapter
    from trivium.model.huggingface import load_model
    from trivium.model.lora import add_adapters
    from trivium.streams import stream_key

    drawn = torch.Generator().manual_seed(stream_key(0, "sft/adapters"))
    decoder = add_adapters(load_model(job.model), LoRAConfig(rank=RANK, alpha=ALPHA), drawn)
    directory = f"{job.directory}/adapter"
    save_adapter(decoder, directory, job.model)
    sft(job, turn, adapter=directory)


def dpo(job: Job, turn: Turn, padding_free: bool = False) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    result: dict[str, Any] = {}

    class Watched(DPOTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(model, inputs, *args, **kwargs)
            mask = inputs.get("attention_mask")
            result["tokens"] = inputs["input_ids"].numel() if mask is None else int(mask.sum())
            result["loss"], result["computed"] = loss.detach().item, inputs["input_ids"].numel()
            return loss

    rows = [
        {"prompt": pair["messages"], **{key: [{"role": "assistant", "content": pair[key]}] for key in ANSWERS}}
        for pair in job.pairs
    ]
    trainer = Watched(
        model=AutoModelForCausalLM.from_pretrained(job.model, dtype="float32"),
        args=DPOConfig(
            **arguments(job),
            per_device_train_batch_size=len(rows),
            beta=BETA,
            max_length=512,
            train_sampling_strategy="sequential",
            precompute_ref_log_probs=True,
            padding_free=padding_free,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(job.model),
        callbacks=[each_step(turn, result)],
    )
    trainer.train_dataset = trainer.train_dataset.select(list(range(len(rows))) * REPEATS)
    trainer.train()


def dpo_padding_free(job: Job, turn: Turn) -> None:
    dpo(job, turn, padding_free=True)


def grpo(job: Job, turn: Turn, variant: str = "fixed") -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    model = job.model if variant == "fixed" else job.ragged_model
    result: dict[str, Any] = {"samples": PROMPTS * GROUP}

    def nearness(completions: list[Any], completion_ids: list[list[int]], **_: Any) -> list[float]:
        result["completion_tokens"] = sum(map(len, completion_ids))
        return [reward(completion[0]["content"]) for completion in completions]

    class Watched(GRPOTrainer):  # type: ignore[misc]
        def _tokenize_prompts(self, prompts: list[Any]) -> Any:
            made = super()._tokenize_prompts(prompts)
            result["prompt_tokens"] = sum(map(len, made[0]))
            return made

    trainer = Watched(
        model=AutoModelForCausalLM.from_pretrained(model, dtype="float32"),
        reward_funcs=nearness,
        args=GRPOConfig(
            **arguments(job),
            shuffle_dataset=False,
            per_device_train_batch_size=PROMPTS * GROUP,
            num_generations=GROUP,
            max_completion_length=new_tokens_limit(variant),
            temperature=1.0,
            beta=0.0,
            loss_type="grpo",
            num_iterations=1,
        ),
        train_dataset=Dataset.from_list([{"prompt": prompt["messages"]} for prompt in job.prompts] * REPEATS),
        processing_class=AutoTokenizer.from_pretrained(model),
        callbacks=[each_step(turn, result)],
    )
    trainer.train()


def grpo_ragged(job: Job, turn: Turn) -> None:
    grpo(job, turn, "ragged")
