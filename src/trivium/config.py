"""The recipe schema: every key a recipe may hold, its default and what it means.

A recipe is a mapping of stages in the order they run. Unknown keys are refused (see ``trivium.recipe``).
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Strict(BaseModel):
    """Base of all configuration: unknown keys are errors, assignments are checked."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, protected_namespaces=())


class SourceConfig(Strict):
    """Where rows come from, and how they become documents, conversations or prompts."""

    source: str = Field(
        description="'primer', a file (.txt .jsonl .json .parquet .csv), a folder, or a hub data set "
        "(OWNER/NAME or OWNER/NAME:PART)"
    )
    part: str | None = Field(None, description="primer: corpus, demonstrations or problems; hub: configuration")
    split: str | None = Field(None, description="split name: train, validation, test (adapters may have more)")
    adapter: str | None = Field(
        None, description="named conversion of raw rows, such as 'e2e'; default: by field names"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="options of the adapter")
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


class TrainingConfig(Strict):
    """What every stage that takes gradients shares."""

    steps: int = Field(1000, ge=1, description="updates of the optimiser (rl: rollout iterations)")
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
        description="numeric, exact, regex, choice, slots, function, length, primer (by task), weighted (a sum) or "
        "reward_model"
    )
    weight: float = Field(1.0, description="weight in the summed reward")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the verifier")


class SamplingConfig(Strict):
    temperature: float = Field(1.0, ge=0, description="0: greedy")
    top_k: int = Field(0, ge=0, description="keep the k likeliest tokens; 0: all")
    top_p: float = Field(1.0, gt=0, le=1, description="keep the smallest set of this probability")
    max_new_tokens: int = Field(64, ge=1, description="longest response")
    stop: list[str] = Field(default_factory=list, description="strings that end a response")


class RankingSourceConfig(Strict):
    """Where rankings come from: a stage that ranks, a store, or a file of one of the known formats."""

    source: str = Field(
        description="a stage of kind rank, a store (.db file, sqlite:// or postgresql:// address), a file or a folder"
    )
    adapter: Literal["trivium", "rankme", "oasst", "hh", "captions", "trl", "rewardbench"] | None = Field(
        None, description="format of the rows; default: told by their fields"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="options of the adapter")
    criterion: str | None = Field(None, description="only rankings under this criterion")
    kinds: list[Literal["human", "ai", "simulated"]] = Field(
        ["human", "ai", "simulated"], description="only annotators of these kinds"
    )
    portion: tuple[float, float] = Field(
        (0.0, 1.0), description="keep the prompts whose hash falls into this part of [0, 1): halves share no prompt"
    )
    limit: int | None = Field(None, ge=1, description="use at most this many rankings")


class AnnotatorConfig(Strict):
    """A simulated annotator: how much each part of its judgement counts, and how it errs."""

    weights: dict[str, float] = Field(
        default_factory=dict, description="weight of each part, in place of the part's own; 0 leaves it out"
    )
    noise: float = Field(0.25, ge=0, le=0.5, description="how often the order of two responses is flipped")
    position_bias: float = Field(0.0, description="added to the first response shown, falling to 0 at the last")
    length_bias: float = Field(0.0, description="added for each 100 characters")
    tie_margin: float = Field(0.0, ge=0, description="responses closer than this are tied")


class PanelConfig(Strict):
    """Programmatic annotators who write into the same store as people do."""

    parts: dict[str, VerifierConfig] = Field(description="what they look at: named parts, summed by weight")
    annotators: dict[str, AnnotatorConfig] = Field(
        default_factory=lambda: {
            "panel-1": AnnotatorConfig(),
            "panel-2": AnnotatorConfig(),
            "panel-3": AnnotatorConfig(),
        },
        description="names and settings",
    )


class RankConfig(Strict):
    """Sample answers from a model and have them ranked, by a simulated panel or by people in the ranking page."""

    kind: Literal["rank"] = "rank"
    init: str = Field("sft", description="stage, directory or hub name that answers")
    prompts: list[SourceConfig] = Field(description="prompts, mixed by weight")
    tasks: int = Field(400, ge=1, description="prompts to rank")
    responses: int = Field(4, ge=2, le=9, description="answers a prompt; equal texts are shown once")
    rankings_per_task: int = Field(1, ge=1, description="annotators a task")
    criterion: str = Field("overall", description="what is asked of the annotators")
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    panel: PanelConfig | None = Field(
        None, description="simulated annotators; none: people rank, and the run goes on once they have"
    )
    store: str | None = Field(
        None, description="file or address of the store; default: rankings.db in the run directory"
    )
    slots: int = Field(256, ge=1, description="responses generated at a time; the key-value cache grows with it")


class RewardConfig(TrainingConfig):
    """A reward model: a scalar head on a checkpoint, trained on rankings as they were given."""

    kind: Literal["reward"] = "reward"
    init: str = Field("sft", description="stage, directory or hub name to start from")
    rankings: list[RankingSourceConfig] = Field(description="rankings to learn from")
    batch_size: int = Field(32, ge=1, description="prompts an update; all rankings of a prompt stay together")
    heads: int = Field(1, ge=1, description="scalar heads; their spread tells how sure the model is")
    head_init: Literal["normal", "zero"] = Field("normal", description="normal: deviation 1/sqrt(width + 1)")
    loss: Literal["pairwise", "plackett_luce"] = Field(
        "pairwise", description="Bradley-Terry over all pairs, or listwise"
    )
    ties: Literal["soft", "rao_kupper", "davidson", "ignore"] = Field(
        "soft",
        description="soft: a target of 0.5 (plackett_luce: Efron), a term of its own, or no loss from tied pairs",
    )
    tie_parameter: float = Field(1.5, gt=0, description="theta (rao_kupper, above 1) or nu (davidson)")
    margin: float = Field(0.0, ge=0, description="score margin for each unit of a ranking's strength")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="share of pairs taken to be the wrong way round")
    centering: float = Field(0.0, ge=0, description="weight of the squared mean score, which has no scale of its own")
    reduction: Literal["ranking", "pair"] = Field(
        "ranking", description="ranking: mean over the pairs of each ranking, then over rankings; pair: over all pairs"
    )
    annotator_weights: dict[str, float] = Field(
        default_factory=dict, description="weight of annotators; 1 where not named"
    )
    validation_share: float = Field(
        0.1, ge=0, lt=1, description="share of prompts held out for validation while training"
    )
    test_share: float = Field(0.2, gt=0, lt=1, description="share of prompts held out for the evaluation")
    fold: int = Field(
        0, ge=0, description="which such share: with test_share 0.2, folds 0 to 4 hold out every prompt once"
    )
    prompts: list[SourceConfig] = Field(
        default_factory=list, description="prompts on which the scores are normalised and best-of-n is measured"
    )
    policy: str | None = Field(None, description="model that answers them; default: init")
    prompt_limit: int = Field(100, ge=1, description="use at most this many of the prompts")
    samples: int = Field(16, ge=2, description="responses a prompt")
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    gold: VerifierConfig | None = Field(None, description="what best-of-n is measured by, where it is known")


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

    enabled: bool | None = Field(None, description="null: on where a reward model is part of the reward")
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


class RLConfig(TrainingConfig):
    kind: Literal["rl"] = "rl"
    init: str = Field("sft", description="stage, directory or hub name to start from")
    prompts: list[SourceConfig] = Field(description="prompts with answers, mixed by weight")
    validation: list[SourceConfig] = Field(default_factory=list, description="held-out prompts")
    rewards: dict[str, VerifierConfig] = Field(description="named parts of the reward, summed by weight")
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
    shared_prompts: bool = Field(True, description="train the prompt of a group once")
    slots: int = Field(256, ge=1, description="responses generated at a time; the key-value cache grows with it")
    rollouts_every: int = Field(1, ge=0, description="keep the rollouts of every n-th step as parquet; 0: none")


StageConfig = Annotated[PretrainConfig | SFTConfig | RankConfig | RewardConfig | RLConfig, Field(discriminator="kind")]


class TaskConfig(Strict):
    """One evaluation task: held-out prompts and how answers are judged."""

    prompts: list[SourceConfig] = Field(description="prompts with answers")
    verifier: VerifierConfig = Field(description="what counts as right")
    threshold: float | None = Field(
        1.0, description="a score of at least this counts as right; null: there is no right, the mean score counts"
    )
    limit: int = Field(500, ge=1, description="use at most this many prompts")
    samples: int = Field(0, ge=0, description="sampled answers a prompt for pass@k and majority@k; 0: greedy only")
    sample_limit: int = Field(100, ge=1, description="prompts that are also sampled")
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    plain_prompt: str | None = Field(
        None, description="ask a pre-trained model, which knows no chat, in this form, up to a line break: '{prompt} '"
    )
    references: bool = Field(False, description="also bits per byte of the reference answers")
    baseline: bool = Field(True, description="also chance and the best constant answer")


class PrimerConfig(Strict):
    """The embedded world: see trivium.primer."""

    documents: int = Field(20000, ge=10, description="texts in the corpus")
    code_share: float = Field(0.2, ge=0, le=1, description="share of Python sessions in the corpus")
    demonstrations: int = Field(6000, ge=10, description="demonstrations by the teacher")
    problems: int = Field(20000, ge=10, description="problems before the split")
    digits: int = Field(2, ge=1, le=4, description="most digits of a summand")
    letters: int = Field(5, ge=2, le=8, description="most letters to sort, count or reverse")
    alphabet: int = Field(16, ge=8, le=26, description="the letters are the first so many of the alphabet")
    trap: float = Field(0.4, ge=0, le=1, description="share of problems on which the teacher's flaw changes the answer")
    forget: float = Field(
        0.8, ge=0, le=1, description="how often the teacher forgets a carry, and falls for its other flaws"
    )
    courtesy: float = Field(0.0, ge=0, le=1, description="how often a demonstration begins politely")
    tasks: dict[str, float] = Field(
        default_factory=lambda: {"add": 2.0, "sort": 1.0, "count": 1.0, "compare": 1.0, "reverse": 1.0},
        description="tasks and their shares: add, subtract, sort, count, compare, reverse",
    )


class RecipeConfig(Strict):
    name: str = Field(description="name of the recipe")
    description: str = Field("", description="one line")
    seed: int = Field(0, ge=0, description="seed of every random stream")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:0")
    threads: int = Field(0, ge=0, description="CPU threads; 0: leave to torch")
    paths: dict[str, str] = Field(
        default_factory=dict,
        description="places used more than once: 'source: $name' or '$name/file' stands for the value given here",
    )
    primer: PrimerConfig = Field(default_factory=PrimerConfig)
    stages: dict[str, StageConfig] = Field(description="the stages in the order they run")
    evaluation: dict[str, TaskConfig] = Field(
        default_factory=dict, description="tasks every stage's model is evaluated on"
    )

    @model_validator(mode="before")
    @classmethod
    def _kind_by_name(cls, values: Any) -> Any:
        """A stage named after its kind need not repeat it."""
        if isinstance(values, dict) and isinstance(values.get("stages"), dict):
            for name, stage in values["stages"].items():
                if isinstance(stage, dict):
                    stage.setdefault("kind", name)
        return values
