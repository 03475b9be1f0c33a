"""A session that leads a script of the user's own, which runs in a process of its own. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from autograd_tui import __version__
from autograd_tui.core.capabilities import SCRIPTED, Capabilities
from autograd_tui.core.command import NEXT, Command, Phase
from autograd_tui.core.command_log import CommandLog
from autograd_tui.core.errors import Refused
from autograd_tui.core.files import working_folder
from autograd_tui.core.frame import Frame
from autograd_tui.core.frame_store import Branch, FrameStore
from autograd_tui.core.gradcheck_result import GradCheck
from autograd_tui.core.history import History
from autograd_tui.core.loss_surface import LossSurface, SurfaceChoice
from autograd_tui.core.phase_order import Goal
from autograd_tui.core.replay_check import Divergence
from autograd_tui.core.run_config import DEFAULT_MEMORY, RunConfig, sha256
from autograd_tui.core.run_observer import Progress, ProgressCallback, RunObserver
from autograd_tui.core.script_stop import ScriptRepro
from autograd_tui.core.session_protocol import DeviceLoad, SessionInfo, StoredFramesSession
from autograd_tui.core.tensor_stats import Inspection
from autograd_tui.core.trace import Trace
from autograd_tui.core.watcher import Watcher
from autograd_tui.core.watchpoint import FiredWatchpoint, Watchpoint, parse_watchpoint
from autograd_tui.engine.script.agent_client import AgentClient, SocketFolder
from autograd_tui.engine.script.agent_messages import GoOn
from autograd_tui.engine.script.script_measurements import ForwardFinder, ScriptGradChecker, ScriptSurface
from autograd_tui.engine.script.script_process import (
    AttachedScript,
    ScriptProcess,
    TerminalLender,
    resident_bytes,
)
from autograd_tui.engine.script.script_rewinder import ScriptRewinder
from autograd_tui.engine.script.script_timeline import ScriptTimeline

EVENTS_OF_FORWARD = 4  # from the stop before a model's call to the one behind its forward, at most
NO_CALL = "a script calls its phases itself"


class NeverTrained(Refused):
    """A script has ended before it has trained: there is nothing to show of it."""

    def __init__(self, sentence: str, exit_code: int | None) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code  # the script's own, as a shell has it; None where the user has left before


class CannotRecordAgain(Refused):
    """What was not recorded cannot be, for the script cannot be taken back."""


class ScriptSession(StoredFramesSession):
    """Starts the script, and stands where that is held first; every request after that lets it go on, or asks it.

    Raises NeverTrained where the script ends before that.
    """

    def __init__(
        self,
        words: tuple[str, ...],
        *,
        on_output: Callable[[bytes], None],
        switches: tuple[str, ...] = (),
        terminal: TerminalLender | None = None,
        memory: int = DEFAULT_MEMORY,
        attach: tuple[Path, int] | None = None,
    ) -> None:
        """`words`: the command line of the script, as ScriptProcess takes it; `switches`: the options before it.

        `terminal` is lent to the script while that reads from its own. memory: bytes for snapshots. `attach`: of a
        script that has started this process, the folder of the socket, and our end of the terminal that it has now.
        """
        folder = SocketFolder(attach[0] if attach else None)
        try:
            if attach:
                self.process: ScriptProcess = AttachedScript(words, terminal=attach[1], on_output=on_output)
            else:
                self.process = ScriptProcess(words, folder=folder.path, on_output=on_output)
        except BaseException:
            folder.close()
            raise
        if terminal is not None:
            terminal.attach(self.process)
        self._timeline = timeline = ScriptTimeline()
        self._client = client = AgentClient(words, self.process, folder, timeline, memory=memory, terminal=terminal)
        if attach:
            client.no_snapshot = "it has opened the screen itself"
        self._rewinder = ScriptRewinder(client, timeline)
        finder = ForwardFinder(client, timeline, self._rewinder)
        self._gradchecker, self._surface = ScriptGradChecker(client, finder), ScriptSurface(client, finder)
        self._watcher = Watcher()  # which watchpoints are armed; the script's own one checks them
        self.exit_code: int | None = None  # once it is closed: the script's own, where it has ended by itself
        try:
            client.wait_until_held()
            if client.run.latest is None:
                own_code = None if self.process.was_closed else self.process.exit_code
                raise NeverTrained(client.unshown_sentence, own_code)
            self.about = self._info((*switches, *words))
        except BaseException:
            self.close(in_order=False)
            raise

    def _info(self, words: tuple[str, ...]) -> SessionInfo:
        """Return what is known of the script when its first frame has come. `words`: that would run it anew."""
        hello = self._client.run.hello
        assert hello is not None
        config = RunConfig(
            hello.file,
            versions={"autograd-tui": __version__, **hello.versions},
            sha256=sha256(hello.file),
            folder=working_folder(),
            script=words,
        )
        listing: dict[str, tuple[str, ...]] = {"setup": (), **{phase.value: () for phase in Phase}}
        return SessionInfo(self._client.title, "cpu", 0, config, listing=listing)

    # What a screen draws.

    @property
    def _store(self) -> FrameStore:
        return self._timeline.frames

    @property
    def frame(self) -> Frame:
        """The frame where the script is held, or the newest that has come from it."""
        return self._client.run.frame

    @property
    def newest(self) -> int:  # type: ignore[override]
        return self._timeline.branch.newest

    @property
    def history(self) -> History:  # type: ignore[override]
        return self._timeline.branch.history

    @property
    def branches(self) -> tuple[Branch, ...]:  # type: ignore[override]
        return self._timeline.branches

    @property
    def device_load(self) -> DeviceLoad | None:  # type: ignore[override]
        """What the script's process uses of the host's memory; None where that is not known. On any thread."""
        hello = self._client.run.hello
        memory = resident_bytes(hello.pid) if hello is not None and not self._client.run.has_vanished else None
        return DeviceLoad(memory) if memory else None

    @property
    def observer(self) -> RunObserver | None:
        """What observes everything that the script runs, such as a journal's writer."""
        return self._timeline.observer

    @observer.setter
    def observer(self, observer: RunObserver | None) -> None:
        self._timeline.observer = observer

    @property
    def fired(self) -> FiredWatchpoint | None:  # type: ignore[override]
        return self._client.fired

    @property
    def warning(self) -> str | None:  # type: ignore[override]
        """Why the script goes on as under plain Python, where it does."""
        reason = self._client.seams_off
        return f"The script goes on as under plain Python: {reason}." if reason is not None else None

    @property
    def can(self) -> Capabilities:  # type: ignore[override]
        """What may be asked: once the script has ended, nothing that would let it go on."""
        if self._client.run.ended is None:
            return SCRIPTED
        if self._client.snapshots.all:
            return replace(SCRIPTED, ended=True)
        return Capabilities(export=True, script=True, ended=True, refusal=self._client.end_sentence)

    @property
    def watchpoints(self) -> tuple[Watchpoint, ...]:  # type: ignore[override]
        return self._watcher.armed

    @property
    def notice(self) -> str | None:
        """A sentence once the script has ended, or goes on as under plain Python."""
        return self._client.end_sentence if self._client.run.ended else None

    def refresh(self) -> bool:
        """Take in what comes from a script that no order was given to: its end, or that it reads from its terminal."""
        return self._client.take_in()

    def log(self) -> CommandLog:
        """Return the calls that the script has made, as far as their frames have come."""
        return self._timeline.branch.log.copy()

    # What may be asked.

    def next_command(self) -> Command:
        """Return what stands for the script's next call, whatever that is."""
        return Command(NEXT)

    def repeats(self, command: Command) -> bool:
        """Return False: the script runs on."""
        return False

    def run(self, command: Command) -> Frame:
        """Let the script go on to its next stop, or to the next after a phase; set a learning rate or a value."""
        if command.recorded:
            return self._record(command)
        if command.name == NEXT:
            return self._go_on()
        if command.phase is not None:
            if command.forced:
                raise Refused(
                    f"{NO_CALL}, and none can be forced: {command.phase.letter} goes on to its next {command.name}."
                )
            return self._go_on_to(command.phase)
        if command.goes_back:
            return self._rewinder.run(command)
        return self._set(command)

    def run_until(self, goal: Goal) -> Iterator[Frame]:
        """Let the script go on stop by stop until `goal`, a watchpoint, or its end, yielding each frame."""
        while True:
            frame = self._go_on()
            yield frame
            if self._reaches(goal) or self._ends_here:
                return

    def run_free(self, goal: Goal, stopped: Callable[[], bool], *, every: float) -> Iterator[Frame]:
        """Let the script run at its own speed, yielding a frame about every so many seconds and the last one."""
        if self._reaches(goal):
            return
        client = self._client
        self._timeline.leave_settings_ahead(self.frame)
        client.let_go_on(GoOn(client.here, goal, every, self._watcher.armed))
        try:
            while client.run.held is None:
                newest = self.frame
                client.receive(stopped)
                if client.run.ended:
                    raise Refused(client.end_sentence)
                if self.frame is not newest:
                    yield self.frame
        finally:
            client.wait_until_held(lambda: True)  # where nobody wants more of it

    def rewind(self, index: int) -> Frame:
        """Take the script to frame `index`: a snapshot of it runs on to there, without printing again."""
        return self._rewinder.rewind(index)

    def take_divergence(self) -> Divergence | None:
        """Return, once, where the script has come to other numbers than the first time."""
        return self._timeline.take_divergence()

    def arm(self, watchpoint: Watchpoint | str) -> None:
        if isinstance(watchpoint, str):
            watchpoint = parse_watchpoint(watchpoint)
        modules = self._client.ask("modules") if watchpoint.kind == "dead" else ()
        self._watcher.arm(watchpoint, self.frame, modules=modules)

    def disarm(self) -> None:
        self._watcher.disarm()

    def take_fired(self) -> FiredWatchpoint | None:
        """Return, once, the watchpoint that has fired since the last call."""
        return self._client.take_fired()

    def watch(self, watch: ProgressCallback, stopped: Callable[[], bool] = bool) -> None:
        """Take the callbacks: one for the progress of a check, one that says whether what runs is to end."""
        self._client.stopped, self._gradchecker.watch = stopped, watch

    def trace(self, index: int) -> Trace:
        """Return what happened inside the call that led to frame `index`.

        Where it was not recorded, the script is taken back, makes it again, and returns to where it was.
        """
        traces = self._timeline.traces
        if index not in traces and 0 < index <= self.frame.index:
            self._record_again(index)
        if index not in self._timeline.traces:
            raise Refused(f"what led to frame {index} was not recorded: i records what comes next.")
        return self._timeline.traces[index]

    def write_repro(self, path: Path) -> ScriptRepro:
        """Write the tensors of the last forward into a new file, and return the script beside it; raises Refused.

        Where the forward was not recorded, the script is taken back, makes it again, and returns to where it was.
        """
        forward, is_recorded = self._client.ask("latest_forward")
        if not forward:
            raise Refused("there is no forward to write yet: f goes on to the first.")
        if is_recorded:
            return self._ask_for_repro(path)
        written: list[ScriptRepro] = []
        try:
            self._record_again(forward, lambda: written.append(self._ask_for_repro(path)))
        except CannotRecordAgain as error:
            raise Refused(
                f"{str(error).removesuffix('.')}; i records the next forward, and e writes it then."
            ) from None
        return written[0]

    def _ask_for_repro(self, path: Path) -> ScriptRepro:
        repro: ScriptRepro = self._client.ask("repro", str(path))
        return repro

    def check_gradient(self, index: int, what: str | int, *, stopped: Callable[[], bool]) -> GradCheck:
        """Compare a parameter's gradient with finite differences: copies of the script make its forward again.

        The script is taken back to before that forward, and returns to where it was.
        """
        if isinstance(what, int):
            raise Refused("of a script the gradients of parameters can be checked: those of what is between cannot.")
        return self._gradchecker.check_gradient(index, what, stopped)

    def choose_surface(self, choice: SurfaceChoice) -> None:
        """Begin with a surface, of the last forward before a step, or of the last one where two values are given."""
        self._surface.choose(choice)

    def give_up_surface(self) -> str | None:
        """Measure no further what was chosen; return a sentence about it, None where nothing was being measured."""
        return self._surface.give_up()

    @property
    def surface_so_far(self) -> LossSurface | None:  # type: ignore[override]
        return self._surface.surface

    def surface(self, *, stopped: Callable[[], bool], watch: Callable[[Progress], None]) -> LossSurface | None:
        """Take in what a copy of the script measures until `stopped`, and return what there is of it."""
        return self._surface.measure(stopped, watch)

    def inspect(self, name: str) -> Inspection:
        """Return exact statistics of a parameter where the script is held."""
        inspection: Inspection = self._client.ask("inspect", name)
        return inspection

    def close(self, *, in_order: bool) -> None:
        """End the script, which may be in the middle of its run, and the observer."""
        self._surface.close()
        self._client.let_end()
        self.exit_code = self.process.exit_code
        self._client.close()
        if self.observer is not None:
            self.observer.close(in_order=in_order)

    # Going on.

    def end_of(self, iterations: int) -> Goal:
        """Return the goal so many iterations from here, counting the one that has begun."""
        frame, held = self.frame, self._client.run.held
        over = frame.iteration == 0 or (held is not None and held.ends_iteration)
        return Goal(frame.iteration + iterations - (not over))

    @property
    def _ends_here(self) -> bool:
        """Whether what runs stop by stop ends at the present one: a watchpoint has fired, or the user wants no more."""
        return self._client.fires_here or self._client.stopped()

    def _reaches(self, goal: Goal) -> bool:
        """Return whether a run ends at the present stop."""
        frame, held = self.frame, self._client.run.held
        if frame.phase is Phase.FORWARD and goal.has_loss(frame.loss):
            return True
        end = goal.iteration
        over = held is not None and held.ends_iteration
        return end is not None and (frame.iteration > end or (frame.iteration == end and over))

    def _go_on(self, *, record: bool = False, muted: bool = False) -> Frame:
        """Let the script go on to its next stop; `muted`: what it prints on the way has been seen before."""
        client = self._client
        self._timeline.leave_settings_ahead(self.frame)
        client.let_go_on(GoOn(client.here, watchpoints=self._watcher.armed, record=record, muted=muted))
        client.wait_until_held()
        if client.run.ended:
            raise Refused(client.end_sentence)
        return self.frame

    def _go_on_to(self, phase: Phase) -> Frame:
        """Let the script go on to the next stop after a phase."""
        while True:
            frame = self._go_on()
            if frame.phase is phase or self._ends_here:
                return frame

    def _record(self, command: Command) -> Frame:
        """Let the script go on to its next phase, recorded, or to the next of one kind; others are passed over."""
        if command.phase is None and command.name != NEXT:
            raise Refused(f"{command} runs nothing that could be recorded.")
        while True:
            frame = self._go_on(record=True)
            held = self._client.run.held
            assert held is not None
            if held.unrecorded is not None:
                if frame.script is not None and frame.script.models:  # one may have been called before that
                    with suppress(Refused):
                        self._record_again(frame.index)
                if frame.index not in self._timeline.traces:
                    raise Refused(held.unrecorded)
                return replace(self.frame, trace=self._timeline.traces[frame.index])
            if held.trace is not None and command.phase in (None, frame.phase):
                return replace(frame, trace=held.trace)
            if self._ends_here:
                raise Refused("the script is held here before the phase that was to be recorded.")

    def _record_again(self, index: int, look: Callable[[], None] = lambda: None) -> None:
        """Take the script back to before frame `index`, let it go on recorded to there, and return to where it is.

        look: called where it is held at that frame.
        """
        here, frame = self.frame.index, self.stored(index)
        # A loop may clear gradients and set rates between the call of its model and the stop behind the forward.
        is_forward = frame is None or frame.phase is Phase.FORWARD
        try:
            self.rewind(max(index - EVENTS_OF_FORWARD, 0) if is_forward else index - 1)
        except Refused as error:
            raise CannotRecordAgain(f"what led to frame {index} was not recorded, and {error}") from None
        while self.frame.index < index:
            self._go_on(record=True, muted=True)
        trace = self._timeline.traces.get(index)
        self.take_fired()  # a watchpoint that fires there has done so before
        try:
            look()
        finally:
            if index < here:
                self.rewind(here)
        if trace is not None:
            self._timeline.traces[index] = trace

    def _set(self, command: Command) -> Frame:
        self._client.ask("set", command)
        return self.frame
