from __future__ import annotations

import pytest

from fuzz import run


@pytest.mark.usefixtures("capfd")
def test_what_nobody_would_type_ends_in_order() -> None:
    assert run(0, 40) == 0


@pytest.mark.usefixtures("capfd")
def test_files_of_weights_and_states_that_nobody_would_save_end_in_order() -> None:
    assert run(0, 120, "file") == 0
