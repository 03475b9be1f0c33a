"""Numbers as people read them: aligned, signed, no longer than need be; round ones for axes; and read from text."""

from __future__ import annotations

import math
import sys

TICK_STEPS = (1, 2, 5)  # times a power of ten
FINE_TICK_STEPS = (1, 2, 3, 5)  # on a log scale with much room


def number(value: float | None, *, signed: bool = False, digits: int = 4) -> str:
    """Write four decimals where they fit, otherwise four significant digits: 3.6667, 1.23e-05, 1.179e+06."""
    if value is None:
        return "-"
    value += 0.0  # there is no -0
    sign = "+" if signed else "-"  # as format takes it: "-" is for negatives alone
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{value:{sign}}"
    size = abs(value)
    if value == 0 or 0.001 <= size < 99_999:
        return f"{value:{sign}.{digits}f}"
    return f"{value:{sign}.{digits - 1}e}"


def at_least(value: float | None, *, partly: bool) -> str:
    """Write a norm; one that is over only part of what it is about as ≥, since the whole is no less."""
    return f"{'≥' * (partly and value is not None)}{number(value)}"


def estimate(value: float) -> str:
    """Write what is from a sample with the two digits that it may claim: ~2.7, ~0.017, ~120, ~1.2e-07."""
    if not math.isfinite(value) or value == 0:
        return number(value) if value else "~0"
    rounded = f"{value:.1e}"
    if not 0.001 <= abs(float(rounded)) < 99_999:
        return f"~{rounded}"
    decimals = 1 - int(rounded.partition("e")[2])
    return f"~{float(rounded):.{max(decimals, 0)}f}"


def measured(value: float | None, *, sampled: bool) -> str:
    """Write a number as exactly as it is known: `sampled` tells that it is from a sample."""
    return estimate(value) if sampled and value is not None else number(value)


def percentage(share: float, *, sampled: bool) -> str:
    """Write a finite share, of 1, in up to eight characters, or nine where it is from a sample."""
    return f"{estimate(share * 100) if sampled else fitted(share * 100, 7)}%"


def short(value: float) -> str:
    """Write a number inside arithmetic: 9, 0.6667, 1.23e-05."""
    return f"{value:.4g}" if math.isfinite(value) else number(value)


def terse(value: float, digits: int = 4) -> str:
    """Write a number inside arithmetic: 2, 0.6667, 0.01235, 1.23e-05."""
    if not math.isfinite(value):
        return number(value)
    if value == 0:
        return "0"
    if 0.001 <= abs(value) < 0.1 - 0.5 * 10**-digits:
        decimals = digits - math.ceil(math.log10(abs(value)) + 1e-12)
        return f"{value:.{decimals}f}".rstrip("0")
    mantissa, exponent, power = number(value, digits=digits).partition("e")
    return (mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa) + exponent + power


def fitted(value: float, width: int) -> str:
    """Write a finite number with as many digits as `width` characters hold: at least seven are needed."""
    text = ""
    formats: tuple[str, ...] = (".3e", ".2e", ".1e", ".0e")
    if abs(value) >= 0.001 or value == 0:
        formats = (".4f", ".3f", ".2f", ".1f", *formats)
    for each in formats:
        text = format(value, each)
        if len(text) <= width:
            break
    return text[:width]


def count(value: int) -> str:
    """Write a whole number with thin groups: 1 179 648."""
    return f"{value:,}".replace(",", " ")


def rate(value: float) -> str:
    """Write a learning rate as people say it: 0.1, 0.001, 1e-05."""
    return f"{value:.4g}"


def duration(seconds: float) -> str:
    """Write a time: 42 µs, 0.3 ms, 45 ms, 2.1 s, 3 min 5 s."""
    if seconds < 0.0000995:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.0995:
        milliseconds = seconds * 1000
        return f"{milliseconds:.0f} ms" if milliseconds >= 9.95 else f"{milliseconds:.1f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def bar(share: float, width: int) -> str:
    """Draw a share of the width, 0 to 1, in eighths of a cell."""
    if not math.isfinite(share):
        return "?"
    share = min(max(share, 0.0), 1.0)
    eighths = round(share * width * 8)
    if share > 0:
        eighths = max(eighths, 1)
    return "█" * (eighths // 8) + "▏▎▍▌▋▊▉"[eighths % 8 - 1] * (eighths % 8 > 0)


def parse_float(text: str | None) -> float | None:
    """Read a number, or True and False as 1 and 0; None for anything else."""
    try:
        return float({"True": "1", "False": "0"}.get(text or "", text or ""))
    except ValueError:
        return None


def parse_integers(text: str | None) -> tuple[int, ...] | None:
    """Read integers, written as 1, (0, 1) or [0, 1]; None for anything else."""
    try:
        return tuple(int(word) for word in (text or "").strip("()[], ").split(","))
    except ValueError:
        return None


def linear_ticks(low: float, high: float, count: int) -> list[float]:
    """Return at most `count` multiples of 1, 2 or 5 times a power of ten in a range, ascending; maybe none."""
    span = high - low
    if not (0 < span < math.inf) or span < 1e-300 or max(abs(low), abs(high)) > 1e14 * span or count < 1:
        return []
    exponent = math.floor(math.log10(span / count))
    for power in (exponent, exponent + 1, exponent + 2):
        for factor in TICK_STEPS:
            step = factor * 10.0**power
            first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
            if 0 < last - first + 1 <= count:
                return [_multiple(index, factor, power) for index in range(first, last + 1)]
    return []


def log_ticks(low: float, high: float, count: int) -> list[float]:
    """Return at most `count` round numbers between 10**low and 10**high, ascending: powers of ten where there are many.

    Fewer than two powers of ten are joined by 2 and 5 times one, and 3 where there is room. In a range of less they are
    linear.
    """
    if not (0 < high - low < math.inf) or count < 1:
        return []
    first, last = math.ceil(low - 1e-9), math.floor(high + 1e-9)
    powers = range(first, last + 1)
    if len(powers) >= 2:
        stride = math.ceil(len(powers) / count)
        return [10.0**power for power in powers if power % stride == 0 and power < 308]
    least = 2 if count < 8 else 3
    for factors, most in ((FINE_TICK_STEPS, count // 2), (TICK_STEPS, count)):
        between = [
            factor * 10.0**power
            for power in range(first - 1, last + 1)
            for factor in factors
            if power < 307 and low - 1e-9 <= math.log10(factor) + power <= high + 1e-9
        ]
        if least <= len(between) <= most:
            return between
    return linear_ticks(10**low, 10 ** min(high, math.log10(sys.float_info.max)), count)


def _multiple(index: int, factor: int, power: int) -> float:
    """Return a multiple of 1, 2 or 5 times a power of ten without the error of a sum: 0.3, not 0.30000000000000004."""
    return index * factor / 10.0**-power if -300 < power < 0 else index * factor * 10.0**power


def tick_label(value: float, width: int) -> str:
    """Write a tick in at most `width` characters, at least six: 0.5, 20, 1500, 2e+06."""
    for digits in (6, 5, 4, 3, 2, 1):
        text = f"{value:.{digits}g}".replace("e+0", "e+").replace("e-0", "e-")
        if len(text) <= width:
            return text
    return text[:width]
