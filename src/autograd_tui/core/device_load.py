"""How much a run takes of its device at one moment, as far as that can be read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeviceLoad:
    """What is in use of the device, by all programs together; on a CPU, what this process uses of the host's memory.

    None for what could not be read.
    """

    memory: int | None = None  # bytes in use
    total: int | None = None  # bytes of the whole device
    use: float | None = None  # the share of about the last second in which it computed, 0 to 1
    temperature: int | None = None  # degrees Celsius
