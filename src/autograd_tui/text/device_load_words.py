"""How much a run takes of its device, in a few words for the status row."""

from __future__ import annotations

from autograd_tui.core.device_load import DeviceLoad


def load_words(load: DeviceLoad | None) -> list[str]:
    """Return the words, the longest first; none where nothing is known."""
    if load is None:
        return []
    if load.total is None:
        return [] if load.memory is None else [f"RSS {_gigabytes(load.memory)} GB"]
    used = "" if load.memory is None else f"{_gigabytes(load.memory)} of {_gigabytes(load.total)} GB"
    busy = "" if load.use is None else f"{load.use:.0%}"
    warm = "" if load.temperature is None else f"{load.temperature} °C"
    forms = [[used and f"{used} in use", busy and f"{busy} busy", warm], [used, busy, warm], [busy, warm]]
    words = [", ".join(filter(None, form)) for form in forms]
    return [each for each in words if each]


def _gigabytes(size: int) -> str:
    """Write a size in steps of a tenth, which change seldom: a terminal that shows nothing new stays quiet."""
    return f"{size / 1e9:.1f}"
