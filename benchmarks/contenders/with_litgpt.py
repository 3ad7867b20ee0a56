"""litgpt: a padded step with its chunked cross-entropy, and its ``generate``, which takes one request at a time."""

from typing import Any

from benchmarks.contenders.with_transformers import pad
from benchmarks.job import DIMENSIONS, LEARNING_RATE, Job
from benchmarks.worker import Turn


def load(path: str) -> Any:
    """The same weights in litgpt's own decoder, by its own conversion table."""
    from litgpt import GPT, Config
    from litgpt.scripts.convert_hf_checkpoint import copy_weights_qwen_3
    from safetensors.torch import load_file

    size = DIMENSIONS
    config = Config(
        name="benchmark",
        block_size=size["context"],
        vocab_size=size["vocabulary"],
        padded_vocab_size=size["vocabulary"],
        n_layer=size["layers"],
        n_head=size["heads"],
        n_query_groups=size["heads"],
        n_embd=size["hidden"],
        head_size=size["hidden"] // size["heads"],
        intermediate_size=size["mlp"],
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        norm_eps=1e-6,
        mlp_class_name="LLaMAMLP",
        norm_qk=True,
        rope_base=10000,
    )
    state: dict[str, Any] = {}
    copy_weights_qwen_3(config, {}, state, load_file(f"{path}/model.safetensors"))
    model = GPT(config)
    model.load_state_dict(state, strict=False)
    return model


def sft(job: Job, turn: Turn) -> None:
    import torch
    from litgpt.utils import chunked_cross_entropy

    model = load(job.model).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    rows = [one["tokens"] for one in job.conversations]
    turn()
    while True:
        inputs, labels = pad(rows, 0), pad([one["labels"] for one in job.conversations], -100)
        logits = model(inputs, lm_head_chunk_size=128)
        logits[-1] = logits[-1][..., :-1, :]
        loss = chunked_cross_entropy(logits, labels[..., 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        turn(loss=loss.item(), tokens=sum(map(len, rows)), computed=inputs.numel())


def decode(job: Job, turn: Turn) -> None:
    import torch
    from litgpt.generate.base import generate

    model = load(job.model).eval()
    model.set_kv_cache(batch_size=1)
    turn()
    while True:
        outputs = []
        for request in job.requests:
            prompt = torch.tensor(request["tokens"])
            made = generate(model, prompt, len(prompt) + request["new_tokens"], temperature=0.0, include_prompt=False)
            outputs.append(made.tolist())
        turn(tokens=sum(map(len, outputs)), outputs=outputs)
