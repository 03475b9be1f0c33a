from __future__ import annotations

import pytest

from torchvision_models import compare


@pytest.mark.parametrize("name", ["squeezenet1_1", "shufflenet_v2_x0_5"])
def test_a_model_of_torchvisions_equals_the_plain_loop(name: str) -> None:
    assert compare(name) == ""
