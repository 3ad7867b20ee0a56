"""A study: arms that are compared over several seeds under one budget, and what is measured of them."""

from typing import Any, Literal

from pydantic import Field

from trivium.config.base import BudgetConfig, Strict, VerifierConfig


class BestOfConfig(Strict):
    """Answer with the best of several samples in place of a greedy answer."""

    n: int = Field(16, ge=2, description="samples a prompt")
    by: VerifierConfig = Field(description="what chooses among them, such as a reward model of the recipe")


class ArmConfig(Strict):
    """One way to teach a model: the recipe with ``overrides``, measured at ``models``."""

    about: str = Field("", description="one line")
    overrides: dict[str, Any] = Field(default_factory=dict, description="of the recipe: {rl.preset: ppo}")
    models: list[str] | None = Field(None, description="stages that are measured; null: those of the study")
    x: float | None = Field(None, description="where the arm lies on the axis of the study's figure")
    best_of: BestOfConfig | None = Field(None, description="measure the best of several samples")
    curves: list[str] | None = Field(None, description="curves that are drawn of it; null: those of the study")


class MeasureConfig(Strict):
    """One number of a model, and where it can be had item by item, of each prompt."""

    task: str | None = Field(None, description="a task of the recipe's evaluation")
    value: Literal["accuracy", "sampled_accuracy", "score"] = Field("accuracy", description="task: which number")
    kl_to: str | None = Field(
        None, description="KL to this stage by sampling, nats a response; on the prompts of task, null: the first one"
    )
    samples: int = Field(2, ge=1, description="kl_to: answers a prompt")
    of: str | None = Field(None, description="in place of a task: a number of the stage's summary, by its path")
    better: Literal["higher", "lower", "neither"] = Field("higher", description="which values are better")
    label: str = Field("", description="its name in tables and figures")
    unit: str = Field("", description="its unit")


class CurveConfig(Strict):
    """Gold against proxy along the KL, from what a stage has written down."""

    stage: str = Field(description="a reward stage with gold (best-of-n), or an rl stage with watch.gold (rl)")
    kind: Literal["best_of_n", "rl"] = Field(description="best_of_n (of a reward stage) or rl (of an rl stage)")


class ClaimConfig(Strict):
    """One comparison that the claim comes down to."""

    better: str = Field(description="an arm ('rl'), an arm's model ('code50 · rl'), or a model over all arms with an x")
    worse: str = Field(description="likewise")
    measure: str | None = Field(
        None, description="a measure, or of a curve CURVE/best, /last (gold gain), /gap or /peak (KL); null: the first"
    )


class StudyConfig(Strict):
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="a name of letters, digits, - . and _, since it becomes the name of a folder",
    )
    title: str = Field("", description="what it is called in its report")
    question: str = Field(description="what is asked")
    claim: str = Field("", description="what is held to be true, and is tested")
    holds_if: list[ClaimConfig] = Field(
        default_factory=list, description="the claim is supported where all of these are certain; else open, or refuted"
    )
    recipe: str = Field(description="the recipe that all arms share")
    overrides: dict[str, Any] = Field(default_factory=dict, description="of the recipe, for all arms")
    seeds: list[int] = Field(default_factory=lambda: [0, 1, 2, 3, 4], min_length=1, description="one run of each arm")
    shared: list[str] = Field(default_factory=list, description="stages that are not part of any arm's budget")
    budget: BudgetConfig = Field(default_factory=BudgetConfig, description="of each arm, over its stages")
    models: list[str] = Field(default_factory=list, description="stages that are measured, unless an arm says others")
    measures: dict[str, MeasureConfig] = Field(default_factory=dict, description="what is measured; the first is main")
    curves: dict[str, CurveConfig] = Field(default_factory=dict, description="gold against proxy, with fitted forms")
    arms: dict[str, ArmConfig] = Field(min_length=1, description="what is compared")
    compare: Literal["all", "first", "models"] = Field(
        "all", description="all pairs of arms; each with the first; or the models of each arm with one another"
    )
    axis: str = Field("", description="label of the axis on which arms with an x lie")
