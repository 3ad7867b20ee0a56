"""The work that every contender does: one small model with random weights, and the tokens of each job.

``python -m benchmarks.job DIRECTORY`` writes it: ``fixed/`` and ``ragged/`` are Hugging Face directories of the same
decoder, which differ only in how likely the stop token is (never; about once in 20 tokens), and ``job.json`` holds the
conversations, prompts and requests. No network is used; the tokenizer is trained on words made up on the spot.
"""

import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

SEED = 20
DIMENSIONS = {"vocabulary": 512, "hidden": 128, "layers": 4, "heads": 4, "mlp": 304, "context": 512}
SPECIAL = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|stop|>"]
STOP = SPECIAL.index("<|stop|>")
TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|stop|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
STOP_EVERY = 20  # ragged: mean length of a response before the cap
GROUP, PROMPTS, PAIRS = 8, 16, 32
BETA = 0.1  # of DPO
RANK, ALPHA = 8, 16  # of adapters
LEARNING_RATE = 1e-5
REWARD_TARGET, REWARD_PENALTY = 100, 0.005


@dataclass(frozen=True)
class Job:
    """``conversations``: messages, tokens and labels (-100: no loss) of each; ``prompts``: messages and tokens;
    ``requests``: tokens and how many new ones are wanted; ``pairs``: messages of a prompt, the answers ``chosen`` and
    ``rejected``, and ``tokens`` of prompt, chosen and rejected."""

    directory: str
    conversations: list[dict[str, Any]]
    prompts: list[dict[str, Any]]
    requests: list[dict[str, Any]]
    pairs: list[dict[str, Any]]
    parameters: int

    @property
    def model(self) -> str:
        return f"{self.directory}/fixed"

    @property
    def ragged_model(self) -> str:
        return f"{self.directory}/ragged"

    @classmethod
    def load(cls, directory: Path) -> "Job":
        return cls(**json.loads((directory / "job.json").read_text()))


def new_tokens_limit(variant: str) -> int:
    """Longest response of a GRPO rollout: 40 tokens that are all used, or up to 64 of which a part is."""
    return 40 if variant == "fixed" else 64


def reward(text: str) -> float:
    """The trivial reward of both trainers: how near the text comes to a length (Trivium's ``length`` verifier)."""
    return max(0.0, 1.0 - REWARD_PENALTY * abs(len(text) - REWARD_TARGET))


# --- floating point operations, by formula: real tokens only, head where it is needed, causal half of the attention ---


def forward_flops(lengths: list[int], head_tokens: int) -> float:
    """Operations of one forward pass over sequences of these lengths whose head runs on ``head_tokens`` tokens."""
    size = DIMENSIONS
    linear = size["layers"] * (4 * size["hidden"] ** 2 + 3 * size["hidden"] * size["mlp"])
    attention = size["layers"] * 2 * size["hidden"] * sum(n * (n + 1) / 2 for n in lengths)
    return 2 * (linear * sum(lengths) + attention + size["hidden"] * size["vocabulary"] * head_tokens)


def sft_flops(job: Job) -> float:
    lengths = [len(one["tokens"]) for one in job.conversations]
    loss_tokens = sum(label != -100 for one in job.conversations for label in one["labels"])
    return 3 * forward_flops(lengths, loss_tokens)


def lora_flops(job: Job) -> float:
    """An SFT step whose weights are frozen: two thirds of it, and three passes over what the adapters add to a block
    (RANK times the inputs and outputs of its seven matrices)."""
    size, tokens = DIMENSIONS, sum(len(one["tokens"]) for one in job.conversations)
    ends = 4 * 2 * size["hidden"] + 3 * (size["hidden"] + size["mlp"])
    return sft_flops(job) * 2 / 3 + 3 * 2 * RANK * ends * size["layers"] * tokens


def grpo_flops(job: Job, completion_tokens: int) -> float:
    """Sampling (one forward) and training (three): every rollout with its own prompt, as nothing were shared."""
    each = completion_tokens / (PROMPTS * GROUP)
    lengths = [len(prompt["tokens"]) + each for prompt in job.prompts for _ in range(GROUP)]
    return 4 * forward_flops(lengths, completion_tokens)  # type: ignore[arg-type]


def answer_lengths(job: Job) -> list[tuple[int, int]]:
    """Of every answer of the pairs: its tokens with those of its prompt, and its own."""
    sizes = [tuple(map(len, pair["tokens"])) for pair in job.pairs]
    return [(prompt + answer, answer) for prompt, *answers in sizes for answer in answers]


def dpo_flops(job: Job) -> float:
    """Training on both answers of each pair, each with its own prompt, as nothing were shared; no reference."""
    lengths, answers = zip(*answer_lengths(job), strict=True)
    return 3 * forward_flops(list(lengths), sum(answers))


def decode_flops(job: Job) -> float:
    lengths = [len(one["tokens"]) + one["new_tokens"] for one in job.requests]
    return forward_flops(lengths, sum(one["new_tokens"] for one in job.requests))


# --- building ---


def made_up_words(random: np.random.Generator, count: int) -> list[str]:
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "os")]
    return ["".join(random.choice(syllables, size=random.integers(1, 4))) for _ in range(count)]


def build_tokenizer(random: np.random.Generator, words: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=DIMENSIONS["vocabulary"],
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((" ".join(random.choice(words, size=12)) for _ in range(2000)), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|stop|>")
    fast.chat_template = TEMPLATE
    return fast


def build_model(directory: Path, tokenizer: Any) -> int:
    """Write ``fixed/`` and ``ragged/`` and give the number of parameters.

    One dimension of the residual stream is kept constant (no block writes to it), so the head can read a constant from
    it: that sets the probability of the stop token and keeps the other special tokens out, in the weights themselves,
    and every contender does the same work without any option of its own.
    """
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(SEED)
    size = DIMENSIONS
    config = Qwen3Config(
        vocab_size=size["vocabulary"],
        hidden_size=size["hidden"],
        intermediate_size=size["mlp"],
        num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"],
        num_key_value_heads=size["heads"],
        head_dim=size["hidden"] // size["heads"],
        max_position_embeddings=size["context"],
        tie_word_embeddings=False,
        initializer_range=0.08,
        bos_token_id=None,
        eos_token_id=STOP,
        pad_token_id=0,
    )
    model = Qwen3ForCausalLM(config).float().eval()
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 0.3
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = 0
            layer.mlp.down_proj.weight[0] = 0
        head = model.lm_head.weight
        head[:, 0] = 0
        tokens = torch.randint(len(SPECIAL), size["vocabulary"], (8, 64))
        hidden = model.model(tokens).last_hidden_state.flatten(0, 1)
        constant = hidden[:, 0].mean()
        total = model.lm_head(hidden)[:, len(SPECIAL) :].logsumexp(-1).mean()
        head[: len(SPECIAL)] = 0
        head[: len(SPECIAL), 0] = -30 / constant
        for name, logit in (("fixed", -30.0), ("ragged", float(total) - math.log(STOP_EVERY - 1))):
            head[STOP, 0] = logit / constant
            model.save_pretrained(directory / name)
            tokenizer.save_pretrained(directory / name)
    return sum(parameter.numel() for parameter in model.parameters())


def conversation(tokenizer: Any, messages: list[dict[str, str]]) -> dict[str, Any]:
    """Tokens of a conversation; the loss is on what the assistant says and on the stop token after it."""
    tokens: list[int] = []
    labels: list[int] = []
    for message in messages:
        body = tokenizer(message["content"] + "<|stop|>")["input_ids"]
        head = tokenizer(f"<|{message['role']}|>")["input_ids"]
        tokens += head + body
        labels += [-100] * len(head) + (body if message["role"] == "assistant" else [-100] * len(body))
    return {"messages": messages, "tokens": tokens, "labels": labels}


def build(directory: Path) -> Job:
    random = np.random.Generator(np.random.Philox(SEED))
    words = made_up_words(random, 300)
    tokenizer = build_tokenizer(random, words)

    def text(median: float, spread: float, least: int, most: int) -> str:
        count = int(np.clip(random.lognormal(math.log(median), spread), least, most))
        return " ".join(random.choice(words, size=count))

    conversations = []
    for index in range(64):
        turns = 2 if index % 4 == 0 else 1
        messages = []
        for _ in range(turns):
            messages.append({"role": "user", "content": text(12, 0.5, 4, 40)})
            messages.append({"role": "assistant", "content": text(16, 0.6, 3, 60)})
        conversations.append(conversation(tokenizer, messages))
    prompts, requests = [], []
    for _ in range(PROMPTS):
        messages = [{"role": "user", "content": text(10, 0.4, 4, 24)}]
        tokens = conversation(tokenizer, messages)["tokens"] + [SPECIAL.index("<|assistant|>")]
        prompts.append({"messages": messages, "tokens": tokens})
    for _ in range(64):
        tokens = conversation(tokenizer, [{"role": "user", "content": text(20, 0.7, 3, 90)}])["tokens"]
        wanted = int(np.clip(random.lognormal(math.log(40), 0.7), 8, 160))
        requests.append({"tokens": [*tokens, SPECIAL.index("<|assistant|>")], "new_tokens": wanted})
    pairs = []
    for _ in range(PAIRS):
        messages = [{"role": "user", "content": text(24, 0.6, 4, 80)}]
        prompt = [*conversation(tokenizer, messages)["tokens"], SPECIAL.index("<|assistant|>")]
        answers = [text(16, 0.6, 3, 60) for _ in range(2)]
        tokens = [prompt, *(tokenizer(answer + "<|stop|>")["input_ids"] for answer in answers)]
        pairs.append({"messages": messages, "chosen": answers[0], "rejected": answers[1], "tokens": tokens})
    parameters = build_model(directory, tokenizer)
    return Job(str(directory), conversations, prompts, requests, pairs, parameters)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    (target / "job.json").write_text(json.dumps(asdict(build(target))))
