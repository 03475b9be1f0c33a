from __future__ import annotations

import pytest

from fuzz import run


@pytest.mark.usefixtures("capfd")
def test_what_nobody_would_type_ends_in_order() -> None:
    assert run(0, 40) == 0
