from __future__ import annotations

import pytest
import torch
from torch import nn

from autograd_tui.core.frame import Frame
from autograd_tui.engine.open_session import open_session
from autograd_tui.text.styled_text import plain
from autograd_tui.text.table.table_rows import buffer_lines
from plain_loop import Batch, small_net
from session_internals import as_scenario, state_of


def drawn(frame: Frame, *, layer: str = "", width: int = 60, height: int = 8) -> list[str]:
    return [plain(line) for line in buffer_lines(frame, layer, width, height)]


def half_frozen(seed: int) -> tuple[nn.Module, Batch]:
    """Build two batch norms, one of which keeps its running numbers."""
    model = nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm1d(4, momentum=0.0))
    x = torch.rand(8, 4)
    return model, lambda i: (x, x)


def frozen(seed: int) -> tuple[nn.Module, Batch]:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=True))
    model[1].register_forward_pre_hook(lambda module, _: module.train(False) and None)
    x = torch.rand(8, 4)
    return model, lambda i: (x, x)


@pytest.mark.parametrize(
    ("commands", "said"),
    [
        ("", "3 as the model was built: forward may change them"),
        ("f", "forward changed all 3"),
        ("fb", "the last forward changed all 3"),
        ("fbsz", "the last forward changed all 3"),
    ],
)
def test_what_the_forward_changed_is_counted(commands: str, said: str) -> None:
    session = open_session(as_scenario(small_net))
    assert drawn([session.frame, *session.run_all(commands)][-1])[0] == said


def test_buffers_that_stay_as_they_are_are_said_to() -> None:
    session = open_session(as_scenario(frozen))
    assert drawn(session.run("f"))[0] == "forward changed the numbers of none of 3"


def test_some_that_change_are_counted_among_all() -> None:
    session = open_session(as_scenario(half_frozen))
    assert drawn(session.run("f"))[0] == "forward changed 4 of 6"


def test_a_forward_that_raises_changed_nothing() -> None:
    session = open_session(as_scenario(small_net))
    list(session.run_all("f"))
    state_of(session).parts = None  # type: ignore[assignment]
    frame = session.run("f")
    assert frame.error is not None
    assert drawn(frame)[0] == "the last forward changed all 3"


def test_a_count_is_a_whole_number_and_the_rest_have_norms() -> None:
    session = open_session(as_scenario(small_net))
    lines = drawn(list(session.run_all("f b f"))[-1])
    mean = state_of(session).buffers.current()["1.running_mean"]
    assert lines[3] == "1.num_batches_tracked  1 → 2"
    assert lines[1].endswith(f"→ norm {float(mean.norm()):.4f}")


def test_those_of_the_layer_under_the_cursor_come_first() -> None:
    session = open_session(as_scenario(half_frozen))
    assert drawn(session.frame, layer="1", height=4)[1].startswith("1.running_mean")


def test_those_that_do_not_fit_are_counted() -> None:
    session = open_session(as_scenario(half_frozen))
    lines = drawn(session.frame, height=4)
    assert (len(lines), lines[-1]) == (4, "... 4 more")
    assert len(drawn(session.frame, height=7)) == 7
