"""A run goes on whatever happens to the disk, and says for as long as it is so that it is not kept."""

from __future__ import annotations

import pytest

from disks import case


@pytest.mark.parametrize("number", range(8, 13))
def test_a_run_on_a_disk_that_is_disturbed_goes_on_and_says_what_is_kept(number: int) -> None:
    assert case(number) is None
