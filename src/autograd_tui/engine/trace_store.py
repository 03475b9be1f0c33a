"""The traces that were recorded last."""

from __future__ import annotations

from autograd_tui.engine.trace import Trace

MOST = 4  # one of resnet18's backward, its forward included, takes a megabyte or two


class TraceStore:
    """Keeps a few traces by frame."""

    def __init__(self) -> None:
        self._traces: dict[int, Trace] = {}

    def keep(self, trace: Trace) -> None:
        """Keep a trace, and let the oldest go."""
        self._traces[trace.index] = self._traces.pop(trace.index, trace)
        self._traces[trace.index] = trace
        while len(self._traces) > MOST:
            del self._traces[next(iter(self._traces))]

    def get(self, index: int) -> Trace | None:
        """Give the trace of the phase that led to a frame."""
        return self._traces.get(index)

    def forget_after(self, index: int) -> None:
        """Let those of later frames go: another command has been run from there."""
        self._traces = {each: trace for each, trace in self._traces.items() if each <= index}
