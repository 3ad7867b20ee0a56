"""The recipe schema: every key a recipe may hold, its default and what it means.

A recipe is a mapping of stages in the order they run. Unknown keys are refused (see ``trivium.recipe``).
"""

from trivium.config.base import (
    OptimizerConfig,
    SamplingConfig,
    ScheduleConfig,
    SourceConfig,
    Strict,
    TrainingConfig,
    VerifierConfig,
)
from trivium.config.feedback import (
    AnnotatorConfig,
    AuditConfig,
    JudgeConfig,
    LessonsConfig,
    PanelConfig,
    RankConfig,
    RankingSourceConfig,
    ReviseConfig,
    RewardConfig,
)
from trivium.config.recipe import PrimerConfig, RecipeConfig, TaskConfig
from trivium.config.stages import (
    CriticConfig,
    DPOConfig,
    ModelConfig,
    PretrainConfig,
    RLConfig,
    SFTConfig,
    StageConfig,
    TokenizerConfig,
    WatchConfig,
)

__all__ = [
    "AnnotatorConfig",
    "AuditConfig",
    "CriticConfig",
    "DPOConfig",
    "JudgeConfig",
    "LessonsConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PanelConfig",
    "PretrainConfig",
    "PrimerConfig",
    "RLConfig",
    "RankConfig",
    "RankingSourceConfig",
    "RecipeConfig",
    "ReviseConfig",
    "RewardConfig",
    "SFTConfig",
    "SamplingConfig",
    "ScheduleConfig",
    "SourceConfig",
    "StageConfig",
    "Strict",
    "TaskConfig",
    "TokenizerConfig",
    "TrainingConfig",
    "VerifierConfig",
    "WatchConfig",
]
