"""Stages that train a policy: pre-training, fine-tuning, DPO, reinforcement learning."""

from typing import Annotated, Literal

from pydantic import Field

from trivium.config.base import (
    EnvironmentConfig,
    LoRAConfig,
    SamplingConfig,
    SourceConfig,
    Strict,
    TrainingConfig,
    VerifierConfig,
)
from trivium.config.feedback import (
    AuditConfig,
    JudgeConfig,
    LessonsConfig,
    RankConfig,
    RankingSourceConfig,
    ReviseConfig,
    RewardConfig,
)


class ModelConfig(Strict):
    """The decoder: a size name, or explicit dimensions; whatever is left out is derived and printed."""

    size: Literal["nano", "micro", "mini", "small"] | None = Field(
        "nano", description="nano 0.87M, micro 1.97M, mini 29.5M, small 109.5M (vocabulary 512; 1,024; 8,192; 32,000)"
    )
    layers: int | None = Field(None, ge=1, description="decoder layers")
    hidden_size: int | None = Field(None, ge=8, description="width")
    heads: int | None = Field(None, ge=1, description="query heads")
    kv_heads: int | None = Field(
        None, ge=1, description="key and value heads (fewer than heads: grouped-query attention)"
    )
    head_dim: int | None = Field(None, ge=2, description="width of one head")
    mlp_size: int | None = Field(None, ge=8, description="width of the gated MLP")
    context_length: int = Field(256, ge=8, description="most tokens of one sequence")
    tie_embeddings: bool = Field(True, description="the head shares the embedding matrix")
    qk_norm: bool = Field(True, description="RMSNorm on each head's queries and keys (as Qwen3)")
    rope_theta: float = Field(10000.0, gt=0, description="base of the rotary position embedding")
    init_std: float = Field(0.02, gt=0, description="standard deviation of the initial weights")


class TokenizerConfig(Strict):
    kind: Literal["bpe", "character"] = Field("bpe", description="byte-level BPE, or one token a character")
    vocabulary_size: int = Field(512, ge=8, description="most tokens, special ones included (bpe)")
    path: str | None = Field(None, description="use this tokenizer.json or model directory instead of training one")
    train_documents: int = Field(20000, ge=1, description="train on at most this many documents")


class PretrainConfig(TrainingConfig):
    kind: Literal["pretrain"] = "pretrain"
    init: str | None = Field(None, description="continue from this stage, directory or hub name; none: fresh weights")
    model: ModelConfig = Field(default_factory=ModelConfig)
    tokenizer: TokenizerConfig = Field(default_factory=TokenizerConfig)
    data: list[SourceConfig] = Field(description="corpora, mixed by weight")
    validation: list[SourceConfig] = Field(default_factory=list, description="held-out corpora")
    packing: Literal["documents", "blocks"] = Field(
        "documents",
        description="documents: whole, never attending to each other; blocks: random windows of the joined text",
    )
    batch_tokens: int = Field(8192, ge=1, description="tokens an update")
    limit_tokens: int | None = Field(None, ge=1, description="read at most this many tokens from the corpora")


class SFTConfig(TrainingConfig):
    kind: Literal["sft"] = "sft"
    init: str = Field("pretrain", description="stage, directory or hub name to start from")
    data: list[SourceConfig] = Field(description="conversations, mixed by weight")
    validation: list[SourceConfig] = Field(default_factory=list, description="held-out conversations")
    batch_size: int = Field(64, ge=1, description="conversations an update")
    lora: LoRAConfig | None = Field(None, description="learn low-rank adapters; null: all weights")


class CriticConfig(Strict):
    """PPO's value function."""

    init: str | None = Field(None, description="stage or directory; default: the reward model, else the policy's start")
    lr: float = Field(1e-3, gt=0, description="peak learning rate of the critic")
    gamma: float = Field(1.0, gt=0, le=1, description="discount")
    lam: float = Field(0.95, ge=0, le=1, description="lambda of generalised advantage estimation")
    value_clip: float = Field(0.2, ge=0, description="how far values may move from the old ones; 0: no clipping")
    coefficient: float = Field(0.5, ge=0, description="weight of the value loss")
    whiten_rewards: bool = Field(False, description="scale token rewards to unit deviation, keeping their mean")
    whiten_advantages: bool = Field(True, description="normalise advantages over the batch")
    warmup: int = Field(0, ge=0, description="steps in which only the critic learns")


class WatchConfig(Strict):
    """Over-optimisation: what is measured beside the proxy, when to stop, which checkpoint to keep."""

    enabled: bool | None = Field(None, description="null: on where a reward model or a judge is part of the reward")
    held_out: VerifierConfig | None = Field(
        None, description="an independent scorer, such as a reward model of other rankings"
    )
    gold: VerifierConfig | None = Field(None, description="the true score, where it is known")
    judge: Literal["held_out", "gold"] | None = Field(
        None, description="which of them decides, the other is charted; null: held_out where it is set"
    )
    stop: bool = Field(True, description="end the stage when the held-out score falls while the proxy rises")
    patience: int = Field(3, ge=1, description="observations in a row that must say so")
    kl_budget: float | None = Field(
        None, gt=0, description="also end when the KL to the reference exceeds this, in nats a response"
    )
    keep_best: bool = Field(True, description="the stage's model is the best observed one, not the last")
    samples: int = Field(1, ge=1, description="sampled responses a validation prompt")


class CurriculumConfig(Strict):
    """Which prompts are asked when: by how often they were answered rightly, and by level."""

    drop_after: int = Field(
        2, ge=0, description="visits in a row with every rollout right that drop a prompt; 0: never"
    )
    postpone: int = Field(
        20, ge=0, description="steps that a prompt without a right rollout waits, twice as long each time; 0: none"
    )
    threshold: float = Field(1.0, description="a reward of at least this counts as right")
    level: str | None = Field(None, description="key of the prompts' metadata that holds their level, a number")
    start: int = Field(1, description="level: how many of the lowest levels are open at first")
    raise_at: float = Field(0.8, gt=0, le=1, description="level: share of right rollouts that opens the next level")
    window: int = Field(128, ge=1, description="level: over so many of the newest rollouts of the highest open level")
    review: float = Field(0.2, ge=0, lt=1, description="level: share of draws from the levels below the highest open")


class AlarmConfig(Strict):
    """A warning that the reward is being hacked: it rises while something else says otherwise."""

    enabled: bool = Field(True, description="look for signs of hacking and tell them")
    window: int = Field(20, ge=2, description="steps of each of the two windows that are compared")
    monitor_drop: float = Field(
        0.05, gt=0, description="fall of a monitor's mean, while the reward rises, that is told"
    )
    length_ratio: float = Field(2.0, gt=1, description="growth or shrinking of responses by this factor that is told")
    format_rise: float = Field(
        0.1, gt=0, le=1, description="rise of the share of truncated, unparseable or timed-out rollouts that is told"
    )
    stop: bool = Field(False, description="end the stage at the first alarm; else it goes on and the report shows it")


class DPOConfig(TrainingConfig):
    """Preference optimisation: on rankings or labels that are there, or iterated, on scores of its own answers."""

    kind: Literal["dpo"] = "dpo"
    init: str = Field("sft", description="stage, directory or hub name to start from; the reference is a copy of it")
    rankings: list[RankingSourceConfig] = Field(default_factory=list, description="rankings to learn from")
    labelled: list[SourceConfig] = Field(
        default_factory=list, description="kto: answers that are good or bad: rows of prompt, completion, label"
    )
    batch_size: int = Field(32, ge=1, description="prompts an update; all answers to a prompt stay together")
    loss: Literal[
        "sigmoid",
        "robust",
        "ipo",
        "hinge",
        "apo_zero",
        "apo_down",
        "simpo",
        "orpo",
        "kto",
        "plackett_luce",
    ] = Field("sigmoid", description="sigmoid: DPO; see docs/dpo.md for the others")
    beta: float = Field(0.1, gt=0, description="how dear it is to leave the reference; orpo: weight of the odds ratio")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="share of pairs taken to be the wrong way round (sigmoid: conservative; robust)"
    )
    target_margin: float = Field(0.5, ge=0, description="simpo: by how much the chosen reward must exceed the rejected")
    length_normalised: bool | None = Field(
        None, description="mean in place of summed log-probabilities; null: simpo and orpo alone"
    )
    reference: Literal["start", "none"] | None = Field(
        None, description="start: the model of init; none: no reference; null: none for simpo and orpo, else start"
    )
    sft_weight: float | None = Field(
        None, ge=0, description="weight of the imitation of the best answers beside; null: 1 for orpo, else 0"
    )
    ties: Literal["ignore", "soft", "rao_kupper", "davidson"] = Field(
        "ignore", description="sigmoid: what a tied pair costs; plackett_luce: ignore or soft"
    )
    tie_parameter: float = Field(1.5, gt=0, description="theta (rao_kupper, above 1) or nu (davidson)")
    preferences: Literal["soft", "tiers"] | None = Field(
        None, description="rankings of a judge: learn from its probabilities or from its tiers; null: soft for sigmoid"
    )
    desirable_weight: float = Field(1.0, gt=0, description="kto: weight of good answers")
    undesirable_weight: float = Field(1.0, gt=0, description="kto: weight of bad answers")
    kto_baseline: Literal["mismatched", "none"] = Field(
        "mismatched", description="kto: the KL estimated from answers under prompts that are not theirs, or 0"
    )
    lora: LoRAConfig | None = Field(None, description="learn low-rank adapters; null: all weights")
    validation_share: float = Field(0.1, ge=0, lt=1, description="share of ranked prompts held out for validation")
    kl_prompts: int = Field(
        0, ge=0, description="held-out prompts answered at each validation: KL to the reference, length; 0: none"
    )
    judge: JudgeConfig | None = Field(
        None, description="iterated: who judges the policy's own answers; its model may be 'policy', the policy itself"
    )
    rewards: dict[str, VerifierConfig] = Field(
        default_factory=dict, description="iterated: in place of a judge, parts of a reward as in rl, summed by weight"
    )
    iterations: int = Field(1, ge=1, description="iterated: rounds of answering, judging and learning; steps: online")
    prompts: list[SourceConfig] = Field(default_factory=list, description="iterated: prompts, mixed by weight")
    tasks: int = Field(200, ge=1, description="iterated: prompts an iteration")
    responses: int = Field(4, ge=2, description="iterated: answers a prompt")
    pairs: Literal["best_worst", "all"] = Field(
        "best_worst", description="iterated: learn from the best against the worst answer, or from all in their order"
    )
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    monitor: dict[str, VerifierConfig] = Field(
        default_factory=dict,
        description="iterated: verifiers logged on the answers of each round, never trained on",
    )
    slots: int = Field(256, ge=1, description="responses generated at a time; the key-value cache grows with it")

    @property
    def iterated(self) -> bool:
        """Whether the stage learns from its own answers, in rounds."""
        return self.judge is not None or bool(self.rewards)

    @property
    def samples_in_steps(self) -> bool:
        return self.iterated

    @property
    def normalised(self) -> bool:
        """Whether an answer counts by the mean of its tokens' log-probabilities."""
        return self.loss in ("simpo", "orpo") if self.length_normalised is None else self.length_normalised

    @property
    def compared(self) -> bool:
        """Whether the policy is compared with a reference."""
        return self.loss not in ("simpo", "orpo") if self.reference is None else self.reference == "start"

    @property
    def imitation(self) -> float:
        """The weight of the imitation of the best answers."""
        return float(self.loss == "orpo") if self.sft_weight is None else self.sft_weight

    @property
    def by_probabilities(self) -> bool:
        """Whether rankings that carry probabilities are learned from by them, and not by their tiers."""
        return self.loss == "sigmoid" if self.preferences is None else self.preferences == "soft"


class RLConfig(TrainingConfig):
    kind: Literal["rl"] = "rl"
    init: str = Field("sft", description="stage, directory or hub name to start from")
    prompts: list[SourceConfig] = Field(description="prompts with answers, mixed by weight")
    validation: list[SourceConfig] = Field(default_factory=list, description="held-out prompts")
    rewards: dict[str, VerifierConfig] = Field(description="named parts of the reward, summed by weight")
    monitor: dict[str, VerifierConfig] = Field(
        default_factory=dict, description="verifiers that are logged beside the reward; nothing learns from them"
    )
    preset: Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo", "reinforce++", "ppo"] | None = Field(
        "grpo", description="named choices for the keys below that are left at null"
    )
    prompts_per_step: int = Field(16, ge=1, description="prompts an iteration")
    group_size: int = Field(8, ge=1, description="rollouts a prompt")
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    epochs: int = Field(1, ge=1, description="passes over one iteration's rollouts")
    minibatches: int = Field(1, ge=1, description="updates a pass")
    advantage: Literal["group_mean", "group_zscore", "leave_one_out", "batch_zscore", "gae"] | None = Field(
        None, description="baseline and scale; gae: token by token from a critic"
    )
    ratio: Literal["token", "sequence"] | None = Field(None, description="importance ratio per token or per sequence")
    clipping: Literal["symmetric", "higher", "capped_weight", "none"] | None = Field(
        None, description="how the ratio is bounded"
    )
    clip_low: float | None = Field(None, ge=0, description="1 - clip_low is the lower bound of the ratio")
    clip_high: float | None = Field(None, ge=0, description="1 + clip_high is the upper bound of the ratio")
    aggregation: Literal["token", "sequence", "constant"] | None = Field(
        None, description="mean over tokens, over sequence means, or sum over G * L_max"
    )
    kl: Literal["none", "reward", "k2", "k3"] | None = Field(
        None, description="KL to the reference: none, in the reward (k1), or in the loss"
    )
    kl_coefficient: float | None = Field(None, ge=0, description="weight of the KL")
    kl_target: float | None = Field(
        None, gt=0, description="adapt kl_coefficient to keep the KL near this, in nats a response; null: fixed"
    )
    kl_horizon: int = Field(10000, ge=1, description="kl_target: rollouts over which the coefficient adapts")
    reference: Literal["frozen", "moving", "none"] | None = Field(None, description="reference policy")
    reference_decay: float = Field(0.99, ge=0, le=1, description="moving reference: share kept each iteration")
    resample: int | None = Field(None, ge=0, description="most extra rounds that replace groups without spread")
    overlong: Literal["keep", "mask", "penalty"] | None = Field(
        None, description="truncated rollouts: keep, mask from the loss, or soft penalty"
    )
    overlong_window: int = Field(16, ge=1, description="penalty: grows over this many last tokens")
    missing_stop_penalty: float = Field(
        0.0, ge=0, description="taken off the reward of a response without a stop token"
    )
    reward_normalisation: Literal["none", "batch", "running"] | None = Field(
        None, description="centre and scale rewards: over the step, or by running statistics; none: as they are"
    )
    critic: CriticConfig | None = Field(None, description="advantage gae: its critic")
    watch: WatchConfig = Field(default_factory=WatchConfig)
    alarm: AlarmConfig = Field(default_factory=AlarmConfig)
    environment: EnvironmentConfig | None = Field(
        None, description="tools or a counterpart that answer between the policy's turns; their tokens carry no loss"
    )
    curriculum: CurriculumConfig | None = Field(None, description="which prompts are asked when; null: all in turn")
    lora: LoRAConfig | None = Field(None, description="learn low-rank adapters; null: all weights")
    shared_prompts: bool = Field(True, description="train the prompt of a group once")
    slots: int = Field(256, ge=1, description="responses generated at a time; the key-value cache grows with it")
    rollouts_every: int = Field(1, ge=0, description="keep the rollouts of every n-th step as parquet; 0: none")

    @property
    def samples_in_steps(self) -> bool:
        return True


StageConfig = Annotated[
    PretrainConfig
    | SFTConfig
    | RankConfig
    | LessonsConfig
    | AuditConfig
    | ReviseConfig
    | RewardConfig
    | DPOConfig
    | RLConfig,
    Field(discriminator="kind"),
]
