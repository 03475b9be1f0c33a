from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.core.errors import UnknownCommand
from autograd_tui.core.watchpoint import Watchpoint, parse_watchpoint


@pytest.mark.parametrize(
    ("text", "watchpoint"),
    [
        ("nonfinite", Watchpoint("nonfinite")),
        ("loss > 10", Watchpoint("bound", "loss", ">", 10.0)),
        ("loss<-1", Watchpoint("bound", "loss", "<", -1.0)),
        ("grad_norm > 10", Watchpoint("bound", "grad_norm", ">", 10.0)),
        ("grad_norm < 1e-6", Watchpoint("bound", "grad_norm", "<", 1e-6)),
        ("param_norm>100", Watchpoint("bound", "param_norm", ">", 100.0)),
        ("layer1.0.conv1.weight.grad > 1", Watchpoint("bound", "layer1.0.conv1.weight.grad", ">", 1.0)),
        ("w  >3", Watchpoint("bound", "w", ">", 3.0)),
        ("still", Watchpoint("still", times=5)),
        ("still 7", Watchpoint("still", times=7)),
        ("w still", Watchpoint("still", "w", times=5)),
        ("w still 2", Watchpoint("still", "w", times=2)),
        ("update>0.1", Watchpoint("bound", "update", ">", 0.1)),
        ("layer1.*.update > 0.1", Watchpoint("bound", "layer1.*.update", ">", 0.1)),
        ("*.grad>1", Watchpoint("bound", "*.grad", ">", 1.0)),
        ("*.bias still 3", Watchpoint("still", "*.bias", times=3)),
        ("zero", Watchpoint("zero")),
        ("w.grad zero", Watchpoint("zero", "w.grad")),
        ("zero  w.grad", Watchpoint("zero", "w.grad")),
        ("dead relu1 > 0.9", Watchpoint("dead", "relu1", ">", 0.9)),
        ("dead layer?.*<0.1", Watchpoint("dead", "layer?.*", "<", 0.1)),
        ("loss rises", Watchpoint("rises", "loss", times=5)),
        ("loss rises 3", Watchpoint("rises", "loss", times=3)),
    ],
)
def test_a_condition_is_read_and_written_as_it_is_read(text: str, watchpoint: Watchpoint) -> None:
    assert parse_watchpoint(text) == watchpoint
    assert parse_watchpoint(str(watchpoint)) == watchpoint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", '"" is no watchpoint: there are nonfinite'),
        ("everything", '"everything" is no watchpoint'),
        ("loss = 3", '"loss = 3" is no watchpoint'),
        ("loss > ten", '"loss > ten" needs a number behind >, as in loss > 10.'),
        ("loss > nan", '"loss > nan" needs a number behind >'),
        ("grad_norm < -1", "a norm, which is 0 or more"),
        ("w.grad < 0", "a norm, which is 0 or more"),
        ("update < 0", "a norm, which is 0 or more"),
        ("dead relu > 90", "compares a share of zeros, from 0 to 1, as in dead relu > 0.9."),
        ("dead relu > 1", "a share of zeros, from 0 to 1"),
        ("dead relu >= 0.9", "the nearest is dead relu > 0.9."),
        ("dead relu", "the nearest is dead relu > 0.9."),
        ("still 0", '"still 0" needs whole iterations, from 1 to 999,999,999, as in w still 5.'),
        ("still 99999999999", "from 1 to 999,999,999, as in w still 5."),
        ("loss rises 1.5", "needs whole iterations"),
        ("w >", '"w >" needs a number behind >'),
        ("nonfinit", '"nonfinit" is no watchpoint: the nearest is nonfinite.'),
        ("w stil", "the nearest is w still."),
        ("loss rise 3", "the nearest is loss rises 5."),
        ("grad_norm", "the nearest is grad_norm > 10."),
        ("NaN", "nonfinite watches for NaN and infinity."),
        ("loss >= 1e3", "the nearest is loss > 1e3."),
        ("loss >= ten", '"loss >= ten" needs a number behind >'),
    ],
)
def test_what_is_no_condition_is_said_in_a_sentence(text: str, said: str) -> None:
    with pytest.raises(UnknownCommand) as caught:
        parse_watchpoint(text)
    assert said in str(caught.value)


@given(st.text(max_size=80))
def test_any_text_is_a_condition_or_not_understood_in_one_sentence(text: str) -> None:
    said = sentence(text)
    assert "\n" not in said
    assert not said or said.endswith(".")


def sentence(text: str) -> str:
    """Give what is said against a text; "" where it is a condition."""
    try:
        parse_watchpoint(text)
    except UnknownCommand as error:
        return str(error)
    return ""
