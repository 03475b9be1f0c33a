"""What the training loop of a file does besides forward, backward, step and zero_grad, found in its text."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

MAX_QUOTE_LENGTH = 70  # characters of a statement that is quoted
DEVICE_MOVES = {"to", "cuda", "cpu", "contiguous"}  # which change no number
DTYPES = ("float", "bfloat", "double", "half", "int", "long", "bool")
HARMLESS_CALLS = {  # which only say or keep something
    *("print", "append", "extend", "item", "log", "info", "debug", "warning", "write", "writerow", "flush", "save"),
    *("add_scalar", "add_scalars", "add_histogram", "set_description", "set_postfix", "set_postfix_str", "close"),
    *("len", "str", "float", "int", "format", "time", "perf_counter", "state_dict", "synchronize", "empty_cache"),
    *("sum", "max", "min", "any", "all", "list", "zip", "enumerate", "isinstance", "norm", "stack", "sqrt", "mean"),
    *("parameters", "named_parameters", "train", "watch", "join"),
}
STATEFUL_CALLS = {
    "step",
    "zero_grad",
    "eval",
    "set_epoch",
    "manual_seed",
    "manual_seed_all",
    "set_rng_state",
    "seed",
    "load_state_dict",
}
SCHEDULE = ": --decay plateau is the schedule that there is."
Function = ast.FunctionDef | ast.AsyncFunctionDef
Loop = ast.For | ast.AsyncFor | ast.While


@dataclass(frozen=True, slots=True)
class Names:
    """What the names of a file stand for."""

    model: str
    optimizer: str
    loss: str
    others: Mapping[str, str] = field(default_factory=dict)  # "scheduler", "optimizer", "scaler" or "model", by name


def find_unsupported(source: str, roles: Names) -> list[tuple[int, str]]:
    """Find what the file's loop does and four phases do not: the line of each thing, and a sentence."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    matches: dict[int, str] = {}
    for region in _training_loops(tree):
        for line, sentence in _LoopReader(region, roles, _training_functions(tree)).read():
            matches.setdefault(line, sentence)
    return sorted(matches.items())


def _training_loops(tree: ast.Module) -> Iterator[list[ast.stmt]]:
    """Give the statements of each loop that trains: of a function that does so, too, and of the loops that call it."""
    trainers = _training_functions(tree)
    scopes: list[tuple[ast.AST, dict[str, str]]] = [(tree, {})]
    scopes += [(node, _aliases(tree, node)) for node in ast.walk(tree) if isinstance(node, Function)]
    for scope, aliases in scopes:
        for statements in _outermost(getattr(scope, "body", []), trainers):
            yield [_RenameParameters(aliases).visit(statement) for statement in statements]


def _outermost(statements: Sequence[ast.stmt], trainers: set[str]) -> Iterator[list[ast.stmt]]:
    """Give the outermost loops that train, or else the statements around a backward."""
    if any(_is_call_of(call, trainers) for each in statements for call in _calls(each) if _is_simple(each)):
        yield list(statements)
        return
    for each in statements:
        if isinstance(each, Function | ast.ClassDef) or not _trains(each, trainers):
            continue
        if isinstance(each, Loop):
            yield [each]
        else:
            for inside in _bodies(each):
                yield from _outermost(inside, trainers)


def _training_functions(tree: ast.Module) -> set[str]:
    """Name the functions that run a backward, and "backward" itself."""
    functions = [node for node in ast.walk(tree) if isinstance(node, Function)]
    matches = {"backward"}
    for _ in functions:
        matches |= {each.name for each in functions if any(_is_call_of(call, matches) for call in _calls(each))}
    return matches


class _LoopReader:
    """Reads the statements of one loop."""

    def __init__(self, statements: list[ast.stmt], roles: Names, trainers: set[str]) -> None:
        self._statements, self._roles, self._trainers = statements, roles, trainers
        self._events: list[tuple[str, int]] = []  # backward, step and zero_grad as they come, with their lines
        simple = list(_simple(statements))
        self._losses = {name for each in simple for call in _calls(each) if (name := _differentiated(call))}
        of_loss = [value for name, value in _assignments(simple) if name in self._losses]
        calls = [call for each in simple for call in _calls(each) if self._is_model(call)]
        self._used = {name for each in (*of_loss, *calls) for name in _names(each)}  # by model and loss
        self._used -= {roles.model, roles.loss, *self._losses}

    def read(self) -> Iterator[tuple[int, str]]:
        """Give what is left out, with its line."""
        yield from self._read(self._statements)
        kinds = [kind for kind, _ in self._events]
        first = self._statements[0].lineno
        if "backward" in kinds and "step" in kinds and "zero_grad" not in kinds:
            yield first, "its loop has no zero_grad: there gradients add up, here each iteration clears them."
        turned = (self._events[index:] + self._events[:index] for index in range(3))
        for (before, _), (kind, line), (after, _) in zip(*turned, strict=True):
            if (before, kind, after) == ("backward", "zero_grad", "step"):
                yield line, "its zero_grad comes between backward and step: here it comes after step."
        for kind in ("backward", "step"):
            for _, line in [each for each in self._events if each[0] == kind][1:]:
                yield line, f"one {kind} is run in each iteration: this one is left out."

    def _read(self, statements: Iterable[ast.stmt]) -> Iterator[tuple[int, str]]:
        for each in statements:
            if isinstance(each, Loop) and not _trains(each, self._trainers):
                if self._touches(each):
                    yield each.lineno, _is_left_out(each)
            elif isinstance(each, Loop) and self._only_adds_up(each):
                yield each.lineno, f"{_quote(each)} runs several backwards for a step: here it is one."
                yield from self._read(each.body)
            elif isinstance(each, ast.If):
                yield from self._read_if(each)
            elif isinstance(each, ast.With | ast.AsyncWith):
                predicts = any(self._is_model(call) for call in _calls(each))
                items = (_quote(item.context_expr) for item in each.items if predicts and _changes_numbers(item))
                yield from ((each.lineno, f"{item} is left out.") for item in items)
                yield from self._read(each.body)
            elif _is_simple(each):
                yield from ((each.lineno, sentence) for sentence in self._read_simple(each))
            elif not isinstance(each, Function | ast.ClassDef):
                for inside in _bodies(each):
                    yield from self._read(inside)

    def _only_adds_up(self, loop: Loop) -> bool:
        """Tell whether a loop has backwards alone, and the step comes after it."""
        inside = {self._phase(call) for call in _calls(loop)}
        around = {self._phase(call) for each in self._statements for call in _calls(each)}
        return "backward" in inside and "step" not in inside and "step" in around

    def _read_if(self, statement: ast.If) -> Iterator[tuple[int, str]]:
        inside = [*statement.body, *statement.orelse]
        phases = [call for each in inside for call in _calls(each) if self._phase(call)]
        if any(isinstance(node, ast.Continue) for each in inside for node in ast.walk(each)):
            yield statement.lineno, f"it leaves out iterations if {_quote(statement.test)}: here none is left out."
        elif phases and not _is_main(statement.test):
            yield (
                statement.lineno,
                f"{_text(phases[0].func)}() runs only if {_quote(statement.test)}: here it runs in each iteration.",
            )
        yield from self._read(inside)

    def _read_simple(self, statement: ast.stmt) -> Iterator[str]:
        calls = list(_calls(statement))
        for call in calls:
            if phase := self._phase(call):
                self._events.append((phase, statement.lineno))
                yield from self._phase_with_more(call, phase)
                return
        if any(_is_call_of(call, self._trainers) for call in calls):
            return
        if isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign):
            if self._changes(statement):
                yield f"{_quote(statement)} {self._what_is_here(statement)}."
        elif isinstance(statement, ast.Expr) and self._touches(statement):
            schedule = any(_last(call.func) == "step" and self._kind(call) == "scheduler" for call in calls)
            yield _is_left_out(statement)[: -1 if schedule else None] + SCHEDULE * schedule

    def _phase(self, call: ast.Call) -> str:
        """Name the phase that a call is; "" where it is none."""
        if not isinstance(call.func, ast.Attribute):
            return ""
        holder, name = _text(call.func.value), call.func.attr
        if name == "backward" or (name == "zero_grad" and holder in (self._roles.model, self._roles.optimizer)):
            return name
        scaled = self._kind(call) == "scaler" and [_text(arg) for arg in call.args] == [self._roles.optimizer]
        return "step" if name == "step" and (holder == self._roles.optimizer or scaled) else ""

    def _phase_with_more(self, call: ast.Call, phase: str) -> Iterator[str]:
        """Say what a phase has besides itself: arguments, a scaler, a part of a loss."""
        assert isinstance(call.func, ast.Attribute)
        more = [_text(each) for each in (*call.args, *call.keywords)]
        if "scale(" in _text(call.func) or (phase == "step" and self._kind(call) == "scaler"):
            yield f"{_quote(call)} is a plain {phase} here: a GradScaler is left out."
        elif phase == "backward" and not (isinstance(call.func.value, ast.Name) or self._is_loss(call.func.value)):
            yield f"{_quote(call)} is a backward of the loss itself here."
        elif phase != "zero_grad" and more:
            yield f"{_quote(call)} is a plain {phase}() here: {', '.join(more)} is left out."

    def _changes(self, statement: ast.Assign | ast.AugAssign | ast.AnnAssign) -> bool:
        """Tell whether an assignment changes what is trained with, and is none of the four phases."""
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        value = statement.value
        if value is None:
            return False
        if (
            isinstance(value, ast.Tuple)
            and isinstance(targets[0], ast.Tuple)
            and len(value.elts) == len(targets[0].elts)
        ):
            pairs = zip(targets[0].elts, value.elts, strict=True)
            return any(self._changes(ast.Assign([target], each)) for target, each in pairs)
        names = {name for target in targets for name in _names(target)}
        if any(isinstance(target, ast.Attribute | ast.Subscript) for target in targets):
            return bool(names & (self._objects() | self._used)) or any(
                f".{each}" in _text(targets[0]) for each in ("grad", "data")
            )
        if names & self._losses:
            told = isinstance(value, ast.Call) and _last(value.func) in ("item", "detach", "float", "tolist")
            return isinstance(statement, ast.AugAssign) or not (told or self._is_loss(value))
        if names & self._used:
            return isinstance(statement, ast.AugAssign) or not (_is_moved(value) or self._is_prediction(value))
        return self._touches(statement)

    def _what_is_here(self, statement: ast.Assign | ast.AugAssign | ast.AnnAssign) -> str:
        """Say what a run does in place of an assignment."""
        names = {name for name, _ in _assignments([statement])}
        if names & self._losses and not (statement.value and _names(statement.value) & self._losses):
            return f"is {self._roles.loss}(prediction, targets) here"
        if names & self._used and any(self._is_model(call) for call in _calls(statement)):
            return f"is {self._roles.model}(inputs) here"
        return "is left out"

    def _is_loss(self, value: ast.expr) -> bool:
        return (
            isinstance(value, ast.Call)
            and _text(value.func) == self._roles.loss
            and len(value.args) == 2
            and not value.keywords
            and (_is_moved(value.args[0]) or self._is_prediction(value.args[0]))
            and _is_moved(value.args[1])
        )

    def _is_prediction(self, value: ast.expr) -> bool:
        return (
            isinstance(value, ast.Call)
            and self._is_model(value)
            and len(value.args) == 1
            and not value.keywords
            and _is_moved(value.args[0])
        )

    def _is_model(self, call: ast.Call) -> bool:
        return _text(call.func) == self._roles.model

    def _touches(self, node: ast.AST) -> bool:
        """Tell whether something does more with what is trained than to tell of it."""
        held = {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
        stored = [each for each in ast.walk(node) if isinstance(getattr(each, "ctx", None), ast.Store)]
        if "param_groups" in held and any(isinstance(each, ast.Attribute | ast.Subscript) for each in stored):
            return True
        if held & {"parameters", "named_parameters"} and any(isinstance(each, ast.Attribute) for each in stored):
            return True
        return any(self._touching(call) for call in _calls(node))

    def _touching(self, call: ast.Call) -> bool:
        name = _last(call.func)
        if name in HARMLESS_CALLS:
            return False
        if (name.endswith("_") and not name.endswith("__")) or name in STATEFUL_CALLS or self._kind(call):
            return True
        held = {each for arg in (*call.args, *(word.value for word in call.keywords)) for each in _names(arg)}
        return bool(held & self._objects()) or _root(call.func) in self._objects()

    def _kind(self, call: ast.Call) -> str:
        """Say what holds the method that is called, where it is one of the file's other objects."""
        root = _root(call.func)
        words = root.lower().split("_")
        guesses = {"scaler": "scaler", "scheduler": "scheduler", "sched": "scheduler", "ema": "model", "swa": "model"}
        return self._roles.others.get(root) or next((guesses[word] for word in words if word in guesses), "")

    def _objects(self) -> set[str]:
        return {self._roles.model, self._roles.optimizer, *self._roles.others}


def _is_left_out(node: ast.AST) -> str:
    return f"{_quote(node)} is left out."


def _quote(node: ast.AST) -> str:
    """Give the first line of what is written there."""
    text = _text(node).splitlines()[0].removesuffix(":")
    return text if len(text) <= MAX_QUOTE_LENGTH else text[: MAX_QUOTE_LENGTH - 1] + "…"


def _text(node: ast.AST) -> str:
    return ast.unparse(node)


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    return (each for each in ast.walk(node) if isinstance(each, ast.Call))


def _names(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _last(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _root(function: ast.expr) -> str:
    """Give the name that a dotted one begins with, also through calls."""
    while isinstance(function, ast.Attribute | ast.Call | ast.Subscript):
        function = function.func if isinstance(function, ast.Call) else function.value
    return getattr(function, "id", "")


def _is_call_of(call: ast.Call, names: set[str]) -> bool:
    return _last(call.func) in names


def _trains(node: ast.AST, trainers: set[str]) -> bool:
    return any(_is_call_of(call, trainers) for call in _calls(node))


def _is_simple(statement: ast.stmt) -> bool:
    return not hasattr(statement, "body")


def _simple(statements: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    for each in statements:
        if _is_simple(each):
            yield each
        for inside in _bodies(each):
            yield from _simple(inside)


def _bodies(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    """Give the blocks of a compound statement."""
    for name in ("body", "orelse", "finalbody"):
        yield getattr(statement, name, [])
    yield from (each.body for each in getattr(statement, "handlers", []))


def _assignments(statements: Iterable[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    for each in statements:
        if isinstance(each, ast.Assign):
            yield from ((name, each.value) for target in each.targets for name in _names(target))


def _differentiated(call: ast.Call) -> str:
    """Name the loss that a backward begins at; "" where the call is none."""
    if _last(call.func) != "backward" or not isinstance(call.func, ast.Attribute):
        return ""
    names = [each.id for each in ast.walk(call.func.value) if isinstance(each, ast.Name)]
    scaled = [each for each in names if "scaler" not in each.lower()]
    return scaled[0] if scaled else ""


def _is_moved(value: ast.expr) -> bool:
    """Tell whether a value is a name, or a part of what it stands for, at most brought to a device."""
    if isinstance(value, ast.Tuple | ast.List):
        return all(map(_is_moved, value.elts))
    if isinstance(value, ast.Call):
        name, inner = _last(value.func), value.func.value if isinstance(value.func, ast.Attribute) else None
        if inner is None and name in ("Variable", "tuple", "list", "next"):
            return len(value.args) == 1 and _is_moved(value.args[0])
        return name in DEVICE_MOVES and inner is not None and not _names_dtype(value) and _is_moved(inner)
    if isinstance(value, ast.ListComp | ast.GeneratorExp):
        return _is_moved(value.elt)
    if isinstance(value, ast.Subscript):
        return isinstance(value.slice, ast.Constant) and _is_moved(value.value)
    return isinstance(value, ast.Name)


def _names_dtype(call: ast.Call) -> bool:
    others = [*call.args, *(word.value for word in call.keywords)]
    dotted = (each.attr for other in others for each in ast.walk(other) if isinstance(each, ast.Attribute))
    return any(each.rstrip("0123456789") in DTYPES for each in dotted)


def _changes_numbers(item: ast.withitem) -> bool:
    """Tell whether a context may change what is computed in it, as autocast does."""
    context = item.context_expr
    return isinstance(context, ast.Name) or "autocast" in _text(context)


def _is_main(test: ast.expr) -> bool:
    return "__name__" in _names(test)


def _aliases(tree: ast.Module, function: Function) -> dict[str, str]:
    """Tell by which names a function's parameters go where it is called."""
    params = [each.arg for each in (*function.args.posonlyargs, *function.args.args) if each.arg != "self"]
    matches: dict[str, str] = {}
    for call in _calls(tree):
        if _last(call.func) == function.name:
            pairs = [*zip(params, call.args, strict=False), *((word.arg or "", word.value) for word in call.keywords)]
            matches |= {name: value.id for name, value in pairs if isinstance(value, ast.Name)}
    return matches


class _RenameParameters(ast.NodeTransformer):
    """Calls what a function uses as the file calls it; what an object holds under a name, by that name."""

    def __init__(self, aliases: Mapping[str, str]) -> None:
        self._aliases = aliases

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.copy_location(ast.Name(self._aliases.get(node.id, node.id), node.ctx), node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            return ast.copy_location(ast.Name(node.attr, node.ctx), node)
        self.generic_visit(node)
        return node
