"""Random commands against the oracle. --examples 2000 asks for a long, random search."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from command_machine import Machine
from suite_options import search

TestMachine = Machine.TestCase
TestMachine.settings = settings(search(10), stateful_step_count=30, suppress_health_check=[HealthCheck.too_slow])
