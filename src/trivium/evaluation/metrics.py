"""Metrics of repeated samples and of text: pass@k, majority@k, bits per byte."""

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that k of n samples, drawn without replacement, hold one of the c right ones: 1 - C(n-c,k)/C(n,k).

    The unbiased estimator of Chen et al., 2021 (Evaluating Large Language Models Trained on Code, section 2.1), as a
    product of ratios, so that no binomial grows large. Needs 1 <= k <= n.

    >>> round(pass_at_k(10, 3, 5), 6)
    0.916667
    """
    _check_draw(n, k)
    if not 0 <= c <= n:
        raise ValueError(f"{c} right samples of {n} are impossible")
    if n - c < k:
        return 1.0
    # C(n-c,k)/C(n,k) = prod over the c right samples of the chance that each lies outside the k drawn; taking the
    # shorter of the two equal products (c factors or k factors) keeps it exact to rounding.
    if c < k:
        missed = math.prod((n - k - i) / (n - i) for i in range(c))
    else:
        missed = math.prod((n - c - i) / (n - i) for i in range(k))
    return 1.0 - missed


def mean_pass_at_k(right: Sequence[Sequence[bool]], k: int) -> float:
    """Mean pass@k over problems; ``right[i]`` says of each sample of problem i whether it is right."""
    if not right:
        raise ValueError("pass@k needs at least one problem")
    return sum(pass_at_k(len(samples), sum(samples), k) for samples in right) / len(right)


def majority_at_k(answers: Sequence[str | None], right: Sequence[bool], k: int) -> float:
    """The expected accuracy of a vote among k of the n samples of one problem, drawn without replacement. Exact.

    ``answers`` [n] are the extracted answers, ``right`` [n] whether each is right. ``None`` (nothing could be
    extracted) takes a place among the k but casts no vote; where nobody votes, the vote is wrong. A tie is won by each
    of the tied answers with equal chance, and enters as that expectation, so no order of the samples is favoured.

    Two votes of "5" (right) and one of "6": of the three pairs that can be drawn, one says 5 and two are tied, so
    (1 + 1/2 + 1/2) / 3:

    >>> round(majority_at_k(["5", "5", "6"], [True, True, False], 2), 6)
    0.666667
    """
    n = len(answers)
    _check_draw(n, k)
    if len(right) != n:
        raise ValueError(f"{n} answers come with {len(right)} judgements")
    votes = Counter(answer for answer in answers if answer is not None)
    # Samples of one answer that were judged differently (a flaky verifier) count as their share.
    credit = Counter(answer for answer, is_right in zip(answers, right, strict=True) if answer is not None and is_right)
    total = Fraction(0)
    for answer, right_votes in credit.items():
        rivals = [count for other, count in votes.items() if other != answer]
        silent = n - votes.total()
        total += Fraction(right_votes, votes[answer]) * _winning_draws(votes[answer], rivals, silent, k)
    return float(total / math.comb(n, k))


def _winning_draws(votes: int, rivals: list[int], silent: int, k: int) -> Fraction:
    """How many of the C(n, k) draws an answer with ``votes`` samples wins, a tie of t answers counting 1/t.

    For each number v of its votes drawn, a rival may get at most v. Rivals that have fewer than v are free to be drawn
    at will, like the silent ones, so they join one pool; only rivals with v or more are walked through one by one.
    ``ways[drawn][tied]`` counts the draws of those.
    """
    total = Fraction(0)
    for own in range(1, min(votes, k) + 1):
        rest = k - own
        pool = silent + sum(count for count in rivals if count < own)
        ways = {(0, 0): 1}
        for count in (count for count in rivals if count >= own):
            following: dict[tuple[int, int], int] = {}
            for (drawn, tied), number in ways.items():
                for taken in range(min(own, rest - drawn) + 1):
                    key = (drawn + taken, tied + (taken == own))
                    following[key] = following.get(key, 0) + number * math.comb(count, taken)
            ways = following
        for (drawn, tied), number in ways.items():
            if rest - drawn <= pool:
                total += Fraction(number * math.comb(pool, rest - drawn) * math.comb(votes, own), tied + 1)
    return total


def mean_majority_at_k(answers: Sequence[Sequence[str | None]], right: Sequence[Sequence[bool]], k: int) -> float:
    """Mean majority@k over problems."""
    if not answers:
        raise ValueError("majority@k needs at least one problem")
    pairs = zip(answers, right, strict=True)
    return sum(majority_at_k(problem, judged, k) for problem, judged in pairs) / len(answers)


def bits_per_byte(nats: float, byte_count: int) -> float:
    """Total negative log-likelihood in nats over the UTF-8 bytes of the text it was measured on, in bits.

    Comparable between models with different tokenizers, which a loss per token is not.

    >>> round(bits_per_byte(math.log(256) * 3, 3), 6)
    8.0
    """
    if byte_count < 1:
        raise ValueError(f"bits per byte needs at least one byte, not {byte_count}")
    return nats / (byte_count * math.log(2))


def _check_draw(n: int, k: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(f"k must lie between 1 and the number of samples ({n}), not {k}")
