"""What a stage holds in memory for its models: parameters, those that learn, and bytes by what they are for."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from trivium.model.decoder import Decoder


def footprint(
    decoder: Decoder, others: Sequence[Decoder | None], optimizers: Sequence[torch.optim.Optimizer]
) -> dict[str, Any]:
    """``parameters`` of the decoder, ``trainable`` of them, and ``memory`` in bytes, over all ranks together.

    ``memory`` counts the ``weights`` of the decoder and of the ``others`` of the stage (reference, critic), the
    ``gradients`` of what learns among them, and the state of the ``optimizers``. Activations are in none of these.
    """
    own = list(decoder.parameters())
    weights = own + [parameter for model in others if model is not None for parameter in model.parameters()]
    # what learns is what an optimiser holds: a stage that is done may have frozen its model since
    learnt = [parameter for one in optimizers for group in one.param_groups for parameter in group["params"]]
    in_optimizer = {id(parameter) for parameter in learnt}
    states = [entries for optimizer in optimizers for entries in optimizer.state.values()]
    return {
        "parameters": sum(parameter.numel() for parameter in own),
        "trainable": sum(parameter.numel() for parameter in own if id(parameter) in in_optimizer),
        "memory": {
            "weights": _bytes(weights),
            "gradients": _bytes(learnt),
            "optimizer": _bytes(value for state in states for value in state.values() if isinstance(value, Tensor)),
        },
    }


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
