from __future__ import annotations

from pathlib import Path

import pytest
from torchvision import models

from app_screen import screen


async def test_weights_that_cannot_be_used_leave_the_session_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    damaged = tmp_path / "hub" / "checkpoints" / Path(models.ResNet18_Weights.DEFAULT.url).name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"half of them")
    async with screen("linear", do="fb", size=(200, 40)) as shown:
        await shown.press("colon", *"model", "space", *"resnet18", "enter")
        assert "is damaged" in shown.note
        await shown.press("s")
        assert shown.session.commands() == "fbs"
        assert shown.session.about.title == "the line"
