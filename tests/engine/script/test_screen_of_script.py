"""The screen of a script of one's own, in a process of its own: it needs no PyTorch, and leads free runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import torch
from torch import nn
torch.manual_seed(0)
model = nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)
x, y = torch.ones(4, 1), torch.full((4, 1), 3.0)
i = 0
while True:
    optimizer.zero_grad()
    loss = (model(x) - y).pow(2).mean() + 1e-9 * i
    i += 1
    if i == 4_000:
        loss = loss / 0
    loss.backward()
    optimizer.step()
"""

SCREEN = """
import asyncio, json, sys
from time import monotonic
from autograd_tui.core.command import Commands
from autograd_tui.core.capabilities import SCRIPTED
from autograd_tui.engine.script.script_session import ScriptSession
from autograd_tui.tui.app import AutogradApp

found = {}
sessions = []

def open_one(_):
    sessions.append(ScriptSession((sys.argv[1],), on_output=lambda data: None))
    return sessions[0]

async def main():
    app = AutogradApp(open_one, Commands(), title="train.py", can=SCRIPTED)

    async def until(true):
        end = monotonic() + 60
        while not true():
            assert monotonic() < end, (found, sessions and sessions[0].frame)
            await asyncio.sleep(0.005)

    async def press(*keys):
        await pilot.press(*keys)
        await until(lambda: app.main.up_to_date)

    def here():
        frame = sessions[0].frame
        return frame.index, frame.iteration, str(frame.command)

    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        found["painted before the script is there"] = not sessions
        await until(lambda: sessions and app.main.up_to_date)
        await press("space", "space")
        found["two stops"] = here()
        await press("n")
        found["n"] = here()
        await press("5", "n")
        found["5n"] = here()
        await press(*":run 100", "enter")
        found["run 100"] = here()
        await pilot.press("r")
        await until(lambda: sessions[0].frame.iteration > 200)
        await pilot.pause(0.2)
        await press("space")
        paused = here()
        found["paused"] = paused[1] > 200
        await press("left")
        await press("right")
        await press("space")
        found["goes on"] = here()[0] - paused[0]
        await press(*":watch loss > 1000", "enter")
        await pilot.press("r")
        await until(lambda: sessions[0].fired)
        await until(lambda: app.main.up_to_date)
        found["fired"] = here()
        found["losses"] = len(sessions[0].history.loss) > 100
        found["torch"] = "torch" in sys.modules
        app.exit()

asyncio.run(main())
sessions[0].close(in_order=True)
print(json.dumps(found))
"""


def test_the_screen_leads_a_free_run_and_imports_no_torch(tmp_path: Path) -> None:
    script, screen = tmp_path / "train.py", tmp_path / "screen.py"
    script.write_text(SCRIPT)
    screen.write_text(SCREEN)
    done = subprocess.run(
        [sys.executable, str(screen), str(script)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {
        "painted before the script is there": True,
        "two stops": [2, 1, "f"],
        "n": [6, 2, "f"],
        "5n": [25, 6, "z"],
        "run 100": [425, 106, "z"],
        "paused": True,
        "goes on": 1,
        "fired": [4 * 4_000 - 2, 4_000, "f"],
        "losses": True,
        "torch": False,
    }
