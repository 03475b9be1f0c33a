"""The first row of the screen: what is trained, how, where, and which frame is shown."""

from __future__ import annotations

from autograd_tui.engine.values.about import About
from autograd_tui.engine.values.frame import Frame
from autograd_tui.text.line import Line, length, spread
from autograd_tui.text.rules import NAMES, rates


def status_line(frame: Frame, about: About, newest: int, width: int, *, unkept: str = "") -> Line:
    """Write the row; what matters least goes first where room is short, and never that the run is `unkept`."""
    name, _, options = frame.optimizer.partition(",")
    optimizer = f" · {NAMES.get(name, name)} lr {rates(frame)}"
    details = " " + options.replace(",", " ").replace("=", " ") if options else ""
    behind = frame.index < newest
    right: Line = [
        (f"iteration {frame.iteration}   ", ""),
        (f"frame {frame.index} of {newest} ", "now" if behind else ""),
    ]
    whole = [optimizer, details, f" · {about.device}", f" · seed {about.seed}"]
    marks = [(unkept, whole), (unkept, whole[:3]), (unkept, [optimizer, whole[2]]), (unkept, [optimizer])]
    for mark, parts in (*marks, (unkept, []), ("!" * bool(unkept), [])):
        left: Line = [*marked(mark), (f" {about.title}", "strong"), ("".join(parts), "")]
        if length(left) + length(right) < width:
            break
    return spread(left, right, width)


def marked(unkept: str) -> Line:
    """Write at the beginning of a row, where nothing cuts it off, that the run is not kept."""
    return [(f" {unkept} ", "error")] if unkept else []
