"""The checks for a machine with a card, on the CPU: that they run, find what is wrong, and outlive one that hangs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import device  # noqa: E402
import device_proofs  # noqa: E402
import device_runs  # noqa: E402

CHEAP = (
    "machine",
    "devices",
    "free_and_watched",
    "other_thread",
    "out_of_memory",
    "hung_phase",
    "gradient_check",
    "autocast",
    "batches",
    "state_of_another_device",
)


@pytest.fixture
def setting() -> Iterator[device_runs.Setting]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield device_runs.Setting(torch.device("cpu"), is_quick=True)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", CHEAP)
def test_a_check_passes_on_the_cpu(setting: device_runs.Setting, name: str) -> None:
    result = device.run_check(name, setting)
    assert result["verdict"] == "PASS", result["words"]


def test_every_check_that_is_named_is_there() -> None:
    assert all(callable(device.find_check(name)) for name in device.CHECKS)


def test_a_run_that_is_not_the_plain_one_fails(setting: device_runs.Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_proofs, "CASES", ((device_runs.network, device_runs.ADAM),))
    assert device.run_check("equality", setting)["verdict"] == "PASS"
    monkeypatch.setitem(device_runs.OPTIMIZERS, device_runs.ADAM, lambda params: torch.optim.Adam(params, lr=0.002))
    result = device.run_check("equality", setting)
    assert result["verdict"] == "FAIL"
    assert "tensors differ" in result["words"][0]


def test_what_a_check_raises_is_a_failure(setting: device_runs.Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no kernel for this")

    monkeypatch.setattr(device, "find_check", lambda name: broken)
    result = device.run_check("machine", setting)
    assert result["verdict"] == "FAIL"
    assert "no kernel for this" in result["words"][0]


@pytest.mark.parametrize(
    ("end", "limit", "words"),
    [("time.sleep(60)", 0.7, "it took more than 0.7 s"), ("os._exit(3)", 60, "the process ended with 3")],
)
def test_a_check_that_hangs_or_ends_the_process_fails_and_leaves_the_others(
    tmp_path: Path, end: str, limit: float, words: str
) -> None:
    path, names = tmp_path / "results.jsonl", ["first", "second", "third"]
    done = {"check": "first", "verdict": "PASS", "words": [], "figures": [], "seconds": 0.0}
    lines = "".join(json.dumps(each) + "\n" for each in ({"begins": "first"}, done, {"begins": "second"}))
    path.write_text(lines)
    code = f"import faulthandler, os, signal, time; faulthandler.register(signal.SIGUSR1); {end}"
    worker = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    results = device._results_of(worker, path, names, limit=limit)
    assert [(each["check"], each["verdict"]) for each in results] == [("first", "PASS"), ("second", "FAIL")]
    assert results[-1]["words"] == [words]
    assert names == ["third"]


def test_the_table_has_the_goal_beside_the_figure() -> None:
    figures = [("stepped / plain", 1.5, "at most 1.15", False), ("waits of f", 1, "", True)]
    lines = device.table([{"figures": figures}])
    assert lines[0].split() == ["stepped", "/", "plain", "1.500", "at", "most", "1.15", "missed"]
    assert lines[1].split() == ["waits", "of", "f", "1.000"]
