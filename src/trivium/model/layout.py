"""Where the tokens of a ragged batch sit: flat for everything that works token by token, in grids for attention."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """A block of ``rows`` attention rows, each ``width`` cells wide; its cells start at ``offset`` in the cell list."""

    offset: int
    rows: int
    width: int


@dataclass(frozen=True)
class Layout:
    """The geometry of a ragged batch of T flat tokens.

    Attention runs over *cells*: every sequence is one row of a grid, tokens from the left, filler to the right. Under a
    causal mask no token looks to its right, so filler is never seen and no mask has to be built. Linear layers, norms
    and the head never see filler at all. A prompt shared by several responses is held once in the flat list and has a
    cell in the row of each response.

    ``positions`` (T,): place of each token in its own sequence. ``source`` (M,): the flat token shown in each cell.
    ``home`` (T,): the cell each token's attention output is read from. ``shared`` (S,): flat tokens that have more than
    one cell, ``copies`` (S, C): their other cells (M where there is none). ``dense``: cells and tokens coincide.
    """

    positions: Tensor
    source: Tensor
    home: Tensor
    grids: tuple[Grid, ...]
    shared: Tensor | None
    copies: Tensor | None
    dense: bool

    @property
    def tokens(self) -> int:
        return self.positions.numel()

    def to(self, device: torch.device | str) -> "Layout":
        def moved(value: Tensor) -> Tensor:
            return value.to(device, non_blocking=True)

        shared = None if self.shared is None else moved(self.shared)
        copies = None if self.copies is None else moved(self.copies)
        return Layout(
            moved(self.positions), moved(self.source), moved(self.home), self.grids, shared, copies, self.dense
        )


def _grids(lengths: Sequence[int], groups: Sequence[Sequence[int]]) -> list[list[int]]:
    """Rows sorted into grids so that filler stays below about a third; a group with a shared prompt stays together."""
    order = sorted(groups, key=lambda rows: max(lengths[row] for row in rows))
    grids: list[list[int]] = []
    floor = 0
    for rows in order:
        longest = max(lengths[row] for row in rows)
        if not grids or longest > max(1.5 * floor, floor + 16):
            grids.append([])
            floor = longest
        grids[-1].extend(rows)
    return grids


def ragged_layout(lengths: Sequence[int], prefixes: Sequence[tuple[int, int]] = ()) -> Layout:
    """The layout of flat tokens that belong to sequences of the given ``lengths``.

    Without ``prefixes`` the sequences lie one after the other. With them, ``prefixes`` lists ``(length, responses)``
    for each group in order, ``lengths`` holds the lengths of the responses alone, and the flat order is prefix, its
    responses, next prefix, …: a prefix of 2 tokens with responses of 2 and 1 tokens lies as ``p0 p1 a0 a1 b0`` and
    gives the attention rows ``p0 p1 a0 a1`` and ``p0 p1 b0 (filler)``.

    >>> layout = ragged_layout([2, 1], prefixes=[(2, 2)])
    >>> layout.positions.tolist()
    [0, 1, 2, 3, 2]
    >>> layout.source.tolist()
    [0, 1, 2, 3, 0, 1, 4, 0]
    >>> layout.home.tolist()
    [0, 1, 2, 3, 6]
    """
    if prefixes and sum(count for _, count in prefixes) != len(lengths):
        raise ValueError("the responses counted in `prefixes` must be as many as `lengths`")
    row_tokens: list[list[int]] = []
    groups: list[list[int]] = []
    positions: list[int] = []
    shared_tokens: list[list[int]] = []  # per group, the flat indices of its prefix
    flat, response = 0, 0
    for prefix, count in prefixes or [(0, 1)] * len(lengths):
        head = list(range(flat, flat + prefix))
        positions.extend(range(prefix))
        flat += prefix
        group = []
        for length in lengths[response : response + count]:
            row_tokens.append(head + list(range(flat, flat + length)))
            positions.extend(range(prefix, prefix + length))
            group.append(len(row_tokens) - 1)
            flat += length
        response += count
        groups.append(group)
        shared_tokens.append(head)
    return _assemble(row_tokens, groups, positions, shared_tokens)


def _assemble(
    row_tokens: list[list[int]], groups: list[list[int]], positions: list[int], shared_tokens: list[list[int]]
) -> Layout:
    row_lengths = [len(row) for row in row_tokens]
    source: list[int] = []
    grids: list[Grid] = []
    start_of: dict[int, int] = {}  # row -> its first cell
    for rows in _grids(row_lengths, groups):
        width = max(row_lengths[row] for row in rows)
        grids.append(Grid(len(source), len(rows), width))
        for row in rows:
            start_of[row] = len(source)
            source.extend(row_tokens[row])
            # filler shows the row's own first token: another row's NaN would reach this one, since 0 * NaN is NaN
            source.extend(row_tokens[row][:1] * (width - row_lengths[row]) if row_tokens[row] else [0] * width)
    cells = len(source)
    home = [0] * len(positions)
    for row, tokens in enumerate(row_tokens):
        for place, token in enumerate(tokens):
            home[token] = start_of[row] + place
    shared: list[int] = []
    copies: list[list[int]] = []
    most = max((len(group) for group, head in zip(groups, shared_tokens, strict=True) if head), default=1)
    for group, head in zip(groups, shared_tokens, strict=True):
        if head:
            home_row = group[0]
            for place, token in enumerate(head):
                home[token] = start_of[home_row] + place
                if most > 1:
                    others = [start_of[row] + place for row in group[1:]]
                    shared.append(token)
                    copies.append(others + [cells] * (most - 1 - len(others)))
    return Layout(
        positions=torch.tensor(positions, dtype=torch.long),
        source=torch.tensor(source, dtype=torch.long),
        home=torch.tensor(home, dtype=torch.long),
        grids=tuple(grids),
        shared=torch.tensor(shared, dtype=torch.long) if shared else None,
        copies=torch.tensor(copies, dtype=torch.long) if shared else None,
        dense=source == list(range(len(positions))),
    )
