"""What may be set and asked where a script is held."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterator
from multiprocessing.connection import Connection

import pytest

from autograd_tui.core.command import parse_one
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.engine.script.agent_messages import SOCKET_NAME, Detach, Hello
from autograd_tui.engine.script.script_session import ScriptSession

SCRIPT = """
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(2, 20), nn.Linear(20, 1))
head = nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
other = torch.optim.Adam(head.parameters(), lr=0.01)
for epoch in range(9):
    optimizer.zero_grad()
    loss = head(model(torch.randn(4, 2))).square().mean()
    loss.backward()
    optimizer.step()
    other.step()
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptSession]:
    file = tmp_path_factory.mktemp("script") / "train.py"
    file.write_text(SCRIPT)
    session = ScriptSession((str(file),), on_output=lambda data: None)
    yield session
    session.close(in_order=True)


def _goes_to(session: ScriptSession, letter: str) -> Frame:
    return session.run(parse_one(letter))


def _refusal(session: ScriptSession, word: str) -> str:
    index = session.frame.index
    with pytest.raises(Refused) as refused:
        session.run(parse_one(word))
    assert session.frame.index == index
    return str(refused.value)


def test_a_learning_rate_is_set_at_a_stop_and_the_next_step_uses_it(session: ScriptSession) -> None:
    before = _goes_to(session, "b")
    frame = session.run(parse_one("lr[1]=0"))
    assert (frame.index, str(frame.command), frame.learning_rates) == (before.index + 1, "lr[1]=0", (0.1, 0.0))
    assert (frame.params, frame.iteration, frame.moved) == (before.params, before.iteration, before.moved)
    session.run(parse_one("lr[0]=0.5"))
    first, second = _goes_to(session, "s"), _goes_to(session, "s")
    assert first.learning_rates == second.learning_rates == (0.5, 0.0)
    assert first.moves is not None
    assert any(first.moves)
    assert second.moves is not None
    assert not any(second.moves)
    assert "no parameter group 2" in _refusal(session, "lr[2]=1")
    assert "from 0 up" in _refusal(session, "lr=-1")


def test_a_setting_does_not_lengthen_the_iteration(session: ScriptSession) -> None:
    for _ in range(2):  # how long an iteration is, is known behind the first whole one
        _goes_to(session, "z")
    session.run(parse_one("lr[1]=0.01"))
    step, last = _goes_to(session, "s"), _goes_to(session, "z")
    assert step.iteration == last.iteration
    session.run(parse_one("lr[1]=0.02"))
    assert session.end_of(1).iteration == last.iteration + 1  # the one that ends here is over


def test_a_value_is_set_where_no_graph_needs_it(session: ScriptSession) -> None:
    forward = _goes_to(session, "f")
    assert "graph" in _refusal(session, "head.bias[0]=3")
    _goes_to(session, "b")
    frame = session.run(parse_one("head.bias[0]=3"))
    bias = next(row for row in frame.params if row.name == "head.bias")
    assert bias.values == (3.0,)
    assert (frame.moved, str(frame.mover), frame.before) == (True, "head.bias[0]=3", forward.params)
    assert session.inspect("head.bias").value.values == (3.0,)
    assert frame.script is not None
    assert frame.script.moved_by_hand == ()
    step = _goes_to(session, "s")
    assert step.script is not None
    assert step.script.moved_by_hand == ()
    assert "16 can be set" in _refusal(session, "model.0.weight[0,0]=1")
    assert "shape (1, 1)" in _refusal(session, "head.weight[3,0]=1")
    assert "no parameter" in _refusal(session, "nothing=1")
    for word in ("optimizer=adam", "seed=1", "head.bias.requires_grad=false"):
        assert "the script" in _refusal(session, word)


def test_exact_statistics_at_a_stop(session: ScriptSession) -> None:
    _goes_to(session, "s")
    inspection = session.inspect("model.0.weight")
    row = session.frame.params[session.frame.params.layout.names.index("model.0.weight")]
    assert inspection.index == session.frame.index
    assert row.norm is not None
    assert inspection.value.norm is not None
    assert math.isclose(inspection.value.norm, row.norm, rel_tol=1e-6)
    assert inspection.grad is not None
    assert [each.name for each in inspection.state] == ["momentum_buffer"]
    with pytest.raises(Refused):
        session.inspect("nothing")


def test_another_process_that_trains_goes_on_by_itself(session: ScriptSession) -> None:
    here = session.frame
    folder = session._client._folder.path
    attached = socket.socket(socket.AF_UNIX)
    attached.connect(str(folder / SOCKET_NAME))
    other = Connection(attached.detach())
    other.send(Hello(os.getpid(), None, None, "other.py", (), {}))
    assert _goes_to(session, "z").index > here.index  # answered by the script itself
    assert isinstance(other.recv(), Detach)
    other.close()
