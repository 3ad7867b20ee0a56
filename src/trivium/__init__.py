"""Trivium: a language model through pre-training, fine-tuning and reinforcement learning, with the evidence.

>>> import trivium
>>> result = trivium.run("primer", {"rl.steps": 50})  # doctest: +SKIP
>>> result.summary["seconds"], result.report  # doctest: +SKIP
"""

from typing import Any

from trivium.errors import UserError
from trivium.run import RunResult, evaluate, run

__all__ = ["RunResult", "UserError", "__version__", "evaluate", "run"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("trivium")
        except PackageNotFoundError:  # a source tree that was never installed
            return "0+unknown"
    raise AttributeError(f"module 'trivium' has no attribute {name!r}")
