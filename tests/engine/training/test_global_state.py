from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress

import pytest
import torch

from autograd_tui.engine.training.global_state import GlobalState, HostRng


@pytest.fixture(autouse=True)
def globals_as_they_were() -> Iterator[None]:
    """Leave torch's globals to the other tests as they were."""
    with GlobalState():
        yield


def test_random_numbers_inside_go_on_where_they_stopped() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(4)
    global_state = GlobalState()
    with global_state:
        torch.manual_seed(3)
        first = torch.rand(2)
    torch.rand(7)
    with global_state:
        assert torch.equal(torch.cat([first, torch.rand(2)]), wanted)


def test_random_numbers_outside_do_not_see_those_inside() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    with GlobalState():
        torch.rand(7)
    assert torch.equal(torch.rand(2), wanted)


def test_grad_mode_inside_is_its_own() -> None:
    global_state = GlobalState()
    with torch.no_grad(), global_state:
        assert torch.is_grad_enabled()


def test_grad_mode_set_inside_stays_inside() -> None:
    global_state = GlobalState()
    with global_state:
        torch.set_grad_enabled(False)
    assert torch.is_grad_enabled()
    with global_state:
        assert not torch.is_grad_enabled()


def test_the_default_dtype_set_inside_stays_inside() -> None:
    global_state = GlobalState()
    with global_state:
        torch.set_default_dtype(torch.float64)
    assert torch.get_default_dtype() is torch.float32
    with global_state:
        assert torch.get_default_dtype() is torch.float64


def test_the_outside_comes_back_after_an_error() -> None:
    with suppress(ValueError), GlobalState():
        torch.set_grad_enabled(False)
        raise ValueError
    assert torch.is_grad_enabled()


def test_a_mark_brings_random_numbers_grad_mode_and_dtype_back() -> None:
    global_state = GlobalState()
    with global_state:
        snapshot = global_state.snapshot()
        wanted = torch.rand(2)
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        global_state.restore(snapshot)
        assert torch.equal(torch.rand(2), wanted)
        assert torch.is_grad_enabled()
        assert torch.get_default_dtype() is torch.float32


def test_python_and_numpy_random_numbers_come_back() -> None:
    numpy = pytest.importorskip("numpy")
    host_rng = HostRng.read()
    wanted = random.random(), numpy.random.rand()
    host_rng.write()
    assert (random.random(), numpy.random.rand()) == wanted
