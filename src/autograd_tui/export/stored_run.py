"""Export of a run that cannot be run again, that of a script: from the frames of it that are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from autograd_tui.core.errors import Refused
from autograd_tui.core.files import working_folder
from autograd_tui.core.frame import Frame
from autograd_tui.core.history import History, Series
from autograd_tui.core.picture import Picture
from autograd_tui.core.session_protocol import NO_REPRO, SessionInfo, StoredFramesSession
from autograd_tui.export.formats import (
    PictureOptions,
    check_format,
    new_output,
    protected_files,
    write_run,
)
from autograd_tui.export.repro_of_script import export_script_repro


@dataclass(frozen=True, slots=True)
class StoredRun:
    """What is stored of a run, as `formats.write_run` takes it."""

    about: SessionInfo
    stored: Sequence[Frame]  # oldest first; one at least
    history: History
    last: int  # the frame that the run came to
    stopped: Callable[[], bool] = lambda: False

    @property
    def newest(self) -> int:
        """The index of the last frame that is stored."""
        return self.stored[-1].index

    @property
    def losses(self) -> Series:
        """The last loss of each iteration, also of those without frames."""
        return self.history.loss.last_of_iterations()

    def frames(self) -> Iterator[Frame]:
        """Yield the stored frames. Raises Refused where it is stopped."""
        for frame in self.stored:
            if self.stopped():
                raise Refused("the export was stopped: nothing is written.")
            yield frame

    def history_at(self, frame: Frame) -> History:
        """Return what plots need at a frame."""
        history = self.history.copy()
        history.truncate_after(frame.index)
        return history

    def pictures(self) -> tuple[Picture, ...]:
        """Return none: there is no model here to show."""
        return ()

    def sample(self, limit: int) -> tuple[list[int], str]:
        """Return the indices of so many frames, evenly spaced, the last among them, and how many are left out."""
        indices = [frame.index for frame in self.stored]
        if len(indices) <= limit:
            return indices, ""
        sample = [indices[(each + 1) * len(indices) // limit - 1] for each in range(limit)]
        return sample, f"{limit} of {len(indices):,} screens are kept, evenly spaced."

    @property
    def note(self) -> str:
        """A sentence on the frames that are not there; "" where all are."""
        count, total, first = len(self.stored), self.last + 1, self.stored[0].index
        if count == total:
            return ""
        extent = f"those that are stored, from frame {first:,} to frame {self.newest:,}"
        return f"of {total:,} frames {count:,} are in it: {extent}"


def export_stored(
    path: Path,
    run: StoredRun,
    *,
    options: PictureOptions | None = None,
    overwrite: bool = False,
    journal: Path | None = None,
) -> str:
    """Write a run of a script in the form that the path's ending names; return what is left out, or "".

    Raises Refused, with nothing written, as `formats.export_file` does, and for a form that needs the run itself.
    """
    check_format(path)
    if path.suffix == ".py":
        raise Refused(f"there is nothing to write as .py: {run.about.config.scenario} is the script, and your own.")
    if path.suffix == ".pt":
        raise Refused(NO_REPRO)
    sources = protected_files(run.about.config, journal)
    missing = write_run(path, run, options=options, overwrite=overwrite, sources=sources)
    note = "" if path.suffix == ".svg" else run.note
    return "; ".join(each for each in (note, missing) if each)


def export_from_session(
    path: Path,
    session: StoredFramesSession,
    stopped: Callable[[], bool],
    *,
    folder: str | None = None,
    numbered: bool = False,
) -> str:
    """Write what a session holds of a script's run, as `live_export.export_live` writes other runs.

    folder: where the program was started. numbered: a repro goes to a name of its own where its files exist already.
    Raises Refused, also where it is `stopped`, with nothing written.
    """
    path, target = new_output(path, folder or working_folder(), numbered=numbered)
    if path.suffix == ".pt":
        sources = protected_files(session.about.config, None)
        return f"written: {path}; {export_script_repro(target, session, sources=sources, stopped=stopped)}"
    stored = session.stored_frames()
    run = StoredRun(session.about, stored, session.history.copy(), max(session.newest, stored[-1].index), stopped)
    missing = export_stored(target, run)
    return f"written: {path}" + (f"; {missing}" if missing else "")
