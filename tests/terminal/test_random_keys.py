from __future__ import annotations

from pathlib import Path

import pytest
from random_keys import Monkey


@pytest.mark.parametrize("seed", [1, 2])
def test_random_keys_clicks_and_resizes_do_no_harm(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where `e` writes its pictures
    Monkey(seed, "linear").play(400)
