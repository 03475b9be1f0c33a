from __future__ import annotations

import subprocess
import sys

# In a new Python: in that of the tests PyTorch's compiler has been imported long ago.
SCRIPT = """
import random, sys
from pathlib import Path
from autograd_tui.cli.torch_libraries import OTHERS, TorchLibraries

libraries = TorchLibraries()
libraries.wait()  # for nothing yet
libraries.start()
libraries.wait()
assert "torch" not in sys.modules
assert sys.platform != "linux" or all(each in Path("/proc/self/maps").read_text() for each in OTHERS)

import numpy, torch
from autograd_tui import open_session
from autograd_tui.core.command import Command
from autograd_tui.engine.training.optimizers import COMPILER, import_part

method = torch.optim.Optimizer.add_param_group.__wrapped__

def numbers(session):
    return [(frame.loss, list(frame.params.numbers), frame.grads.norm()) for frame in session.run_all("zfbsz*2")]

def random_states():
    return random.getstate(), str(numpy.random.get_state(legacy=False)), torch.get_rng_state().tolist()

first = open_session("linear", optimizer="sgd", momentum=0.9)
for word in ("f", "b", "optimizer=adam"):
    assert first.run(word).error is None
assert first.surface() is not None
assert COMPILER not in sys.modules
assert not vars(method)  # PyTorch's own is as it was

states = random_states()
assert import_part()
assert COMPILER not in sys.modules  # part by part, and between two of them commands run
assert open_session("linear").run("f").loss is not None
first.run(Command("step", recorded=True))
assert COMPILER in sys.modules  # imported for the step, and before it is recorded
assert not import_part()
assert random_states() == states

again = open_session("linear", optimizer="sgd", momentum=0.9)
for word in ("f", "b", "optimizer=adam", Command("step", recorded=True)):
    again.run(word)
assert vars(method)["__dynamo_disable"] is not method  # made as PyTorch makes it
traces = [session.trace(4) for session in (first, again)]
assert traces[0].plain() == traces[1].plain()
assert first.frame.params.numbers == again.frame.params.numbers
assert numbers(first) == numbers(again)
"""


def test_libraries_are_loaded_before_pytorch_and_its_compiler_behind_the_first_forward_and_nothing_changes() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False)
    assert not done.returncode, done.stderr
