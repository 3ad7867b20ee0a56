"""The tiny recipe's rl stage under PPO: with a learned reward, and with every piece of state there is."""

from collections.abc import Mapping
from typing import Any

PLAIN: dict[str, Any] = {"rl.preset": "ppo", "rl.reference": "frozen"}
QUICK: dict[str, Any] = PLAIN | {"rl.steps": 2, "rl.checkpoint_every": 0, "rl.evaluate_every": 0}
PPO_METRICS = {
    *("value_loss", "value_clip_share", "explained_variance", "returns", "advantage_std", "critic_gradient_norm"),
    *("kl", "kl_response", "kl_coefficient", "ratio_mean", "clip_share"),
}


def learned(judges: Mapping[str, str], **options: Any) -> dict[str, Any]:
    return {
        "rl.rewards": {"learnt": {"kind": "reward_model", "options": {"model": judges["proxy"], **options}}},
        "rl.watch": {"held_out": {"kind": "reward_model", "options": {"model": judges["held_out"]}}, "samples": 2},
    }


def everything(judges: Mapping[str, str]) -> dict[str, Any]:
    """Every piece of state there is: critic, running rewards, adaptive KL, watch; several updates a step."""
    return {
        **PLAIN,
        **learned(judges),
        "rl.epochs": 2,
        "rl.kl_target": 0.5,
        "rl.kl_horizon": 50,
        "rl.reward_normalisation": "running",
        "rl.missing_stop_penalty": 0.3,
        "rl.evaluate_every": 2,
        "rl.critic": {"warmup": 1, "lr": 3e-3, "whiten_rewards": True},
    }
