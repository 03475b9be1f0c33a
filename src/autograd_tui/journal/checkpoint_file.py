"""Saves checkpoints beside a journal, made only of values that `torch.load` reads without running any code."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from autograd_tui.core.command import Phase
from autograd_tui.core.files import open_to_read, replacing
from autograd_tui.core.frame import Frame
from autograd_tui.core.history import History
from autograd_tui.core.optimizer_spec import OptimizerSpec
from autograd_tui.core.wire import FrameDecoder, FrameEncoder
from autograd_tui.engine.training.checkpoint import Checkpoint
from autograd_tui.engine.training.data_loader import Epoch, Position
from autograd_tui.engine.training.global_state import GlobalSnapshot, HostRng
from autograd_tui.engine.training.state_file import save as torch_save
from autograd_tui.journal.entry import frame_digest
from autograd_tui.journal.frame_stream import decode_history, encode_history
from autograd_tui.journal.journal_file import PrefixHash, hash_prefix
from autograd_tui.journal.paths import companion_files
from autograd_tui.journal.reader import Journal


def encode_state(value: Any) -> Any:
    """Return the value as tensors, numbers, strings, lists and dicts of them: what `torch.load` trusts."""
    if isinstance(value, GlobalSnapshot):
        others = [encode_state(state) for _, state in value.rewindables]
        return {"mark": [encode_state(value.torch), *_encode_host_rng(value.host_rng), *others]}
    if isinstance(value, HostRng):
        return {"foreign": _encode_host_rng(value)}
    if isinstance(value, Position):
        return {"position": [encode_state(each) for each in (value.epoch, value.index, value.before)]}
    if isinstance(value, Epoch):
        return {
            "epoch": [
                encode_state(each)
                for each in (value.first, value.start, value.states_between, value.unrepeatable_index)
            ]
        }
    if isinstance(value, torch.dtype | torch.device):
        return {type(value).__name__: str(value).removeprefix("torch.")}
    if type(value).__name__ == "ndarray":
        return {"ndarray": torch.from_numpy(value.astype("int64"))}
    if isinstance(value, dict):
        return {"dict": [[encode_state(key), encode_state(each)] for key, each in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [encode_state(each) for each in value]}
    return [encode_state(each) for each in value] if isinstance(value, list) else value


def decode_state(plain: Any) -> Any:
    """Return the value that `encode_state` was given. Raises whatever a damaged file makes of it."""
    if isinstance(plain, list):
        return [decode_state(each) for each in plain]
    if not isinstance(plain, dict):
        return plain
    ((kind, inside),) = plain.items()
    match kind:
        case "mark":
            state, *host_rng = inside[:5]
            others = tuple((None, decode_state(each)) for each in inside[5:])  # whose, only the loop knows
            return GlobalSnapshot(decode_state(state), _decode_host_rng(*host_rng), others)
        case "foreign":
            return _decode_host_rng(*inside)
        case "position":
            return Position(*map(decode_state, inside))
        case "epoch":
            return Epoch(*map(decode_state, inside))
        case "dtype":
            return getattr(torch, inside)
        case "device":
            return torch.device(inside)
        case "ndarray":
            return inside.numpy().astype("uint32")
        case "tuple":
            return tuple(decode_state(each) for each in inside)
        case _:
            return dict(_pairs(inside))


def _encode_host_rng(states: HostRng) -> list[Any]:
    version, numbers, gauss = states.python
    return [list(numbers), version, gauss, encode_state(states.numpy)]


def _decode_host_rng(numbers: list[int], version: int, gauss: Any, numpy: Any) -> HostRng:
    return HostRng((version, tuple(numbers), gauss), decode_state(numpy))


def _pairs(inside: list[Any]) -> Iterator[tuple[Any, Any]]:
    return ((decode_state(key), decode_state(each)) for key, each in inside)


FORMAT = 4
MAX_FILES = 2  # files beside a journal
MAX_BYTES = 4 << 30  # of one; a larger checkpoint is not written


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """A checkpoint read back, and the plots up to it."""

    checkpoint: Checkpoint
    history: History


def save_checkpoint(
    journal: Path, checkpoint: Checkpoint, history: History, *, entry: int, lines: PrefixHash, mode: int
) -> None:
    """Write a checkpoint, whole or not at all; `entry` is the journal's that holds its frame. Raises OSError.

    lines: of the journal, that entry among them: where they are others, the checkpoint is of another run.
    None is written where the model remembers something in Python, which only running again can bring about.
    """
    if checkpoint.bytes > MAX_BYTES or checkpoint.remembers:
        return
    checkpoint, history = checkpoint.on_host(), history.copy()
    history.truncate_after(checkpoint.frame.index)
    left_out = ("frame", "model_buffers", "python", "optimizer")
    content: dict[str, Any] = {
        "format": FORMAT,
        "lines": [lines.size, lines.hexdigest()],
        "entry": entry,
        "index": checkpoint.frame.index,
        "frame": FrameEncoder().line(checkpoint.frame),
        "history": encode_history(history),
        "optimizer": str(checkpoint.optimizer),
        **{
            each.name: encode_state(getattr(checkpoint, each.name))
            for each in fields(Checkpoint)
            if each.name not in left_out
        },
    }
    path = journal.with_name(f"{journal.name}.tensors-{checkpoint.frame.index}")
    with replacing(path, mode) as file:
        torch_save(content, file)
        file.flush()
        os.fsync(file.fileno())
    for old in _checkpoint_files(journal)[MAX_FILES:]:
        old.unlink(missing_ok=True)


def load_checkpoint(journal: Journal, template: Checkpoint) -> CheckpointFile | None:
    """Read the newest checkpoint that lies on the way to the end of the present branch; None where there is none.

    `template` is one of the same model, taken now. A file that cannot be read, or is of another model or run, is
    passed over.
    """
    for path in _checkpoint_files(journal.path):
        try:
            with open_to_read(path) as file:
                content = torch.load(file, weights_only=True)
            if content["format"] == FORMAT and _leads_on(journal, content["entry"], content["index"]):
                checkpoint, history = _decode_checkpoint(content, template), decode_history(content["history"])
                if _belongs_to(journal, checkpoint.frame, content) and history.is_of(len(checkpoint.frame.params)):
                    return CheckpointFile(checkpoint, history)
        except Exception:  # whatever a damaged file makes torch raise
            continue
    return None


def _leads_on(journal: Journal, line: int, index: int) -> bool:
    """Return whether a line leads to frame `index` of the present branch, and a forward follows there.

    A forward needs no graph of an earlier one, which a checkpoint does not hold.
    """
    tree = journal.tree
    if not 0 < index < tree.end or tree.line_of(index) != line:
        return False
    following = tree.line_of(index + 1)
    entry, offset = journal.entries[following - 1], index - tree.start_of(following)
    return entry.raised is None and entry.commands()[offset].phase is Phase.FORWARD


def _belongs_to(journal: Journal, frame: Frame, content: Mapping[str, Any]) -> bool:
    """Return whether a checkpoint was taken in this very run, and holds the frame of its line."""
    size, lines = content["lines"]
    if size > journal.size or hash_prefix(journal.path, size).hexdigest() != lines:
        return False
    entry = content["entry"] - 1
    if frame.index != journal.end_frames[entry]:
        return True
    digest: str = journal.entries[entry].digest
    return frame_digest(frame, journal.config.digest_version) == digest


def _checkpoint_files(journal: Path) -> list[Path]:
    """Return the files beside a journal, the newest first. Raises OSError."""
    numbered = f"{journal.name}.tensors-"
    whole = (path for path in companion_files(journal) if path.name.removeprefix(numbered).isdecimal())
    return sorted(whole, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def _decode_checkpoint(content: dict[str, Any], template: Checkpoint) -> Checkpoint:
    special: dict[str, Any] = {
        "frame": FrameDecoder().frame(content["frame"]),
        "model_buffers": template.model_buffers,
        "python": template.python,
        "optimizer": OptimizerSpec.parse(content["optimizer"]),
    }
    values: dict[str, Any] = {
        each.name: special[each.name] if each.name in special else decode_state(content[each.name])
        for each in fields(Checkpoint)
    }
    for name in ("params", "buffers"):
        own, saved = getattr(template, name), values[name]
        if own.keys() != saved.keys() or any(own[key].shape != saved[key].shape for key in own):
            raise ValueError("of another model")
    pairs = zip(template.mark.rewindables, values["mark"].rewindables, strict=True)
    values["mark"] = replace(values["mark"], rewindables=tuple((one[0], read[1]) for one, read in pairs))
    return Checkpoint(**values)
