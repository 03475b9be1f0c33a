"""Records what happens inside a script's phases, between two of its stops, with the tracers of a session."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode, _get_current_function_mode_stack

from autograd_tui.core.command import Phase
from autograd_tui.core.frame import Frame
from autograd_tui.core.trace import Source, Trace
from autograd_tui.engine.script.forward_tape import ForwardTape, TapedForward
from autograd_tui.engine.script.optimizer_reader import spec_of
from autograd_tui.engine.script.registry import untouched, variables
from autograd_tui.engine.tracing.autograd_graph import AutogradGraph, SavedTensor, SavedTensors, has_packed
from autograd_tui.engine.tracing.backward_tracer import BackwardTracer, Hook
from autograd_tui.engine.tracing.forward_tracer import BegunCall, ForwardTracer, TorchLookups, TracedCall
from autograd_tui.engine.tracing.measurement_batch import MeasurementBatch, MeasuringPlans
from autograd_tui.engine.tracing.phase_tracer import (
    FAST_PATHS,
    ParameterRows,
    TracedForward,
    backward_trace,
    forward_trace,
    parameter_ops,
)
from autograd_tui.engine.tracing.tensor_registry import TensorRecord, TensorRegistry

if TYPE_CHECKING:
    from autograd_tui.engine.script.loop_phases import Phases

Finish = Callable[[Frame], Trace]  # makes the trace, given the frame that the phase led to
Method = TypeVar("Method", bound=Callable[..., Any])
MAX_CALLS = 20_000  # of one forward that are recorded
MAX_NAMED_CALLS = 16  # outermost calls of modules whose arguments are named
COMPILED = "torch.compile has compiled a part of this script, and would compile it anew to be recorded."
NO_FORWARD = "The forward was not recorded: the lines that made these nodes are not known."


class RecordingFailed(Exception):
    """Says in a sentence why a phase cannot be recorded."""


def _guarded(method: Method) -> Method:
    """Return a method of the recorder that gives up this phase where it fails, and raises nothing into the script."""

    @functools.wraps(method)
    def guarded(self: ScriptRecorder, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            self.give_up(error)
            return None

    return guarded  # type: ignore[return-value]


class ScriptRecorder:
    """Records the next phase once it is armed; `problem` says why there is no trace of the last one.

    It changes no bit of what the script computes, and holds the tensors of a forward no longer than until the script
    goes on without it.
    """

    def __init__(self, phases: Phases) -> None:
        self.problem: str | None = None
        self._phases = phases
        self._plans, self._lookups = MeasuringPlans(), TorchLookups()
        self._before: Frame | None = None  # where the script is held, while it is armed
        self._tracer: ScriptForwardTracer | None = None  # of the forward that is being recorded
        self._entered: ScriptForwardTracer | None = None  # that is on the stack of modes
        self._suspended: nn.Module | None = None  # which runs with the tracer off
        self._named_calls = 0
        self._forward_problem: str | None = None  # why the forward that has begun is not recorded
        self._backward: BackwardTracer | None = None
        self._forward: TracedForward | None = None
        self._finish: Finish | None = None
        self._taped: TapedForward | None = None  # the last forward, if it was recorded
        self._not_taped: tuple[int, str] = 0, ""  # the frame of a forward that cannot be run again, and why

    # The agent's.

    @_guarded
    def arm(self, frame: Frame) -> None:
        """Record what comes behind the stop of `frame`, up to the next phase."""
        self._before, self.problem, self._finish = frame, None, None
        registry = self._phases.registry
        if self._tracer is None and not self._is_before_backward and not registry.models and registry.params():
            self._begin_forward()  # a loss made without modules

    @_guarded
    def disarm(self) -> None:
        """Record nothing, and let everything go."""
        self._before = self._forward = self._finish = self._forward_problem = self._taped = None
        self._leave()
        self._tracer = None
        self._end_hooks()

    @property
    def _is_before_backward(self) -> bool:
        """Whether the script is held where backward has been called, and has not run yet."""
        return self._phases.event.loss is not None  # of a forward, or of frame 0 where a backward is the first call

    def take(self, frame: Frame) -> Trace | None:
        """Return the trace of the phase that led to `frame`, if it was recorded, and record no further."""
        before, self._before = self._before, None
        return self._take(frame, before) if before is not None else None

    @_guarded
    def _take(self, frame: Frame, before: Frame) -> Trace | None:
        finish, self._finish = self._finish, None
        if frame.phase in (Phase.STEP, Phase.ZERO_GRAD):
            finish = self._parameter_trace(before)
        if finish is None and frame.phase is Phase.FORWARD and self.problem is None:
            is_late = frame.script is not None and frame.script.models
            why = "its model was called before that was asked for" if is_late else "it calls no module with parameters"
            why = why if before.command else "it ran before the first stop"
            raise RecordingFailed(f"The forward was not recorded: {why}.")
        if finish is None:
            return None
        with untouched(), torch._C.DisableTorchFunctionSubclass():
            return finish(frame).built()

    def taped(self, frame: int) -> tuple[TapedForward | None, str | None]:
        """Return the forward that led to a frame as it can be run again; else why it cannot, where that is known."""
        if self._taped is not None and self._taped.frame == frame:
            return self._taped, None
        return None, self._not_taped[1] if self._not_taped[0] == frame else None

    def give_up(self, error: Exception) -> None:
        """Record this phase no further."""
        if isinstance(error, RecordingFailed):
            self.problem = str(error)
        else:
            text = " ".join(str(error).split())[:200]
            self.problem = f"The recording failed ({type(error).__name__}: {text}), and the script went on without it."
        self._finish = None
        try:
            self._leave()
            self._end_hooks()
        except Exception:
            self._backward = None
        self._tracer = None

    def _give_up_forward(self, error: Exception) -> None:
        """Record this forward no further, be it that other phases come before its end."""
        self.give_up(error)
        self._forward_problem = self.problem

    # A forward: from the first outermost call of a module on.

    def enter_module(self, module: nn.Module, arguments: Any, caller: FrameType, *, outermost: bool) -> None:
        """Begin a forward at a call of a module that is to be part of a graph; `caller`: PyTorch's function there."""
        try:
            self._enter_module(module, arguments, outermost=outermost)
        except Exception as error:
            self._give_up_forward(error)
        if outermost and self._tracer is not None:
            self._tracer.tape.enter_module(module, arguments, caller)

    def _enter_module(self, module: nn.Module, arguments: Any, *, outermost: bool) -> None:
        may_begin = outermost and self._tracer is None and self._before is not None and self._forward_problem is None
        if may_begin and torch.is_grad_enabled() and _requires_grad(module, arguments):
            if _is_compiled(module):
                raise RecordingFailed(f"The forward was not recorded: {COMPILED}")
            self._begin_forward(module)
        if self._tracer is None:
            return
        if outermost and self._named_calls < MAX_NAMED_CALLS:
            self._named_calls += 1
            self._name_variables(sys._getframe(1))
        if isinstance(module, FAST_PATHS) and not module.training and self._is_on_top:
            self._suspended = module
            self._tracer.note(
                f"{type(module).__name__} in eval mode runs as it does without recording: its inside is not seen."
            )
            self._entered = None
            self._tracer.__exit__(None, None, None)

    @_guarded
    def leave_module(self, module: nn.Module, output: Any, *, outermost: bool) -> None:
        """Go on with the tracer behind a module that ran without it."""
        if outermost and self._tracer is not None:
            self._tracer.tape.leave_module(output)
        if self._suspended is module and self._tracer is not None:
            self._suspended = None
            self._enter(self._tracer)

    def _begin_forward(self, module: nn.Module | None = None) -> None:
        self._leave()
        if mode := mode_of_script():  # its `with` would take the tracer off in its place, should it end first
            raise RecordingFailed(f"The forward was not recorded: it runs inside a mode of the script's, {mode}.")
        if has_compiled():
            raise RecordingFailed(f"The forward was not recorded: {COMPILED}")
        names, registry = self._module_names(module), self._phases.registry
        params = registry.params()
        self._taped = None
        tape = ForwardTape(registry)
        tracer = ScriptForwardTracer(names, MeasurementBatch(self._plans), self._lookups, self._give_up_forward, tape)
        tracer.leaves = frozenset(params)
        tracer.name(params)
        tracer.name(registry.buffers())
        self._tracer, self._named_calls, self._suspended = tracer, 0, None
        self._enter(tracer)
        if module is not None:
            tracer.modules.begin(module)

    def _module_names(self, module: nn.Module | None) -> dict[int, str]:
        """Return the names of all known modules, as the names of their parameters begin."""
        names = {id(each): name for name, each in (module.named_modules() if module is not None else ())}
        for model in self._phases.registry.models:
            for name, each in model.module.named_modules() if model.module is not None else ():
                names[id(each)] = f"{model.prefix}{name}".rstrip(".")
        return names

    def _name_variables(self, stack: FrameType | None) -> None:
        """Name the tensors that the variables of the user's functions hold now."""
        assert self._tracer is not None
        named: dict[str, Tensor] = {}
        for name, value in variables(stack):
            if isinstance(value, Tensor) and name not in named:
                named[name] = value
        self._tracer.name(named)

    def _enter(self, tracer: ScriptForwardTracer) -> None:
        tracer.__enter__()
        self._entered = tracer

    @_guarded
    def leave(self) -> None:
        """Take the tracer off the stack of modes before anything is done with a loss."""
        self._leave()

    def _leave(self) -> None:
        """Take the tracer off; where another mode lies on it, or a call runs, it stays and does nothing until later."""
        tracer, self._suspended = self._entered, None
        if tracer is not None:
            tracer.is_off = True
            if self._is_on_top:
                self._entered = None
                tracer.__exit__(None, None, None)

    @property
    def _is_on_top(self) -> bool:
        top = _get_current_function_mode()  # type: ignore[no-untyped-call]
        return self._entered is not None and top is self._entered

    # A backward, whose beginning is a forward's end.

    @_guarded
    def end_forward(self, loss: Tensor, stack: FrameType, *, is_new: bool) -> None:
        """End the forward where backward is called on its loss, which is another than the last one if `is_new`."""
        tracer, problem = self._tracer, self._forward_problem
        self._forward_problem = None
        if problem is not None and is_new:
            self.problem = problem
            self._not_taped = self._phases.counts.index + 1, problem.removeprefix("The forward was not recorded: ")
        if tracer is None:
            return
        self._name_variables(stack)
        self._leave()
        self._tracer = None
        if not is_new or self._before is None:
            return
        params, frame = self._phases.registry.params, self._phases.counts.index + 1
        self._taped = tracer.tape.finish(loss, self._phases.unscaled(loss), stack, frame)
        if tracer.tape.problem is not None:
            self._not_taped = frame, tracer.tape.problem

        def finish(frame: Frame) -> Trace:
            tracer.name({"loss": loss})  # where no variable holds it
            self._forward = forward_trace(tracer, tracer.measurements, loss, params(), frame, tuple(tracer.notes))
            return self._forward.trace

        self._finish = finish

    @_guarded
    def begin_backward(self, loss: Tensor) -> None:
        """Hook the nodes of a loss's graph before its backward runs."""
        if self._before is None:
            return
        forward, before = self._forward, self._before
        if forward is not None and forward.loss is not loss:
            forward = None
        graph = forward.graph if forward is not None else AutogradGraph(loss)
        measurements = MeasurementBatch(self._plans)
        saved = forward.saved if forward is not None else self._read_saved(graph, measurements)
        tracer = BackwardTracer(graph, MeasurementBatch(self._plans), saved)
        self._backward = tracer
        tracer.add_hooks(self._guarded_hook)
        notes = [] if forward is not None else [NO_FORWARD]
        params = self._phases.registry.params

        def finish(frame: Frame) -> Trace:
            values = None
            if forward is None:
                measurements.read()
                measurements.drop_values()
                values = {
                    number: [one.record.value(measurements, one.role) for one in each] for number, each in saved.items()
                }
            return backward_trace(tracer, forward, params(), before, frame, notes, values)

        self._finish = finish

    def _read_saved(self, graph: AutogradGraph, measurements: MeasurementBatch) -> dict[int, Sequence[SavedTensor]]:
        """Read what the nodes of a forward that was not recorded have saved, by the nodes' numbers."""
        registry = TensorRegistry(measurements)
        registry.name(self._phases.registry.params())
        registry.name(self._phases.registry.buffers())
        tensors = SavedTensors(registry, self._lookups.saved)
        tensors.read_nodes([node for node in graph.nodes if not has_packed(node)], ())
        return {graph.number[node]: each for node, each in tensors.by_node.items()}

    def end_backward(self) -> None:
        """Take the hooks away, whatever has become of the backward."""
        if self._backward is not None:
            self._end_hooks()

    def _end_hooks(self) -> None:
        tracer, self._backward = self._backward, None
        if tracer is not None:
            tracer.remove_hooks()

    def _guarded_hook(self, hook: Hook) -> Hook:
        """Return a hook that raises nothing into the backward."""

        def guarded(*args: Any) -> None:
            if self._finish is not None:
                try:
                    hook(*args)
                except Exception as error:
                    self.problem = f"The recording failed ({type(error).__name__}), and the script went on without it."
                    self._finish = None

        return guarded

    # A step and a zero_grad.

    def _parameter_trace(self, before: Frame) -> Finish:
        phases = self._phases
        optimizer = phases.event.optimizer
        groups = phases.registry.groups
        group_of = {id(param): index for index, group in enumerate(groups) for param in group["params"]}
        params = list(phases.registry.params().values())
        indices = [group_of.get(id(param)) for param in params]
        own = {id(param) for group in optimizer.param_groups for param in group["params"]} if optimizer else set()
        chosen = [index for index, param in enumerate(params) if optimizer is None or id(param) in own]
        spec = str(spec_of(optimizer)) if optimizer is not None else ""
        skipped = phases.event.skipped

        def finish(after: Frame) -> Trace:
            assert after.phase is not None
            start = before
            if before.params.layout != after.params.layout:
                raise RecordingFailed("It was not recorded: the parameters are others than at the stop before.")
            if after.phase is Phase.STEP:
                start = replace(before, params=after.before or after.params, grads=after.grads)
            rows = [ParameterRows(frame, indices, groups) for frame in (start, after)]
            source = _call_source(after)
            ops = [replace(each, source=source) for each in parameter_ops(after.phase, rows[0], rows[1], chosen)]
            notes = ("GradScaler has left this step out: the gradients are not finite.",) if skipped else ()
            return Trace(after.phase, after.index, after.iteration, ops, optimizer=spec, notes=notes)

        return finish


class ScriptForwardTracer(ForwardTracer):
    """Records a forward of a script; where recording a call fails it does nothing from then on."""

    def __init__(
        self,
        names: Mapping[int, str],
        measurements: MeasurementBatch,
        lookups: TorchLookups,
        give_up: Callable[[Exception], None],
        tape: ForwardTape,
    ) -> None:
        super().__init__(names, measurements, lookups)
        self.tape = tape
        self._begun_on_tape: Any = None
        self.measurements = measurements
        self.is_off = False
        self.notes: list[str] = []
        self.leaves: frozenset[str] = frozenset()  # names of the parameters: what made them is no part of the forward
        self._give_up = give_up

    def note(self, sentence: str) -> None:
        """Add a sentence about what is not seen."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def begin_call(self, name: str, func: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]) -> BegunCall | None:
        if self.is_off:
            return None
        self._begun_on_tape = self.tape.begin_call(func, args, kwargs)
        try:
            if len(self.calls) >= MAX_CALLS:
                raise RecordingFailed(f"The forward was not recorded: it makes more than {MAX_CALLS:,} calls.")
            return super().begin_call(name, func, args, kwargs)
        except Exception as error:
            self._give_up(error)
            return None

    def end_raised(self, begun: BegunCall, frame: FrameType | None) -> None:
        """Record a call that has raised."""
        if not self.is_off:
            try:
                super().end_raised(begun, frame)
            except Exception as error:
                self._give_up(error)

    def end_call(self, begun: BegunCall, result: Any, frame: FrameType | None) -> None:
        """Record a call that has returned."""
        on_tape, self._begun_on_tape = self._begun_on_tape, None
        if not self.is_off:
            if on_tape is not None:
                self.tape.end_call(on_tape, result, frame)
            try:
                super().end_call(begun, result, frame)
            except Exception as error:
                self._give_up(error)

    def finish(self, loss: Tensor | None) -> AutogradGraph:
        """Return the graph of the loss, and keep the calls that it was made by."""
        graph = super().finish(loss)
        kept = sorted(self._made_by(graph))
        number = {old: new for new, old in enumerate(kept)}
        self.calls = [self.calls[index] for index in kept]
        self.owner = {node: number[old] for node, old in self.owner.items() if old in number}
        for record in self._records(graph):
            record.maker = None if record.maker is None else number.get(record.maker)
        for saved in self.saved.by_node.values():
            for each in saved:
                each.changed_by = [number[old] for old in each.changed_by if old in number]
        return graph

    def _made_by(self, graph: AutogradGraph) -> set[int]:
        """Return the numbers of the calls that made the graph's nodes, or what those were given."""
        waiting = [self.owner[node] for node in graph.nodes if node in self.owner]
        waiting += [
            changer for node in graph.nodes for each in self.saved.by_node.get(node, ()) for changer in each.changed_by
        ]
        found: set[int] = set()
        while waiting:
            call = waiting.pop()
            if call not in found:
                found.add(call)
                given = (each for _, each in self.calls[call].inputs if each.name not in self.leaves)
                waiting += [each.maker for each in given if each.maker is not None]
        return found

    def _records(self, graph: AutogradGraph) -> Iterator[TensorRecord]:
        """Yield each record of the calls, and of what nodes have saved, once."""
        seen: set[int] = set()
        saved = [each.record for node in graph.nodes for each in self.saved.by_node.get(node, ())]
        for record in (*(each for call in self.calls for each in _records_of(call)), *saved):
            if id(record) not in seen:
                seen.add(id(record))
                yield record


def _records_of(call: TracedCall) -> Sequence[TensorRecord]:
    return [*(record for _, record in call.inputs), *call.output]


def _call_source(frame: Frame) -> Source | None:
    """Return the line of the script that made the call."""
    stop = frame.script
    if stop is None or not stop.file:
        return None
    text = stop.source[stop.line - stop.first_line].strip() if stop.source else ""
    return Source(stop.file, stop.line, text)


def _requires_grad(module: nn.Module, arguments: Any) -> bool:
    """Return whether what a call makes will have a graph."""
    given = (each for each in arguments if isinstance(each, Tensor)) if isinstance(arguments, tuple) else ()
    return any(param.requires_grad for param in module.parameters()) or any(each.requires_grad for each in given)


def _is_compiled(module: nn.Module) -> bool:
    return any(
        "_orig_mod" in (vars(each).get("_modules") or ()) or vars(each).get("_compiled_call_impl") is not None
        for each in module.modules()
    )


def _default_device() -> Any:
    """Return the mode of `torch.set_default_device`, which stays below all others; None where there is none."""
    return getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)


def mode_of_script() -> str | None:
    """Return the class of the innermost mode that the script has entered, None where there is none."""
    stack = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    others = [type(each).__name__ for each in stack if each is not _default_device()]
    return others[-1] if others else None


def has_compiled() -> bool:
    """Return whether torch.compile has compiled anything in this process."""
    module = sys.modules.get("torch._dynamo.utils")
    return bool(module is not None and module.counters.get("frames"))
