"""Pictures of what a model has learned: what they hold, and that taking them moves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from autograd_tui.core.picture import Picture
from autograd_tui.engine import picture_taker
from autograd_tui.engine.open_session import open_session
from autograd_tui.engine.session import Session

HEAD = """
import random, time
import numpy, torch
from torch import nn
from autograd_tui import Parts, Plane, scenario

CALLS = []

@scenario("mine")
def build(options):
    model = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    x, y = torch.randn(8, 1), torch.randn(8, 1)
    def picture(model):
"""
TAIL = """
    return Parts(
        model=model, batch=lambda i: (x, y), loss=nn.functional.mse_loss, optimizer="adam,lr=0.1", picture=PICTURE
    )
"""


def opened(tmp_path: Path, *lines: str, picture: str = "picture") -> Session:
    """Open a scenario of a user's whose picture function has some lines."""
    source = tmp_path / "mine.py"
    source.write_text(HEAD + "\n".join(f"        {line}" for line in lines) + TAIL.replace("PICTURE", picture))
    return open_session(str(source))


def latest(session: Session) -> Picture:
    return session.pictures()[-1]


@pytest.mark.parametrize(
    ("given", "rows"),
    [("return 'one\\ntwo'", ("one", "two")), ("return ['a', 'b c']", ("a", "b c")), ("return ()", ())],
)
def test_rows_of_text_are_taken_as_they_are(tmp_path: Path, given: str, rows: tuple[str, ...]) -> None:
    picture = latest(opened(tmp_path, given))
    assert (picture.rows, picture.problem) == (rows, "")


def test_texts_by_name(tmp_path: Path) -> None:
    assert dict(latest(opened(tmp_path, "return {'truth': 'ab', 'written': 'ac'}")).texts) == {
        "truth": "ab",
        "written": "ac",
    }


@pytest.mark.parametrize(
    "points",
    [
        "[(1, 2), (3, 4.5)]",
        "torch.tensor([[1, 2], [3, 4.5]])",
        "numpy.array([[1, 2], [3, 4.5]])",
        "[torch.tensor([1, 2]), (torch.tensor(3), numpy.float32(4.5))]",
        "torch.tensor([[1, 2], [3, 4.5]], requires_grad=True)",
    ],
)
def test_points_may_be_lists_tensors_or_arrays(tmp_path: Path, points: str) -> None:
    picture = latest(opened(tmp_path, f"return {{'truth': {points}}}"))
    assert picture.problem == ""
    assert dict(picture.points) == {"truth": ((1.0, 2.0), (3.0, 4.5))}


def test_a_plane_has_values_ends_and_points(tmp_path: Path) -> None:
    picture = latest(
        opened(tmp_path, "return Plane(torch.tensor([[0.0, 0.25], [0.5, 1.0]]), (-1, 1), (0, 2), {'a': [(0, 1)]})")
    )
    assert picture.plane is not None
    assert (picture.plane.values, picture.plane.x, picture.plane.y) == ([[0, 0.25], [0.5, 1]], (-1, 1), (0, 2))
    assert dict(picture.points) == {"a": ((0.0, 1.0),)}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("return None", "picture= gave None: return rows of text, texts by name, points by name, or a Plane."),
        ("print('hi')", "picture= printed something and gave None: return rows"),
        ("return 3", "picture= gave an int: return rows"),
        ("return [1, 2]", "picture= gave a list: return rows"),
        ("return {}", "picture= gave a dict: return rows"),
        ("return {3: [(1, 2)]}", "picture= gave an int as a name: names are texts."),
        ("return {'a': 3}", 'picture= gave an int as "a": points are a list of (x, y).'),
        ("return {'a': [1, 2]}", 'picture= gave "a" with something else than (x, y) in it.'),
        ("return {'a': [(1, 'b')]}", 'picture= gave "a" with something else than (x, y) in it.'),
        ("return {'a': torch.zeros(3, 3)}", 'picture= gave "a" with something else than (x, y) in it.'),
        ("return {'a': torch.zeros(())}", 'picture= gave a Tensor as "a": points are a list of (x, y).'),
        ("return {'a': torch.zeros(10**6, 2)}", "picture= gave a Tensor of 2,000,000 values: 20,000 is the most."),
        ("return {str(i): [(1, 2)] for i in range(9)}", "picture= gave points under 9 names: 8 is the most."),
        ("return Plane([[1, 2], [3]], (0, 1), (0, 1))", "picture= gave a Plane whose values are not (rows, columns)"),
        ("return Plane([], (0, 1), (0, 1))", "picture= gave a Plane whose values are not (rows, columns)"),
        ("return Plane(3, (0, 1), (0, 1))", "picture= gave a Plane of something else than numbers"),
        ("return Plane([[1, 2], [3, 4]], (1, 0), (0, 1))", "picture= gave a Plane whose x or y is not (low, high)."),
        ("raise ValueError('mine')", "picture= raised ValueError: mine (mine.py, line "),
        ("raise SystemExit(3)", "picture= raised SystemExit: 3 (mine.py, line "),
        ("return model(torch.zeros(2, 7))", "picture= raised RuntimeError: "),
    ],
)
def test_what_is_no_picture_is_said_in_a_sentence(tmp_path: Path, line: str, sentence: str) -> None:
    picture = latest(opened(tmp_path, line))
    assert picture.problem.startswith(sentence)
    assert not any((picture.rows, picture.texts, picture.points, picture.plane))


def test_a_model_that_cannot_be_copied_is_said(tmp_path: Path) -> None:
    session = opened(tmp_path, "return 'x'")
    session._trainer.state.model.lock = __import__("threading").Lock()
    assert latest(session).problem.startswith("There is no picture: the model cannot be copied: TypeError: ")


DISTURBING = (
    "print('drawn')",
    "torch.randn(3), random.random(), numpy.random.rand()",
    "model.train()",
    "model(x), model(x)",
    "torch.set_grad_enabled(True)",
    "loss = model(x).sum(); loss.backward()",
    "torch.set_default_dtype(torch.float64)",
    "[param.data.fill_(3) for param in model.parameters()]",
    "x.add_(1)",
    "model.extra = 3",
    "return 'done'",
)
AROUND_THE_COPY = (
    "mine.train(); mine(x)",
    "with torch.enable_grad(): mine(x).sum().backward()",
    "with torch.no_grad(): mine[0].weight.mul_(2); mine[3].bias.requires_grad_(False)",
    "return 'done'",
)


@pytest.mark.parametrize("lines", [DISTURBING, AROUND_THE_COPY], ids=["with the copy", "around the copy"])
def test_a_run_with_the_picture_ends_in_the_same_bits_as_one_without(
    tmp_path: Path, lines: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    ends, tensors = [], []
    for looks in (False, True):
        session = opened(tmp_path, *lines, picture="picture")
        source = (tmp_path / "mine.py").read_text()
        (tmp_path / "mine.py").write_text(source.replace("    def picture", "    mine = model\n    def picture"))
        session = open_session(str(tmp_path / "mine.py"))
        for command in ("f", "b", "s", "z") * 50 + ("f", "b"):
            if looks and command != "b":  # a live graph notices what was written in place, as it does in a script
                assert latest(session).rows == ("done",)
            session.run(command)
        state = session._trainer.state
        assert session.frame.error is None
        ends.append((session.frame.params, session.frame.grads, session.frame.optimizer_state, session.frame.buffers))
        tensors.append(
            [
                *(each.detach() for each in state.params.values()),
                *(each.grad for each in state.params.values()),
                *state.buffers.tensors().values(),
                state.loss.detach(),  # type: ignore[union-attr]
                state.global_state._inside.torch[0],
                torch.get_rng_state(),
            ]
        )
        assert all(param.requires_grad for param in state.params.values())
        assert state.model.training
        assert torch.is_grad_enabled()
        assert torch.get_default_dtype() is torch.float32
    assert ends[0] == ends[1]
    assert all(map(torch.equal, *tensors))
    assert capfd.readouterr().out == ""


def test_a_free_run_with_pictures_on_its_way_ends_in_the_same_bits(tmp_path: Path) -> None:
    ends = []
    for looks in (False, True):
        session = opened(tmp_path, *DISTURBING)
        taken = 0
        for _ in session.run_free(session.end_of(300), lambda: False, every=0.001):
            if looks:
                taken += latest(session).rows == ("done",)
        assert taken >= 3 * looks
        ends.append((session.frame.params, session.frame.optimizer_state, session.frame.buffers, session.frame.loss))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("name", ["spiral", "lstm", "transformer"])
def test_a_shipped_network_with_its_picture_ends_in_the_same_bits_as_without(name: str) -> None:
    ends = []
    for looks in (False, True):
        session = open_session(name, data="fresh")
        for _ in session.run_all("fbsz*10 fb"):
            if looks:
                assert latest(session).problem == ""
        ends.append([each.detach().clone() for each in session._trainer.state.params.values()])
        ends[-1] += [each.grad for each in session._trainer.state.params.values() if each.grad is not None]
    assert all(map(torch.equal, *ends))


def test_a_picture_is_taken_once_for_the_same_parameters_and_kept_for_earlier_frames(tmp_path: Path) -> None:
    session = opened(tmp_path, "CALLS.append(1)", "return str(len(CALLS))")
    first = latest(session)
    assert first.is_of(session.frame)
    assert latest(session) is first
    for command in "fbs":
        session.run(command)
        latest(session)
    pictures = session.pictures()
    assert [picture.steps for picture in pictures] == [0, 0, 1]  # forward moves the running mean of its batch norm
    assert latest(session).is_of(session.frame)
    session.rewind(0)
    assert session.pictures() is pictures
    assert pictures[0].is_of(session.frame)
    session.run("f")
    assert session.pictures() is pictures


def test_a_changed_parameter_has_a_new_picture(tmp_path: Path) -> None:
    session = opened(tmp_path, "return f'{float(model[3].bias):.4f}'")
    assert latest(session).rows != ("7.0000",)
    session.run("3.bias[0]=7")
    assert latest(session).rows == ("7.0000",)


def test_no_more_pictures_are_kept_than_are_worth_their_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_taker, "MAX_PICTURES", 3)
    session = opened(tmp_path, "return 'x'")
    for _ in session.run_all("fbsz*9"):
        session.pictures()
    assert [picture.steps for picture in session.pictures()] == [8, 9] or len(session.pictures()) == 3


def test_the_copy_is_in_eval_mode_and_without_gradients(tmp_path: Path) -> None:
    session = opened(tmp_path, "return [str(model.training), str(torch.is_grad_enabled()), str(model is mine)]")
    source = (tmp_path / "mine.py").read_text()
    (tmp_path / "mine.py").write_text(source.replace("    def picture", "    mine = model\n    def picture"))
    session = open_session(str(tmp_path / "mine.py"))
    assert latest(session).rows == ("False", "False", "False")


@pytest.mark.parametrize("loop", ["while True: pass", "while True: torch.zeros(3) + 1", "while True: len([])"])
def test_one_that_never_ends_is_interrupted_where_something_waits(tmp_path: Path, loop: str) -> None:
    asked = []

    def stopped() -> bool:
        asked.append(1)
        return len(asked) > 1_000

    session = opened(tmp_path, loop)
    assert session.pictures(stopped=stopped) == ()
    assert session.run("f").loss is not None


def test_one_that_never_ends_is_interrupted_after_some_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_taker, "MAX_SECONDS", 0.1)
    session = opened(tmp_path, "while True: pass")
    assert latest(session).problem == "picture= was interrupted: it had not ended after 0.1 seconds."
    assert session.run("f").loss is not None


def test_what_waits_already_leaves_the_picture_for_later(tmp_path: Path) -> None:
    session = opened(tmp_path, "return 'x'")
    assert session.pictures(stopped=lambda: True) == ()
    assert latest(session).rows == ("x",)


def test_the_title_is_the_name_of_the_function(tmp_path: Path) -> None:
    assert open_session("spiral").about.picture == "Decision boundary"
    assert opened(tmp_path, "return 'x'").about.picture == "Picture"
    assert opened(tmp_path, "return 'x'", picture="lambda model: 'x'").about.picture == "Picture"
    assert open_session("linear").about.picture == ""
    assert open_session("linear").pictures() == ()


def test_the_spirals_plane_is_what_plain_pytorch_gives() -> None:
    session = open_session("spiral")
    for _ in session.run_all("fbsz*20"):
        pass
    plane = latest(session).plane
    assert plane is not None
    model = session._trainer.state.model
    with torch.no_grad():
        for row, column in ((0, 0), (5, 60), (47, 63), (20, 31)):
            point = torch.tensor([-1.2 + 2.4 * column / 63, -1.2 + 2.4 * row / 47])
            assert plane.values[row][column] == pytest.approx(float(model(point).sigmoid()), abs=1e-5)


def test_the_lstm_continues_from_its_own_predictions() -> None:
    session = open_session("lstm")
    for _ in session.run_all("fbsz*20"):
        pass
    points = latest(session).points
    model = session._trainer.state.model
    truth = [y for _, y in points["truth"]]
    assert truth == pytest.approx(torch.sin(0.4 * torch.arange(48)).tolist())
    series = truth[:24]
    with torch.no_grad():
        predicted = model(torch.tensor(series)[None, :, None])[0, :, 0].tolist()
        assert [y for _, y in points["predicted"]] == pytest.approx(predicted, abs=1e-5)
        series.append(predicted[-1])
        for x, y in points["continued"]:
            assert x == len(series)
            series.append(float(model(torch.tensor(series)[None, :, None])[0, -1, 0]))
            assert y == pytest.approx(series[-1], abs=1e-4)


def test_the_transformer_writes_the_most_likely_characters() -> None:
    from autograd_tui.scenarios.transformer import CHARACTERS, TEXT

    session = open_session("transformer")
    for _ in session.run_all("fbsz*20"):
        pass
    texts = latest(session).texts
    given, written = texts["given"].replace("/", "\n"), texts["written"].replace("/", "\n")
    assert given + texts["truth"].replace("/", "\n") == TEXT
    assert len(given + written) == len(TEXT)
    model = session._trainer.state.model.eval()
    for length in (0, 1, 40):
        window = (given + written[:length])[-32:]
        with torch.no_grad():
            logits = model(torch.tensor([[CHARACTERS.index(each) for each in window]]))[0, :, -1]
        assert CHARACTERS[int(logits.argmax())] == written[length]
