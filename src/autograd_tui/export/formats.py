"""Exports a run into a file, whole or not at all; the ending of its name chooses the format."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from autograd_tui.core.command_log import CommandLog
from autograd_tui.core.errors import Refused
from autograd_tui.core.files import absolute, other_kind, part_of, replacing, same_file
from autograd_tui.core.frame import Frame
from autograd_tui.core.history import History, Series
from autograd_tui.core.picture import Picture
from autograd_tui.core.run_config import RunConfig
from autograd_tui.core.session_protocol import SessionInfo
from autograd_tui.core.tensor_stats import TensorStats
from autograd_tui.export.repro_script import repro_script
from autograd_tui.export.script import training_script
from autograd_tui.export.tensorboard import write_events

if TYPE_CHECKING:
    from autograd_tui.engine.session import Session

FORMATS = (".py", ".csv", ".jsonl", ".svg", ".html", ".tb", ".pt")  # the last two write more than one file
EVENTS_PREFIX = "events.out.tfevents."  # what TensorBoard's files begin with
ProtectedFiles = Mapping[str, Path]  # files that are never written over, by what they are: "the scenario's own file"
COLUMNS = ("frame", "command", "iteration", "loss", "lr", "tensor", "kind", "stat", "value")
FORMULA_PREFIXES = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # how those of spreadsheets begin
STATS = ("norm", "min", "max", "nonfinite", "mean", "std")
FLAGS = ("sampled", "range_sampled")  # written where they are true: what is of a sample, as in TensorStats
Cell = float | int | str | bool
Row = tuple[str, str, str, Cell]  # tensor, kind, stat, value


class ExportedRun(Protocol):
    """What is exported: frames that are made by running again, or that are stored."""

    @property
    def about(self) -> SessionInfo:
        """What does not change in the run."""

    @property
    def newest(self) -> int:
        """The index of the last frame."""

    @property
    def losses(self) -> Series | None:
        """The losses of all iterations, where they come with more than the frames."""

    def frames(self) -> Iterator[Frame]:
        """Yield the frames in order. Raises Refused where it is stopped."""

    def history_at(self, frame: Frame) -> History:
        """Return what plots need at the frame that has come last."""

    def pictures(self) -> tuple[Picture, ...]:
        """Return the pictures of what the model had learned by then."""

    def sample(self, limit: int) -> tuple[list[int], str]:
        """Return the indices of so many frames to draw, and a sentence on what is left out, or ""."""


@dataclass(frozen=True, slots=True)
class FrameReplay:
    """What opened a run and its commands, and a session that has just been opened to run them again, once."""

    config: RunConfig
    log: CommandLog
    session: Session
    stopped: Callable[[], bool] = lambda: False

    @property
    def about(self) -> SessionInfo:
        return self.session.about

    @property
    def newest(self) -> int:
        return len(self.log)

    @property
    def losses(self) -> None:
        """None: each loss comes with its frame."""

    def history_at(self, frame: Frame) -> History:
        """Return what plots need at a frame, which has just been run."""
        return self.session.history.copy()

    def pictures(self) -> tuple[Picture, ...]:
        """Return the pictures of what the model has learned up to the frame that has just been run."""
        return self.session.pictures(stopped=self.stopped)

    def sample(self, limit: int) -> tuple[list[int], str]:
        from autograd_tui.export.html_page import sample_frames, sampling_note

        sample = sample_frames(self.log, limit=limit)
        return sample, sampling_note(self.log, sample)

    def frames(self) -> Iterator[Frame]:
        """Run the commands, and yield every frame from frame 0 on. Raises Refused where it is stopped."""
        yield self.session.frame
        for command in self.log:
            if self.stopped():
                raise Refused("the export was stopped: nothing is written.")
            yield self.session.run(command)


def write_json_lines(file: BinaryIO, frames: Iterable[Frame]) -> None:
    """Write the values of `Frame.plain` of each frame as a line of JSON."""
    for frame in frames:
        file.write((json.dumps(frame.plain(), allow_nan=False) + "\n").encode())


@dataclass(frozen=True, slots=True)
class PictureOptions:
    """How screens are drawn; None for what suits the format."""

    frame: int | None = None  # the one of a picture: the last by default
    size: tuple[int, int] | None = None  # columns, rows
    theme: str | None = None


def export_file(
    path: Path,
    config: RunConfig,
    log: CommandLog,
    reopen: Callable[[], Session],
    *,
    options: PictureOptions | None = None,
    overwrite: bool = False,
    journal: Path | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> str:
    """Write a run in the form that the path's ending names; return a sentence on what was left out, or "".

    config, log: what opened the run, and the commands that it ran.
    reopen: opens its session anew at frame 0, to be run again unless `stopped`.
    overwrite: what is there, but no file that the run is made of, nor its `journal`.
    Raises Refused, with nothing written, where the ending is unknown, a path is taken, or it cannot be written.
    """
    check_format(path)
    sources = protected_files(config, journal)
    for each in output_paths(path):
        check_output(each, overwrite=overwrite, sources=sources)
    run = FrameReplay(config, log, reopen(), stopped)
    if path.suffix == ".pt":
        for _ in run.frames():
            pass
        if options is not None and options.frame is not None:
            run.session.rewind(options.frame)
        return export_repro(path, run.session, overwrite=overwrite, sources=sources)
    if path.suffix == ".py":
        with write_whole(path, overwrite=overwrite, sources=sources) as file:
            script = training_script(run.config, run.log, run.session.frame, run.session.groups)
            file.write(checked_script(script, "the script"))
        return ""
    return write_run(path, run, options=options, overwrite=overwrite, sources=sources)


def check_format(path: Path) -> None:
    """Raise Refused where a path has no known ending."""
    if path.suffix not in FORMATS:
        endings = ", ".join(FORMATS)
        raise Refused(f'"{path.name}" has no ending that says in which form: {endings} are known.')


def protected_files(config: RunConfig, journal: Path | None) -> ProtectedFiles:
    """Return the files that a run is made of, and its journal."""
    return config.files | ({"the run's journal": journal} if journal else {})


def write_run(
    path: Path, run: ExportedRun, *, options: PictureOptions | None, overwrite: bool, sources: ProtectedFiles
) -> str:
    """Write frames as a table, events, or screens; return a sentence on what was left out, or ""."""
    if path.suffix == ".tb":
        with write_whole_folder(path, overwrite=overwrite, sources=sources) as folder:
            write_events(folder, run.frames(), losses=run.losses)
        return ""
    with write_whole(path, overwrite=overwrite, sources=sources) as file:
        return _write(file, path.suffix, run, options or PictureOptions())


def output_paths(path: Path) -> list[Path]:
    """Return the paths that an export to a path writes: a repro has a script beside it."""
    return [path, path.with_suffix(".py")] if path.suffix == ".pt" else [path]


def new_output(path: Path, folder: str | None, *, numbered: bool) -> tuple[Path, Path]:
    """Return the path of an export as it is named, and from the root on, where it is meant from a folder.

    numbered: the name gets a number behind it where one of its files exists already, for which Refused is raised else.
    """
    target = Path(absolute(str(path), folder))
    if numbered:
        names = chain([target], (target.with_stem(f"{target.stem}-{number}") for number in count(2)))
        target = next(each for each in names if not any(map(os.path.lexists, output_paths(each))))
        path = path.with_name(target.name)
    for each in output_paths(target):
        if os.path.lexists(each):
            raise Refused(f"{path.with_name(each.name)} exists: give another name.")
    return path, target


def export_repro(
    path: Path, session: Session, *, overwrite: bool = False, sources: ProtectedFiles | None = None
) -> str:
    """Write the iteration up to where a session stands, and a script beside it; training stays there.

    Returns a note for the user. Raises Refused, with nothing written, where it cannot be.
    """
    protection: dict[str, Any] = {"overwrite": overwrite, "sources": sources or session.about.config.files}
    path, beside = output_paths(path)
    with write_whole(path, **protection) as file, write_whole(beside, **protection) as script_file:
        repro = session.write_repro(file)
        script_file.write(checked_script(repro_script(session.about.config, repro), beside.name))
    return f"{beside.name} repeats it"


def checked_script(text: str, name: str) -> bytes:
    """Return a script's text as it is written; raises Refused where it is no Python, so that none is kept."""
    try:
        compile(text, name, "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Refused(f"this run cannot be written as a script yet: it would be no Python ({error}).") from error
    return text.encode()


def _write(file: BinaryIO, suffix: str, run: ExportedRun, options: PictureOptions) -> str:
    """Write a run into one file; return a sentence on what was left out, or ""."""
    size = options.size or (120, 40)
    match suffix:
        case ".csv":
            write_csv(file, run.frames())
        case ".jsonl":
            write_json_lines(file, run.frames())
        case ".svg":
            from autograd_tui.tui.offscreen import picture

            drawn = picture(run, frame=options.frame, size=size, theme=options.theme)
            file.write(drawn.encode(errors="backslashreplace"))
        case ".html":
            from autograd_tui.export.html_page import html_page

            page, missing = html_page(run, size=size, theme=options.theme)
            file.write(page.encode(errors="backslashreplace"))
            return missing
    return ""


def check_output(path: Path, *, overwrite: bool, sources: ProtectedFiles) -> None:
    """Raise Refused for a target that cannot be written, or must not be, before anything is run for it."""
    for what, source in sources.items():
        if same_file(path, source):
            raise Refused(f"{path} is {what}, which is never written over: give another name.")
    if not os.path.isdir(path.parent):  # which, unlike Path, has an answer for any text
        raise Refused(f"there is no folder {path.parent} to write {path.name} into.")
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise Refused(f"{path} exists: --force writes over it.")
    kind = None if path.is_symlink() else other_kind(path.stat().st_mode)  # a link itself gives way
    if kind == "a folder" and not (path.suffix == ".tb" and _holds_events_alone(path)):
        raise Refused(f"{path} is a folder with other things in it, which are left alone: give another name.")
    if kind not in (None, "a folder"):
        raise Refused(f"{path} is {kind}, and no file: give another name.")


def _holds_events_alone(folder: Path) -> bool:
    return all(each.name.startswith(EVENTS_PREFIX) for each in folder.iterdir())


@contextmanager
def write_whole(path: Path, *, overwrite: bool, sources: ProtectedFiles) -> Iterator[BinaryIO]:
    """Open a file that is put in the target's place once all is written; raises Refused.

    Where a link is written over, it is the link that gives way, and what it leads to stays.
    """
    check_output(path, overwrite=overwrite, sources=sources)
    try:
        with replacing(path, over=overwrite) as file:
            yield file
            check_output(path, overwrite=overwrite, sources=sources)
    except OSError as error:
        raise Refused(f"{path} could not be written: {error.strerror or error}.") from error


@contextmanager
def write_whole_folder(path: Path, *, overwrite: bool, sources: ProtectedFiles) -> Iterator[Path]:
    """Make a folder that is put in the target's place once all is written; raises Refused."""
    check_output(path, overwrite=overwrite, sources=sources)
    part = part_of(path)
    try:
        part.mkdir()
        yield part
        check_output(path, overwrite=overwrite, sources=sources)
        _remove(path)
        os.replace(part, path)
    except OSError as error:
        raise Refused(f"{path} could not be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _remove(path: Path) -> None:
    """Remove what a folder is to take the place of."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_csv(file: BinaryIO, frames: Iterable[Frame]) -> None:
    """Write the table; floats have as many digits as read back as the same ones.

    A text that a spreadsheet would take for a formula has an apostrophe before it.
    """
    text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    before: Frame | None = None
    for frame in frames:
        loss = "" if frame.loss is None else frame.loss
        head = (frame.index, _escape_formula(str(frame.command or "")), frame.iteration, loss, frame.learning_rate)
        writer.writerows((*head, *map(_escape_formula, row)) for row in frame_rows(frame, before))
        before = frame
    text.detach()


def _escape_formula(cell: Cell) -> Cell:
    """Return a cell that no spreadsheet computes; numbers stay numbers, also negative ones."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_PREFIXES) else cell


def frame_rows(frame: Frame, before: Frame | None) -> Iterator[Row]:
    """Yield what is new since the frame `before`, and always how many steps have been run."""
    yield "", "run", "steps", frame.steps
    if frame.error:
        yield "", "run", "raised", f"{frame.error.type}: {frame.error.message}"
    if before is None or frame.loss_steps != before.loss_steps or frame.metrics != before.metrics:
        yield from (("", "metric", name, value) for name, value in frame.metrics)
    tables: dict[str, tuple[Sequence[TensorStats], object]] = {
        "parameter": (frame.params, before and before.params),
        "state": (frame.optimizer_state, before and before.optimizer_state),
        "buffer": (frame.buffers, before and before.buffers),
    }
    for kind, (table, old) in tables.items():
        if old is None or table != old:
            yield from (row for stats in table for row in _stats_rows(kind, stats))
    if before is None or frame.grads != before.grads:
        yield from _gradient_rows(frame)


def _gradient_rows(frame: Frame) -> Iterator[Row]:
    """Yield every gradient, also that there is none: a sum of 0 backwards."""
    for name, grad in zip(frame.params.layout.names, frame.grads, strict=True):
        yield name, "gradient", "backwards", 0 if grad is None else grad.backwards
        if grad is not None:
            yield name, "gradient", "used", int(grad.used)
            yield from _stats_rows("gradient", grad)


def _stats_rows(kind: str, stats: TensorStats) -> Iterator[Row]:
    for stat in STATS:
        value = getattr(stats, stat)
        if value is not None:
            yield stats.name, kind, stat, value
    yield from ((stats.name, kind, flag, 1) for flag in FLAGS if getattr(stats, flag))
    for name, values in (("value", stats.values), ("bin", stats.histogram)):
        yield from ((stats.name, kind, f"{name} {index}", value) for index, value in enumerate(values or ()))
