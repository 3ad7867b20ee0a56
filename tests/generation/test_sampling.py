import pytest
import torch

from trivium.generation.sampling import SamplingSettings, draw, uniforms
from trivium.generation.scheduler import Request, Scheduler

LOGITS = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log()


def at(uniform: float, **choices: float) -> tuple[int, float]:
    token, log_prob = draw(LOGITS, torch.tensor([uniform]), SamplingSettings(**choices))  # type: ignore[arg-type]
    return int(token), float(log_prob.exp())


@pytest.mark.parametrize(("uniform", "token"), [(0.0, 0), (0.499, 0), (0.501, 1), (0.76, 2), (0.91, 3), (1.0, 3)])
def test_a_token_is_where_the_uniform_falls(uniform: float, token: int) -> None:
    assert at(uniform)[0] == token


def test_log_probs_are_those_of_what_was_kept() -> None:
    assert at(0.7, top_k=2) == (1, pytest.approx(1 / 3))
    assert at(0.9999, top_k=2)[0] == 1
    assert at(0.9999, top_p=0.6) == (1, pytest.approx(1 / 3))  # the smallest set that reaches 0.6 is 0.5 + 0.25
    assert at(0.9999, top_p=0.5) == (0, pytest.approx(1.0))
    squared = 0.25 + 0.0625 + 0.0225 + 0.01
    assert at(0.0, temperature=0.5) == (0, pytest.approx(0.25 / squared))


def test_a_token_of_no_probability_is_never_drawn() -> None:
    """Not even at the last uniform, where rounding could point behind the last token."""
    logits = torch.tensor([[0.0, 1.0, -torch.inf, -torch.inf]])
    last = torch.tensor([1.0 - 2.0**-53], dtype=torch.float64)
    assert draw(logits, last, SamplingSettings())[0].item() == 1
    assert draw(logits.flip(-1), torch.zeros(1, dtype=torch.float64), SamplingSettings())[0].item() == 2


def test_greedy_takes_the_first_largest_with_its_plain_log_prob() -> None:
    token, log_prob = draw(torch.tensor([[1.0, 2.0, 2.0]]), torch.rand(1), SamplingSettings(temperature=0.0))
    assert token.item() == 1
    assert log_prob.item() == pytest.approx(torch.tensor([1.0, 2.0, 2.0]).log_softmax(0)[1].item())


def test_uniforms_are_a_function_of_key_and_position() -> None:
    keys, positions = torch.arange(1000), torch.zeros(1000, dtype=torch.long)
    numbers = uniforms(keys, positions)
    assert numbers.min() >= 0 and numbers.max() < 1
    assert abs(numbers.mean().item() - 0.5) < 0.03 and abs(numbers.var().item() - 1 / 12) < 0.01
    assert uniforms(keys[5:6], positions[5:6]) == numbers[5]
    along = uniforms(torch.full((1000,), 7), torch.arange(1000))
    assert abs(along.mean().item() - 0.5) < 0.03
    assert abs(torch.corrcoef(torch.stack([along[1:], along[:-1]]))[0, 1].item()) < 0.1
    assert numbers.unique().numel() == 1000


def test_uniforms_are_splitmix64() -> None:
    """The generator's published first outputs for the seed 1234567, as its upper 53 bits."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    found = uniforms(torch.full((3,), 1234567), torch.arange(3))
    assert found.tolist() == [(value >> 11) * 2.0**-53 for value in published]


def scheduler(sizes: list[int], slots: int) -> Scheduler:
    requests = [Request((1, 2), str(number), size) for number, size in enumerate(sizes)]
    return Scheduler(requests, SamplingSettings(max_new_tokens=4), 0, slots, 16, 0)


def test_groups_start_together_and_in_order() -> None:
    """3 + 2 fit into six slots, the next three wait, and so does the one behind them: first come, first served."""
    plan = scheduler([3, 2, 3, 1], slots=6)
    assert [len(group) for group in plan.admit()] == [3, 2]
    plan.active[0].completion.finish_reason = plan.active[4].completion.finish_reason = "stop"
    moved = plan.release()
    assert moved == ([3], [0]) and len(plan.active) == 3
    assert [item.request.id for item in plan.active] == ["1", "0", "0"]
    assert [len(group) for group in plan.admit()] == [3]


def test_a_group_larger_than_the_slots_is_cut() -> None:
    plan = scheduler([5], slots=2)
    assert [len(group) for group in plan.admit()] == [2]
    assert [len(group) for group in plan.waiting] == [2, 1]


def test_nothing_moves_when_the_last_ones_finish() -> None:
    plan = scheduler([3], slots=3)
    plan.admit()
    plan.active[2].completion.finish_reason = "length"
    assert plan.release() == ([], []) and len(plan.active) == 2
