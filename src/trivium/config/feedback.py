"""Stages that gather and shape feedback: rankings, judges, audits, revisions, reward models."""

from typing import Any, Literal

from pydantic import Field

from trivium.config.base import LoRAConfig, SamplingConfig, SourceConfig, Strict, TrainingConfig, VerifierConfig


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


class JudgeConfig(Strict):
    """An AI judge: who is asked, by which principles, and what it may cost."""

    backend: Literal["local", "openai", "fake"] = Field(
        "local", description="local: a checkpoint in this process; openai: a server with OpenAI's API; fake: for tests"
    )
    model: str = Field(description="local: a stage, directory or hub name; openai: the server's name of the model")
    constitution: str = Field("general", description="general, primer, restaurant, or a YAML file of principles")
    principles: Literal["all", "random"] = Field(
        "all", description="all: every principle is asked and averaged by weight; random: one, drawn by weight"
    )
    both_orders: bool = Field(True, description="ask about a pair in both orders and average the probabilities")
    tie_margin: float = Field(
        0.05, ge=0, lt=0.5, description="probabilities at most this far from 0.5 are ties in the tiers of a ranking"
    )
    temperature: float = Field(1.0, ge=0, description="of critiques, revisions and sampled verdicts")
    max_new_tokens: int = Field(256, ge=1, description="longest critique, revision or sampled verdict")
    samples: int = Field(5, ge=1, description="openai: verdicts drawn where the server gives no log-probabilities")
    url: str | None = Field(None, description="openai: address of the server (http://127.0.0.1:8000/v1); null: OpenAI")
    key_variable: str = Field("OPENAI_API_KEY", description="openai: environment variable that holds the key")
    concurrency: int = Field(8, ge=1, description="openai: calls under way at a time")
    timeout: float = Field(60.0, gt=0, description="openai: seconds until a call counts as lost and is repeated")
    retries: int = Field(5, ge=0, description="openai: repeats of a call that failed, with growing pauses")
    price_input: float = Field(0.0, ge=0, description="dollars a million prompt tokens, for the bill")
    price_output: float = Field(0.0, ge=0, description="dollars a million answer tokens, for the bill")
    budget_tokens: int | None = Field(None, ge=1, description="stop once this many tokens were paid for")
    budget_cost: float | None = Field(None, gt=0, description="stop once this many dollars were spent")
    cache: str | None = Field(None, description="file of all calls and answers; default: judge.db in the run directory")


class RankConfig(Strict):
    """Sample answers from a model and have them ranked: by a panel, a judge, or people in the ranking page."""

    kind: Literal["rank"] = "rank"
    init: str = Field("sft", description="stage, directory or hub name that answers")
    prompts: list[SourceConfig] = Field(description="prompts, mixed by weight")
    tasks: int = Field(400, ge=1, description="prompts to rank")
    responses: int = Field(4, ge=2, le=9, description="answers a prompt; equal texts are shown once")
    rankings_per_task: int = Field(1, ge=1, description="annotators a task")
    criterion: str = Field("overall", description="what is asked of the annotators")
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    panel: PanelConfig | None = Field(
        None, description="simulated annotators; neither they nor a judge: people rank, and the run then goes on"
    )
    judge: JudgeConfig | None = Field(None, description="an AI judge, whose rankings carry its probabilities")
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
    preferences: Literal["soft", "tiers"] = Field(
        "soft", description="rankings of a judge: learn from its probabilities, or from its tiers alone (plackett_luce)"
    )
    lora: LoRAConfig | None = Field(None, description="learn low-rank adapters; null: all weights")
    validation_share: float = Field(
        0.1, ge=0, lt=1, description="share of prompts held out for validation while training"
    )
    test_share: float = Field(0.2, gt=0, lt=1, description="share of prompts held out for the evaluation")
    test: list[RankingSourceConfig] = Field(
        default_factory=list,
        description="rankings to test with, in place of a share; their prompts are left out of training",
    )
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


class LessonsConfig(Strict):
    """Rankings as lessons for a judge: conversations in which it is asked to compare, and says what people said."""

    kind: Literal["lessons"] = "lessons"
    rankings: list[RankingSourceConfig] = Field(description="rankings to make lessons of")
    constitution: str = Field("general", description="whose questions are asked; a criterion goes by its principle")


class AuditConfig(Strict):
    """Measure a judge before its word is used: against people's, simulated or gold rankings."""

    kind: Literal["audit"] = "audit"
    judge: JudgeConfig = Field(description="who is measured")
    rankings: list[RankingSourceConfig] = Field(description="rankings it is compared with")
    gold: VerifierConfig | None = Field(
        None, description="what the responses are really worth, where it is known; null: the rankings count"
    )
    ask: list[Literal["compare", "score"]] = Field(["compare"], description="how the judge is asked")
    pairs: int = Field(500, ge=10, description="use at most this many pairs of responses")


class ReviseConfig(Strict):
    """Critique and revise: answers, what is wrong with them under a principle, better ones. They become data of sft."""

    kind: Literal["revise"] = "revise"
    init: str = Field("sft", description="stage, directory or hub name that answers first")
    prompts: list[SourceConfig] = Field(description="prompts, mixed by weight")
    judge: JudgeConfig = Field(description="who criticises and revises")
    tasks: int = Field(400, ge=1, description="prompts to answer")
    rounds: int = Field(1, ge=1, description="critiques and revisions, one after the other")
    keep: Literal["all", "preferred"] = Field(
        "all", description="all revisions, or those the judge prefers to the first answer"
    )
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    gold: VerifierConfig | None = Field(
        None, description="what first answers and revisions are really worth, where it is known"
    )
    slots: int = Field(256, ge=1, description="responses generated at a time; the key-value cache grows with it")
