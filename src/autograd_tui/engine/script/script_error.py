"""The frame of a script where it has raised what ends it."""

from __future__ import annotations

import traceback
from dataclasses import replace
from typing import TYPE_CHECKING

from autograd_tui.core.frame import Frame, TorchError
from autograd_tui.core.script_stop import ScriptStop
from autograd_tui.engine.script.call_site import CallSite, kind_of, site_at

if TYPE_CHECKING:
    from autograd_tui.engine.script.loop_phases import Phases

NOWHERE = CallSite("", "", 0, "", 1, (), None)


def error_frame(phases: Phases, error: BaseException) -> Frame:
    """Return the frame behind an exception: the line of the user's that raised it, or called what did."""
    frame = phases.make_frame("")
    site = _site_of(error)
    lines = [each.strip() for each in traceback.format_exception_only(error)]
    kind = type(error).__qualname__
    message = "\n".join(lines).partition(f"{kind}: ")[2]
    code = site.source[site.line - site.first_line].strip() if site.source else ""
    stop = frame.script or ScriptStop("", "", 0)
    return replace(
        frame,
        command=None,
        error=TorchError(kind, message, site.file, site.line, code=code),
        script=replace(
            stop,
            call="",
            file=site.file,
            line=site.line,
            function=site.function,
            first_line=site.first_line,
            source=site.source,
            library=site.library,
            models=(),
            inside=(),
            optimizer="",
        ),
    )


def _site_of(error: BaseException) -> CallSite:
    """Return the innermost line of the user's in an exception's traceback."""
    site, trace = NOWHERE, error.__traceback__
    while trace is not None:
        if kind_of(trace.tb_frame.f_code) == "user":
            site = site_at(trace.tb_frame, trace.tb_lineno)
        trace = trace.tb_next
    return site
