"""Decoding steps as CUDA graphs: a small model's step is hundreds of tiny kernels, and launching them costs most.

A graph is recorded for a number of rows and a width of the cache, both rounded up, on buffers that stay where they are;
weights and cache are read where they live, so an update of the weights shows in the next replay.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trivium.generation.cache import KVCache, StepAttention
from trivium.model.decoder import Decoder

WIDTH = 128  # widths are multiples of this


@dataclass
class _Static:
    """The buffers of one shape, and the graph recorded on them (none on a CPU, where the step runs as it is)."""

    tokens: Tensor
    lengths: Tensor
    logits: Tensor | None = None
    graph: "torch.cuda.CUDAGraph | None" = None


class StepGraphs:
    """Decoding steps of ``decoder`` over ``cache`` at fixed shapes, recorded when a shape is first met.

    Rows beyond those at work are filler in slots that are free: they write to their slot's first cell, which the next
    prompt overwrites. ``autocast``: the compute type; its casts are recorded too, so they see the current weights.
    """

    def __init__(self, decoder: Decoder, cache: KVCache, autocast: torch.dtype | None) -> None:
        self.decoder, self.cache, self.autocast = decoder, cache, autocast
        self.shapes: dict[tuple[int, int], _Static] = {}

    def shape(self, rows: int, longest: int) -> tuple[int, int]:
        """Rows up to the next power of two, width up to the next multiple of 128, both within the cache."""
        width = -(-longest // WIDTH) * WIDTH
        return min(1 << max(0, rows - 1).bit_length(), self.cache.slots), min(width, self.cache.length)

    def __call__(self, tokens: Tensor, lengths: Tensor, longest: int) -> Tensor:
        """Logits (n, vocabulary) after ``tokens`` (n,) at ``lengths`` (n,) cached tokens; good until the next call."""
        shape = self.shape(len(tokens), longest)
        static = self.shapes.get(shape)
        if static is None:
            zeros = torch.zeros(shape[0], dtype=torch.long, device=tokens.device)
            static = self.shapes[shape] = _Static(zeros, zeros.clone())
        static.tokens.zero_()
        static.lengths.zero_()
        static.tokens[: len(tokens)] = tokens
        static.lengths[: len(tokens)] = lengths
        if static.graph is not None:
            static.graph.replay()
        elif tokens.device.type == "cuda":
            self._record(static, shape[1])
        else:
            static.logits = self._run(static, shape[1])
        assert static.logits is not None
        return static.logits[: len(tokens)]

    def _run(self, static: _Static, width: int) -> Tensor:
        enabled = self.autocast is not None
        device = static.tokens.device.type
        with torch.autocast(device, self.autocast or torch.bfloat16, enabled=enabled, cache_enabled=False):
            attend = StepAttention(self.cache, static.lengths, width)
            return self.decoder(static.tokens, static.lengths, attend, F.linear)  # type: ignore[no-any-return]

    def _record(self, static: _Static, width: int) -> None:
        # warm up on a side stream, as recording asks for: libraries allocate their workspaces before it
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._run(static, width)
        torch.cuda.current_stream().wait_stream(stream)
        static.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(static.graph):
            static.logits = self._run(static, width)
        static.graph.replay()
