"""The named algorithms as data: each preset fills the choices that a recipe leaves open."""

_COMMON: dict[str, str | float | int] = {
    "advantage": "group_zscore",
    "ratio": "token",
    "clipping": "symmetric",
    "clip_low": 0.2,
    "clip_high": 0.2,
    "aggregation": "sequence",
    "kl": "none",
    "kl_coefficient": 0.0,
    "reference": "frozen",
    "resample": 0,
    "overlong": "keep",
    "reward_normalisation": "none",
}

PRESETS: dict[str, dict[str, str | float | int]] = {
    # Shao et al., 2024, arXiv 2402.03300
    "grpo": {**_COMMON, "kl": "k3", "kl_coefficient": 0.04},
    # Liu et al., 2025, arXiv 2503.20783
    "dr_grpo": {**_COMMON, "advantage": "group_mean", "aggregation": "constant"},
    # Yu et al., 2025, arXiv 2503.14476
    "dapo": {
        **_COMMON,
        "clipping": "higher",
        "clip_high": 0.28,
        "aggregation": "token",
        "resample": 3,
        "overlong": "penalty",
    },
    # Zheng et al., 2025, arXiv 2507.18071
    "gspo": {**_COMMON, "ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4},
    # MiniMax, 2025, arXiv 2506.13585: the weight is capped at 1 + clip_high
    "cispo": {**_COMMON, "clipping": "capped_weight", "clip_high": 4.0, "aggregation": "token"},
    # Ahmadian et al., 2024, arXiv 2402.14740
    "rloo": {
        **_COMMON,
        "advantage": "leave_one_out",
        "clipping": "none",
        "aggregation": "constant",
        "kl": "reward",
        "kl_coefficient": 0.03,
    },
    # Hu, 2025, arXiv 2501.03262
    "reinforce++": {
        **_COMMON,
        "advantage": "batch_zscore",
        "aggregation": "token",
        "kl": "reward",
        "kl_coefficient": 0.01,
    },
    # Schulman et al., 2017, arXiv 1707.06347, as for language models: Ziegler et al., 2019, arXiv 1909.08593. Its
    # critic has settings of its own (CriticConfig); epochs and minibatches are the recipe's
    "ppo": {
        **_COMMON,
        "advantage": "gae",
        "aggregation": "token",
        "kl": "reward",
        "kl_coefficient": 0.05,
    },
}
