"""Writes a recorded forward of a script: a file of tensors and models, and the text of the script that reads it."""

from __future__ import annotations

import ast
import builtins
import inspect
import io
import keyword
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import resolve_name

from autograd_tui.core.errors import Refused
from autograd_tui.core.files import new_file
from autograd_tui.core.script_stop import ScriptRepro
from autograd_tui.engine.script.forward_tape import (
    CannotRepeat,
    ParameterUse,
    PickledUse,
    TapedCall,
    TapedForward,
    TensorUse,
    parts,
)
from autograd_tui.engine.script.main_source import MainSource, SourceParts, imported_modules, literal, user_folders
from autograd_tui.engine.script.pickled_object import pickle_into
from autograd_tui.engine.script.registry import untouched

if TYPE_CHECKING:
    from autograd_tui.engine.script.loop_phases import Phases

RANDOM = "random_state"
FUNCTIONAL = "import torch.nn.functional as F"
MAX_INLINE_LENGTH = 60  # characters of an expression that may stand inside another
MAX_LINE_LENGTH = 90
MAX_VARIABLES = 16  # of tensors that have been copied
MIN_USED_SHARE = 0.5  # of a tuple's tensors that are used, below which they have no variables of their own
RESERVED = {"F", "Path", "saved", "torch", "name", "param", "params", RANDOM}
USES = (TensorUse, ParameterUse, PickledUse)
OPERATORS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "matmul": "@",
    "__pow__": "**",
    "__floordiv__": "//",
    "__rsub__": "-",
    "__rpow__": "**",
    "__rtruediv__": "/",
    "__rmatmul__": "@",
}
IN_PLACE_OPERATORS = {"add_": "+=", "sub_": "-=", "mul_": "*=", "div_": "/="}


def write_repro(phases: Phases, path: str) -> ScriptRepro:
    """Write the latest forward into a new file; return the script beside it. Raises Refused."""
    recorder, frame = phases.recorder, phases.counts.forward_index
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        raise Refused("no repro can be written: it is one of several processes, and would wait for the others.")
    forward, problem = recorder.taped(frame) if recorder is not None else (None, None)
    if problem is not None:
        raise Refused(f"no repro of this forward can be written: {problem.removesuffix('.')}.")
    if forward is None:
        raise Refused(f"the forward of frame {frame} was not recorded: i records the next one, and then e writes it.")
    try:
        with untouched():
            return _Writer(forward, phases).write(path)
    except CannotRepeat as error:
        raise Refused(f"no repro of this forward can be written: {error}.") from error


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A call whose value has no variable yet."""

    number: int  # of the value
    text: str  # of the call
    call: TapedCall


class _Writer:
    """Spells the calls of one forward, and collects what they need."""

    def __init__(self, forward: TapedForward, phases: Phases) -> None:
        self._forward, self._phases = forward, phases
        self._contents: dict[str, Any] = {}  # of the file, by variable
        self._taken = set(RESERVED)
        self._objects: dict[int, str] = {}  # variables of pickled objects, by key
        self._copies: dict[TensorUse, str] = {}  # variables of tensors that were copied
        self._values: dict[int, str] = {}  # expressions of tensors that calls have made, by number
        self._random: torch.Tensor | None = None  # the random state in which the script goes on
        self._random_states: list[torch.Tensor] = []
        self._has_functional = self._full_names = False  # whether F is what PyTorch's users call so, or another thing
        self._lines: list[tuple[str, str, str | None]] = []  # with the line of the script, and the context
        self._waiting: list[_Waiting] = []
        given = [each for call in forward.calls for each in parts((call.args, call.kwargs))]
        self._uses = Counter(each.number for each in given if isinstance(each, TensorUse))
        self._uses[forward.loss.number] += 1

    def write(self, path: str) -> ScriptRepro:
        """Write the file, and return the script."""
        forward = self._forward
        source, references = self._source()
        self._taken |= source.names
        main = vars(sys.modules["__main__"])
        self._has_functional = "F" in source.names and main.get("F") is torch.nn.functional
        self._full_names = "F" in source.names and not self._has_functional
        for key, each in forward.pickled.items():
            variable = self._objects[key] = self._unused(each.name, "model")
            self._contents[variable] = each.read()
        roles = self._roles()
        has_variables = len(forward.copies) <= MAX_VARIABLES
        for use, copy in forward.copies.items():
            name = self._unused(forward.names.get(use.number, ""), roles.get(use, "tensor"))
            self._copies[use] = name if has_variables else f'saved["{name}"]'
            self._contents[name] = copy
        calls = self._calls()
        names = [name for name in self._contents if has_variables or name in self._objects.values()]
        self._contents |= source.values
        if self._random_states:
            self._contents[RANDOM] = self._random_states[0] if len(self._random_states) == 1 else self._random_states
        with os.fdopen(new_file(Path(path)), "wb") as file:
            references |= pickle_into(file, self._contents)
        imports = list(source.imports)
        if any("F." in each for each in calls) and not self._has_functional and not self._full_names:
            imports.append(FUNCTIONAL)
        modules = {*(module for module, _ in references), *imported_modules(imports)}
        return ScriptRepro(
            forward.frame,
            self._phases.counts.iteration,
            repr(forward.value),
            sys.executable,
            {"Python": sys.version.split()[0], "PyTorch": str(torch.__version__)},
            tuple(dict.fromkeys(source.future)),
            tuple(_in_order(imports)),
            user_folders(modules),
            tuple(source.definitions),
            (*names, *source.values),
            tuple(self._settings()),
            tuple(calls),
            self._values[forward.loss.number],
            tuple(self._parameters()),
            tuple(self._notes()),
        )

    # What the pickled objects need.

    def _source(self) -> tuple[SourceParts, set[tuple[str, str]]]:
        """Return the parts of the script's file that are needed, and all that is pickled by name."""
        main = MainSource(sys.modules["__main__"])
        references = {each for pickle in self._forward.pickled.values() for each in pickle.references}
        left_out: set[str] = set()
        while True:
            names = {name.partition(".")[0] for module, name in references if module == "__main__"}
            without_source = sorted(name for name in names if not main.binds(name))
            if without_source:
                raise CannotRepeat(f"the source of {without_source[0]} is not found in the script's file")
            found = main.parts(names)
            found.values = {name: each for name, each in found.values.items() if name not in left_out}
            before = len(references), len(left_out)
            for name, value in found.values.items():
                try:
                    references |= pickle_into(io.BytesIO(), value)
                except Exception:
                    left_out.add(name)  # what needs it raises a NameError, which is seen when the script is tried
            if before == (len(references), len(left_out)):
                return found, references

    # Calls.

    def _calls(self) -> list[str]:
        for call in self._forward.calls:
            if call.random_state is not None and call.random_after is not None:
                self._set_random(call.random_state, call.autocast)
                self._random = call.random_after
            self._add(call)
        self._write_waiting()
        return list(_aligned(self._lines))

    def _set_random(self, state: torch.Tensor, autocast: str | None) -> None:
        """Add the line that sets the random state before a call, where it is another by then."""
        if self._random is not None and torch.equal(self._random, state):
            return
        self._write_waiting()
        index = f"[{len(self._random_states)}]" if self._count_random_states() > 1 else ""
        self._random_states.append(state)
        self._lines.append((f'torch.set_rng_state(saved["{RANDOM}"]{index})', "", autocast))

    def _count_random_states(self) -> int:
        """Return how many random states have to be set."""
        count, last = 0, None
        for call in self._forward.calls:
            if call.random_state is not None:
                count += last is None or not torch.equal(last, call.random_state)
                last = call.random_after
        return count

    def _add(self, call: TapedCall) -> None:
        """Add the line of a call; one whose value only the next calls need, and no variable held, waits for those."""
        expression, output = self._expression_of_line(call), call.output
        if call.written and isinstance(call.args[0], TensorUse):
            self._values[call.written[0]] = self._spell(call.args[0])
            self._add_line(expression, call)
            return
        if isinstance(output, TensorUse):
            number = output.number
            has_name = number in self._forward.names or number == self._forward.loss.number
            if not has_name and self._uses[number] == 1 and len(expression) <= MAX_INLINE_LENGTH:
                self._waiting.append(_Waiting(number, expression, call))
                return
        self._write_waiting()
        self._add_line(self._assigned(call, expression), call)

    def _expression_of_line(self, call: TapedCall) -> str:
        """Return a call with what waits for it inside, where all of it is computed in the same order as it was."""
        waiting = {each.number: each for each in self._waiting}
        given = [each.number for each in parts((call.args, call.kwargs)) if isinstance(each, TensorUse)]
        inside = [waiting[each] for each in given if each in waiting]
        rest = self._waiting[: len(self._waiting) - len(inside)]
        are_last = all(one is other for one, other in zip(self._waiting[len(rest) :], inside, strict=True))
        if are_last and all((each.call.source, each.call.autocast) == (call.source, call.autocast) for each in inside):
            self._values |= {each.number: f"({each.text})" for each in inside}
            expression = _plain(self._expression(call))
            if len(expression) <= MAX_LINE_LENGTH:
                self._waiting = rest
                return expression
        self._write_waiting()
        return _plain(self._expression(call))

    def _write_waiting(self) -> None:
        """Add the lines of the calls that wait, each with a variable."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            self._add_line(f"{self._bind(each.number, each.call)} = {each.text}", each.call)

    def _add_line(self, line: str, call: TapedCall) -> None:
        self._lines.append((line, call.source, call.autocast))

    def _assigned(self, call: TapedCall, expression: str) -> str:
        """Return the statement that keeps what a call returns."""
        output = call.output
        if isinstance(output, TensorUse):
            return f"{self._bind(output.number, call)} = {expression}"
        if isinstance(output, tuple) and all(isinstance(each, TensorUse) or each is None for each in output):
            copied = {each.number for each in self._copies}
            used = [each and each.number in self._uses and each.number not in copied and each for each in output]
            if len(used) == 1:
                return f"({self._bind(output[0].number, call)},) = {expression}"
            if sum(map(bool, used)) < MIN_USED_SHARE * len(used):
                variable = self._unused("", "output")
                self._values |= {each.number: f"{variable}[{index}]" for index, each in enumerate(used) if each}
                return f"{variable} = {expression}"
            return f"{', '.join(self._bind(each.number, call) if each else '_' for each in used)} = {expression}"
        variable = self._unused("", "output")
        for use, path in _paths(output):
            self._values[use.number] = variable + path
        return f"{variable} = {expression}"

    def _bind(self, number: int, call: TapedCall) -> str:
        """Return a new variable for a tensor that a call has made."""
        is_loss = number == self._forward.loss.number
        fallback = "output"
        if is_loss:
            fallback = "loss" if self._forward.unscaled is None else "scaled_loss"
        if not isinstance(call.function, PickledUse) and not is_loss:
            fallback = getattr(call.function, "__name__", "value").strip("_")
            fallback += "_" * hasattr(builtins, fallback)
        variable = self._values[number] = self._unused(self._forward.names.get(number, ""), fallback)
        return variable

    def _expression(self, call: TapedCall) -> str:
        """Return a call as Python writes it."""
        if isinstance(call.function, PickledUse):
            return f"{self._spell(call.function)}({self._arguments(call.args, call.kwargs)})"
        name = resolve_name(call.function)
        if name is None:
            name = _importable(call.function)
        args, kwargs = call.args, _without_defaults(call.function, call.kwargs)
        owner, _, short = name.rpartition(".")
        if owner == "torch.Tensor":
            return self._method(short, args, kwargs)
        if short == "__get__":
            return f"{self._operand(args[0])}.{owner.rpartition('.')[2]}"
        if getattr(torch, short, None) is call.function:
            owner = "torch"
        if owner == "torch.nn.functional" and not self._full_names:
            owner = "F"
        return f"{owner}.{short}({self._arguments(args, kwargs)})"

    def _method(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """Return a call of a method of a tensor, as an operator where it is one."""
        if name == "__getitem__":
            return f"{self._operand(args[0])}[{self._index(args[1])}]"
        if name == "__setitem__":
            return f"{self._operand(args[0])}[{self._index(args[1])}] = {self._spell(args[2])}"
        if len(args) == 2 and not kwargs and name in IN_PLACE_OPERATORS:
            return f"{self._spell(args[0])} {IN_PLACE_OPERATORS[name]} {self._spell(args[1])}"
        if len(args) == 2 and not kwargs and name in OPERATORS:
            operands = [self._operand(each) for each in (args[::-1] if name.startswith("__r") else args)]
            return f"{operands[0]} {OPERATORS[name]} {operands[1]}"
        if name == "neg" and len(args) == 1:
            return f"-{self._operand(args[0])}"
        return f"{self._operand(args[0])}.{name}({self._arguments(args[1:], kwargs)})"

    def _arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        texts = [*map(self._spell, args), *(f"{name}={self._spell(each)}" for name, each in kwargs.items())]
        return ", ".join(texts)

    def _operand(self, value: Any) -> str:
        text = self._spell(value)
        return f"({text})" if text.startswith("-") or not isinstance(value, (int, float, *USES)) else text

    def _index(self, value: Any) -> str:
        """Return what stands between the brackets of an index."""
        if isinstance(value, slice):
            bounds = ["" if each is None else self._spell(each) for each in (value.start, value.stop, value.step)]
            return ":".join(bounds if bounds[2] else bounds[:2])
        if isinstance(value, tuple) and value:
            return ", ".join(map(self._index, value)) + "," * (len(value) == 1)
        return "..." if value is ... else self._spell(value)

    def _spell(self, value: Any) -> str:
        """Return a value as Python writes it."""
        if isinstance(value, TensorUse):
            if value in self._copies:
                return self._copies[value]
            return self._values[value.number]
        if isinstance(value, ParameterUse):
            return self._objects[value.module] + value.path
        if isinstance(value, PickledUse):
            return self._objects[value.key] + value.path
        return literal(value, self._spell)

    # Variables.

    def _roles(self) -> dict[TensorUse, str]:
        """Return what calls name the tensors that they are given: "target"."""
        roles: dict[TensorUse, str] = {}
        for call in self._forward.calls:
            function: Any = call.function
            if isinstance(function, PickledUse):
                function = (
                    None if function.path else getattr(self._contents[self._objects[function.key]], "forward", None)
                )
            try:
                names = tuple(inspect.signature(function).parameters)
            except (TypeError, ValueError):
                names = ()
            for name, value in (*zip(names, call.args, strict=False), *call.kwargs.items()):
                if isinstance(value, TensorUse):
                    roles.setdefault(value, name)
        return roles

    def _unused(self, name: str, fallback: str) -> str:
        """Return a variable that is not taken, and take it."""
        name = re.sub(r"\W+", "_", name).strip("_")
        if not name.isidentifier() or keyword.iskeyword(name):
            name = fallback
        variable, number = name, 2
        while variable in self._taken:
            variable, number = f"{name}_{number}", number + 1
        self._taken.add(variable)
        return variable

    # The rest of the script.

    def _settings(self) -> Iterator[str]:
        """Yield the lines that set what numbers depend on."""
        yield f"torch.set_num_threads({torch.get_num_threads()})"
        if torch.get_default_dtype() is not torch.float32:
            yield f"torch.set_default_dtype({torch.get_default_dtype()})"
        if torch.get_float32_matmul_precision() != "highest":
            yield f'torch.set_float32_matmul_precision("{torch.get_float32_matmul_precision()}")'
        if torch.are_deterministic_algorithms_enabled():
            yield "torch.use_deterministic_algorithms(True)"

    def _parameters(self) -> Iterator[str]:
        """Yield the items of a dict of all parameters by name."""
        models = [self._objects[key] for key, each in self._forward.pickled.items() if each.has_params]
        for variable in models:
            prefix = f'prefix="{variable}"' if len(models) > 1 else ""
            yield f"**dict({variable}.named_parameters({prefix}))"
        for use, variable in self._copies.items():
            if self._forward.copies[use].requires_grad:
                name = variable.removeprefix('saved["').removesuffix('"]')
                yield f'"{name}": {variable}'

    def _notes(self) -> Iterator[str]:
        detached = [self._copies[use] for use in self._copies if use.number in self._forward.detached]
        if detached:
            names, they = " and ".join(detached), "it" if len(detached) == 1 else "them"
            yield f"No gradient goes on behind {names}: what made {they} was not recorded."
        if self._forward.unscaled is not None:
            yield f"GradScaler had scaled this loss, which was {self._forward.unscaled!r} before."
        if not self._phases.is_loss_alone:
            yield "The backward of the run began at several tensors, of which this loss is the first."


def _paths(output: Any, path: str = "") -> Iterator[tuple[TensorUse, str]]:
    """Yield the tensors in an output, each with the way to it: "[0]", '["logits"]', ".logits"."""
    if isinstance(output, TensorUse):
        yield output, path
    elif isinstance(output, tuple):
        for index, each in enumerate(output):
            yield from _paths(each, f"{path}[{index}]")
    elif isinstance(output, dict):
        for key, each in output.items():
            yield from _paths(each, path + key)


def _plain(statement: str) -> str:
    """Return a statement without the brackets that it does not need, and with double quotes."""
    text = ast.unparse(ast.parse(statement))
    return text if '"' in text or "\\" in text else text.replace("'", '"')


def _importable(function: Callable[..., Any]) -> str:
    """Return the full name of a function that torch.overrides has no name for."""
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
    value: Any = sys.modules.get(getattr(function, "__module__", "") or "")
    for part in getattr(function, "__qualname__", "").split("."):
        value = getattr(value, part, None)
    if value is not function or not name.startswith("torch."):
        raise CannotRepeat(f"a call of {getattr(function, '__name__', 'a function')} has no name that could be written")
    return name


def _without_defaults(function: Callable[..., Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the arguments that have their default value."""
    try:
        params = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return dict(kwargs)
    defaults = {name: each.default for name, each in params.items()}
    return {
        name: each
        for name, each in kwargs.items()
        if name not in defaults or type(each) is not type(defaults[name]) or each != defaults[name]
    }


def _aligned(lines: list[tuple[str, str, str | None]]) -> Iterator[str]:
    """Yield lines with the script's own lines in comments behind, under each context that they stand in."""
    texts = [("    " * (context is not None) + line, source, context) for line, source, context in lines]
    width = max((len(text) for text, source, _ in texts if source and len(text) <= 70), default=0)
    last: str | None = None
    for text, source, context in texts:
        if context != last and context is not None:
            yield f"with {context}:"
        last = context
        yield f"{text:{width}}  # {source}" if source else text


def _in_order(imports: list[str]) -> list[str]:
    """Return imports once each, those of the standard library first."""
    own = {"import torch", "from pathlib import Path"}
    unique = [each for each in dict.fromkeys(imports) if each not in own]
    return sorted(unique, key=lambda each: (each.split()[1].partition(".")[0] not in sys.stdlib_module_names, each))
