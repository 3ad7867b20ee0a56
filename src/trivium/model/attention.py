"""How attention sees a ragged batch: each way to attend is a callable ``attend(layer, q, k, v, window) -> out``.

The decoder hands flat tensors, q (T, heads, head_dim), k and v (T, kv_heads, head_dim), and gets (T, heads, head_dim)
back; it knows neither batches nor caches.
"""

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from trivium.model.layout import Grid, Layout


class Attend(Protocol):
    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor: ...


class _ToCells(torch.autograd.Function):
    """Flat tokens (T, …) to cells (M, …). The gradient of a token is the sum over its cells, by gathers alone."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, layout: Layout) -> Tensor:
        ctx.layout = layout
        return flat.index_select(0, layout.source)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        layout: Layout = ctx.layout
        flat = gradient.index_select(0, layout.home)
        if layout.shared is not None:
            assert layout.copies is not None
            padded = torch.cat([gradient, gradient.new_zeros(1, *gradient.shape[1:])])
            others = padded[layout.copies].sum(1)
            flat.index_copy_(0, layout.shared, flat.index_select(0, layout.shared) + others)
        return flat, None


class _FromCells(torch.autograd.Function):
    """Cells (M, …) to flat tokens (T, …), each read from its home cell; filler gets a zero gradient."""

    @staticmethod
    def forward(ctx: Any, cells: Tensor, layout: Layout) -> Tensor:
        ctx.layout, ctx.cells = layout, cells.shape[0]
        return cells.index_select(0, layout.home)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        cells = gradient.new_zeros(ctx.cells, *gradient.shape[1:])
        return cells.index_copy_(0, ctx.layout.home, gradient), None


def causal_window(width: int, window: int, device: torch.device) -> Tensor:
    """(width, width) mask: True where a query may look, itself and the ``window - 1`` tokens before it."""
    place = torch.arange(width, device=device)
    distance = place[:, None] - place[None, :]
    return (distance >= 0) & (distance < window)


class GridAttention:
    """Causal attention over the rows of a layout's grids."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        layout = self.layout
        if not layout.dense:
            q, k, v = (_ToCells.apply(x, layout) for x in (q, k, v))
        outputs = []
        for grid in layout.grids:
            cells = slice(grid.offset, grid.offset + grid.rows * grid.width)
            outputs.append(self.attend_grid(layer, grid, q[cells], k[cells], v[cells], window))
        out = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return out if layout.dense else _FromCells.apply(out, layout)  # type: ignore[no-any-return]

    def attend_grid(self, layer: int, grid: Grid, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        """Causal attention of one grid; q, k, v and the result are (rows * width, heads, head_dim)."""
        q, k, v = (x.unflatten(0, (grid.rows, grid.width)).transpose(1, 2) for x in (q, k, v))
        mask = None
        if window is not None and window < grid.width:
            mask = causal_window(grid.width, window, q.device)
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=q.shape[1] != k.shape[1]
        )
        return out.transpose(1, 2).flatten(0, 1)
