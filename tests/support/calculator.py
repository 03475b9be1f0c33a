"""A calculator that is given what a screen prints, to see whether its arithmetic comes out."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np

_RESULT = re.compile(r"[-+]?(?:\d[\d.]*(?:e[-+]?\d+)?|NaN|inf)(?![\w.])|\[(?:[^a-zA-Z:]|e[-+]|NaN|inf)*\]")
_NUMBER = re.compile(r"[-+]?(?:\d[\d.]*(?:e[-+]?\d+)?|NaN|inf)")
_WORDS: dict[str, Any] = {
    **{name: getattr(np, name) for name in ("exp", "log", "sqrt", "sin", "cos", "tanh", "abs")},
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "max": np.maximum,
    "NaN": np.nan,
    "inf": np.inf,
    "A": np.array,
}


def check(text: str) -> tuple[int, int]:
    """Work each calculation in some lines; counts those with = and those with ≈, and asserts that = is true."""
    exactly, nearly = 0, 0
    for line in text.splitlines():
        parts = re.split(r" (=|≈) ", line)
        for left, sign, right in zip(parts[::2], parts[1::2], parts[2::2], strict=False):
            result, worked = _RESULT.match(right), _worked(re.split(r": |  ", left)[-1])
            if result is None or worked is None:
                continue
            exactly, nearly = exactly + (sign == "="), nearly + (sign == "≈")
            tokens = _NUMBER.findall(result[0])
            assert worked.size in (1, len(tokens)), line
            values = np.broadcast_to(worked.flatten(), len(tokens))
            for token, value in zip(tokens, values, strict=True):
                assert sign == "≈" or _comes_out(float(value), token), f"{line}\n  a calculator gives {value}"
    return exactly, nearly


def _worked(left: str) -> Any:
    """Work a calculation; None where there are words in it, or there is nothing to be worked."""
    plain = re.sub(r"\|([^|]+)\|", r"abs(\1)", left).replace("×", "*").replace("^", "**")
    if not re.search(r"[-+*/(] ?\S", plain) or set(re.findall(r"[A-Za-z_]\w*", plain)) - {*_WORDS, "e"}:
        return None
    plain = re.sub(r"(?<![\w.])(?<!e[-+])(\d+)(?![\w.])", r"\1.0", plain)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return np.asarray(eval(plain.replace("[", "A([").replace("]", "])"), {"__builtins__": {}}, _WORDS))
        except (SyntaxError, ZeroDivisionError, OverflowError, ValueError):
            return None


def _comes_out(value: float, token: str) -> bool:
    """Compare what a calculator gives, rounded to the decimals printed, of which at least four count."""
    printed = float(token)
    if not np.isfinite(printed):
        return bool(np.isnan(value) and np.isnan(printed)) or value == printed
    mantissa, _, power = token.partition("e")
    decimals = len(mantissa.partition(".")[2])
    unit = 10.0 ** (int(power) - max(decimals, 3)) if power else 10.0 ** -max(decimals, 4)
    return abs(value - printed) <= 0.5000001 * unit
