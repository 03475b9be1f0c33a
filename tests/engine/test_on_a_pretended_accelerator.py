"""Runs on an accelerator that is pretended in Python: the same bits as the plain loop there, and few readbacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autograd_tui.core.command import Phase

SUPPORT = Path(__file__).parents[1] / "support"
SCENARIOS = ("linear", "network")
ALL_SCENARIOS = (*SCENARIOS, "resnet18")
# At most, beside the plain loop's, however many tensors there are; of a forward with those of a checkpoint.
ADDED_LAUNCHES = {"f": 15, "b": 6, "s": 8, "z": 0}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """Return what the checks have found: one process for all, since a pretended device stays in a process for good."""
    run = subprocess.run(
        [sys.executable, str(SUPPORT / "pretended_device_checks.py")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    results: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return results


@pytest.mark.parametrize("name", ALL_SCENARIOS)
def test_stepped_recorded_and_free_runs_end_in_the_bits_of_the_plain_loop(found: dict[str, Any], name: str) -> None:
    assert found[f"equal_to_the_plain_loop {name}"] == []


@pytest.mark.parametrize("name", ALL_SCENARIOS)
def test_a_way_back_and_on_again_ends_in_the_same_bits(found: dict[str, Any], name: str) -> None:
    assert found[f"rewound {name}"] == []


@pytest.mark.parametrize("name", ALL_SCENARIOS)
def test_a_stepped_phase_waits_for_the_device_once(found: dict[str, Any], name: str) -> None:
    counts = {command: sum(found[f"readbacks {name}"][command].values()) for command in "fbsz"}
    assert counts == {"f": 1, "b": 1, "s": 1, "z": 0}


@pytest.mark.parametrize("name", ALL_SCENARIOS)
def test_a_recorded_phase_waits_for_the_device_twice_at_most(found: dict[str, Any], name: str) -> None:
    places = found[f"readbacks {name}"]
    counts = {letter: sum(places[f"i:{letter}"].values()) for letter in "fbsz"}
    assert counts == {"f": 2, "b": 2, "s": 1, "z": 0}


@pytest.mark.parametrize("how", ["not finite", "not finite, little held"])
def test_what_is_not_finite_is_found_as_on_the_cpu_though_it_is_changed_in_place(
    found: dict[str, Any], how: str
) -> None:
    there, here = found[how]
    assert there == here
    assert any("nan" in each for each in here)
    assert any("inf" in each for each in here)


def test_it_is_said_where_a_tensor_was_changed_before_it_was_measured_to_the_end(found: dict[str, Any]) -> None:
    there, here = found["not finite, changed unseen"]
    assert next(each for each in there if each not in here).startswith("A tensor was changed in place before it")


@pytest.mark.parametrize("name", ALL_SCENARIOS)
def test_a_checkpoint_stays_on_the_device_and_is_taken_and_restored_in_a_few_calls(
    found: dict[str, Any], name: str
) -> None:
    checkpoints = found[f"checkpoints {name}"]
    assert all(checkpoints["kept on the device"])
    read, is_on_device, wrong, (taken, restored) = checkpoints["device"]
    assert (read, is_on_device, wrong) == (0, True, [])
    assert taken <= 3
    assert restored <= 5  # parameters, buffers of two dtypes, and what the optimizer keeps
    assert checkpoints["without room"] is False
    _, is_on_device, wrong, _ = checkpoints["host"]
    assert (is_on_device, wrong) == (False, [])


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_phase_that_runs_out_of_memory_leaves_all_as_it_was_and_holds_nothing(
    found: dict[str, Any], name: str
) -> None:
    assert found[f"out_of_memory {name}"] == ["fb", []]


def test_a_phase_stands_where_there_is_no_memory_to_measure_it_and_the_host_measures(found: dict[str, Any]) -> None:
    assert found["measured_without_room resnet18"] == []


@pytest.mark.parametrize("name", ["network", "resnet18"])
def test_a_stepped_phase_launches_a_few_operations_more_than_the_plain_loop(found: dict[str, Any], name: str) -> None:
    added = found[f"added_launches {name}"]
    assert added.keys() == ADDED_LAUNCHES.keys()
    assert all(added[letter] <= most for letter, most in ADDED_LAUNCHES.items()), added


def test_a_watched_free_run_waits_for_the_device_at_its_frames_alone(found: dict[str, Any]) -> None:
    some, more = found["readbacks_of_a_watched_run network"]
    assert some == more


def test_a_watched_run_is_held_at_the_frame_at_which_it_is_held_on_the_cpu(found: dict[str, Any]) -> None:
    for watchpoint, (there, here) in found["watched linear"].items():
        assert there == here, watchpoint
        assert 0 < here < 20 * len(Phase), watchpoint


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_device_is_chosen_and_its_memory_is_told(found: dict[str, Any], name: str) -> None:
    assert found[f"memory_and_device {name}"] == ["pretended", True, "pretended", "pretended:0"]


def test_a_batch_that_the_scenario_brings_to_the_device_is_copied_there(found: dict[str, Any]) -> None:
    assert found["rewound captured"] == []
    counts = {command: sum(found["readbacks captured"][command].values()) for command in "fbsz"}
    assert counts == {"f": 1, "b": 1, "s": 1, "z": 0}


def test_a_table_of_many_large_tensors_takes_no_more_launches_than_one_of_few(found: dict[str, Any]) -> None:
    few, many = found["launches of a table"]
    assert few == many
    assert many <= 6
