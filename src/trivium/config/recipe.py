"""The recipe itself: stages, the tasks they are evaluated on, the embedded world."""

from typing import Any

from pydantic import Field, model_validator

from trivium.config.base import EnvironmentConfig, SamplingConfig, SourceConfig, Strict, VerifierConfig
from trivium.config.stages import StageConfig


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
    environment: EnvironmentConfig | None = Field(
        None, description="tools or a counterpart that answer between the model's turns, as in rl"
    )
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
    lessons: int = Field(3000, ge=10, description="lessons in judging, criticising and revising")
    lesson_kinds: dict[str, float] = Field(
        default_factory=lambda: {"compare": 1.0, "score": 1.0, "critique": 1.0, "revise": 1.0},
        description="shares of the lessons: compare, score, critique, revise",
    )
    digits: int = Field(2, ge=1, le=4, description="most digits of a summand")
    factor_digits: int = Field(3, ge=1, le=9, description="tool_problems: digits of the factors of a product")
    game_range: int = Field(16, ge=2, le=1000, description="games: the number to guess is between 1 and this")
    tool_manners: dict[str, float] = Field(
        default_factory=lambda: {"right": 1.0, "wrong": 1.0, "guess": 2.0},
        description="tool_demonstrations: shares of right calls, wrong calls and guesses",
    )
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
    parallel: int = Field(
        1, ge=1, description="most stages at a time, where none needs another; each with its share of the threads"
    )
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
