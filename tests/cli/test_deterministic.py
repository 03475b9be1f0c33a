"""--deterministic: what PyTorch is asked for, what a journal says of it, and what scripts of such a run do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autograd_tui import open_session
from autograd_tui.cli.program import main
from autograd_tui.core.run_config import RunConfig
from autograd_tui.engine.training import accelerator
from autograd_tui.export.script import training_script
from autograd_tui.journal.reader import read_journal
from autograd_tui.journal.resume_run import is_repeatable, machine_differences


@pytest.fixture(autouse=True)
def flags_as_they_were(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave PyTorch's flags to the other tests as they were."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    yield
    torch.use_deterministic_algorithms(False)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def test_a_run_asks_for_it_says_so_in_its_journal_and_asks_again_when_it_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    words = ["--headless", "--do", "fbsz*2", "--deterministic", "--journal", str(path)]
    assert main(["linear", *words]) == 0
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.backends.cudnn.benchmark
    config = read_journal(path).config
    assert (config.arguments["deterministic"], config.versions["algorithms"]) == (True, "deterministic")
    assert config.command_line == "autograd-tui linear --deterministic"
    torch.use_deterministic_algorithms(False)
    assert main(["replay", str(path), "--headless", "--check"]) == 0
    assert torch.are_deterministic_algorithms_enabled()


def test_scripts_of_such_a_run_ask_for_it_too() -> None:
    session = open_session("linear", deterministic=True)
    list(session.run_all("fbsz"))
    text = training_script(session.about.config, session.log(), session.frame, session.groups)
    torch.use_deterministic_algorithms(False)
    exec(compile(text, "run.py", "exec"), {"__name__": "run"})
    assert torch.are_deterministic_algorithms_enabled()


def test_without_it_nothing_is_asked_for() -> None:
    config = open_session("linear").about.config
    assert not torch.are_deterministic_algorithms_enabled()
    assert "deterministic" not in config.arguments
    assert "algorithms" not in config.versions
    assert is_repeatable(config)
    assert not is_repeatable(replace(config, device="cuda"))


def test_a_journal_names_card_and_libraries_and_a_check_says_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    versions = accelerator.device_versions("cuda:1")
    assert versions == {
        "card": "a card",
        "cuda": "13.0",
        "cudnn": "91002",
        "algorithms": "any",
        "cudnn benchmark": "on",
    }
    there = RunConfig("linear", device="cuda:1", versions=versions)
    here = replace(there, versions=versions | {"card": "another card", "algorithms": "deterministic"})
    assert machine_differences(there, here) == ["card another card (was a card)", "algorithms deterministic (was any)"]
    assert machine_differences(replace(there, versions={}), here) == []  # a journal of an older version
