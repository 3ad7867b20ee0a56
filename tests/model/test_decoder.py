"""Properties of the ragged decoder and its head: who shares a batch, a prompt or a chunk changes no result."""

import dataclasses
import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trivium.model import head as head_module
from trivium.model.attention import GridAttention, causal_window
from trivium.model.decoder import Decoder, DecoderConfig, RMSNorm, _Normalise, rotate
from trivium.model.head import filter_logits, token_log_probs
from trivium.model.layout import Layout, ragged_layout

CONFIG = DecoderConfig(
    vocabulary_size=19,
    hidden_size=16,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=4,
    mlp_size=24,
    context_length=64,
    qk_norm="head",
    windows=(None, 3),
)
GROUPS = st.lists(
    st.tuples(st.integers(1, 6), st.lists(st.integers(1, 20), min_size=1, max_size=4)), min_size=1, max_size=4
)


def tiny(config: DecoderConfig = CONFIG, dtype: torch.dtype = torch.float64) -> Decoder:
    decoder = Decoder(config)
    decoder.initialise(torch.Generator().manual_seed(1), std=0.3)
    return decoder.to(dtype)


def run(decoder: Decoder, tokens: Tensor, layout: Layout) -> Tensor:
    return decoder(tokens, layout.positions, GridAttention(layout))  # type: ignore[no-any-return]


def gradients(decoder: Decoder, losses: Sequence[Tensor]) -> list[Tensor]:
    decoder.zero_grad()
    for loss in losses:
        loss.backward()
    return [p.grad.clone() for p in decoder.parameters() if p.grad is not None]


def random_tokens(count: int, seed: int = 0) -> Tensor:
    return torch.randint(0, CONFIG.vocabulary_size, (count,), generator=torch.Generator().manual_seed(seed))


def assert_all_close(first: Sequence[Tensor], second: Sequence[Tensor]) -> None:
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_a_ragged_batch_equals_each_sequence_alone(lengths: list[int]) -> None:
    decoder = tiny()
    pieces = [random_tokens(length, seed) for seed, length in enumerate(lengths)]
    weights = [torch.randn(length, 16, dtype=torch.float64) for length in lengths]
    layout = ragged_layout(lengths)
    together = run(decoder, torch.cat(pieces), layout)
    alone = [run(decoder, piece, ragged_layout([len(piece)])) for piece in pieces]
    torch.testing.assert_close(together, torch.cat(alone))
    one = gradients(decoder, [(together * torch.cat(weights)).sum()])
    assert_all_close(one, gradients(decoder, [(out * w).sum() for out, w in zip(alone, weights, strict=True)]))


@settings(max_examples=25, deadline=None)
@given(groups=GROUPS)
def test_a_shared_prompt_equals_a_prompt_for_each_response(groups: list[tuple[int, list[int]]]) -> None:
    """Flat order is prompt, its responses, next prompt; the same rows written out each carry their own prompt."""
    decoder = tiny()
    shared: list[Tensor] = []
    rows: list[Tensor] = []
    prompt_rows: list[tuple[int, int]] = []  # of each written-out row: prompt length and its group
    for number, (prompt, responses) in enumerate(groups):
        head = random_tokens(prompt, number)
        shared.append(head)
        for response, length in enumerate(responses):
            tail = random_tokens(length, 100 * number + response + 1)
            shared.append(tail)
            rows.append(torch.cat([head, tail]))
            prompt_rows.append((prompt, number))
    layout = ragged_layout(
        [length for _, responses in groups for length in responses],
        prefixes=[(prompt, len(responses)) for prompt, responses in groups],
    )
    together = run(decoder, torch.cat(shared), layout)
    alone = [run(decoder, row, ragged_layout([len(row)])) for row in rows]
    expected, seen = [], set()
    for (prompt, number), out in zip(prompt_rows, alone, strict=True):
        if number not in seen:  # the prompt's states are those of any of its rows
            expected.append(out[:prompt])
            seen.add(number)
        expected.append(out[prompt:])
    torch.testing.assert_close(together, torch.cat(expected))
    weight = torch.randn(together.shape, dtype=torch.float64)
    one = gradients(decoder, [(together * weight).sum()])
    assert_all_close(one, gradients(decoder, [(torch.cat(expected) * weight).sum()]))


def test_a_group_wider_than_its_neighbours_lands_in_its_own_grid() -> None:
    layout = ragged_layout([2, 3, 60], prefixes=[(2, 2), (1, 1)])
    assert [(grid.rows, grid.width) for grid in layout.grids] == [(2, 5), (1, 61)]
    with pytest.raises(ValueError, match="as many as"):
        ragged_layout([1, 2, 3], prefixes=[(2, 2)])


@pytest.mark.parametrize("windows", [(), (2, 2)])
def test_filler_is_never_seen(windows: tuple[int, ...]) -> None:
    """A NaN in one sequence, even in the first token of the batch, may reach no other through the filler."""
    decoder = tiny(dataclasses.replace(CONFIG, windows=windows))
    layout = ragged_layout([1, 4, 2, 7])
    assert not layout.dense
    x = torch.randn(14, 4, 4, dtype=torch.float64, requires_grad=True)
    kv = torch.randn(14, 2, 4, dtype=torch.float64, requires_grad=True)
    bad, bad_kv = x.clone(), kv.clone()
    bad[0], bad_kv[0] = torch.nan, torch.nan
    out = GridAttention(layout)(0, bad, bad_kv, bad_kv, decoder.config.window(0))
    assert out[0].isnan().all() and not out[1:].isnan().any()
    torch.testing.assert_close(out[1:], GridAttention(layout)(0, x, kv, kv, decoder.config.window(0))[1:])
    out[1:].square().sum().backward()
    assert x.grad is not None and not x.grad[1:].isnan().any()
    assert kv.grad is not None and not kv.grad[1:].isnan().any()


def test_a_nan_sequence_stays_alone() -> None:
    decoder = tiny()
    with torch.no_grad():
        decoder.embedding.weight[5] = torch.nan
    tokens = torch.tensor([1, 2, 5, 5, 3, 4, 6, 7, 8])  # sequences of 2, 2 and 5: only the middle one holds token 5
    out = run(decoder, tokens, ragged_layout([2, 2, 5]))
    assert out[2:4].isnan().all() and not out[:2].isnan().any() and not out[4:].isnan().any()


def test_a_token_depends_on_no_later_one() -> None:
    decoder = tiny(dataclasses.replace(CONFIG, windows=()))
    tokens = random_tokens(12)
    changed = tokens.clone()
    changed[7] = (changed[7] + 1) % CONFIG.vocabulary_size
    before, after = (run(decoder, each, ragged_layout([12])) for each in (tokens, changed))
    assert torch.equal(before[:7], after[:7]) and not torch.isclose(before[7:], after[7:]).all(-1).any()


def test_a_window_of_three_sees_itself_and_two_before() -> None:
    assert causal_window(5, 3, torch.device("cpu")).int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [0, 1, 1, 1, 0],
        [0, 0, 1, 1, 1],
    ]
    decoder = tiny(dataclasses.replace(CONFIG, layers=1, windows=(3,)))
    tokens = random_tokens(8)
    changed = tokens.clone()
    changed[2] = (changed[2] + 1) % CONFIG.vocabulary_size
    before, after = (run(decoder, each, ragged_layout([8])) for each in (tokens, changed))
    assert [index for index in range(8) if not torch.equal(before[index], after[index])] == [2, 3, 4]


def test_gradient_checkpointing_changes_nothing() -> None:
    decoder = tiny()
    layout = ragged_layout([5, 3])
    plain = gradients(decoder, [run(decoder, random_tokens(8), layout).square().sum()])
    decoder.gradient_checkpointing = True
    assert_all_close(plain, gradients(decoder, [run(decoder, random_tokens(8), layout).square().sum()]))


def test_initialise_is_reproducible_and_smaller_on_residual_outputs() -> None:
    config = dataclasses.replace(CONFIG, hidden_size=64, mlp_size=128, qkv_bias=True, layers=8, windows=())
    first, second = (Decoder(config) for _ in range(2))
    for decoder in (first, second):
        decoder.initialise(torch.Generator().manual_seed(4))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    block = first.blocks[0]
    assert block.mlp.up.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.mlp.down.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert block.attention.q.bias.abs().max() == 0 and (block.mlp_norm.weight == 1).all()


SETTINGS = [(1.0, 0, 1.0), (0.7, 0, 1.0), (1.3, 5, 1.0), (1.0, 0, 0.8), (0.9, 7, 0.7)]


def plain_log_probs(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, top_k: int, top_p: float
) -> tuple[Tensor, Tensor]:
    """The definition, one row at a time and in the type of its input."""
    rows, spreads = [], []
    for state, target in zip(hidden, targets, strict=True):
        logits = F.linear(state, weight) / temperature
        order = logits.detach().argsort(descending=True).tolist()
        kept = order[:top_k] if top_k else list(order)
        if top_p < 1.0:
            probability = logits.detach()[kept].softmax(-1)
            count = 1 + int((probability.cumsum(-1) < top_p).sum())
            kept = kept[:count]
        if int(target) not in kept:
            kept.append(int(target))
        log_probs = logits[kept].log_softmax(-1)
        rows.append(log_probs[kept.index(int(target))])
        spreads.append(-(log_probs.exp() * log_probs).sum().detach())
    return torch.stack(rows), torch.stack(spreads)


@pytest.mark.parametrize("chunk", [1 << 24, 3 * 23, 1])
@pytest.mark.parametrize(("temperature", "top_k", "top_p"), SETTINGS)
def test_token_log_probs_equal_their_definition(
    temperature: float, top_k: int, top_p: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and gradients, whole, in chunks of three rows and of one, against plain autograd in float64."""
    monkeypatch.setattr(head_module, "CHUNK_ELEMENTS", chunk)
    generator = torch.Generator().manual_seed(11)
    hidden = torch.randn(10, 8, generator=generator).requires_grad_()
    weight = torch.randn(23, 8, generator=generator).requires_grad_()
    targets = torch.randint(0, 23, (10,), generator=generator)
    upstream = torch.randn(10, generator=generator)
    chosen, entropy = token_log_probs(hidden, weight, targets, temperature, top_k, top_p)
    wide, wide_weight = (x.detach().double().requires_grad_() for x in (hidden, weight))
    expected, spread = plain_log_probs(wide, wide_weight, targets, temperature, top_k, top_p)
    torch.testing.assert_close(chosen.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy.double(), spread, rtol=1e-5, atol=1e-5)
    assert chosen.isfinite().all() and not entropy.requires_grad
    (chosen * upstream).sum().backward()
    (expected * upstream).sum().backward()
    torch.testing.assert_close(hidden.grad.double(), wide.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weight.grad.double(), wide_weight.grad, rtol=1e-4, atol=1e-5)


def test_no_loss_token_gives_zero_and_a_gradient_of_zero() -> None:
    hidden, weight = torch.randn(0, 8, requires_grad=True), torch.randn(23, 8, requires_grad=True)
    chosen, entropy = token_log_probs(hidden, weight, torch.zeros(0, dtype=torch.long))
    assert chosen.shape == entropy.shape == (0,)
    chosen.sum().backward()
    assert weight.grad is not None and (weight.grad == 0).all()


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    kept = lambda **options: filter_logits(logits, **options).isfinite()[0].tolist()  # noqa: E731
    assert kept(top_p=0.5) == [True, False, False, False]
    assert kept(top_p=0.51) == [True, True, False, False]
    assert kept(top_k=3, top_p=0.9) == [True, True, True, False]  # of three: 0.526, 0.316, 0.158
    assert kept(top_k=3, top_p=0.8) == [True, True, False, False]
    assert kept(top_k=1, keep=torch.tensor([3])) == [True, False, False, True]


def test_own_backward_passes_against_finite_differences() -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(5, 2, 6, generator=generator, dtype=torch.float64).requires_grad_()
    norm = RMSNorm(6, 1e-5).double()
    with torch.no_grad():
        norm.weight.copy_(torch.randn(6, generator=generator))
    assert torch.autograd.gradcheck(lambda x, weight: _Normalise.apply(x, weight, 1e-5), (x, norm.weight))
    expected = F.rms_norm(x, (6,), norm.weight, 1e-5)
    torch.testing.assert_close(norm(x), expected)
    decoder = tiny(dataclasses.replace(CONFIG, head_dim=6))
    positions = torch.tensor([0, 3, 3, 40, 63])
    cos, sin = (table[positions].unsqueeze(1).double() for table in (decoder.cos, decoder.sin))
    assert torch.autograd.gradcheck(lambda x: rotate(x, cos, sin), (x,))


def test_rotation_turns_pairs_by_their_angle() -> None:
    """Channels 0 and 3 of a head of 6 are one point; position 2 turns it by 2 radians, position 0 not at all."""
    decoder = tiny(dataclasses.replace(CONFIG, head_dim=6))
    x = torch.tensor([[[1.0, 0, 0, 0, 0, 0]], [[1.0, 0, 0, 0, 0, 0]]], dtype=torch.float64)
    cos, sin = (table[torch.tensor([0, 2])].unsqueeze(1).double() for table in (decoder.cos, decoder.sin))
    turned = rotate(x, cos, sin)
    assert turned[0, 0].tolist() == [1, 0, 0, 0, 0, 0]
    expected = torch.tensor([math.cos(2), 0, 0, math.sin(2), 0, 0], dtype=torch.float64)
    torch.testing.assert_close(turned[1, 0], expected, rtol=0, atol=1e-6)


def test_norm_of_half_precision_takes_its_statistics_in_float32() -> None:
    x = torch.full((1, 512), 300.0, dtype=torch.float16)  # 300 squared overflows float16
    assert torch.equal(RMSNorm(512, 1e-5).half()(x), torch.ones(1, 512, dtype=torch.float16))
