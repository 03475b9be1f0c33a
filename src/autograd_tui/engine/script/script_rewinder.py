"""Takes a script back: a snapshot of it runs on to the frame that is wanted, or a branch is taken again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from autograd_tui.core.command import Command, frame_before
from autograd_tui.core.errors import Refused
from autograd_tui.core.frame import Frame
from autograd_tui.core.frame_store import Branch
from autograd_tui.engine.script.agent_client import AgentClient
from autograd_tui.engine.script.agent_messages import Return
from autograd_tui.engine.script.script_timeline import Run, ScriptTimeline, settings_between


class ScriptRewinder:
    """Chooses the process that stands where the user wants to be: the one further on, a branch's, or a snapshot."""

    def __init__(self, client: AgentClient, timeline: ScriptTimeline) -> None:
        self._client, self._timeline = client, timeline

    def run(self, command: Command) -> Frame:
        """Carry out a command that goes back, or to a branch."""
        value = command.value
        if command.name == "branch" and isinstance(value, int):
            return self._take_branch(self._timeline.get_branch(value))
        if command.name == "undo":
            return self.rewind(frame_before(self._client.run.frame.index))
        assert isinstance(value, int)
        return self.rewind(value)

    def rewind(self, index: int) -> Frame:
        """Take the script to frame `index` of the present branch."""
        client, timeline = self._client, self._timeline
        present, ahead = client.run, timeline.ahead
        newest = max(timeline.branch.newest, present.last_index)  # which no frame may have come of yet
        if index == present.frame.index and not present.ended:
            return present.frame
        if not 0 <= index <= newest:
            raise Refused(f"there is no frame {index} to go back to: the last one is frame {newest}.")
        if ahead is not None and index == ahead.frame.index and not ahead.ended:
            present.end()
            client.run, timeline.ahead = ahead, None
            if timeline.observer is not None:
                timeline.observer.on_rewind(ahead.frame)
            return ahead.frame
        self._run_on_to(index)
        self._keep_further_run(present)
        return client.run.frame

    def leads_to(self, index: int) -> bool:
        """Return whether the script stands at frame `index` of the present branch, or a snapshot leads there."""
        client, settings = self._client, self._timeline.branch.settings
        return index == client.run.frame.index or any(True for _ in client.snapshots.before(index, settings))

    @contextmanager
    def visiting(self, index: int) -> Iterator[None]:
        """Take the script to frame `index` for as long as the block runs; the present process waits meanwhile.

        Where a run comes to other numbers on the way than the first time, the script stays there.
        """
        client, timeline = self._client, self._timeline
        present, ahead, branch, traces = client.run, timeline.ahead, timeline.branch, timeline.traces
        timeline.ahead = None
        try:
            self.rewind(index)
            yield
        finally:
            client.take_fired()  # a watchpoint that fires on the way has done so before
            if client.run is present:
                timeline.ahead = ahead
            elif timeline.branch is branch and timeline.ahead is present:
                client.run.end()
                client.run, timeline.ahead, timeline.traces = present, ahead, traces
                if timeline.observer is not None and not present.ended:
                    timeline.observer.on_rewind(present.frame)
            elif ahead is not None:
                ahead.end()

    def _run_on_to(self, index: int) -> None:
        """Have a snapshot run on to frame `index`, or to where it is stopped on the way.

        Where none can, the present process is left where it is, and Refused is raised.
        """
        client = self._client
        client.check_held()
        present, settings = client.run, self._timeline.branch.settings
        for snapshot in client.snapshots.before(index, settings):
            if client.run_on_from(snapshot, Return(index, settings_between(settings, snapshot.of.index, index))):
                return
            client.snapshots.drop(snapshot)
            client.run = present
        if client.no_snapshot:
            raise Refused(f"{client.title} cannot be taken back: {client.no_snapshot}.")
        raise Refused(f"{client.title} cannot be taken back to frame {index}: no copy of it is kept from before.")

    def _keep_further_run(self, run: Run) -> None:
        """Keep the process that was left, where no other stands further on."""
        if self._timeline.ahead is None:
            self._timeline.ahead = run
        else:
            run.end()

    def _take_branch(self, branch: Branch) -> Frame:
        """Go to where a branch ended, which is the present one then; what is left becomes a branch."""
        client, timeline = self._client, self._timeline
        client.check_held()
        present, ahead = client.run, timeline.ahead
        taken, made = timeline.take_branch(branch, ahead or present)
        observer, timeline.observer = timeline.observer, None  # it hears of this once the branch is taken
        try:
            if taken.run is not None and taken.run.connection is not None and not taken.run.ended:
                client.run = taken.run
            else:
                self._run_on_to(taken.branch.newest)
                taken.end_run()
        except Refused:
            if made is not None:
                timeline.take_branch(made, None)
            timeline.ahead = ahead
            raise
        finally:
            timeline.observer = observer
        if ahead is not None or made is None:
            present.end()
        if observer is not None:
            if made is not None:
                observer.on_branch_left(made.number, made.loss)
            observer.on_branch_taken(branch.number, client.run.frame)
        return client.run.frame
