"""Turns what a script calls into events: counted, told to the agent, and shown as frames where it wants them."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from autograd_tui.core.command import Command
from autograd_tui.core.frame import Frame
from autograd_tui.engine.script.call_site import position
from autograd_tui.engine.script.grad_history import FreeCounts
from autograd_tui.engine.script.module_calls import ModuleCalls
from autograd_tui.engine.script.registry import Registry
from autograd_tui.engine.script.script_frames import ScriptFrames
from autograd_tui.engine.training.tensor_properties import version_of

if TYPE_CHECKING:
    from autograd_tui.engine.script.recording import ScriptRecorder

Optimizer = torch.optim.Optimizer


class Agent(Protocol):
    """What the phases tell of each event."""

    def lets_pass(self, phases: Phases, name: str) -> bool:
        """Return whether nothing is wanted of the event that has just been counted."""
        ...

    def stop(self, frame: Frame) -> None:
        """Take a frame; it returns when the script may go on."""
        ...

    def give_up(self, reason: str) -> None:
        """Take a sentence on why nothing will come any more."""
        ...


@dataclass(slots=True)
class Event:
    """What a script has just called, with the live objects; it is let go with the next one."""

    name: str
    loss: Tensor | None = None  # that a forward has made
    optimizer: Optimizer | None = None  # that stepped, was cleared, unscaled or scheduled
    skipped: bool = False
    norm: Tensor | float | None = None  # of all gradients before they were clipped
    max_norm: Tensor | float | None = None


class Phases:
    """Counts a script's events, and keeps what is known of its loop.

    `index`: events so far. `iteration`: from 1 at the first forward on. `steps`: of all optimizers, without those that
    were skipped. All three are the same however the script is run.
    """

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.index = self.iteration = self.steps = 0
        self.latest_forward = 0  # its index
        self.registry = Registry()
        self.calls = ModuleCalls()
        self.counts = FreeCounts()
        self.backwards = 0  # since the last step or zero_grad
        self.step_events = 0  # steps, with those that were skipped or ran inside a backward
        self.step_counts: dict[int, int] = {}  # completed, by the optimizer's id
        self.inside: list[tuple[str, Any, FrameType]] = []  # the calls that are not over, outermost first
        self._frames_wanted = False
        self._continuous = False  # whether every event since the last one was followed with its gradients
        self._has_begun = False
        self._loss: weakref.ref[Tensor] | None = None
        self._loss_version = self._loss_step_events = 0
        self._skipped: list[int] = []  # which of the step events since the last forward were
        self.is_graph_kept = False  # whether the last backward has kept its graph
        self.is_loss_alone = True  # whether the last backward started from no other tensor as well
        self._scaled: tuple[weakref.ref[Tensor], Tensor] | None = None  # a scaled loss, and the one that it was
        self._positions: set[tuple[int, int]] = set()  # of this iteration's forwards
        self._has_stepped = self._has_cleared = False  # since this iteration began
        self.stepped_in_backward = False  # in the one that runs, or has just ended
        self._reader = ScriptFrames(self)
        self.recorder: ScriptRecorder | None = None  # once something was to be recorded
        self.event = Event("")
        self.frames = True

    # What the agent reads and sets.

    @property
    def backward_loss(self) -> Tensor | None:
        """What the last backward began at, as it was given, while the script keeps it."""
        return self._loss() if self._loss is not None else None

    @property
    def loss(self) -> Tensor | None:
        """The loss of the last forward, not scaled, while the script keeps it; None where there is none."""
        loss = self._loss() if self._loss is not None else None
        return self.unscaled(loss) if loss is not None else None

    @property
    def loss_steps(self) -> int:
        """The completed steps at the last forward."""
        since = range(self._loss_step_events, self.step_events)
        return self.steps - sum(1 for each in since if each + 1 not in self._skipped)

    @property
    def has_stepped_since_forward(self) -> bool:
        """Whether an optimizer may have moved parameters since the last forward."""
        return self.step_events != self._loss_step_events or self.inside_step

    @property
    def frames(self) -> bool:
        """Whether everything that a whole frame needs is followed; without it an event costs a few microseconds."""
        return self._frames_wanted

    @frames.setter
    def frames(self, wanted: bool) -> None:
        if wanted != self._frames_wanted:
            self._frames_wanted, self._continuous = wanted, False
            if wanted:
                self.calls.install()
            else:
                self.calls.remove()
                if self.recorder is not None:
                    self.recorder.disarm()

    def make_frame(self, name: str) -> Frame:
        """Return the frame behind the event that was counted last; `name` is that of its command, "" for frame 0."""
        with torch._C.DisableTorchFunctionSubclass():  # of the user's tensors, for what is read of them
            frame = self._reader.read(name, sys._getframe(1))
        if name == "forward":
            self.calls.let_go()
        return frame

    def last_frame(self, name: str) -> Frame | None:
        """Return the frame of the last event, read at the script's end; `name`: of that event.

        None where the script has let go of a model or an optimizer, so that not all of it would be shown.
        """
        self._leave_what_raised(None)
        if not name or name == "forward" or not self._reader.has_everything():
            return None
        optimizers = self.registry.optimizers
        is_only = name == "step" and len(optimizers) == len(self.step_counts) == 1
        skipped = name == "step" and self._skipped[-1:] == [self.step_events]
        self.event = Event(name, optimizer=optimizers[0] if is_only else None, skipped=skipped)
        frame = self.make_frame(name)
        self.event = Event("")
        return replace(frame, script=replace(frame.script, at_end=True)) if frame.script is not None else None

    def record(self, frame: Frame) -> None:
        """Record the next phase, from the stop of `frame` on."""
        if self.recorder is None:
            from autograd_tui.engine.script.recording import ScriptRecorder

            self.recorder = self.calls.recorder = ScriptRecorder(self)
        self.recorder.arm(frame)

    def set(self, command: Command, carry_out: Callable[[], None]) -> Frame:
        """Carry out a setting where the script is held, and return the frame that it leads to: it is counted too."""
        self.index += 1
        try:
            return self._reader.set(command, carry_out)
        except BaseException:
            self.index -= 1
            raise

    def unscaled(self, loss: Tensor) -> Tensor:
        """Return what a loss was before GradScaler scaled it; itself where it did not."""
        if self._scaled is not None and self._scaled[0]() is loss:
            return self._scaled[1]
        return loss

    # What the seams call. Each `begin_...` runs before PyTorch's own function. A free run must take little time here.

    def add_optimizer(self, optimizer: Optimizer) -> None:
        """Take note of an optimizer that was made or used."""
        if self.registry.add_optimizer(optimizer):
            for counts in (self.step_counts, self.counts.cleared, self.counts.used):
                counts.pop(id(optimizer), None)  # of one before it, whose id this one has

    def begin(self, loss: Tensor | None = None) -> None:
        """Prepare for a call: at the first one of all send frame 0; `loss`: that a backward is to start from."""
        if self.inside:
            self._leave_what_raised(sys._getframe())
        if not self._has_begun:
            self._has_begun = True
            self.event = Event("", loss=loss)
            self.agent.stop(self.make_frame(""))
        if self._continuous:
            self._reader.before_call()

    def passes(self, owner: Optimizer | nn.Module) -> bool:
        """Return whether nothing has to be looked at before a call of an optimizer or a model."""
        if self._frames_wanted or self.inside or not self._has_begun:
            return False
        return id(owner) in self.counts.cleared

    def enter(self, kind: str, subject: Any, frame: FrameType) -> None:
        """Enter a call that others may be made inside of; `frame`: of a function that runs as long as the call."""
        self.inside.append((kind, subject, frame))

    def leave(self, subject: Any) -> None:
        """Leave the innermost call, if it is this object's."""
        if self.inside and self.inside[-1][1] is subject:
            self.inside.pop()

    def _leave_what_raised(self, stack: FrameType | None) -> None:
        """Leave the calls whose functions run no more."""
        running = set()
        while stack is not None:
            running.add(id(stack))
            stack = stack.f_back
        while self.inside and id(self.inside[-1][2]) not in running:
            self.inside.pop()

    def begin_backward(self, loss: Tensor, tensors: Any, frame: FrameType) -> None:
        """Count the forward that ends here, where the loss is another than the last one.

        `tensors`: what backward starts from, the loss or several of which it is the first; `frame`: that called.
        """
        if self.recorder is not None:
            self.recorder.leave()
        if self.inside or not self._has_begun:
            self.begin(loss)
        before, version = self._loss, version_of(loss)
        is_new = before is None or before() is not loss or version != self._loss_version
        if self.recorder is not None:
            self.recorder.end_forward(loss, frame, is_new=is_new)
        if is_new:
            self._loss, self._loss_version = weakref.ref(loss), version
            self.is_loss_alone = tensors is loss or len(tensors) == 1
            self._loss_step_events = self.step_events
            self._count_iteration(position(frame))
            self.index += 1
            self.latest_forward = self.index
            if not self.agent.lets_pass(self, "forward"):
                self._stop(Event("forward", loss=loss))
        if self._frames_wanted:
            self.calls.reset()
            self.follow()
            self._reader.before_backward()
        if self.recorder is not None:
            self.recorder.begin_backward(loss)

    def end_backward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Count a backward that has ended; its arguments, as they were given behind the loss."""
        self.backwards += 1
        self.counts.backwards += 1
        self.is_graph_kept = bool(args or kwargs) and _retains(args, kwargs)
        if self._continuous:
            self._reader.after_backward()
        self.index += 1
        if not self.agent.lets_pass(self, "backward"):
            self._stop(Event("backward"))
        if self.stepped_in_backward:
            self.stepped_in_backward, self.backwards = False, 0

    def add_step_in_backward(self, optimizer: Optimizer) -> None:
        """Count a step that a hook takes while a backward runs: it is no event."""
        self.add_optimizer(optimizer)
        self.stepped_in_backward = self._has_stepped = True
        self.step_events += 1
        self.steps += 1
        key = id(optimizer)
        self.step_counts[key] = self.step_counts.get(key, 0) + 1

    def begin_step(self, optimizer: Optimizer, frame: FrameType) -> None:
        """Look at the parameters before an optimizer's step; `frame`: of what calls the hooks."""
        self.add_optimizer(optimizer)
        if self.inside or not self._has_begun:
            self.begin()
        self.inside.append(("step", optimizer, frame))
        if self._frames_wanted:
            self.calls.reset()
            self.follow()
            self._reader.before_step(optimizer)

    def end_step(self, optimizer: Optimizer) -> None:
        """Count a step that has ended; a fused optimizer leaves it out itself where GradScaler tells it to."""
        if self.inside:
            self.leave(optimizer)
        found_inf = getattr(optimizer, "found_inf", None)
        if found_inf is not None and bool(found_inf):
            self.end_skipped_step(optimizer)
            return
        self.steps += 1
        key = id(optimizer)
        self.step_counts[key] = self.step_counts.get(key, 0) + 1
        self.counts.used[key] = self.counts.backwards
        if self._continuous:
            self._reader.after_step(optimizer)
        self._count_step(optimizer)

    def end_skipped_step(self, optimizer: Optimizer) -> None:
        """Count a step that GradScaler has left out, since gradients are not finite."""
        self._skipped = [each for each in self._skipped if each > self._loss_step_events] + [self.step_events + 1]
        self._count_step(optimizer, skipped=True)

    def _count_step(self, optimizer: Optimizer, *, skipped: bool = False) -> None:
        self._has_stepped = True
        self.step_events += 1
        self.index += 1
        if not self.agent.lets_pass(self, "step"):
            self._stop(Event("step", optimizer=optimizer, skipped=skipped))
        self.backwards = 0

    def begin_zero_grad(self, owner: Optimizer | nn.Module) -> None:
        """Look at the gradients before they are cleared."""
        if isinstance(owner, Optimizer):
            self.add_optimizer(owner)
        else:
            self.registry.add_cleared(owner)
        if self.inside or not self._has_begun:
            self.begin()
        if self._frames_wanted:
            self.follow()
            self._reader.before_call()

    def end_zero_grad(self, owner: Optimizer | nn.Module) -> None:
        """Count a zero_grad that has ended."""
        key, counts = id(owner), self.counts
        if counts.backwards > counts.cleared.get(key, 0):
            self._has_cleared = True
        counts.cleared[key] = counts.backwards
        self.backwards = 0
        if self._continuous:
            self._reader.after_zero_grad(owner)
        self.index += 1
        if not self.agent.lets_pass(self, "zero_grad"):
            self._stop(Event("zero_grad", optimizer=owner if isinstance(owner, Optimizer) else None))

    def note_scaled(self, scaled: Any, loss: Any) -> None:
        """Remember what GradScaler has made of a loss."""
        if isinstance(scaled, Tensor) and isinstance(loss, Tensor) and scaled is not loss and loss.numel() == 1:
            self._scaled = weakref.ref(scaled), loss.detach()

    def end_clip(self, name: str, result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Count a call of one of the functions that clip gradients; their arguments as they were given."""
        max_norm = norm = None
        if name != "clip_grad_value_":
            max_norm = kwargs.get("max_norm", args[1] if len(args) > 1 else None)
            norm = kwargs.get("total_norm", args[2] if len(args) > 2 else None)
            norm = result if name == "clip_grad_norm_" else norm
        self.end_call(Event("clip", norm=norm, max_norm=max_norm))

    def end_call(self, event: Event) -> None:
        """Count a call of any other kind that has ended."""
        self.index += 1
        if not self.agent.lets_pass(self, event.name):
            self._stop(event)

    # Counting.

    def _stop(self, event: Event) -> None:
        """Make the frame of an event, and let the agent hold the script there."""
        self.event = event
        try:
            self.agent.stop(self.make_frame(event.name))
        finally:
            self.event = Event("")

    def follow(self) -> None:
        """Take up the gradients again, where events were not followed."""
        if self._frames_wanted and not self._continuous:
            self._continuous = True
            self._reader.take_up()

    @property
    def is_continuous(self) -> bool:
        """Whether the gradients were followed through every event up to this one."""
        return self._continuous

    @property
    def inside_step(self) -> bool:
        """Whether an optimizer's step runs that calls the script's own closure."""
        return any(kind == "step" for kind, *_ in self.inside)

    def _count_iteration(self, place: tuple[int, int]) -> None:
        """Begin an iteration where a forward comes from a line that has been one's since it began, behind a step."""
        if self.iteration == 0 or (place in self._positions and self._is_over()):
            self.iteration += 1
            self._positions = {place}
            self._has_stepped = self._has_cleared = False
        else:
            self._positions.add(place)

    def _is_over(self) -> bool:
        """Return whether the next forward from a line that had one begins an iteration."""
        if self._has_stepped or (self._has_cleared and not self.inside_step):
            return True
        if self.registry.has_optimizer:
            return False
        self.backwards = 0  # since somebody moves the parameters by hand
        return True


def _retains(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether a backward keeps its graph: both functions have the same arguments behind the first."""
    retain = kwargs.get("retain_graph", args[1] if len(args) > 1 else None)
    create = kwargs.get("create_graph", args[2] if len(args) > 2 else False)
    return bool(create if retain is None else retain)
