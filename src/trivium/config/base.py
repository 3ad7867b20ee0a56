"""What every part of the schema builds on: sources, verifiers, sampling, and what all training shares."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """Base of all configuration: unknown keys are errors, assignments are checked."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False, protected_namespaces=())


class SourceConfig(Strict):
    """Where rows come from, and how they become documents, conversations or prompts."""

    source: str = Field(
        description="'primer', 'procedural', 'reasoning_gym', a file (.txt .jsonl .json .parquet .csv), a folder, or a "
        "hub data set (OWNER/NAME or OWNER/NAME:PART)"
    )
    part: str | None = Field(
        None,
        description="primer: corpus, demonstrations, problems, lessons, tool_problems, …; procedural, reasoning_gym: "
        "the task; hub: configuration",
    )
    split: str | None = Field(None, description="split name: train, validation, test (adapters may have more)")
    adapter: str | None = Field(
        None,
        description="conversion of raw rows: choice, e2e, equations, humaneval, ifeval, mbpp; null: by field names",
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="options of the adapter, or of a source made by rule; primer: its settings, {forget: 0.3}",
    )
    fields: dict[str, str] = Field(
        default_factory=dict,
        description="field map, ours to theirs: {prompt: question}; a value with braces is a template: '{a} #### {b}'",
    )
    portion: tuple[float, float] | None = Field(
        None,
        description="corpora: keep this part of each document's characters; [0.9, 1.0] holds out the end of a text",
    )
    weight: float = Field(1.0, gt=0, description="share in a mixture, relative to the other sources")
    limit: int | None = Field(None, ge=1, description="use at most this many rows")


class OptimizerConfig(Strict):
    name: Literal["adamw", "muon"] = Field("adamw", description="adamw, or muon for the matrices of the blocks")
    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    betas: tuple[float, float] = Field((0.9, 0.95), description="AdamW momentum coefficients")
    eps: float = Field(1e-8, gt=0, description="AdamW epsilon")
    weight_decay: float = Field(0.1, ge=0, description="decoupled weight decay, matrices only")
    muon_lr: float = Field(0.02, gt=0, description="peak learning rate of the matrices under muon")
    muon_momentum: float = Field(0.95, ge=0, lt=1, description="momentum of muon")


class ScheduleConfig(Strict):
    kind: Literal["constant", "cosine", "linear", "wsd"] = Field("cosine", description="shape after the warm-up")
    warmup: int = Field(20, ge=0, description="steps of linear warm-up")
    final: float = Field(0.1, ge=0, le=1, description="last learning rate as a share of the peak")
    decay: float = Field(0.2, gt=0, le=1, description="wsd: share of the steps that decay")


class BudgetConfig(Strict):
    """What a stage may spend; it ends with the step that reaches any of these."""

    tokens: int | None = Field(None, ge=1, description="tokens trained on")
    generated: int | None = Field(None, ge=1, description="tokens generated, in stages that sample")
    seconds: float | None = Field(None, gt=0, description="wall clock, evaluation apart; ends no two runs alike")


class LoRAConfig(Strict):
    """Low-rank adapters in place of all weights: Hu et al. (2021). What was there stays as it is."""

    rank: int = Field(8, ge=1, description="rank of each adapter")
    alpha: float = Field(16.0, gt=0, description="an adapter counts alpha / rank")
    rank_stabilised: bool = Field(False, description="alpha / sqrt(rank) instead, for large ranks")
    targets: list[Literal["q", "k", "v", "o", "gate", "up", "down"]] = Field(
        ["q", "k", "v", "o", "gate", "up", "down"],
        description="which matrices of every block get one: attention q, k, v, o; MLP gate, up, down",
    )


class TrainingConfig(Strict):
    """What every stage that takes gradients shares."""

    @property
    def samples_in_steps(self) -> bool:
        """Whether steps generate tokens, which a budget of them can end."""
        return False

    steps: int = Field(1000, ge=1, description="updates of the optimiser (rl: rollout iterations)")
    budget: BudgetConfig | None = Field(None, description="ends the stage before its last step; null: never")
    micro_batch_tokens: int = Field(
        2048, ge=1, description="most tokens in one forward pass; gradients do not depend on it"
    )
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    clip: float = Field(1.0, ge=0, description="largest gradient norm; 0: no clipping")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="compute type; weights and moments stay float32"
    )
    compile: bool = Field(False, description="torch.compile the blocks")
    gradient_checkpointing: bool = Field(False, description="recompute each block in the backward pass")
    max_nonfinite: int = Field(5, ge=1, description="non-finite steps in a row (each skipped) that end the run")
    checkpoint_every: int = Field(200, ge=0, description="steps between resumable checkpoints; 0: only at the end")
    keep_checkpoints: int = Field(1, ge=1, description="newest checkpoints kept")
    evaluate_every: int = Field(100, ge=0, description="steps between validations; 0: only at the end")
    log_every: int = Field(10, ge=1, description="steps between lines of metrics.jsonl")


class VerifierConfig(Strict):
    """One named part of the reward."""

    kind: str = Field(
        description="a kind that `trivium verifiers` lists (numeric, math, code, json, instructions, weighted …); "
        "rewards of rl also: reward_model, judge, majority, environment"
    )
    weight: float = Field(1.0, description="weight in the summed reward")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the verifier")


class SandboxConfig(Strict):
    """Where untrusted code runs, and how much of everything it may take."""

    tier: Literal["auto", "monty", "bubblewrap", "subprocess"] = Field(
        "auto",
        description="auto: bubblewrap where it works, else monty, the embedded interpreter of a part of Python; "
        "subprocess: CPython with limits alone, which keeps out no attacker",
    )
    seconds: float = Field(5.0, gt=0, le=600, description="wall clock of one program")
    memory_mb: int = Field(512, ge=64, description="address space of one program")
    output_kb: int = Field(256, ge=1, description="most that a program may print or return")
    workers: int = Field(0, ge=0, description="programs that run at a time; 0: one a core")


class EnvironmentConfig(Strict):
    """What answers the policy between its turns: tools, or a counterpart."""

    kind: str = Field(description="tools, guess, or function (a Python class of yours)")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the environment")
    max_turns: int = Field(8, ge=1, description="most turns of the policy; the last one ends the rollout")
    seconds: float = Field(10.0, gt=0, description="longest wait for one answer of the environment")
    max_tokens: int = Field(512, ge=1, description="most tokens the environment says in one rollout; longer is cut")

    @property
    def limits(self) -> dict[str, Any]:
        """What ``sample_group_rollouts`` takes beside the environment itself."""
        return {"max_turns": self.max_turns, "seconds": self.seconds, "max_tokens": self.max_tokens}


class SamplingConfig(Strict):
    temperature: float = Field(1.0, ge=0, description="0: greedy")
    top_k: int = Field(0, ge=0, description="keep the k likeliest tokens; 0: all")
    top_p: float = Field(1.0, gt=0, le=1, description="keep the smallest set of this probability")
    max_new_tokens: int = Field(64, ge=1, description="longest response")
    stop: list[str] = Field(default_factory=list, description="strings that end a response")
