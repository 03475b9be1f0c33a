"""Colours that can be read: moved towards white or black until they stand out from what they are drawn on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual.color import BLACK, WHITE, Color

STEPS = 40  # from a colour to white or black


def luminance(color: Color) -> float:
    """Give WCAG's relative luminance: 0 for black, 1 for white."""
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color.normalized
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: Color, other: Color) -> float:
    """Give WCAG's contrast ratio: 1 for the same luminance, 21 for black on white."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def legible(
    color: Color, grounds: Sequence[Color], ratio: float, *, shown: Callable[[Color], Color] = lambda color: color
) -> Color:
    """Move a colour no further towards white or black than it takes to reach a contrast with every ground.

    `shown` tells what the terminal makes of a colour. Where even white or black does not reach it, that is given.
    """

    def least(candidate: Color) -> float:
        return min(contrast(shown(candidate), shown(ground)) for ground in grounds)

    pole = max(WHITE, BLACK, key=least)
    moved = (color.blend(pole, step / STEPS) for step in range(STEPS))
    return next((candidate for candidate in moved if least(candidate) >= ratio), pole)
