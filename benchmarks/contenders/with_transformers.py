"""transformers by hand: a padded step with AdamW, and ``generate`` on padded batches."""

from typing import Any

from benchmarks.job import LEARNING_RATE, Job
from benchmarks.worker import Turn


def load(path: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def pad(rows: list[list[int]], value: int, left: bool = False) -> Any:
    import torch

    width = max(map(len, rows))
    fill = [[value] * (width - len(row)) for row in rows]
    return torch.tensor([f + r if left else r + f for f, r in zip(fill, rows, strict=True)])


def sft(job: Job, turn: Turn) -> None:
    import torch

    model = load(job.model).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    rows = [one["tokens"] for one in job.conversations]
    tokens = sum(map(len, rows))
    turn()
    while True:
        inputs = pad(rows, 0)
        mask = pad([[1] * len(row) for row in rows], 0)
        labels = pad([one["labels"] for one in job.conversations], -100)
        loss = model(input_ids=inputs, attention_mask=mask, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        turn(loss=loss.item(), tokens=tokens, computed=inputs.numel())


def generate(job: Job, turn: Turn, batches: list[list[int]]) -> None:
    import torch

    model = load(job.model).eval()
    turn()
    while True:
        outputs: list[list[int]] = [[] for _ in job.requests]
        computed = 0
        for batch in batches:
            rows = [job.requests[index]["tokens"] for index in batch]
            wanted = [job.requests[index]["new_tokens"] for index in batch]
            inputs, mask = pad(rows, 0, left=True), pad([[1] * len(row) for row in rows], 0, left=True)
            with torch.inference_mode():
                made = model.generate(inputs, attention_mask=mask, max_new_tokens=max(wanted), do_sample=False)
            computed += made.numel()
            for index, row, count in zip(batch, made[:, inputs.shape[1] :].tolist(), wanted, strict=True):
                outputs[index] = row[:count]
        turn(tokens=sum(map(len, outputs)), outputs=outputs, computed=computed)


def decode(job: Job, turn: Turn) -> None:
    """One padded batch that runs until its longest request is done."""
    generate(job, turn, [list(range(len(job.requests)))])


def decode_sorted(job: Job, turn: Turn) -> None:
    """What a careful user does with lengths known ahead: four batches of similar output length."""
    order = sorted(range(len(job.requests)), key=lambda index: job.requests[index]["new_tokens"])
    generate(job, turn, [order[start : start + 16] for start in range(0, len(order), 16)])
