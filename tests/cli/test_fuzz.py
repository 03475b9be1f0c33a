from __future__ import annotations

import pytest

import suite_options
from fuzz import run


@pytest.mark.usefixtures("capfd")
def test_what_nobody_would_type_ends_in_order() -> None:
    assert run(0, 40 if suite_options.LONG else 20) == 0


def test_what_no_scenario_would_return_ends_in_order() -> None:
    assert run(0, 50 if suite_options.LONG else 25, "returns") == 0


@pytest.mark.usefixtures("capfd")
def test_files_of_weights_and_states_that_nobody_would_save_end_in_order() -> None:
    assert run(0, 120, "file") == 0


@pytest.mark.usefixtures("capfd")
def test_journals_that_no_run_would_write_are_read_as_far_as_they_go() -> None:
    assert run(0, 150, "journal") == 0


@pytest.mark.usefixtures("capfd")
def test_files_of_frames_that_no_leader_would_write_are_followed_as_far_as_they_go() -> None:
    assert run(0, 100 if suite_options.LONG else 20, "frames") == 0


@pytest.mark.usefixtures("capfd")
def test_what_others_have_put_into_a_folder_is_neither_changed_nor_waited_for() -> None:
    assert run(0, 30, "folder") == 0


@pytest.mark.usefixtures("capfd")
def test_journals_of_somebody_else_have_nothing_opened_that_they_name() -> None:
    assert run(0, 60, "named") == 0
