"""Random commands against the oracle. AUTOGRAD_TUI_EXAMPLES=2000 asks for a long, random search."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

from command_machine import Machine

ASKED = os.environ.get("AUTOGRAD_TUI_EXAMPLES")
TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=int(ASKED or 20),
    stateful_step_count=30,
    deadline=None,
    derandomize=ASKED is None,
    suppress_health_check=[HealthCheck.too_slow],
)
