from __future__ import annotations

import re

import pytest
import torch

from autograd_tui import open_session
from autograd_tui.core.command import Phase
from autograd_tui.core.frame import Frame
from autograd_tui.core.tensor_stats import Inspection
from autograd_tui.engine.session import Session
from autograd_tui.text.explain import explain
from autograd_tui.text.numbers import estimate, number
from autograd_tui.text.sparkline import columns_up
from autograd_tui.text.styled_text import plain
from autograd_tui.text.table.selected_row import best_to_show, layer_lines, parameter_lines
from autograd_tui.tui.panels.phases import key_number
from nested_models import NAMES, open_nested
from session_internals import state_of

LARGE = ("gate", *(f"body.{place}" for place in range(13)))


def said(frame: Frame, name: str, *, inspection: Inspection | None = None, width: int = 63) -> str:
    place = frame.params.layout.names.index(name)
    lines = parameter_lines(frame, place, inspection=inspection, width=width)
    return "\n".join(plain(line).rstrip() for line in lines)


def test_nan_is_an_error_in_style() -> None:
    session = open_nested(NAMES)
    *_, frame = session.run_all("stem.weight[0]=nan fb")
    place = frame.params.layout.names.index("stem.weight")
    spans = [span for line in parameter_lines(frame, place, inspection=None, width=63) for span in line]
    wrong = [style for text, style in spans if "NaN" in text]
    assert wrong
    assert set(wrong) == {"error"}


def large(commands: str, **options: str) -> Session:
    session = open_nested(LARGE, size=3000, **options)
    list(session.run_all(commands))
    return session


def test_a_small_parameter_has_all_its_values() -> None:
    session = open_nested()
    frame = session.run("f")
    values = [number(value) for value in state_of(session).params["gate"].tolist()]
    assert "gate   3 · 3 values · float32" in said(frame, "gate")
    assert "  ".join(values) in said(frame, "gate")


@pytest.mark.parametrize(
    ("commands", "line"),
    [
        ("f", "gradient   None"),
        ("fb", "gradient   +1.3333  fresh"),
        ("fbs", "gradient   +1.3333  used by step, not cleared"),
        ("fbsz", "gradient   None  norm was 1.3333"),
        ("fbfb", "gradient   +2.6667  sum of 2 backwards"),
    ],
)
def test_a_gradient_has_its_number_and_its_age(commands: str, line: str) -> None:
    assert line in said(list(open_session("linear").run_all(commands))[-1], "w").splitlines()


def test_numbers_of_a_sample_are_marked_and_enter_offered() -> None:
    text = said(large("fb").frame, "gate")
    assert "mean ~" in text
    assert "std ~" in text
    assert re.search(r"~-\S+ ▕.*▏ ~", text)  # the ends of the histogram
    assert "enter measures all" in text


def test_what_is_from_a_sample_has_two_digits_wherever_it_stands() -> None:
    session = large("fbs", optimizer="sgd,momentum=0.9")
    frame = session.frame
    shown = [said(frame, "gate"), *explain(frame), key_number(frame, Phase.STEP, 20)]
    shown += [plain(line) for line in layer_lines(frame, "body", [1, 2], width=80)]
    found = re.findall(r"~(-?[\d.]+)", "\n".join(shown))
    assert len(found) > 6
    assert all(len(f"{abs(float(each)):.9e}".partition("e")[0].rstrip("0")) <= 3 for each in found)


def test_exact_numbers_are_those_of_torch_and_have_no_mark() -> None:
    session = large("fbs", optimizer="sgd,momentum=0.9")
    text = said(session.frame, "gate", inspection=session.inspect("gate"))
    param = state_of(session).params["gate"]
    assert param.grad is not None
    assert "~" not in text
    assert "exact" in text
    for tensor in (param.detach().double(), param.grad.double()):
        assert f"mean {number(float(tensor.mean()))}" in text
        assert f"std {number(float(tensor.std(correction=0)))}" in text
        assert f"norm {number(float(tensor.norm()))}" in text
    assert "cosine to the gradient 1.0000" in text


@pytest.mark.parametrize("commands", ["f", "z", "lr=1", "undo"])
def test_exact_numbers_are_never_those_of_another_frame(commands: str) -> None:
    session = large("fb")
    inspection = session.inspect("gate")
    frame = list(session.run_all(commands))[-1]
    assert said(frame, "gate", inspection=inspection) == said(frame, "gate")
    assert said(frame, "body.3", inspection=inspection) == said(frame, "body.3")


@pytest.mark.parametrize(
    ("optimizer", "keys"),
    [
        ("sgd", []),
        ("sgd,momentum=0.9", ["momentum_buffer"]),
        ("adam", ["step", "exp_avg", "exp_avg_sq"]),
        ("rmsprop", ["step", "square_avg"]),
    ],
)
def test_the_optimizers_state_has_the_names_of_torch(optimizer: str, keys: list[str]) -> None:
    text = said(large("fbs", optimizer=optimizer).frame, "gate")
    rows = [line.split()[0] for line in text.splitlines() if not line.startswith(" ")]
    assert rows == ["gate", "value", "gradient", *keys, "~"]


def test_a_counter_of_steps_is_a_whole_number() -> None:
    rows = said(large("fbsz*2 fbs", optimizer="adam").frame, "gate").splitlines()
    assert [row.split() for row in rows if row.startswith("step")] == [["step", "3"]]


def test_four_numbers_that_no_row_holds_stand_two_by_two() -> None:
    rows = said(large("fb").frame, "gate", width=50).splitlines()
    norm, mean = (next(row for row in rows if word in row) for word in ("norm", "mean"))
    assert (norm.index("norm"), norm.index("rms")) == (mean.index("mean"), mean.index("std"))


def test_what_is_not_finite_is_counted_and_has_no_histogram() -> None:
    session = open_nested(LARGE, size=20)
    with torch.no_grad():
        state_of(session).params["gate"][3:5] = torch.nan
    text = said(list(session.run_all("fbs"))[-1], "gate")
    assert "2 are NaN or infinite" in text
    assert "▕" not in text.split("gradient")[0]


@pytest.mark.parametrize("width", [20, 26, 30, 40, 63, 100])
def test_no_row_is_longer_than_there_is_room_for(width: int) -> None:
    session = large("fbs", optimizer="adam")
    for inspection in (None, session.inspect("gate")):
        rows = said(session.frame, "gate", inspection=inspection, width=width).splitlines()
        assert max(map(len, rows)) <= width


def test_a_layer_is_described_by_what_it_adds_up_to() -> None:
    session = open_nested()
    frame = list(session.run_all("fbs"))[-1]
    places = [place for place, name in enumerate(NAMES) if name.startswith("body.")]
    text = "\n".join(plain(line) for line in layer_lines(frame, "body", places, width=63))
    values = torch.cat([state_of(session).params[NAMES[place]].detach() for place in places])
    assert "18 parameters · 54 values" in text
    assert f"norm {number(float(values.norm()))}" in text
    assert "used by step, not cleared" in text
    assert "of its norm by the last step" in text


def test_where_there_is_room_histograms_stand_side_by_side_below_the_numbers() -> None:
    frame = large("fbsz*2 fb", optimizer="sgd,lr=0.01,momentum=0.9").frame
    name = "body.0.weight" if "body.0.weight" in frame.params.layout.names else "gate"
    index = frame.params.layout.names.index(name)
    few = parameter_lines(frame, index, inspection=None, width=63, height=7)
    many = [plain(line) for line in parameter_lines(frame, index, inspection=None, width=63, height=20)]
    assert any("▕" in plain(line) for line in few)
    assert not any("▕" in line for line in many)
    assert len(many) == 20
    value, grad = frame.params[index], frame.grads[index]
    assert grad is not None
    assert many[-1].split() == [estimate(end) for end in (value.min, value.max, grad.min, grad.max)]
    assert max(map(len, many)) <= 63
    full = many[-2]
    assert full.count("█") > 0


def test_a_histogram_is_as_high_as_its_fullest_bin() -> None:
    assert columns_up([0, 1, 2, 4], 8, 2) == ["      ██", "  ▄▄████"]
    assert columns_up([0, 0], 4, 1) == ["    "]


def test_the_root_mean_square_is_the_size_of_one_value() -> None:
    session = large("fb")
    param = state_of(session).params["gate"].detach().double()
    rms = float(param.square().mean().sqrt())
    assert f"rms {number(rms)}" in said(session.frame, "gate")


def test_of_parameters_of_several_values_the_one_with_the_largest_gradient_is_shown_at_first() -> None:
    session = open_nested(NAMES)
    before, *_, frame = [session.frame, *session.run_all("fb")]
    sizes = {row.name: row for row in before.params if row.size > 1}
    assert best_to_show(before) == before.params.layout.names.index(max(sizes, key=lambda each: sizes[each].norm or 0))
    grads = {grad.name: grad.norm or 0.0 for grad in frame.grads if grad is not None and grad.size > 1}
    assert best_to_show(frame) == frame.params.layout.names.index(max(grads, key=lambda each: grads[each]))


def test_where_a_panel_is_narrow_the_norm_of_a_gradient_stands_beside_its_age() -> None:
    frame = large("fb").frame
    index = frame.params.layout.names.index("gate")
    grad = frame.grads[index]
    assert grad is not None
    rows = said(frame, "gate", width=36).splitlines()
    assert f"gradient fresh  norm {number(grad.norm)}" in rows
    assert max(map(len, rows)) <= 36


@pytest.mark.parametrize("size", [16, 3000])
@pytest.mark.parametrize("width", [30, 42, 63])
def test_where_rows_are_short_less_is_said_of_each_tensor_and_none_is_left_out(size: int, width: int) -> None:
    *_, frame = open_nested(LARGE, size=size, optimizer="adam").run_all("fbs")
    index = frame.params.layout.names.index("gate")
    whole = len(parameter_lines(frame, index, inspection=None, width=width))
    drawn = [
        parameter_lines(frame, index, inspection=None, width=width, height=height) for height in range(1, whole + 1)
    ]
    heights = list(map(len, drawn))
    assert heights[-1] == whole
    assert heights[0] < whole
    least = heights[0]  # with which not even the norms alone have room
    assert all(rows <= height or rows == least for height, rows in enumerate(heights, start=1))
    for lines in drawn:
        labels = {text.split()[0] for line in lines if (text := plain(line)).strip() and text[0] != " "}
        assert {"value", "gradient", "step", "exp_avg", "exp_avg_sq"} <= labels


@pytest.mark.parametrize("height", range(1, 12))
def test_a_state_of_which_mean_and_deviation_are_known_is_never_said_not_to_be_measured(height: int) -> None:
    session = open_session("resnet18", optimizer="sgd,momentum=0.9")
    *_, frame = session.run_all("fbs")
    for width in (37, 63, 90):
        text = "\n".join(map(plain, parameter_lines(frame, 0, inspection=None, width=width, height=height)))
        assert "momentum_buffer" in text
        assert "not measured" not in text
