import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import hypothesis.strategies as st
import krippendorff
import numpy as np
import pytest
from hypothesis import given
from scipy.stats import kendalltau

from trivium.config import RankingSourceConfig
from trivium.data.records import Message, Prompt
from trivium.feedback.rankings.agreement import agreement_report, places
from trivium.feedback.rankings.coefficients import kendall_w, krippendorff_alpha, tau_b, tied_ranks
from trivium.feedback.rankings.record import Ranking, Response
from trivium.feedback.rankings.sources import read_rankings
from trivium.streams import generator

N = None
# Four observers, twelve units (Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011).
PUBLISHED = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
    [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
]


def ranking(tiers: Sequence[int], annotator: str = "ann", task: str = "t", **more) -> Ranking:
    prompt = Prompt(f"p{task}", (Message("user", f"Say {task}."),))
    responses = tuple(Response(f"answer {number}") for number in range(len(tiers)))
    return Ranking(prompt, responses, tuple(tiers), annotator, task=task, **more)


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_the_published_example(level: str, alpha: float) -> None:
    assert krippendorff_alpha(PUBLISHED, level) == pytest.approx(alpha, abs=5e-4)


VALUES = st.one_of(st.none(), st.integers(0, 4))
TABLES = st.integers(2, 7).flatmap(lambda n: st.lists(st.lists(VALUES, min_size=n, max_size=n), min_size=2, max_size=4))


@given(TABLES, st.sampled_from(["nominal", "ordinal", "interval"]))
def test_alpha_equals_the_package(table, level: str) -> None:
    array = np.array(table, dtype=float)
    ours = krippendorff_alpha(table, level)
    paired = array[:, (~np.isnan(array)).sum(axis=0) > 1]
    if len(set(paired[~np.isnan(paired)])) < 2:
        assert math.isnan(ours)  # no variation: undefined
        return
    assert ours == pytest.approx(krippendorff.alpha(paired, level_of_measurement=level), abs=1e-9)


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="nominal, ordinal, interval"):
        krippendorff_alpha(PUBLISHED, "ratio")


def test_tau_b_exact() -> None:
    assert tau_b([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.912871, abs=1e-6)
    # Places of A, B, C in (B, C, A) and in (B, A, C).
    assert tau_b([2, 0, 1], [1, 0, 2]) == pytest.approx(1 / 3)
    assert math.isnan(tau_b([1, 1, 1], [1, 2, 3])) and math.isnan(tau_b([], []))
    assert tau_b([0, math.nan, 1], [0, 5, 1]) == 1.0


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=9))
def test_tau_b_equals_scipy(items) -> None:
    a, b = zip(*items, strict=True)
    assert tau_b(a, b) == pytest.approx(kendalltau(a, b).statistic, nan_ok=True)


def test_w_exact() -> None:
    assert kendall_w([(1, 2, 3, 4), (1, 3, 2, 4), (2, 1, 3, 4)]) == pytest.approx(0.777778, abs=1e-6)
    assert kendall_w([(1, 2), (2, 1)]) == 0.0
    assert kendall_w([(0, 0, 1), (0, 0, 1)]) == pytest.approx(1.0)  # the correction: tied alike is full concordance
    assert math.isnan(kendall_w([(1, 1), (2, 2)])) and math.isnan(kendall_w([(1, 2)]))


@given(st.lists(st.permutations(range(4)), min_size=2, max_size=5))
def test_w_of_untied_rankings_is_the_mean_spearman(rows) -> None:
    """W = ((m - 1) r + 1) / m, with r the mean of Spearman's correlations (Kendall, Rank Correlation Methods)."""
    correlations = np.corrcoef(np.array(rows))[np.triu_indices(len(rows), 1)]
    m = len(rows)
    assert kendall_w(rows) == pytest.approx(((m - 1) * correlations.mean() + 1) / m, abs=1e-9)


def test_places_share_ties_and_leave_out_unranked() -> None:
    assert tied_ranks([0, 1, 0]).tolist() == [1.5, 3.0, 1.5]
    assert places([0, 1, 2]).tolist() == [0, 0.5, 1]
    assert places([0, 0, 0]).tolist() == [0.5, 0.5, 0.5]
    assert np.array_equal(places([0, -1, 1]), [0, np.nan, 1], equal_nan=True)
    assert np.isnan(places([0, -1, -1])).all()


def test_how_ties_count() -> None:
    """Pairs AB, AC, BC. x: A > B > C. y: A = B > C. They say the same of two pairs; of AB one says a tie."""
    report = agreement_report([ranking((0, 1, 2), "x"), ranking((0, 0, 1), "y")])["all"]
    assert report["comparisons"] == 3 and report["tasks"] == 1
    assert report["agreement"]["estimate"] == pytest.approx(2 / 3)
    assert report["ties_half"]["estimate"] == pytest.approx(2.5 / 3)
    assert report["strict"]["estimate"] == 1.0
    assert report["tie_share"] == pytest.approx(1 / 6)
    assert report["tau_b"]["estimate"] == pytest.approx(tau_b([0, 1, 2], [0, 0, 1]))
    assert report["w"]["estimate"] == pytest.approx(kendall_w([[0, 1, 2], [0, 0, 1]]))


def test_unranked_responses_are_not_compared() -> None:
    report = agreement_report([ranking((0, 1, -1), "x"), ranking((1, 0, 2), "y")])["all"]
    assert report["comparisons"] == 1 and report["agreement"]["estimate"] == 0.0
    assert report["tau_b"]["estimate"] == -1.0


TIERS = st.lists(st.integers(-1, 2), min_size=4, max_size=4)


@given(st.lists(TIERS, min_size=2, max_size=4), st.lists(TIERS, min_size=2, max_size=4))
def test_the_report_equals_a_slow_count(one, two) -> None:
    rankings = [
        ranking(tiers, f"ann{number}", task)
        for task, rows in (("t", one), ("u", two))
        for number, tiers in enumerate(rows)
    ]
    same = against = compared = strict = strict_same = 0
    taus = []
    for rows in (one, two):
        for number, a in enumerate(rows):
            for b in rows[:number]:
                common = [k for k in range(4) if a[k] >= 0 and b[k] >= 0]
                taus.append(tau_b([a[k] for k in common], [b[k] for k in common]))
                for j in common:
                    for i in common:
                        if i < j:
                            x, y = np.sign(a[j] - a[i]), np.sign(b[j] - b[i])
                            compared += 1
                            same += x == y
                            against += (x == 0) != (y == 0)
                            strict += bool(x and y)
                            strict_same += bool(x and x == y)
    found = agreement_report(rankings)["all"]
    assert found["comparisons"] == compared
    assert found["agreement"]["estimate"] == (pytest.approx(same / compared) if compared else None)
    assert found["ties_half"]["estimate"] == (pytest.approx((same + against / 2) / compared) if compared else None)
    assert found["strict"]["estimate"] == (pytest.approx(strict_same / strict) if strict else None)
    known = [tau for tau in taus if not math.isnan(tau)]
    assert found["tau_b"]["estimate"] == (pytest.approx(np.mean(known)) if known else None)


def test_alpha_of_rankings_is_alpha_over_places() -> None:
    random = generator(0, "test")
    rows = [[tuple(random.integers(0, 3, 4).tolist()) for _ in range(3)] for _ in range(6)]
    rankings = [ranking(tiers, f"a{n}", f"t{t}") for t, task in enumerate(rows) for n, tiers in enumerate(task)]
    table = np.concatenate([np.stack([places(tiers) for tiers in task]) for task in rows], axis=1)
    alpha = agreement_report(rankings)["all"]["alpha"]
    for level in ("nominal", "interval"):
        assert alpha[level] == pytest.approx(krippendorff.alpha(table, level_of_measurement=level))
    assert alpha["ordinal"]["estimate"] == pytest.approx(krippendorff.alpha(table, level_of_measurement="ordinal"))
    assert alpha["ordinal"]["low"] < alpha["ordinal"]["estimate"] < alpha["ordinal"]["high"]


def test_rankme_real(shared_data: Path) -> None:
    """The figures of docs/rankings.md; alpha against the package on the same units."""
    source = shared_data / "restaurants" / "rankme_rankings.jsonl"
    found = read_rankings([RankingSourceConfig(source=str(source))])
    report = agreement_report(found)
    alphas = {name: row["alpha"]["ordinal"]["estimate"] for name, row in report["by_criterion"].items()}
    assert alphas == pytest.approx({"informativeness": 0.620, "naturalness": 0.023, "quality": 0.057}, abs=5e-4)
    shares = {name: row["agreement"]["estimate"] for name, row in report["by_criterion"].items()}
    assert shares == pytest.approx({"informativeness": 0.675, "naturalness": 0.734, "quality": 0.541}, abs=5e-4)
    raters = sorted({ranking.annotator for ranking in found})
    columns: dict[str, np.ndarray] = {}
    for one in found:
        if one.criterion == "quality":
            columns.setdefault(one.task, np.full((len(raters), 3), np.nan))[raters.index(one.annotator)] = places(
                one.tiers
            )
    table = np.concatenate(list(columns.values()), axis=1)
    assert alphas["quality"] == pytest.approx(krippendorff.alpha(table, level_of_measurement="ordinal"))


def test_corrected_repeated_and_skipped_rankings() -> None:
    first = ranking((0, 1), "x", id="1")
    rankings = [
        first,
        ranking((1, 0), "x", id="2", supersedes="1"),
        ranking((1, 0), "y", id="3"),
        ranking((-1, -1), "z", id="4", skipped="I do not know the subject"),
    ]
    report = agreement_report(rankings)
    assert report["all"]["agreement"]["estimate"] == 1.0
    assert (report["rankings"], report["corrected"], report["skipped"], report["annotators"]) == (2, 1, 1, 3)
    again = agreement_report([*rankings, ranking((0, 1), "x", id="5")])  # the last word counts
    assert again["all"]["agreement"]["estimate"] == 0.0


def test_criteria_are_not_mixed() -> None:
    rankings = [ranking((0, 1), "x", criterion="polite"), ranking((1, 0), "y", criterion="brief")]
    report = agreement_report(rankings)
    assert report["all"]["comparisons"] == 0 and report["all"]["agreement"]["estimate"] is None
    assert list(report["by_criterion"]) == ["brief", "polite"]


def test_gold() -> None:
    gold = {"t": (0, 1, 1), "u": (0, 1)}
    rankings = [
        ranking((0, 1, 2), "x"),  # both judged pairs right; what gold ties is not judged
        ranking((0, 1, 0), "y"),  # AB right, AC tied
        ranking((1, 0), "y", "u"),
        ranking((0, 1), "y", "other"),
    ]
    report = agreement_report(rankings, gold)
    assert report["by_annotator"]["x"]["gold"] == {"pairs": 2, "right": 2, "tied": 0, "accuracy": 1.0}
    assert report["by_annotator"]["y"]["gold"] == {"pairs": 3, "right": 1, "tied": 1, "accuracy": 0.5}
    assert report["gold"]["accuracy"] == pytest.approx(3.5 / 5) and report["gold"]["tasks"] == 2
    with pytest.raises(ValueError, match="3 tiers for 2"):
        agreement_report([ranking((0, 1))], gold)


def test_kinds_over_time_and_plain_data() -> None:
    rankings = [
        ranking((0, 1), name, f"t{t}", kind=kind, time=f"2026-01-0{1 + t // 15}T10:00:00Z", seconds=float(t))
        for t in range(30)
        for name, kind in (("ada", "human"), ("bot", "ai"))
    ]
    report = agreement_report([*rankings[:-1], ranking((1, 0), "bot", "t29", kind="ai", time=rankings[-1].time)])
    (between,) = report["between_kinds"]
    assert between["kinds"] == ["ai", "human"] and between["comparisons"] == 30
    assert between["agreement"] == pytest.approx(29 / 30) and between["kappa"] == pytest.approx(28 / 30)
    assert [(day["day"], day["rankings"]) for day in report["by_day"]] == [("2026-01-01", 30), ("2026-01-02", 30)]
    assert [day["agreement"] for day in report["by_day"]] == [1.0, pytest.approx(14 / 15)]
    assert [(block["from"], block["to"], block["rankings"]) for block in report["by_nth"]] == [
        (1, 20, 40),
        (21, 40, 20),
    ]
    assert report["by_annotator"]["ada"]["median_seconds"] == 14.5
    json.dumps(report, allow_nan=False)


def test_nothing_to_compare() -> None:
    for rankings in ([], [ranking((0, 1))], [ranking((0, -1), all_bad=True), ranking((-1, 0), "y", all_bad=True)]):
        report = agreement_report(rankings)
        assert report["all"]["alpha"]["ordinal"]["estimate"] is None
        json.dumps(report, allow_nan=False)


def test_ten_thousand_rankings_are_cheap() -> None:
    random = generator(1, "test")
    rankings = [
        ranking(random.permutation(4).tolist(), f"ann{t % 20 + n}", f"t{t}", criterion=f"c{t % 3}")
        for t in range(3334)
        for n in range(3)
    ]
    start = time.process_time()
    report = agreement_report(rankings)
    seconds = time.process_time() - start
    print(f"{seconds:.2f} s")
    assert seconds < 20  # about 1 s; a loaded machine may be slow
    # Chance: no agreement beyond it.
    assert abs(report["all"]["alpha"]["ordinal"]["estimate"]) < 0.02
    assert report["all"]["agreement"]["low"] < 0.5 < report["all"]["agreement"]["high"]
