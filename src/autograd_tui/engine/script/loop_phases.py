"""Turns what a script calls into events: counted, told to the agent, and shown as frames where it wants them."""

from __future__ import annotations

import sys
import weakref
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from autograd_tui.core.command import Command
from autograd_tui.core.frame import Frame
from autograd_tui.core.watchpoint import matching
from autograd_tui.engine.script.call_site import are_in_other_loops, position
from autograd_tui.engine.script.event_counts import EventCounts, Forwards
from autograd_tui.engine.script.module_calls import ActivationCounts, ModuleCalls
from autograd_tui.engine.script.registry import Registry
from autograd_tui.engine.script.script_frames import ScriptFrames
from autograd_tui.engine.script.script_free_run import PassedEvents
from autograd_tui.engine.training.tensor_properties import version_of

if TYPE_CHECKING:
    from autograd_tui.engine.script.recording import ScriptRecorder

Optimizer = torch.optim.Optimizer


class EventListener(Protocol):
    """What the phases tell of each event."""

    def lets_pass(self, phases: Phases, name: str) -> bool:
        """Return whether nothing is wanted of the event that has just been counted."""
        ...

    def note_passed(self, forwards: Forwards, losses: array[float], last: str) -> None:
        """Take note of events that passed and are counted now.

        losses: of the forwards among them; last: the last event's name
        """
        ...

    def stop(self, frame: Frame) -> None:
        """Take a frame; it returns when the script may go on."""
        ...

    def give_up(self, reason: str) -> None:
        """Take the reason why nothing will come any more, a clause."""
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
    """Counts a script's events, and keeps what is known of its loop."""

    def __init__(self, agent: EventListener) -> None:
        self.agent = agent
        self.registry = Registry()
        self.counts = EventCounts(lambda: self.registry.has_optimizer, are_in_other_loops)
        self.calls = ModuleCalls()
        self.activations: ActivationCounts | None = None  # while a watchpoint asks for them
        self.inside: list[tuple[str, Any, FrameType]] = []  # the calls that are not over, outermost first
        self.passed: PassedEvents | None = None  # of a free run, while no frames are wanted
        self._frames_wanted = False
        self._continuous = False  # whether every event since the last one was followed with its gradients
        self._has_begun = False
        self.loss_ref: weakref.ref[Tensor] | None = None
        self.loss_version = 0
        self.is_graph_kept = False  # whether the last backward has kept its graph
        self.is_loss_alone = True  # whether the last backward started from no other tensor as well
        self.scaled: tuple[weakref.ref[Tensor], Tensor] | None = None  # a scaled loss, and the one that it was
        self.stepped_in_backward = False  # in the one that runs, or has just ended
        self._reader = ScriptFrames(self)
        self.recorder: ScriptRecorder | None = None  # once something was to be recorded
        self.event = Event("")
        self.frames = True
        self.before_step: Callable[[Phases], None] | None = None  # called before each step of a free run
        self.follows_step = False  # whether the step that runs is followed from its beginning on, as its frame needs
        self.values_before_step: list[list[float]] = []  # of each parameter, where stillness is watched for

    # What the agent reads and sets.

    @property
    def backward_loss(self) -> Tensor | None:
        """What the last backward began at, as it was given, while the script keeps it."""
        return self.loss_ref() if self.loss_ref is not None else None

    @property
    def loss(self) -> Tensor | None:
        """The loss of the last forward, not scaled, while the script keeps it; None where there is none."""
        loss = self.backward_loss
        return loss if loss is None or self.scaled is None else self.unscaled(loss)

    @property
    def has_stepped_since_forward(self) -> bool:
        """Whether an optimizer may have moved parameters since the last forward."""
        return self.counts.step_events != self.counts.forward_step_events or self.inside_step

    @property
    def frames(self) -> bool:
        """Whether everything that a whole frame needs is followed; without it an event costs a few microseconds."""
        return self._frames_wanted

    @frames.setter
    def frames(self, wanted: bool) -> None:
        if wanted:
            self.count_passed()
            self.passed = None
        if wanted != self._frames_wanted:
            self._frames_wanted, self._continuous, self.follows_step = wanted, False, False
            if wanted:
                self.calls.install()
            else:
                self.calls.remove()
                if self.recorder is not None:
                    self.recorder.disarm()

    def watch_activations(self, names: Sequence[str]) -> None:
        """Count the zeros in what the modules of these names, or patterns, give from now on; without any, end that."""
        if self.activations is not None:
            self.activations.remove()
            self.activations, self.calls.more_hooks = None, frozenset()
        if names:
            modules = self.registry.modules()
            known = list(modules)
            picked = [known[index] for name in names for index in matching(name, known)]
            self.activations = ActivationCounts({name: modules[name] for name in picked})
            self.calls.more_hooks = frozenset({self.activations.hook_id})

    def take_zero_shares(self) -> tuple[tuple[str, float], ...]:
        """Return the share of zeros in each watched call since the last time, with the module's name."""
        if self.activations is None:
            return ()
        shares = self.activations.shares()
        self.activations.calls.clear()
        return shares

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
        is_only = name == "step" and len(optimizers) == len(self.counts.step_counts) == 1
        skipped = name == "step" and self.counts.last_skipped == self.counts.step_events
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
        counts = self.counts
        counts.index += 1
        counts.first_index += 1  # it is no event of the script's, and an iteration is as long as before
        try:
            return self._reader.set(command, carry_out)
        except BaseException:
            counts.index -= 1
            counts.first_index -= 1
            raise

    def unscaled(self, loss: Tensor) -> Tensor:
        """Return what a loss was before GradScaler scaled it; itself where it did not."""
        if self.scaled is not None and self.scaled[0]() is loss:
            return self.scaled[1]
        return loss

    def count_passed(self) -> None:
        """Count the events that have passed until now."""
        if self.passed is not None and self.passed.events:
            events, losses = self.passed.take()
            self.is_graph_kept, self.is_loss_alone = False, True
            self.agent.note_passed(self.counts.add(events), losses, events[-1][0])

    # What the seams call. Each `begin_...` runs before PyTorch's own function. A free run must take little time here.

    def add_optimizer(self, optimizer: Optimizer) -> None:
        """Take note of an optimizer that was made or used."""
        if self.registry.add_optimizer(optimizer):
            self.counts.forget(id(optimizer))  # of one before it, whose id this one has
            self.passed = None  # which may know that one

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
        self.passed = None
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
        before, version = self.loss_ref, version_of(loss)
        is_new = before is None or before() is not loss or version != self.loss_version
        if self.recorder is not None:
            self.recorder.end_forward(loss, frame, is_new=is_new)
        if is_new:
            self.loss_ref, self.loss_version = weakref.ref(loss), version
            self.is_loss_alone = tensors is loss or len(tensors) == 1
            self.counts.add_forward(position(frame), inside_step=self.inside_step)
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
        self.counts.add_backward()
        self.is_graph_kept = bool(args or kwargs) and _retains(args, kwargs)
        if self._continuous:
            self._reader.after_backward()
        self.counts.index += 1
        if not self.agent.lets_pass(self, "backward"):
            self._stop(Event("backward"))
        if self.stepped_in_backward:
            self.stepped_in_backward, self.counts.held_backwards = False, 0

    def add_step_in_backward(self, optimizer: Optimizer) -> None:
        """Count a step that a hook takes while a backward runs: it is no event."""
        self.add_optimizer(optimizer)
        self.stepped_in_backward, self.passed = True, None
        self.counts.add_step_in_backward(id(optimizer))

    def begin_step(self, optimizer: Optimizer, frame: FrameType) -> None:
        """Look at the parameters before an optimizer's step; `frame`: of what calls the hooks."""
        self.add_optimizer(optimizer)
        if self.inside or not self._has_begun:
            self.begin()
        self.enter("step", optimizer, frame)
        if self.before_step is not None:
            self.before_step(self)
        self.follows_step = self._frames_wanted
        if self.follows_step:
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
        self.counts.add_step(id(optimizer))
        if self._continuous:
            self._reader.after_step(optimizer)
        self._stop_behind_step(optimizer)

    def end_skipped_step(self, optimizer: Optimizer) -> None:
        """Count a step that GradScaler has left out, since gradients are not finite."""
        self.counts.add_skipped_step()
        self._stop_behind_step(optimizer, skipped=True)

    def _stop_behind_step(self, optimizer: Optimizer, *, skipped: bool = False) -> None:
        self.counts.index += 1
        if not self.agent.lets_pass(self, "step"):
            self._stop(Event("step", optimizer=optimizer, skipped=skipped))
        self.counts.held_backwards, self.values_before_step, self.follows_step = 0, [], False

    def begin_zero_grad(self, owner: Optimizer | nn.Module) -> None:
        """Look at the gradients before they are cleared."""
        if isinstance(owner, Optimizer):
            self.add_optimizer(owner)
        else:
            self.registry.add_cleared(owner)
        if self.registry.changed:
            self.passed = None
        if self.inside or not self._has_begun:
            self.begin()
        if self._frames_wanted:
            self.follow()
            self._reader.before_call()

    def end_zero_grad(self, owner: Optimizer | nn.Module) -> None:
        """Count a zero_grad that has ended."""
        self.counts.add_zero_grad(id(owner))
        if self._continuous:
            self._reader.after_zero_grad(owner)
        self.counts.index += 1
        if not self.agent.lets_pass(self, "zero_grad"):
            self._stop(Event("zero_grad", optimizer=owner if isinstance(owner, Optimizer) else None))

    def note_scaled(self, scaled: Any, loss: Any) -> None:
        """Remember what GradScaler has made of a loss."""
        if isinstance(scaled, Tensor) and isinstance(loss, Tensor) and scaled is not loss and loss.numel() == 1:
            self.scaled, self.passed = (weakref.ref(scaled), loss.detach()), None

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
        self.counts.index += 1
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


def _retains(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether a backward keeps its graph: both functions have the same arguments behind the first."""
    retain = kwargs.get("retain_graph", args[1] if len(args) > 1 else None)
    create = kwargs.get("create_graph", args[2] if len(args) > 2 else False)
    return bool(create if retain is None else retain)
