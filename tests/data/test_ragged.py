import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.data.ragged import batch_groups, batch_sequences, micro_batches
from trivium.data.records import TokenSequence

SEQUENCES = st.lists(
    st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=8).map(
        lambda pairs: TokenSequence(tuple(token for token, _ in pairs), tuple(carries for _, carries in pairs))
    ),
    min_size=1,
    max_size=6,
)
GROUPS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 9), min_size=1, max_size=5),
        st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=4,
)


@given(SEQUENCES)
def test_a_target_is_predicted_from_the_token_before_it(sequences: list[TokenSequence]) -> None:
    batch = batch_sequences(sequences)
    expected = [
        (number, place, sequence.tokens[place])
        for number, sequence in enumerate(sequences)
        for place in range(1, len(sequence.tokens))
        if sequence.loss_mask[place]
    ]
    assert len(expected) == sum(sequence.loss_tokens for sequence in sequences)
    found = list(zip(batch.sequences.tolist(), batch.sources.tolist(), batch.targets.tolist(), strict=True))
    assert [(number, target) for number, _, target in found] == [(number, target) for number, _, target in expected]
    for (number, source, _), (_, place, _) in zip(found, expected, strict=True):
        assert batch.layout.positions[source] == place - 1
        assert batch.tokens[source] == sequences[number].tokens[place - 1]


@given(SEQUENCES)
def test_no_token_is_computed_behind_the_last_target(sequences: list[TokenSequence]) -> None:
    """A sequence without any target keeps one token, so that the forward pass has something to work on."""
    expected: list[int] = []
    for sequence in sequences:
        last = max(place for place, carries in enumerate((True, *sequence.loss_mask[1:])) if carries)
        expected.extend(sequence.tokens[: max(last, 1)])
    batch = batch_sequences(sequences)
    assert batch.tokens.tolist() == expected
    assert len(batch.layout.positions) == len(expected)


@given(GROUPS)
def test_shared_and_written_out_prompts_hold_the_same_targets(groups: list[tuple[list[int], list[list[int]]]]) -> None:
    """Each target, the token before it, its place and its sequence; every response token is a target."""
    seen = []
    for share in (True, False):
        batch = batch_groups(groups, share)
        before = batch.tokens[batch.sources].tolist()
        positions = batch.layout.positions[batch.sources].tolist()
        seen.append(list(zip(batch.sequences.tolist(), positions, before, batch.targets.tolist(), strict=True)))
    assert seen[0] == seen[1]
    number, expected = 0, []
    for prompt, responses in groups:
        for response in responses:
            whole = [*prompt, *response]
            for place in range(len(prompt), len(whole)):
                expected.append((number, place - 1, whole[place - 1], whole[place]))
            number += 1
    assert seen[0] == expected


@given(GROUPS)
def test_a_shared_prompt_is_held_once(groups: list[tuple[list[int], list[list[int]]]]) -> None:
    responses = sum(len(response) - 1 for _, group in groups for response in group)
    assert len(batch_groups(groups).tokens) == sum(len(prompt) for prompt, _ in groups) + responses
    alone = sum(len(prompt) * len(group) for prompt, group in groups)
    assert len(batch_groups(groups, share=False).tokens) == alone + responses


def test_the_worked_example_of_a_group() -> None:
    """Prompt 1 2, responses "3 4" and "5": both begin after the 2, and neither's last token is an input."""
    batch = batch_groups([([1, 2], [[3, 4], [5]])])
    assert batch.tokens.tolist() == [1, 2, 3]
    assert batch.layout.positions.tolist() == [0, 1, 2]
    assert list(zip(batch.sources.tolist(), batch.targets.tolist(), strict=True)) == [(1, 3), (2, 4), (1, 5)]


@given(st.lists(st.integers(1, 30), max_size=20), st.integers(1, 40))
def test_micro_batches_hold_every_item_once_and_in_order(sizes: list[int], budget: int) -> None:
    cut = micro_batches(sizes, budget)
    assert [item for part in cut for item in part] == list(range(len(sizes)))
    for part in cut:
        assert len(part) == 1 or sum(sizes[item] for item in part) <= budget
    for part, following in itertools.pairwise(cut):  # as few as that order allows
        assert sum(sizes[item] for item in part) + sizes[following[0]] > budget


@pytest.mark.parametrize("budget", [1, 5, 100])
def test_micro_batches_of_nothing(budget: int) -> None:
    assert micro_batches([], budget) == []
