"""The themes: Textual's own, with colours moved until text can be read in each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache

from rich.style import Style
from textual.color import BLACK, WHITE, Color
from textual.theme import BUILTIN_THEMES, Theme

from autograd_tui.core.errors import UnknownCommand, unknown
from autograd_tui.tui.preferences import THEMES

RED, MAGENTA = Color(255, 0, 0), Color(215, 0, 175)
STEPS = 40  # from a colour to white or black


@lru_cache(maxsize=1024)  # a theme compares the same few colours hundreds of times
def luminance(color: Color) -> float:
    """Return WCAG's relative luminance: 0 for black, 1 for white."""
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color.normalized
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: Color, other: Color) -> float:
    """Return WCAG's contrast ratio: 1 for the same luminance, 21 for black on white."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def unchanged(color: Color) -> Color:
    """Return what a terminal that shows all colours makes of one."""
    return color


def legible(
    color: Color, grounds: Sequence[Color], ratio: float, *, shown: Callable[[Color], Color] = unchanged
) -> Color:
    """Move a colour no further towards white or black than it takes to reach a contrast with every ground.

    `shown` tells what the terminal makes of a colour. Where even white or black does not reach it, that is given.
    """

    def least(candidate: Color) -> float:
        return min(contrast(shown(candidate), shown(ground)) for ground in grounds)

    pole = max(WHITE, BLACK, key=least)
    moved = (color.blend(pole, step / STEPS) for step in range(STEPS))
    return next((candidate for candidate in moved if least(candidate) >= ratio), pole)


LEAST = 4.5  # WCAG's least contrast of text, and what it asks for where sight or light is poor:
MORE = 7.0
LINES = 3.0  # for what is no text
USUAL = [
    # An accent of its own: Textual's is the colour of its warnings. And red errors: Textual's are grey on 256 colours.
    replace(BUILTIN_THEMES[THEMES["dark"]], accent="#c792ea", error="#ff5555"),
    # Near white, since a projector in a bright room washes out what lies between.
    replace(
        BUILTIN_THEMES[THEMES["light"]],
        accent="#8a2fb8",
        warning="#b35900",
        error="#b00020",
        success="#1a7f37",
        background="#ffffff",
        surface="#f4f4f4",
        panel="#e6ebf0",
    ),
]
_LEVELS = (0, 95, 135, 175, 215, 255)  # of red, green and blue where there are 256 colours; greys come besides
MAX_TURN = 40  # degrees that a hue may be turned by among 256 colours, and still be called the same
MIN_CHROMA = 40  # between the largest and the least of red, green and blue, in a colour that is not grey
REDS = 15  # degrees on both sides of pure red that are called red
KINDS = ("primary", "secondary", "accent", "success", "warning", "error")
MUTED = ("text-muted", "text-disabled", "foreground-muted", "foreground-disabled")


# From the lowest to the highest, each the colours of a published map whose lightness rises evenly: viridis without its
# yellow end on dark grounds, ColorBrewer's GnBu without its darkest on light ones.
RAMPS = {
    True: ("#440154", "#482475", "#414487", "#355f8d", "#2a788e", "#21918c", "#22a884", "#44bf70"),
    False: ("#f7fcf0", "#e0f3db", "#ccebc5", "#a8ddb5", "#7bccc4", "#4eb3d3", "#2b8cbe"),
}
# Those of the 256 colours that come near: blends of the above would be no brighter from one level to the next.
RAMPS_OF_256 = {
    True: ("#5f005f", "#5f0087", "#5f00af", "#005f87", "#008787", "#00af87", "#5fd787"),
    False: ("#ffffff", "#d7ffd7", "#afd7d7", "#87d7d7", "#5fafd7", "#0087d7"),
}


# From one class to the other: the colours of ColorBrewer's PuOr, dark in the middle on dark grounds.
SIDES = {
    True: ("#6f5fb5", "#4a3f86", "#2a2450", "#3d2408", "#8a4f0c", "#c77a1c"),
    False: ("#8073ac", "#b2abd2", "#e2e0ee", "#fee8cc", "#fdb863", "#e08214"),
}


@cache
def cube_of_256() -> list[Color]:
    """Return the colours of 256 that come in steps of red, green and blue."""
    return [Color(red, green, blue) for red in _LEVELS for green in _LEVELS for blue in _LEVELS]


@lru_cache(maxsize=1024)
def ramp_style(kind: str, levels: str, *, dark: bool, shown: Callable[[Color], Color] = unchanged) -> Style:
    """Return the style of a cell on a map, for a name such as "levels:3/4" (upper and lower half) or "mark:3".

    "sides:3/4" and "side:3" are the same in the two hues of a plane between two classes. A mark is white or black; what
    it stands on is moved away from that until the mark can be read; "wrong:3" is the reverse, for a point on the wrong
    side. `shown` tells what the terminal makes of a colour.
    """
    upper, _, lower = levels.partition("/")
    of = side_color if kind in ("sides", "side", "wrong") else ramp_color
    ground = of(int(upper), dark=dark, shown=shown)
    if kind in ("mark", "side", "wrong"):
        text = max(WHITE, BLACK, key=lambda color: contrast(shown(color), shown(ground)))
        ground = legible(ground, [text], MORE, shown=shown)
        if kind == "wrong":
            text, ground = ground, text
        return Style(color=text.rich_color, bgcolor=ground.rich_color, bold=True)
    return Style(color=ground.rich_color, bgcolor=of(int(lower), dark=dark, shown=shown).rich_color)


def ramp_color(level: int, *, dark: bool, shown: Callable[[Color], Color] = unchanged) -> Color:
    """Return the colour of a level; grey where the loss is none."""
    from autograd_tui.text.picture_lines import LEVELS  # here, since the first paint has no map

    if level < 0:
        return Color(128, 128, 128)
    if shown is not unchanged:
        few = RAMPS_OF_256[dark]
        return Color.parse(few[level * len(few) // LEVELS])
    return _blended(RAMPS[dark], level / (LEVELS - 1))


def side_color(level: int, *, dark: bool, shown: Callable[[Color], Color] = unchanged) -> Color:
    """Return the colour of a level between two classes, each half of them in a hue of its own; grey for none."""
    from autograd_tui.text.picture_lines import SIDE_LEVELS

    if level < 0:
        return Color(128, 128, 128)
    half, colors = SIDE_LEVELS // 2, SIDES[dark]
    own = colors[: len(colors) // 2] if level < half else colors[len(colors) // 2 :]
    return shown(_blended(own, level % half / (half - 1)))


def _blended(colors: Sequence[str], share: float) -> Color:
    """Return the colour at a share, from 0 to 1, of the way through some."""
    parsed = [Color.parse(each) for each in colors]
    place = share * (len(parsed) - 1)
    index = min(int(place), len(parsed) - 2)
    return parsed[index].blend(parsed[index + 1], place - index)


def theme_named(name: str) -> str:
    """Return the name that Textual knows a theme by; raises UnknownCommand, with the nearest."""
    found = THEMES.get(name, name)
    if found not in BUILTIN_THEMES:
        raise UnknownCommand(unknown(name, "theme", (*THEMES, *BUILTIN_THEMES)))
    return found


def readable(
    theme: Theme, variables: Mapping[str, str], *, shown: Callable[[Color], Color] = unchanged
) -> dict[str, str]:
    """Return the variables that this app draws with, in place of the theme's own.

    `shown` tells what the terminal makes of a colour.
    """
    if theme.ansi:
        return _of_the_terminal()
    least = MORE if theme.name in (THEMES["dark"], THEMES["light"]) else LEAST
    names = ("background", "surface", "panel", "foreground")
    background, surface, panel, text = (Color.parse(variables[name]) for name in names)

    def fit(color: Color, *grounds: Color, ratio: float = least) -> Color:
        return legible(color, grounds, ratio, shown=shown)

    text = fit(text, background, surface, panel, ratio=least * 1.25)  # above what is muted
    grounds = (background, surface, panel, surface.tint(text.with_alpha(0.05)))  # the last is an input's, focused
    kinds = {kind: fit(Color.parse(variables[kind]), *grounds) for kind in KINDS}
    if shown is not unchanged:
        kinds = {
            kind: _in_its_hue(kind, color, Color.parse(variables[kind]), grounds, least, shown)
            for kind, color in kinds.items()
        }
    found = {f"text-{kind}": color.hex for kind, color in kinds.items()}
    found |= dict.fromkeys(MUTED, fit(background.blend(text, 0.6), *grounds).hex)
    frame = fit(panel, background, surface, ratio=LINES).hex
    mark = fit(Color.parse(variables["primary"]), background).hex
    found |= {"foreground": text.hex, "frame": frame}
    found |= {"text-positive": found["text-error"], "text-negative": found["text-primary"]}
    return found | _scrollbar(frame, surface.hex) | _marked(mark, background.hex)


def _in_its_hue(
    kind: str, color: Color, meant: Color, grounds: Sequence[Color], ratio: float, shown: Callable[[Color], Color]
) -> Color:
    """Return one of 256 colours that has the hue of what is meant, where the terminal would show `color` in another.

    A warning, as what is old, is magenta rather than red, which an error is.
    """
    red = kind != "warning"
    max_turn = REDS if kind == "error" else MAX_TURN

    def has_hue(candidate: Color) -> bool:
        if max(candidate.rgb) - min(candidate.rgb) < MIN_CHROMA:
            return False
        return _turn(candidate, meant) <= max_turn and (red or _turn(candidate, RED) > REDS)

    if has_hue(shown(color)) or max(meant.rgb) - min(meant.rgb) < MIN_CHROMA:
        return color
    legible_ones = [
        each for each in cube_of_256() if has_hue(each) and min(contrast(each, shown(on)) for on in grounds) >= ratio
    ]
    nearest = min(legible_ones, key=lambda each: (_turn(each, meant), contrast(each, color)), default=None)
    if nearest is None and not red and _turn(shown(color), RED) <= REDS:
        return legible(MAGENTA, grounds, ratio, shown=shown)
    return nearest or color


def _turn(one: Color, other: Color) -> float:
    """Return the degrees between two hues, 0 to 180."""
    between = abs(one.hsl.h - other.hsl.h) * 360
    return min(between, 360 - between)


def _marked(ground: str, text: str, *, look: str = "none") -> dict[str, str]:
    """Return what marks a phase, a cursor, a selection: all one colour, the text on it another."""
    found = {"mark": ground, "on-mark": text, "mark-text-style": f"bold {look}".removesuffix(" none")}
    for name in ("block-cursor", "block-cursor-blurred", "input-cursor", "input-selection"):
        found |= {f"{name}-background": ground, f"{name}-foreground": text, f"{name}-text-style": look}
    return found


def _scrollbar(thumb: str, track: str) -> dict[str, str]:
    found = {f"scrollbar{state}": thumb for state in ("", "-hover", "-active")}
    return found | {f"scrollbar-background{state}": track for state in ("", "-hover", "-active")}


def _of_the_terminal() -> dict[str, str]:
    """Return the terminal's own colours: only what reads on black and on white alike, and never colour alone."""
    plain = ("success", "primary", "secondary", "accent", "positive", "negative")
    found = dict.fromkeys(("text", "frame", *MUTED, *(f"text-{kind}" for kind in plain)), "ansi_default")
    found |= {"text-warning": "ansi_magenta", "text-error": "ansi_red"}  # what is old is no error
    found |= _scrollbar("ansi_default", "ansi_default")
    return found | _marked("ansi_default", "ansi_default", look="reverse")
