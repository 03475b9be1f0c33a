"""Where a torchvision model's weights come from: random numbers, the hub folder, the net, or a file."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlparse

import torch
from torch import nn

from autograd_tui.core.errors import Refused
from autograd_tui.core.files import open_to_read
from autograd_tui.engine.training.state_file import model_state, put_into_model, read_saved

DOWNLOAD_TIMEOUT = 30.0  # seconds without a byte after which a server is given up
FILES = (".pth", ".pt", ".safetensors")


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights that were chosen; `state` is None for random ones."""

    line: str  # of a script that makes the model, a comment included
    settled: str  # as --weights names the choice
    state: Mapping[str, Any] | None = None
    trained: Any = None  # torchvision's own description of them, where they are its own

    def put_into(self, model: nn.Module) -> nn.Module:
        """Load them where there are any. Raises Refused where they do not fit."""
        if self.state is not None:
            put_into_model(model, self.state, self.settled)
        return model


def choose_weights(choice: str, hub_dir: str | None, *, name: str, trained: Any) -> Weights:
    """Return what --weights asks for: auto, random, pretrained or a file. Raises Refused.

    name: of the model's function in torchvision. trained: one of its weights, such as ResNet18_Weights.DEFAULT.
    """
    if choice in ("auto", "pretrained"):
        file = checkpoints_folder(hub_dir) / Path(urlparse(trained.url).path).name
        if choice == "pretrained" or os.path.exists(file):
            return Weights(f'model = {name}(weights="{trained.name}")', "pretrained", _fetch(trained, file), trained)
        return Weights(f"model = {name}()  # random weights\n# trained ones: --weights pretrained", "random")
    if choice == "random":
        return Weights(f"model = {name}()  # random weights", choice)
    if not choice.endswith(FILES):
        ends = f"{', '.join(FILES[:-1])} or {FILES[-1]}"
        raise Refused(f'--weights "{choice}" is neither auto, random nor pretrained, nor a file ending in {ends}.')
    load = f"model.load_state_dict(load({Path(choice).name!r}))"
    return Weights(f"model = {name}();  {load}", choice, model_state(read_saved(choice), choice))


def checkpoints_folder(hub_dir: str | None) -> Path:
    """Return the folder where torch.hub keeps weights, below the hub folder given or its own."""
    return Path(hub_dir or torch.hub.get_dir(), "checkpoints")


def _fetch(trained: Any, file: Path) -> Mapping[str, Any]:
    """Return torchvision's weights, from the net where `file` is not there yet; the hash is that of the name."""
    if os.path.exists(file):
        _check_hash(file)
    with _refuse_failed_download(urlparse(trained.url).netloc, file), _download_timeout():
        state: Mapping[str, Any] = trained.get_state_dict(
            model_dir=str(file.parent), map_location="cpu", progress=True, check_hash=True, weights_only=True
        )
    return state


def _check_hash(file: Path) -> None:
    """Raise Refused where a cached file is damaged: torch.hub checks its hash only while it downloads."""
    prefix = re.search(r"-([a-f0-9]{8,})\.", file.name)
    try:
        with open_to_read(file) as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise Refused(f'"{file}" could not be read: {error.strerror}.') from error
    if prefix and not sha256.startswith(prefix[1]):
        raise Refused(f'"{file}" is damaged: its hash is not that of its name; delete it, or use --weights random.')


@contextmanager
def _download_timeout() -> Iterator[None]:
    """Stop waiting for a server that sends nothing: torch.hub alone would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextmanager
def _refuse_failed_download(host: str, file: Path) -> Iterator[None]:
    """Turn what goes wrong with a download into one sentence, and leave no part of it behind."""
    parts = _partial(file)
    try:
        yield
    except Exception as error:
        for part in _partial(file) - parts:
            part.unlink(missing_ok=True)
        raise Refused(f"the pretrained weights could not be had: {_why(error, host, file)}.") from error


def _partial(file: Path) -> set[Path]:
    neighbours = file.parent.iterdir() if os.path.isdir(file.parent) else ()
    return {each for each in neighbours if each.name.startswith(f"{file.name}.") and each.suffix == ".partial"}


def _why(error: Exception, host: str, file: Path) -> str:
    if isinstance(error, HTTPError):
        error.close()
        return f"{host} answered {error.code} {error.reason}"
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, TimeoutError):
        return f"{host} has sent nothing for {DOWNLOAD_TIMEOUT:g} seconds"
    if isinstance(error, URLError):
        return f"{host} could not be reached ({getattr(reason, 'strerror', None) or reason})"
    if isinstance(error, (HTTPException, ConnectionError)):
        return f"{host} cut the connection"
    if isinstance(error, OSError):
        return f"{error.strerror or error} in {file.parent}"
    if "invalid hash value" in str(error):
        return f"what {host} sent is cut short or not what its name promises, and was thrown away"
    return f"what {host} sent holds no weights"
