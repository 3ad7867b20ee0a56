"""The rollout record: one dataclass from sampling to the loss, and the row of the parquet file a page shows."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from trivium.data.records import Prompt
from trivium.generation.engine import Engine
from trivium.generation.sampling import SamplingSettings
from trivium.generation.scheduler import Request
from trivium.text.tokenizer import Tokenizer


@dataclass
class Rollout:
    """A response of the policy. ``log_probs`` are those of the behaviour policy as sampled, one a completion token."""

    prompt_id: str
    group: int
    prompt_tokens: list[int]
    completion_tokens: list[int]
    log_probs: list[float]
    finish_reason: str
    weight_version: int
    text: str
    reward: float = 0.0
    reward_parts: dict[str, float] = field(default_factory=dict)
    status: str = "ok"
    extracted: str | None = None
    advantage: float = 0.0

    @property
    def length(self) -> int:
        return len(self.completion_tokens)


def sample_group_rollouts(
    engine: Engine,
    tokenizer: Tokenizer,
    prompts: Sequence[tuple[Prompt, list[int]]],
    group_size: int,
    settings: SamplingSettings,
    seed: int,
    stream: str,
    groups: Sequence[int],
) -> list[list[Rollout]]:
    """``group_size`` rollouts of each prompt; ``groups`` numbers them. Draws depend on (seed, stream, group) alone."""
    requests = [
        Request(tuple(tokens), f"{stream}/{group}", group_size)
        for (_, tokens), group in zip(prompts, groups, strict=True)
    ]
    completions = engine.generate(requests, settings, seed)
    return [
        [
            Rollout(
                prompt_id=prompt.id,
                group=group,
                prompt_tokens=tokens,
                completion_tokens=completion.tokens,
                log_probs=completion.log_probs,
                finish_reason=completion.finish_reason,
                weight_version=completion.weight_version,
                text=tokenizer.decode(completion.tokens),
            )
            for completion in of_prompt
        ]
        for (prompt, tokens), group, of_prompt in zip(prompts, groups, completions, strict=True)
    ]


def write_rollouts(path: Path, rollouts: Sequence[Rollout]) -> None:
    """One parquet file with a row a rollout; a re-run of the same step writes the same bytes over it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {item.name: [getattr(rollout, item.name) for rollout in rollouts] for item in fields(Rollout)}
    parts = pa.array([list(value.items()) for value in columns["reward_parts"]], pa.map_(pa.string(), pa.float64()))
    table = pa.table({**columns, "reward_parts": parts})
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".partial")
    pq.write_table(table, beside)
    beside.replace(path)
