"""The first row of the screen: what is trained, how, where, and which frame is shown."""

from __future__ import annotations

from autograd_tui.engine.values.about import About
from autograd_tui.engine.values.frame import Frame
from autograd_tui.text.line import Line, length, spread
from autograd_tui.text.rules import NAMES, rates


def status_line(frame: Frame, about: About, newest: int, width: int) -> Line:
    """Write the row; what matters least goes first where room is short."""
    name, _, options = frame.optimizer.partition(",")
    optimizer = f" · {NAMES.get(name, name)} lr {rates(frame)}"
    details = " " + options.replace(",", " ").replace("=", " ") if options else ""
    behind = frame.index < newest
    right: Line = [
        (f"iteration {frame.iteration}   ", ""),
        (f"frame {frame.index} of {newest} ", "now" if behind else ""),
    ]
    whole = [optimizer, details, f" · {about.device}", f" · seed {about.seed}"]
    for parts in (whole, whole[:3], [optimizer, whole[2]], [optimizer], []):
        left: Line = [(f" {about.title}", "strong"), ("".join(parts), "")]
        if length(left) + length(right) < width:
            break
    return spread(left, right, width)
