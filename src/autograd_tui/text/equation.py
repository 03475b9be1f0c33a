"""Arithmetic as it is printed: given the digits printed, a calculator comes to the result printed; else it has ≈."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

from autograd_tui.text.numbers import number, terse
from autograd_tui.text.styled_text import Line, printable, wrapped

MAX_DIGITS = 8  # of each number: float32 holds no more
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+(?:e[+-]?\d+)?|e[+-]?\d+)(?!\w)")  # but for whole ones, which stay
_SIGNS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_FUNCTIONS: dict[str, Callable[..., float]] = {
    **{name: getattr(math, name) for name in ("exp", "log", "sqrt", "sin", "cos", "tanh")},
    "max": max,
    "abs": abs,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
}


def exact(value: float) -> str:
    """Write a number in full, for a calculation whose digits `equation` is to choose."""
    return repr(value + 0.0) if math.isfinite(value) else number(value)


def fixed(value: float, digits: int) -> str:
    """Write a number with four decimals, as panels do, and with more, up to so many, where it has them."""
    mantissa, exponent, power = number(value, digits=digits).partition("e")
    spare = min(len(mantissa) - len(mantissa.rstrip("0")), digits - 4)
    return mantissa[: len(mantissa) - spare] + exponent + power


def parenthesized(value: float) -> str:
    """Write a number in full that stands behind a sign: a negative one in parentheses."""
    return f"({exact(value)})" if value < 0 else exact(value)


def with_digits(written: str, digits: int = 4) -> str:
    """Shorten the numbers of a calculation that were written in full."""
    return _NUMBER.sub(lambda found: terse(float(found[0]), digits), written)


def evaluated(written: str, result: Sequence[float], text: str, *, shown: Callable[[float], str] = terse) -> str:
    """Write a calculation, whose numbers are in full so far, and its result; `text`: each as `shown` writes it."""
    return equation(lambda digits: with_digits(written, digits), result, text, shown=shown)


def equation(
    write: Callable[[int], str], result: Sequence[float], text: str = "", *, shown: Callable[[float], str] = number
) -> str:
    """Write a calculation with the fewest digits, from four on, that give its result on a calculator, else ≈."""
    text = text or shown(result[0])
    for digits in range(4, MAX_DIGITS + 1):
        written = write(digits)
        calculated = calculate(re.split(r" = |: ", written)[-1])
        if calculated is None or _same_digits(calculated, result, shown):
            return f"{written} = {text}"
    return f"{write(4)} ≈ {text}"


def _same_digits(calculated: Sequence[float], result: Sequence[float], shown: Callable[[float], str]) -> bool:
    if len(calculated) == 1:
        calculated = [*calculated] * len(result)
    return [shown(each) for each in calculated] == [shown(each) for each in result]


def calculate(written: str) -> list[float] | None:
    """Work what is printed, as 2/3 × (3×1 - 2^2) or [1, 2] × 3, value by value; None where that is no calculation."""
    plain = re.sub(r"\|([^|]+)\|", r"abs(\1)", written.replace("×", "*").replace("^", "**")).strip()
    try:
        found = _value(ast.parse(plain, mode="eval").body)
        return list(map(float, _flat(found)))
    except (SyntaxError, ArithmeticError, ValueError, TypeError, KeyError):
        return None


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.Name(id="NaN" | "inf" as name):
            return float(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _broadcast(operator.neg, _value(operand))
        case ast.BinOp(left=left, op=sign, right=right):
            return _broadcast(_SIGNS[type(sign)], _value(left), _value(right))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _broadcast(_FUNCTIONS[name], *map(_value, arguments))
        case ast.List(elts=elements):
            return [each for element in elements for each in _flat(_value(element))]
    raise ValueError(node)


def _broadcast(function: Callable[..., float], *values: Any) -> Any:
    """Apply a function value by value; a single number goes with each of a list."""
    sizes = {len(value) for value in values if isinstance(value, list)}
    if not sizes:
        return function(*values)
    (size,) = sizes  # ValueError: lists of several lengths
    columns = [value if isinstance(value, list) else [value] * size for value in values]
    return [function(*each) for each in zip(*columns, strict=True)]


def _flat(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


_TIED_OPERATOR = re.compile(r" ([×@^]) ")


def wrapped_rows(text: str, width: int, *, style: str = "", indent: str = "") -> list[Line]:
    """Break a sentence or a calculation into rows, further ones set in by two more."""
    tied = _TIED_OPERATOR.sub("\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}", printable(text))
    broken = wrapped(indent + tied, width, style=style, indent=indent + "  ")
    return [[(part.replace("\N{NO-BREAK SPACE}", " "), style) for part, style in line] for line in broken]


def headed_rows(head: str, text: str, width: int, *, style: str = "strong") -> list[Line]:
    """Write a head and behind it a text, below it where they do not fit in one row."""
    head, text = printable(head), printable(text)
    if len(head) + 2 + len(text) <= width:
        return [[(head, style), (f"  {text}", "")]]
    return [*wrapped_rows(head, width, style=style), *wrapped_rows(text, width, indent="  ")]
