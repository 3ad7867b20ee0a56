"""The key-value cache and the two ways to attend with it: filling it from prompts, and one step for every slot."""

import torch
import torch.nn.functional as F
from torch import Tensor

from trivium.model.attention import GridAttention
from trivium.model.decoder import DecoderConfig
from trivium.model.layout import Grid, Layout


class KVCache:
    """Keys and values of ``slots`` sequences of up to ``length`` tokens: per layer (slots, kv_heads, length, head_dim).

    The sequences at work always fill the first slots, so that a step reads a view and gathers nothing.
    """

    def __init__(
        self, config: DecoderConfig, slots: int, length: int, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        shape = (slots, config.kv_heads, length, config.head_dim)
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.layers)]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.layers)]
        self.slots, self.length = slots, length

    def move(self, source: Tensor, target: Tensor, length: int) -> None:
        """Copy the first ``length`` tokens of the slots ``source`` (n,) to the slots ``target`` (n,)."""
        for stored in (*self.keys, *self.values):
            stored[target, :, :length] = stored[source, :, :length]


class FillCache(GridAttention):
    """Causal attention over prompts that also stores their keys and values.

    ``slots`` (n,) and ``rows`` (n,): slot ``slots[i]`` receives the prompt in row ``rows[i]``, rows counted over the
    grids in order, so that a prompt is computed once and stored for each of its responses.
    """

    def __init__(self, layout: Layout, cache: KVCache, slots: Tensor, rows: Tensor) -> None:
        super().__init__(layout)
        self.cache = cache
        self.places: dict[int, tuple[Tensor, Tensor]] = {}
        first = 0
        for grid in layout.grids:
            inside = (rows >= first) & (rows < first + grid.rows)
            self.places[grid.offset] = (slots[inside], rows[inside] - first)
            first += grid.rows

    def attend_grid(self, layer: int, grid: Grid, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        slots, rows = self.places[grid.offset]
        for stored, new in ((self.cache.keys[layer], k), (self.cache.values[layer], v)):
            by_row = new.unflatten(0, (grid.rows, grid.width)).transpose(1, 2)
            stored[slots, :, : grid.width] = by_row[rows].to(stored.dtype)
        return super().attend_grid(layer, grid, q, k, v, window)


class StepAttention:
    """One new token for each of the first n slots; ``lengths`` (n,) counts the tokens already cached.

    ``longest`` bounds lengths + 1 and is known on the host, so that no step waits for the device.
    """

    def __init__(self, cache: KVCache, lengths: Tensor, longest: int) -> None:
        self.cache, self.lengths, self.longest = cache, lengths, longest
        self.count = lengths.shape[0]
        self.rows = torch.arange(self.count, device=lengths.device)
        self.distance = lengths[:, None] - torch.arange(longest, device=lengths.device)[None, :]  # (n, longest)
        self.masks: dict[int | None, Tensor] = {}

    def mask(self, window: int | None) -> Tensor:
        """(n, 1, 1, longest) float: 0 where the new token may look, -inf elsewhere."""
        if window not in self.masks:
            seen = self.distance >= 0
            if window is not None:
                seen &= self.distance < window
            zero = torch.zeros((), device=seen.device)
            self.masks[window] = torch.where(seen, zero, -torch.inf)[:, None, None, :]
        return self.masks[window]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        keys[self.rows, :, self.lengths] = k.to(keys.dtype)
        values[self.rows, :, self.lengths] = v.to(values.dtype)
        keys, values = keys[: self.count, :, : self.longest], values[: self.count, :, : self.longest]
        query = q.unflatten(1, (keys.shape[1], -1))  # (n, kv_heads, heads of one kv head, head_dim)
        mask = self.mask(window)
        if q.device.type == "cpu":  # twice as fast here as the fused kernel, which is made for longer queries
            scores = query @ keys.to(query.dtype).transpose(-1, -2) * query.shape[-1] ** -0.5 + mask
            out = scores.softmax(-1).to(query.dtype) @ values.to(query.dtype)
        else:
            out = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask.to(query.dtype))
        return out.flatten(1, 2)
