"""What each request does to the session: trains, looks, measures, records, or writes the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, repeat
from time import monotonic
from typing import Any

from autograd_tui.core.command import Command, Commands, frame_before
from autograd_tui.core.command_log import ITERATION, MIN_FREE_ITERATIONS
from autograd_tui.core.errors import Refused
from autograd_tui.core.files import working_folder
from autograd_tui.core.frame import Frame
from autograd_tui.core.phase_order import Goal
from autograd_tui.core.picture import Picture
from autograd_tui.core.replay_check import Stillness
from autograd_tui.core.run_observer import Progress
from autograd_tui.core.session_protocol import InteractiveSession, OpenSession, SessionInfo
from autograd_tui.core.trace import Trace
from autograd_tui.text.messages import left_branch_line, watch_line
from autograd_tui.text.story import standstill_line
from autograd_tui.tui.requests import (
    Arm,
    CheckGradient,
    ChooseSurface,
    Export,
    Inspect,
    Look,
    Open,
    Place,
    Record,
    Request,
    RequestQueue,
    ScreenAction,
    Train,
)
from autograd_tui.tui.run_speed import iterations_between_frames, rising_pace
from autograd_tui.tui.trainer_status import SCRIPT_RUNS, StatusPublisher, Update, problem_of

SAMPLE_SECONDS = 0.3  # between the frames of a run that the screen gets to see
LOOK_SECONDS = 0.002  # between two looks of a run at full speed at what waits: an iteration may take far less
MIN_SLICE = 4  # iterations between two frames of a run that is watched, from which on the others have none
MAX_LATE = 3  # such times in a row that took longer than they should

MIN_PICTURE_SECONDS = 0.5  # between the pictures of a run, which are the most that goes to the terminal
MAX_PICTURE_SHARE = 0.1  # of a run's time that pictures may cost
NOTHING_LEARNS = "the run ends here: no parameter gets a gradient, so there is no further iteration."


class SessionRunner:
    """Owns a session, and answers requests; called on the trainer thread, but for its attributes.

    `open_session` takes a scenario's name, or None for the command line's; `opened` is called with what it opened,
    `pictured` with pictures of what the model has learned.
    `exporter` writes the run to a file as `export.live_export.export_live` does.
    """

    def __init__(
        self,
        open_session: OpenSession,
        requests: RequestQueue,
        publisher: StatusPublisher,
        *,
        opened: Callable[[SessionInfo, Update], None],
        pictured: Callable[[tuple[Picture, ...]], None],
        speed: float | None,
        begins_slowly: bool,
        exporter: Callable[..., str] | None,
    ) -> None:
        self._open_session, self._opened, self._exporter = open_session, opened, exporter
        self._requests, self._publisher = requests, publisher
        self.folder = working_folder()  # where the program was started: code of a scenario may go elsewhere
        self.speed = speed  # the most commands a second that a run does, None for as many as it can
        self.begins_slowly = begins_slowly  # whether a run without an end comes to full speed little by little
        self.pace: float | None = None  # iterations a second that such a run keeps to now
        self.session: InteractiveSession | None = None
        self.earlier_command_lines: list[str] = []  # of sessions that another one has replaced
        self._earlier_unkept: list[str] = []  # what of them is not kept on disk
        self._stillness = Stillness()
        self._pictured, self._pictures = pictured, tuple[Picture, ...]()  # those shown last
        self._next_picture = 0.0  # when a run may have its picture taken again, by `monotonic`
        self._looked_at = 0  # the frame that the last look was answered with
        self.answers: dict[type[Request], Callable[[Any], None]] = {
            Train: self._train,
            Look: self._look,
            Inspect: self._inspect,
            Record: self._record,
            CheckGradient: self._check_gradient,
            Export: self._export,
            Arm: self._arm,
            ChooseSurface: self._choose_surface,
            ScreenAction: lambda _: None,
        }

    @property
    def notice(self) -> str | None:
        """What this screen is for, where it does not train."""
        return self.session.notice if self.session else None

    @property
    def unkept(self) -> list[str]:
        """Sentences that say what is not kept on disk, of this session and of those that it has replaced."""
        problem = problem_of(self.session)
        return [*self._earlier_unkept, *([problem.sentence] if problem else [])]

    @property
    def _here(self) -> InteractiveSession:
        assert self.session is not None
        return self.session

    def open(self, scenario: str | None) -> None:
        """Open a session, in place of the one before."""
        session = self._open_session(scenario)
        if self.session is not None:
            self.earlier_command_lines.append(self.session.command_line())
            self.session.close(in_order=True)
            self._earlier_unkept = self.unkept
        self.session = session
        self._pictures = ()
        self._publisher.warning = session.warning
        session.watch(self._take_progress, self._stopped)
        self._publisher.begin("")  # it is open: the note that it opens must not come again
        self._opened(session.about, self._publisher.make_update(session))

    def run_first(self, commands: Commands) -> None:
        """Run the command line's commands before any key; a warning of the session is shown behind them."""
        refused, publisher = None, self._publisher
        warning, publisher.warning = publisher.warning, None
        try:
            self._run_words(commands)
        except Refused as error:
            refused = str(error)
        publisher.warning = warning or publisher.warning
        publisher.publish(self._here, refused=refused)

    @contextmanager
    def answering(self, request: Request) -> Iterator[None]:
        """Tell the screen what came of a request once it is answered, or why it was refused."""
        refused = None
        try:
            yield
        except Refused as error:
            refused = str(error)
        self._publisher.publish(self._here, request, refused=refused)
        if self._publisher.status.run is None:
            self._publisher.begin("")  # it has ended, though what it held may take time to be let go

    def _stopped(self) -> bool:
        """Return whether what runs is to end after its phase."""
        return self._requests.stopped

    def _check_can(self, can: bool, /) -> None:
        if not can:
            raise Refused(self._here.can.refusal)

    def _take_progress(self, progress: Progress) -> bool:
        """Publish how far going back has come; return whether it is still wanted."""
        self._publisher.show_progress(progress)
        return not self._stopped()

    # What is asked for, one method each; the answer goes into the request.

    def _train(self, request: Train) -> None:
        """Go back to where the request starts from, and run; say what was left as a branch for it."""
        self._check_can(self._here.can.advance)
        session, branches, what, times = self._here, self._here.branches[-1:], request.what, request.times
        start = self._index(request.start)
        if what == "undo":
            what, times = Command("@", frame_before(start, times)), 1
        else:
            self._go_back(start)
        match what:
            case Command() if times == 1:
                self._begin_command(what)
                self._goes_on_behind(self._again(what) or self._here.run(what))
            case Command():
                self._run_words(Commands([((what,), times)]))
            case Commands():
                self._run_words(what * times)
            case Goal():
                self._run_to(what)
            case Open():
                self._publisher.begin(f"opening {what.scenario}")
                self.open(what.scenario)
            case "next":
                self._follow(self._run_each(session.next_command() for _ in range(times)))
            case _ if times == 1 and not session.can.script:
                self._follow(self._run_each(self._rest_of_iteration()))
            case _:
                self._run_to(session.end_of(times))
        newest = self._here.branches[-1:]
        if newest and newest != branches and self._here is session:
            request.sentence = left_branch_line(newest[0])

    def _index(self, place: Place) -> int:
        """Return which frame is meant, now that the turn of a request has come."""
        if isinstance(place, int):
            return place
        return {"here": self._here.frame.index, "newest": self._here.newest, "looked at": self._looked_at}[place]

    def _go_back(self, start: int) -> None:
        if start != self._here.frame.index:
            self._publisher.begin("going back")
            self._here.rewind(start)

    def _look(self, request: Look) -> None:
        self._publisher.begin("looking back")
        self._looked_at = start = self._index(request.start)
        if request.alike:
            frame = self._here.look_alike(start, request.by)
        else:
            frame = self._here.look(self._neighbour(start, request.by))
        if frame is None:
            raise Refused(f"there is no such frame {'before' if request.by < 0 else 'after'} this one to look at.")
        self._looked_at = frame.index
        request.frame = frame

    def _neighbour(self, index: int, by: int) -> int:
        """Return a frame before or after another; of a run the nearest stored one: others would hold it up."""
        wanted = min(max(index + by, 0), self._here.newest)
        stored = by and (not self._here.can.recompute or self._publisher.status.run is not None)
        return self._here.nearest(wanted, by) if stored else wanted

    def _inspect(self, request: Inspect) -> None:
        self._publisher.begin("the exact measurement runs")
        request.inspection = self._here.inspect(request.name)

    def _record(self, request: Record) -> None:
        """Run a phase recorded, or one that has been run again."""
        self._check_can(self._here.can.trace or self._here.can.recompute)
        looked_at = None if request.index is None else self._index(request.index)
        here = looked_at is None or looked_at == self._here.frame.index
        index = self._fault(request.traced) if request.command is None and here else looked_at
        if index is not None:
            self._publisher.begin("the recording runs")
            request.trace = _walkable(self._here.trace(index))
            return
        self._go_back(self._index(request.start))
        command = replace(request.command or self._here.next_command(), recorded=True)
        self._publisher.begin(f"{command.name}, recorded, runs")
        request.trace = _walkable(self._here.run(command).trace)

    def _fault(self, traced: int | None) -> int | None:
        """Return the frame where training stands if its phase raised or a watchpoint fired, unless it was `traced`."""
        frame, fired = self._here.frame, self._here.fired
        wrong = (frame.error and frame.phase) or (fired is not None and fired.index == frame.index)
        return frame.index if wrong and frame.index != traced else None

    def _check_gradient(self, request: CheckGradient) -> None:
        self._check_can(self._here.can.check_gradients)
        self._publisher.begin("the gradient check runs")
        request.gradcheck = self._here.check_gradient(request.index, request.target, stopped=self._stopped)

    def _choose_surface(self, request: ChooseSurface) -> None:
        """Choose a surface, which is measured behind all that waits."""
        self._check_can(self._here.can.check_gradients)
        self._publisher.begin("the surface begins")
        self._here.choose_surface(request.choice)

    def _export(self, request: Export) -> None:
        self._check_can(self._here.can.export)
        self._publisher.begin(f"the export to {request.path.name} runs")
        if self._exporter is None:
            raise Refused("nothing can be exported from here.")
        request.sentence = self._exporter(
            request.path, self._here, self._stopped, folder=self.folder, numbered=request.numbered
        )

    def _arm(self, request: Arm) -> None:
        """Arm a watchpoint, or disarm all, and say what is armed now."""
        self._check_can(self._here.can.advance)
        if request.watchpoint is None:
            self._here.disarm()
        else:
            self._here.arm(request.watchpoint)
        request.sentence = watch_line(self._here.watchpoints)

    # Runs. While one goes on, the space key means a pause, and not one phase more.

    def _run_to(self, goal: Goal) -> None:
        """Run until the goal, a stop, an error, or a request that ends the run; others are answered beside it."""
        self._stillness = Stillness()
        with self._publisher.running(str(goal)):
            while self._run_at_speed(goal):
                if self._requests.interrupts(endless=goal == Goal()) and not self._answer_beside():
                    return

    def _run_at_speed(self, goal: Goal) -> bool:
        """Run until something waits, stops the run or changes the speed; return whether there is more to run."""
        speed, begins_slowly, is_endless = self.speed, self.begins_slowly, goal == Goal()

        def over() -> bool:
            changed = self.speed != speed or self.begins_slowly != begins_slowly
            return changed or self._stopped() or self._requests.interrupts(endless=is_endless)

        self._publisher.begin("the run goes on")
        frames = self._at_speed(goal, speed, over) if speed else self._at_full_speed(goal, over)
        if is_endless and begins_slowly:
            frames = self._at_rising_pace(over)
        for frame in frames:
            still = self._stillness.iterations(frame, self._here.history.loss)
            if still and goal.iteration is None:  # a number of iterations that was asked for is done
                self._publisher.warning = standstill_line(frame, still)
                return False
            is_led = not self._here.can.script  # a script's run ends by itself
            if is_led and goal.is_out_of_reach(frame):
                self._publisher.warning = NOTHING_LEARNS
            if frame.error or (is_led and goal.reached_by(frame)) or self._fires():
                return False
            self._publish_sample()  # not the frame where a run ends: the veil covers that
            if over():
                break
        return over() and not self._stopped()

    def _at_speed(self, goal: Goal, speed: float, over: Callable[[], bool]) -> Iterator[Frame]:
        """Run so many commands a second, yielding each frame."""
        for frame in self._here.run_until(goal):
            yield frame
            self._requests.sleep(1 / speed, over)

    def _at_full_speed(self, goal: Goal, over: Callable[[], bool]) -> Iterator[Frame]:
        """Run at the loop's own speed, yielding a frame now and then."""
        return self._here.run_free(goal, _now_and_then(over), every=SAMPLE_SECONDS)

    def _at_rising_pace(self, over: Callable[[], bool]) -> Iterator[Frame]:
        """Run a few iterations and wait, then more of them, yielding the last frame of each time.

        Once the run cannot keep up with the pace any more it goes on at full speed.
        """
        late = 0  # times in a row: one alone may be a first one, in which libraries are loaded
        try:
            while late < MAX_LATE and not over():
                began, self.pace = monotonic(), rising_pace(self._here.frame.iteration)
                count = iterations_between_frames(self.pace)
                seconds = count / self.pace
                yield from self._slice(count, over, until=began + 2 * seconds)
                spare = began + seconds - monotonic()
                late = 0 if spare > 0 else late + 1
                self._requests.sleep(max(spare, 0.0), over)
        finally:
            self.pace = None
        if not over():
            yield from self._at_full_speed(Goal(), over)

    def _slice(self, count: int, over: Callable[[], bool], *, until: float) -> Iterator[Frame]:
        """Run so many iterations, many of them no longer than `until`, and yield the last frame, if there is any."""
        goal, last = self._here.end_of(count), None
        if count < MIN_SLICE:
            frames = self._here.run_until(goal)
        else:
            frames = self._here.run_free(goal, lambda: over() or monotonic() > until, every=SAMPLE_SECONDS)
        for frame in frames:
            last = frame
            if over():
                break
        if last is not None:
            yield last

    def _answer_beside(self) -> bool:
        """Answer what waits where a run can go on behind it; return whether it can."""
        request = self._requests.next_beside_a_run()
        if request is not None:
            with self.answering(request):
                self.answers[type(request)](request)
        return request is not None

    def _run_words(self, commands: Commands) -> None:
        """Run commands in order until one raises; many iterations among them run freely."""
        with self._publisher.running(f"{len(commands):,} commands are done" if len(commands) > 1 else None):
            last = self._here.frame.index + len(commands)
            for pattern, times in commands.blocks():
                if not self._run_block(pattern, times, last):
                    return

    def _run_block(self, pattern: Sequence[Command], times: int, last: int) -> bool:
        session = self._here
        if pattern == ITERATION and times >= MIN_FREE_ITERATIONS and session.next_command() == ITERATION[0]:
            return self._follow(session.run_free(session.end_of(times), self._stopped, every=SAMPLE_SECONDS), last)
        return self._follow(self._run_each(chain.from_iterable(repeat(pattern, times))), last)

    def _rest_of_iteration(self) -> Iterator[Command]:
        end = self._here.end_of(1)
        yield self._here.next_command()
        while not end.reached_by(self._here.frame):
            yield self._here.next_command()

    def _run_each(self, commands: Iterable[Command]) -> Iterator[Frame]:
        for command in commands:
            self._begin_command(command)
            yield self._again(command) or self._here.run(command)

    def _begin_command(self, command: Command) -> None:
        """Publish that a command runs; of a script it is not known what it does until its next stop."""
        name = command.phase.value if command.phase else str(command)
        runs = SCRIPT_RUNS if self._here.can.script else f"{name} runs"
        self._publisher.begin("going back" if command.goes_back else runs)

    def _again(self, command: Command) -> Frame | None:
        """Return the frame that a command has led to from here before, which need not be a branch; None if to none."""
        here = self._here
        return here.rewind(here.frame.index + 1) if here.repeats(command) else None

    def _follow(self, frames: Iterable[Frame], last: int | None = None) -> bool:
        """Show a sample of the frames as they come; return whether to go on behind them.

        Not frame `last`, where a run ends: the veil covers that.
        """
        last_shown = monotonic()
        for frame in frames:
            if not self._goes_on_behind(frame):
                return False
            if monotonic() - last_shown > SAMPLE_SECONDS and frame.index != last:
                self._publish_sample()
                last_shown = monotonic()
        return True

    def _publish_sample(self) -> None:
        """Show the frame where a run stands, with a new picture where the last ones have not cost too much."""
        started = monotonic()
        if self._here.about.picture and started >= self._next_picture:
            self.show_pictures(lambda: self._stopped() or bool(len(self._requests)))
            ended = monotonic()
            self._next_picture = max(started + MIN_PICTURE_SECONDS, ended + (ended - started) / MAX_PICTURE_SHARE)
        self._publisher.publish(self._here)  # last, so that both are drawn at once

    def show_pictures(self, stopped: Callable[[], bool]) -> None:
        """Have a picture taken of what the model has learned by now, unless `stopped` holds before it is there."""
        pictures = self._here.pictures(stopped=stopped)
        if pictures is not self._pictures:
            self._pictures = pictures
            self._pictured(pictures)

    def _goes_on_behind(self, frame: Frame) -> bool:
        """Return whether nothing ends the commands at a frame: an error that was not forced, a stop, a watchpoint."""
        raised = frame.error and not (frame.command and frame.command.forced)
        return not (raised or self._stopped() or self._fires())

    def _fires(self) -> bool:
        """Take note of a watchpoint that has fired; return whether one has."""
        fired = self._here.take_fired()
        if fired is not None:
            paused = "paused at " * (self._publisher.status.run is not None)
            of_script = "i looks inside and e writes a repro, if the script can be taken back"
            keys = of_script if self._here.can.script else "i looks inside, e writes a repro"
            self._publisher.fired = f"{paused}{fired}; {keys}"
        return fired is not None


def _now_and_then(asks: Callable[[], bool]) -> Callable[[], bool]:
    """Return a function that asks every LOOK_SECONDS, False in between; what was once true stays so."""
    due, answer = 0.0, False

    def ask() -> bool:
        nonlocal due, answer
        if not answer and (now := monotonic()) >= due:
            due, answer = now + LOOK_SECONDS, asks()
        return answer

    return ask


def _walkable(trace: Trace | None) -> Trace:
    """Build a trace's operations here, so that the screen need not wait; raises Refused where there are none."""
    if trace is None:
        raise Refused("there is nothing inside it to walk.")
    if not trace.ops:
        why = "raised before its first operation" if trace.error else "had no operation"
        raise Refused(f"{trace.phase.value} {why}: there is nothing inside it to walk.")
    return trace.built()
