from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd_tui.core.errors import UnknownCommand
from autograd_tui.core.optimizer_spec import OptimizerSpec, format_number, parse_number
from command_strategies import specs


@given(specs)
def test_a_spec_printed_and_parsed_is_the_same_spec(spec: OptimizerSpec) -> None:
    assert OptimizerSpec.parse(str(spec)) == spec


@given(st.floats(allow_nan=False))
def test_a_number_printed_and_parsed_has_the_same_bits(value: float) -> None:
    parsed = parse_number(format_number(value))
    assert parsed is not None
    assert struct.pack("d", parsed) == struct.pack("d", value)


@given(st.text(max_size=30) | st.text("adm,=()0123456789.e-+lrbts", max_size=30))
def test_any_text_is_a_spec_with_a_spelling_or_not_understood(text: str) -> None:
    with suppress(UnknownCommand):
        spec = OptimizerSpec.parse(text)
        assert str(OptimizerSpec.parse(str(spec))) == str(spec)


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("SGD", "sgd"),
        ("sgd,momentum=0.90", "sgd,momentum=0.9"),
        ("sgd,momentum=0.9,lr=1.0", "sgd,lr=1,momentum=0.9"),
        ("sgd,nesterov=True", "sgd,nesterov=true"),
        ("adam,foreach=None", "adam,foreach=none"),
        ("adam,betas=(0.9,0.999)", "adam,betas=(0.9,0.999)"),
        ("adam,betas=(.9,1,),lr=1e-3", "adam,lr=0.001,betas=(0.9,1)"),
        ("adam,betas=(0.9)", "adam,betas=(0.9,)"),
        ("sgd,lr=1,lr=2,momentum=0,momentum=1", "sgd,lr=2,momentum=1"),
    ],
)
def test_every_spec_has_one_spelling(text: str, spelling: str) -> None:
    assert str(OptimizerSpec.parse(text)) == spelling


@pytest.mark.parametrize(
    ("text", "value"), [("3", 3), ("3.0", 3.0), ("true", True), ("none", None), ("(1,2)", (1.0, 2.0)), ("min", "min")]
)
def test_an_option_has_the_type_that_a_script_would_give_it(text: str, value: object) -> None:
    option = OptimizerSpec.parse(f"sgd,option={text}").options[0][1]
    assert (type(option), option) == (type(value), value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1sgd",
        "sgd,",
        "sgd,momentum",
        "sgd,=1",
        "sgd,2x=1",
        "sgd,momentum=",
        "sgd,lr=fast",
        "sgd,lr=true",
        "sgd,lr=(1,2)",
        "adam,betas=()",
        "adam,betas=(,)",
        "adam,betas=(0.9",
        "adam,betas=(a,b)",
        "adam,betas=(" + "-" * 9000 + "1,)",
        "adam,betas=((1,),)",
        "adam,betas=[0.9,0.999]",
        "sgd,momentum=0.9;lr=1",
    ],
)
def test_a_bad_spec_is_not_understood(text: str) -> None:
    with pytest.raises(UnknownCommand, match=r"\.$"):
        OptimizerSpec.parse(text)


@pytest.mark.parametrize("digits", [400, 5000])
@pytest.mark.parametrize("option", ["lr={}", "momentum={}", "betas=({},)"])
def test_an_endless_number_is_infinite(option: str, digits: int) -> None:
    assert str(OptimizerSpec.parse("adam," + option.format("9" * digits))) == "adam," + option.format("inf")


@pytest.mark.parametrize("text", ["", "1,5", "1e", "0x10", "1_000", "infinity", "--1", "1 ", "e5", ".", "three"])
def test_what_is_no_number_is_none(text: str) -> None:
    assert parse_number(text) is None
