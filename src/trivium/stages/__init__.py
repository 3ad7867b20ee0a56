"""The stages: one file each, that reads top to bottom as a straight line through the picture in docs/architecture.md."""

from collections.abc import Callable
from typing import Any

from trivium.stages.context import StageContext

__all__ = ["STAGES", "StageContext"]


def _pretrain(context: StageContext) -> dict[str, Any]:
    from trivium.stages.pretrain import main

    return main(context)


def _sft(context: StageContext) -> dict[str, Any]:
    from trivium.stages.sft import main

    return main(context)


def _rl(context: StageContext) -> dict[str, Any]:
    from trivium.stages.rl import main

    return main(context)


STAGES: dict[str, Callable[[StageContext], dict[str, Any]]] = {"pretrain": _pretrain, "sft": _sft, "rl": _rl}
