"""The figures: what they show is what was measured, and who did not finish is in them."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.studies.results_fixture import of_arms, of_curves, on_axis
from trivium.report.canvas import LIGHT, VARIABLE, standalone, to_svg
from trivium.studies.analysis import analyse
from trivium.studies.figures import NARROW, WIDE, alt, curves_figure, dots_figure, figures_of, lines_figure

RESULTS = {"arms": of_arms(), "axis": on_axis(), "curves": of_curves(), "one seed": of_arms([0])}


def texts(svg: str) -> str:
    return " ".join(element.text or "" for element in ElementTree.fromstring(svg).iter() if element.text)


@pytest.mark.parametrize(("name", "kinds"), [("arms", ["dots"]), ("axis", ["lines"]), ("curves", ["curves", "dots"])])
def test_which_figures_a_study_has(name: str, kinds: list[str]) -> None:
    assert list(figures_of(analyse(RESULTS[name]))) == kinds


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("name", list(RESULTS))
def test_every_figure_follows_light_and_dark(name: str, width: float) -> None:
    analysis = analyse(RESULTS[name])
    for kind, draw in figures_of(analysis).items():
        svg = standalone(to_svg(draw(analysis, VARIABLE, width), "main", alt(analysis, kind)))
        assert "prefers-color-scheme: dark" in svg
        assert not re.search("#01fe", svg)  # no stand-in is left
        assert "var(--series-1)" in svg


def test_dots_show_means_and_the_struck_out() -> None:
    analysis = analyse(RESULTS["arms"])
    figure = dots_figure(analysis, LIGHT)
    first = figure.axes[0]
    dots = [line for line in first.lines if line.get_markersize() == 7]
    means = analysis.measures[0].means
    assert [float(np.asarray(line.get_xdata())[0]) for line in dots] == [mean.estimate for mean in means.values()]
    shown = texts(to_svg(dots_figure(analysis, VARIABLE), "x", "x"))
    assert "rlhf" in shown
    assert "out of budget" in shown
    assert "rlaif (4 of 5 seeds)" in shown
    struck = [line for line in first.lines if line.get_color() == LIGHT["muted"] and len(line.get_xdata()) == 2]  # type: ignore[arg-type]
    assert [float(np.asarray(line.get_ydata())[0]) for line in struck] == [4]  # the row of rlhf


def test_an_arm_ended_by_its_budget_is_hollow() -> None:
    figure = dots_figure(analyse(RESULTS["arms"]), LIGHT)
    faces = [line.get_markerfacecolor() for line in figure.axes[0].lines if line.get_markersize() == 7]
    assert [face == LIGHT["surface"] for face in faces] == [False, True, False, False]  # sft, dpo, rl, rlaif


def test_lines_run_through_the_means() -> None:
    analysis = analyse(RESULTS["axis"])
    figure = lines_figure(analysis, LIGHT)
    lines = [line for line in figure.axes[0].lines if line.get_linewidth() == 2 and len(line.get_xdata()) == 4]  # type: ignore[arg-type]
    assert [list(np.asarray(line.get_xdata())) for line in lines] == [[0.0, 0.2, 0.4, 0.8]] * 2
    means = analysis.measures[0].means
    assert list(np.asarray(lines[0].get_ydata())) == [means[f"e{x} · sft"].estimate for x in (0.0, 0.2, 0.4, 0.8)]
    assert len(figure.axes[0].collections) == 2  # a band each


def test_lines_name_who_did_not_finish() -> None:
    results = on_axis()
    for row in results["rows"]:
        if row["label"] == "e0.8 · rl":
            row.update(status="failed", measures={})
    shown = texts(to_svg(lines_figure(analyse(results), VARIABLE), "x", "x"))
    assert "e0.8 · rl: 5 of 5 failed" in shown


def test_curves_have_a_panel_each_with_the_fitted_form() -> None:
    figure = curves_figure(analyse(RESULTS["curves"]), LIGHT)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["large", "small"]
    for axes in figure.axes:
        (fitted,) = [line for line in axes.lines if len(line.get_xdata()) == 81]  # type: ignore[arg-type]
        assert float(np.asarray(fitted.get_ydata())[0]) == 0
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()


def test_a_proxy_of_a_larger_scale_is_divided_and_said_so() -> None:
    results = of_curves()
    for row in results["rows"]:
        for point in row["curves"]["bon"]["points"]:
            point["proxy"] *= 20  # at most 0.6 * 1.78 * 20 = 21.4 against a gold of 0.57: 37 times, so 20 of 1, 2, 5 …
    assert "proxy ÷ 20" in texts(to_svg(curves_figure(analyse(results), VARIABLE), "x", "x"))
    assert "÷" not in texts(to_svg(curves_figure(analyse(RESULTS["curves"]), VARIABLE), "x", "x"))


def test_several_curves_stand_in_rows_of_their_own() -> None:
    results = of_curves()
    for row in results["rows"]:
        row["curves"]["run"] = {"kind": "rl", "points": [{"kl": 1.0 + row["seed"], "gold": 0.1, "proxy": 0.2}]}
    figure = curves_figure(analyse(results), LIGHT)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["large", "small", "large", "small"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["bon", "", "run", ""]
