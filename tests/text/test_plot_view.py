from __future__ import annotations

import math
import re
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.core.command import parse
from autograd_tui.core.command_log import CommandLog
from autograd_tui.core.errors import UnknownCommand
from autograd_tui.core.frame_store import Branch
from autograd_tui.core.history import History, Series
from autograd_tui.engine.open_session import open_session
from autograd_tui.text.plot_view import (
    PlotView,
    branch_label,
    kinds_apart,
    nearest,
    parse_plot,
    plot_words,
    quantities,
    quantity,
    series_of,
    smoothed,
    zoomed,
)
from handmade_frames import frame, table
from session_internals import state_of

NET = frame(params=table(w=[2.0], **{"fc.weight": [3.0, 4.0], "fc.bias": [1.0], "fcx": [1.0, 1.0]}))


def series(*values: float, first: int = 1) -> Series:
    made = Series()
    for place, value in enumerate(values):
        made.append(place * 4 + 1, place + first, value)
    return made


@pytest.mark.parametrize(
    ("name", "kind", "label", "params"),
    [
        ("loss", "loss", "loss", ()),
        ("grad", "gradient", "|grad|", ()),
        ("lr", "rate", "lr", ()),
        ("update", "update", "update", (0, 1, 2, 3)),
        ("mae", "metric", "mae", ()),
        ("w", "value", "w", (0,)),
        ("w.grad", "gradient", "w.grad", (0,)),
        ("fc", "value", "|fc|", (1, 2)),
        ("fc.weight", "value", "|fc.weight|", (1,)),
        ("fc.grad", "gradient", "|fc.grad|", (1, 2)),
        ("fc.update", "update", "fc update", (1, 2)),
    ],
)
def test_a_name_stands_for_a_layer_a_parameter_or_the_run(
    name: str, kind: str, label: str, params: tuple[int, ...]
) -> None:
    found = quantity(name, NET, ["mae"])
    assert (found.kind, found.label, found.params) == (kind, label, params)


def test_a_name_that_is_almost_one_is_answered_with_it() -> None:
    with pytest.raises(UnknownCommand, match=r"the nearest is fc\.weight"):
        quantity("fc.wieght", NET)
    with pytest.raises(UnknownCommand, match="a parameter or a layer"):
        quantity("zzzz", NET)


def test_words_choose_curves_a_range_and_an_average() -> None:
    view = parse_plot("w.grad fc.grad 10-200 smooth 0.9", PlotView(), NET)
    assert view == PlotView(("w.grad", "fc.grad"), 10, 200, 0.9)
    assert parse_plot("-50", view, NET) == PlotView(("w.grad", "fc.grad"), None, 50, 0.9)
    assert parse_plot("50-", view, NET).last is None
    assert parse_plot("all smooth off", view, NET) == PlotView(("w.grad", "fc.grad"))
    assert parse_plot("loss loss", view, NET).names == ("loss",)


@pytest.mark.parametrize("words", ["200-100", "smooth", "smooth 1", "smooth nan", "smooth x", "loss grad lr update w"])
def test_what_cannot_be_plotted_so_is_refused_in_a_sentence(words: str) -> None:
    with pytest.raises(UnknownCommand, match=r"\.$"):
        parse_plot(words, PlotView(), NET)


def test_all_words_that_completion_offers_are_understood() -> None:
    for word, line in plot_words(NET):
        parse_plot(word, PlotView(), NET)
        assert line
    assert "fc.grad" in dict(plot_words(NET, "fc."))
    assert "w.grad" not in dict(plot_words(NET, "fc."))


def test_curves_of_one_kind_share_a_scale() -> None:
    groups = kinds_apart(quantities(("loss", "grad", "w.grad", "fc", "mae", "gone"), NET, ["mae"]))
    assert [[each.name for each in group] for group in groups] == [["loss"], ["grad", "w.grad"], ["fc"], ["mae"]]


def test_what_is_plotted_is_what_pytorch_has() -> None:
    session = open_session("spiral", optimizer="adam", lr=0.03)
    norms, updates, values = [], [], []
    for _ in range(5):
        list(session.run_all("fb"))
        params = list(state_of(session).model.parameters())[:2]
        norms.append(math.hypot(*(param.grad.double().norm().item() for param in params if param.grad is not None)))
        before = [param.detach().clone() for param in params]
        list(session.run_all("sz"))
        moved = math.hypot(*((param - old).double().norm().item() for param, old in zip(params, before, strict=True)))
        updates.append(100 * moved / math.hypot(*(old.double().norm().item() for old in before)))
        values.append(math.hypot(*(param.detach().double().norm().item() for param in params)))
    layer = session.frame.params.layout.names[0].rpartition(".")[0]

    def plotted(name: str) -> list[float]:
        return list(series_of(quantity(name, session.frame), session.history).values)

    assert plotted(f"{layer}.grad") == pytest.approx(norms, rel=1e-6)
    assert plotted(layer)[1:] == pytest.approx(values, rel=1e-6)
    assert plotted(f"{layer}.update") == pytest.approx(updates, rel=1e-3)


def test_a_learning_rate_is_drawn_as_steps_up_to_the_last_loss() -> None:
    history = History()
    history.loss = series(3.0, 2.0, 1.0, 0.5)
    for index, iteration, rate in ((0, 0, 0.1), (8, 2, 0.05)):
        history.learning_rate.append(index, iteration, rate)
    steps = [(point.iteration, point.value) for point in series_of(quantity("lr", NET), history).points()]
    assert steps == [(0, 0.1), (2, 0.1), (2, 0.05), (4, 0.05)]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.floats(0, 0.99))
def test_an_average_is_the_weighted_mean_of_all_values_so_far(values: list[float], smoothing: float) -> None:
    averages = smoothed(series(*values), smoothing).values
    for last, average in enumerate(averages):
        weights = [smoothing ** (last - place) for place in range(last + 1)]
        mean = sum(map(float.__mul__, weights, values)) / sum(weights)
        assert average == pytest.approx(mean, rel=1e-6, abs=1e-4)


def test_an_average_leaves_out_what_is_not_finite() -> None:
    assert list(smoothed(series(2.0, math.nan, 2.0), 0.9).values) == pytest.approx([2.0, 2.0])


def test_zooming_in_halves_what_is_seen_and_out_shows_all_again() -> None:
    view = zoomed(PlotView(), inwards=True, whole=(1, 101), middle=90)
    assert (view.first, view.last) == (51, 101)
    again = zoomed(view, inwards=True, whole=(1, 101), middle=60)
    assert (again.first, again.last) == (48, 73)
    out = zoomed(zoomed(again, inwards=False, whole=(1, 101), middle=60), inwards=False, whole=(1, 101), middle=60)
    assert (out.first, out.last) == (None, None)


def test_a_value_is_read_at_the_iteration_or_before_it() -> None:
    listed = series(3.0, 2.0, 1.0, first=5)
    assert [point and point.value for point in (nearest(listed, each) for each in (1, 5, 6, 99))] == [
        3.0,
        3.0,
        2.0,
        1.0,
    ]
    assert nearest(Series(), 3) is None


def branch(words: str, fork: int, rate: float) -> Branch:
    history = History()
    history.learning_rate.append(0, 0, rate)
    return Branch(2, CommandLog(parse(words)), history, fork)


def test_a_branch_is_labelled_by_what_differs() -> None:
    here = History()
    here.learning_rate.append(0, 0, 0.1)
    assert branch_label(branch("fbsz", 1, 0.19), here) == "lr 0.19"
    assert branch_label(branch("fbsz w=3 fb", 4, 0.1), here) == "w=3"
    assert branch_label(branch("fbsz", 1, 0.1), here) == "branch 2"


def test_updates_are_read_in_percent_and_those_from_samples_with_two_digits() -> None:
    exact = quantity("fc.update", NET)
    assert exact.words(2.6953) == "2.6953%"
    assert re.match("~", quantity("update", frame(params=table(w=[0.0] * 2000))).words(2.6953))
    assert exact.words(math.nan) == "NaN"


def test_a_value_of_a_model_of_two_is_plotted_at_every_iteration_of_a_free_run() -> None:
    history = History()
    for index, iteration in ((0, 0), (400, 100)):
        history.params.append(index, iteration, array("d", [float(iteration), 1.0]))
    history.path.extend([(each * 4, each, float(each), 1.0) for each in range(101)])
    two = frame(params=table(w=[2.0], b=[1.0]))
    assert list(series_of(quantity("w", two), history).values) == [float(each) for each in range(101)]
    assert len(series_of(quantity("w.grad", two), history)) == 0
