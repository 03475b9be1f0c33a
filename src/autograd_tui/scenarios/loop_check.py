"""What the training loop of a file does besides forward, backward, step and zero_grad, found in its text."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

MAX_QUOTE_LENGTH = 70  # characters of a statement that is quoted
DEVICE_MOVES = {"to", "cuda", "cpu", "contiguous"}  # which change no number
DTYPES = ("float", "bfloat", "double", "half", "int", "long", "bool")
HARMLESS_CALLS = {  # which only report or keep something
    *("print", "append", "extend", "item", "log", "info", "debug", "warning", "write", "writerow", "flush", "save"),
    *("add_scalar", "add_scalars", "add_histogram", "set_description", "set_postfix", "set_postfix_str", "close"),
    *("len", "str", "float", "int", "format", "time", "perf_counter", "state_dict", "synchronize", "empty_cache"),
    *("sum", "max", "min", "any", "all", "list", "zip", "enumerate", "isinstance", "norm", "stack", "sqrt", "mean"),
    *("parameters", "named_parameters", "train", "watch", "join"),
}
STATEFUL_CALLS = {
    *("step", "zero_grad", "eval", "set_epoch", "seed", "manual_seed", "manual_seed_all", "set_rng_state"),
    "load_state_dict",
}
SCHEDULE_HINT = ": --decay plateau is the schedule that there is."
Function = ast.FunctionDef | ast.AsyncFunctionDef
Loop = ast.For | ast.AsyncFor | ast.While


@dataclass(frozen=True, slots=True)
class Roles:
    """The names that a file gives to what it trains with."""

    model: str
    optimizer: str
    loss: str
    others: Mapping[str, str] = field(default_factory=dict)  # "scheduler", "optimizer", "scaler" or "model", by name


def find_unsupported(source: str, roles: Roles) -> list[tuple[int, str]]:
    """Return what the file's loop does and four phases do not: the line of each thing, and a sentence."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    sentences: dict[int, str] = {}
    for region in _training_loops(tree):
        for line, sentence in _LoopReader(region, roles, _training_functions(tree)).read():
            sentences.setdefault(line, sentence)
    return sorted(sentences.items())


def _training_loops(tree: ast.Module) -> Iterator[list[ast.stmt]]:
    """Yield the statements of each loop that trains: of a function that does so, too, and of the loops that call it."""
    trainers = _training_functions(tree)
    scopes: list[tuple[ast.AST, dict[str, str]]] = [(tree, {})]
    scopes += [(node, _aliases(tree, node)) for node in ast.walk(tree) if isinstance(node, Function)]
    for scope, aliases in scopes:
        for statements in _outermost(getattr(scope, "body", []), trainers):
            yield [_RenameParameters(aliases).visit(statement) for statement in statements]


def _outermost(statements: Sequence[ast.stmt], trainers: set[str]) -> Iterator[list[ast.stmt]]:
    """Yield the outermost loops that train, or else the statements around a backward."""
    if any(_is_simple(each) and _trains(each, trainers) for each in statements):
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
    """Return the names of the functions that run a backward, and "backward" itself."""
    functions = [node for node in ast.walk(tree) if isinstance(node, Function)]
    names = {"backward"}
    for _ in functions:
        names |= {each.name for each in functions if _trains(each, names)}
    return names


class _LoopReader:
    """Reads the statements of one loop."""

    def __init__(self, statements: list[ast.stmt], roles: Roles, trainers: set[str]) -> None:
        self._statements, self._roles, self._trainers = statements, roles, trainers
        self._objects = {roles.model, roles.optimizer, *roles.others}
        self._events: list[tuple[str, int]] = []  # backward, step and zero_grad as they come, with their lines
        simple = list(_simple_statements(statements))
        self._losses = {name for each in simple for call in _calls(each) if (name := _loss_of_backward(call))}
        loss_values = [value for name, value in _assignments(simple) if name in self._losses]
        calls = [call for each in simple for call in _calls(each) if self._is_model(call)]
        self._inputs = {name for each in (*loss_values, *calls) for name in _identifiers(each)}  # of model and loss
        self._inputs -= {roles.model, roles.loss, *self._losses}

    def read(self) -> Iterator[tuple[int, str]]:
        """Yield what is left out, with its line."""
        yield from self._read(self._statements)
        kinds = [kind for kind, _ in self._events]
        first = self._statements[0].lineno
        if "backward" in kinds and "step" in kinds and "zero_grad" not in kinds:
            yield first, "its loop has no zero_grad: there gradients add up, here each iteration clears them."
        rotations = (self._events[index:] + self._events[:index] for index in range(3))
        for (before, _), (kind, line), (after, _) in zip(*rotations, strict=True):
            if (before, kind, after) == ("backward", "zero_grad", "step"):
                yield line, "its zero_grad comes between backward and step: here it comes after step."
        for kind in ("backward", "step"):
            for _, line in [each for each in self._events if each[0] == kind][1:]:
                yield line, f"one {kind} is run in each iteration: this one is left out."

    def _read(self, statements: Iterable[ast.stmt]) -> Iterator[tuple[int, str]]:
        for each in statements:
            if isinstance(each, Loop) and not _trains(each, self._trainers):
                if self._affects_training(each):
                    yield each.lineno, _is_left_out(each)
            elif isinstance(each, Loop) and self._accumulates_gradients(each):
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

    def _accumulates_gradients(self, loop: Loop) -> bool:
        """Return whether a loop has backwards alone, and the step comes after it."""
        inside = {self._phase(call) for call in _calls(loop)}
        around = {self._phase(call) for each in self._statements for call in _calls(each)}
        return "backward" in inside and "step" not in inside and "step" in around

    def _read_if(self, statement: ast.If) -> Iterator[tuple[int, str]]:
        inside = [*statement.body, *statement.orelse]
        phases = [call for each in inside for call in _calls(each) if self._phase(call)]
        if any(isinstance(node, ast.Continue) for each in inside for node in ast.walk(each)):
            yield statement.lineno, f"it leaves out iterations if {_quote(statement.test)}: here none is left out."
        elif phases and "__name__" not in _identifiers(statement.test):
            called, condition = ast.unparse(phases[0].func), _quote(statement.test)
            yield statement.lineno, f"{called}() runs only if {condition}: here it runs in each iteration."
        yield from self._read(inside)

    def _read_simple(self, statement: ast.stmt) -> Iterator[str]:
        calls = list(_calls(statement))
        for call in calls:
            if phase := self._phase(call):
                self._events.append((phase, statement.lineno))
                yield from self._phase_extras(call, phase)
                return
        if _trains(statement, self._trainers):
            return
        if isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign):
            if self._changes(statement):
                yield f"{_quote(statement)} {self._what_is_here(statement)}."
        elif isinstance(statement, ast.Expr) and self._affects_training(statement):
            schedule = any(_called_name(call.func) == "step" and self._role(call) == "scheduler" for call in calls)
            yield _is_left_out(statement)[: -1 if schedule else None] + SCHEDULE_HINT * schedule

    def _phase(self, call: ast.Call) -> str:
        """Return the phase that a call is; "" where it is none."""
        if not isinstance(call.func, ast.Attribute):
            return ""
        holder, name = ast.unparse(call.func.value), call.func.attr
        if name == "backward" or (name == "zero_grad" and holder in (self._roles.model, self._roles.optimizer)):
            return name
        scaled = self._role(call) == "scaler" and [ast.unparse(arg) for arg in call.args] == [self._roles.optimizer]
        return "step" if name == "step" and (holder == self._roles.optimizer or scaled) else ""

    def _phase_extras(self, call: ast.Call, phase: str) -> Iterator[str]:
        """Yield what a phase has besides itself: arguments, a scaler, a part of a loss."""
        assert isinstance(call.func, ast.Attribute)
        more = [ast.unparse(each) for each in (*call.args, *call.keywords)]
        if "scale(" in ast.unparse(call.func) or (phase == "step" and self._role(call) == "scaler"):
            yield f"{_quote(call)} is a plain {phase} here: a GradScaler is left out."
        elif phase == "backward" and not (isinstance(call.func.value, ast.Name) or self._is_loss(call.func.value)):
            yield f"{_quote(call)} is a backward of the loss itself here."
        elif phase != "zero_grad" and more:
            yield f"{_quote(call)} is a plain {phase}() here: {', '.join(more)} is left out."

    def _changes(self, statement: ast.Assign | ast.AugAssign | ast.AnnAssign) -> bool:
        """Return whether an assignment changes what is trained with, and is none of the four phases."""
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        value = statement.value
        if value is None:
            return False
        first = targets[0]
        if isinstance(value, ast.Tuple) and isinstance(first, ast.Tuple) and len(value.elts) == len(first.elts):
            pairs = zip(first.elts, value.elts, strict=True)
            return any(self._changes(ast.Assign([target], each)) for target, each in pairs)
        names = {name for target in targets for name in _identifiers(target)}
        if any(isinstance(target, ast.Attribute | ast.Subscript) for target in targets):
            return bool(names & (self._objects | self._inputs)) or any(
                f".{each}" in ast.unparse(first) for each in ("grad", "data")
            )
        if names & self._losses:
            reads = isinstance(value, ast.Call) and _called_name(value.func) in ("item", "detach", "float", "tolist")
            return isinstance(statement, ast.AugAssign) or not (reads or self._is_loss(value))
        if names & self._inputs:
            return isinstance(statement, ast.AugAssign) or not (_is_unchanged(value) or self._is_prediction(value))
        return self._affects_training(statement)

    def _what_is_here(self, statement: ast.Assign | ast.AugAssign | ast.AnnAssign) -> str:
        """Return what a run does in place of an assignment."""
        names = {name for name, _ in _assignments([statement])}
        if names & self._losses and not (statement.value and _identifiers(statement.value) & self._losses):
            return f"is {self._roles.loss}(prediction, targets) here"
        if names & self._inputs and any(self._is_model(call) for call in _calls(statement)):
            return f"is {self._roles.model}(inputs) here"
        return "is left out"

    def _is_loss(self, value: ast.expr) -> bool:
        return (
            isinstance(value, ast.Call)
            and ast.unparse(value.func) == self._roles.loss
            and len(value.args) == 2
            and not value.keywords
            and (_is_unchanged(value.args[0]) or self._is_prediction(value.args[0]))
            and _is_unchanged(value.args[1])
        )

    def _is_prediction(self, value: ast.expr) -> bool:
        return (
            isinstance(value, ast.Call)
            and self._is_model(value)
            and len(value.args) == 1
            and not value.keywords
            and _is_unchanged(value.args[0])
        )

    def _is_model(self, call: ast.Call) -> bool:
        return ast.unparse(call.func) == self._roles.model

    def _affects_training(self, node: ast.AST) -> bool:
        """Return whether something does more with what is trained than to report on it."""
        attributes = {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
        stored = [each for each in ast.walk(node) if isinstance(getattr(each, "ctx", None), ast.Store)]
        if "param_groups" in attributes and any(isinstance(each, ast.Attribute | ast.Subscript) for each in stored):
            return True
        if attributes & {"parameters", "named_parameters"} and any(isinstance(each, ast.Attribute) for each in stored):
            return True
        return any(self._call_affects_training(call) for call in _calls(node))

    def _call_affects_training(self, call: ast.Call) -> bool:
        name = _called_name(call.func)
        if name in HARMLESS_CALLS:
            return False
        if (name.endswith("_") and not name.endswith("__")) or name in STATEFUL_CALLS or self._role(call):
            return True
        arguments = {
            each for arg in (*call.args, *(word.value for word in call.keywords)) for each in _identifiers(arg)
        }
        return bool(arguments & self._objects) or _root_name(call.func) in self._objects

    def _role(self, call: ast.Call) -> str:
        """Return the role of the object whose method is called; "" where it is none of the file's other objects."""
        root = _root_name(call.func)
        words = root.lower().split("_")
        guesses = {"scaler": "scaler", "scheduler": "scheduler", "sched": "scheduler", "ema": "model", "swa": "model"}
        return self._roles.others.get(root) or next((guesses[word] for word in words if word in guesses), "")


def _is_left_out(node: ast.AST) -> str:
    return f"{_quote(node)} is left out."


def _quote(node: ast.AST) -> str:
    """Return the first line of what is written there."""
    text = ast.unparse(node).splitlines()[0].removesuffix(":")
    return text if len(text) <= MAX_QUOTE_LENGTH else text[: MAX_QUOTE_LENGTH - 1] + "…"


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    return (each for each in ast.walk(node) if isinstance(each, ast.Call))


def _identifiers(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _called_name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _root_name(function: ast.expr) -> str:
    """Return the name that a dotted one begins with, also through calls."""
    while isinstance(function, ast.Attribute | ast.Call | ast.Subscript):
        function = function.func if isinstance(function, ast.Call) else function.value
    return getattr(function, "id", "")


def _trains(node: ast.AST, trainers: set[str]) -> bool:
    return any(_called_name(call.func) in trainers for call in _calls(node))


def _is_simple(statement: ast.stmt) -> bool:
    return not hasattr(statement, "body")


def _simple_statements(statements: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    for each in statements:
        if _is_simple(each):
            yield each
        for inside in _bodies(each):
            yield from _simple_statements(inside)


def _bodies(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    """Yield the blocks of a compound statement."""
    for name in ("body", "orelse", "finalbody"):
        yield getattr(statement, name, [])
    yield from (each.body for each in getattr(statement, "handlers", []))


def _assignments(statements: Iterable[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    for each in statements:
        if isinstance(each, ast.Assign):
            yield from ((name, each.value) for target in each.targets for name in _identifiers(target))


def _loss_of_backward(call: ast.Call) -> str:
    """Return the name of the loss that a backward begins at; "" where the call is none."""
    if _called_name(call.func) != "backward" or not isinstance(call.func, ast.Attribute):
        return ""
    names = [each.id for each in ast.walk(call.func.value) if isinstance(each, ast.Name)]
    scaled = [each for each in names if "scaler" not in each.lower()]
    return scaled[0] if scaled else ""


def _is_unchanged(value: ast.expr) -> bool:
    """Return whether a value is a name, or a part of what it stands for, at most brought to a device."""
    if isinstance(value, ast.Tuple | ast.List):
        return all(map(_is_unchanged, value.elts))
    if isinstance(value, ast.Call):
        name, inner = _called_name(value.func), value.func.value if isinstance(value.func, ast.Attribute) else None
        if inner is None and name in ("Variable", "tuple", "list", "next"):
            return len(value.args) == 1 and _is_unchanged(value.args[0])
        return name in DEVICE_MOVES and inner is not None and not _mentions_dtype(value) and _is_unchanged(inner)
    if isinstance(value, ast.ListComp | ast.GeneratorExp):
        return _is_unchanged(value.elt)
    if isinstance(value, ast.Subscript):
        return isinstance(value.slice, ast.Constant) and _is_unchanged(value.value)
    return isinstance(value, ast.Name)


def _mentions_dtype(call: ast.Call) -> bool:
    others = [*call.args, *(word.value for word in call.keywords)]
    dotted = (each.attr for other in others for each in ast.walk(other) if isinstance(each, ast.Attribute))
    return any(each.rstrip("0123456789") in DTYPES for each in dotted)


def _changes_numbers(item: ast.withitem) -> bool:
    """Return whether a context may change what is computed in it, as autocast does."""
    context = item.context_expr
    return isinstance(context, ast.Name) or "autocast" in ast.unparse(context)


def _aliases(tree: ast.Module, function: Function) -> dict[str, str]:
    """Return the names that stand for a function's parameters where it is called."""
    params = [each.arg for each in (*function.args.posonlyargs, *function.args.args) if each.arg != "self"]
    aliases: dict[str, str] = {}
    for call in _calls(tree):
        if _called_name(call.func) == function.name:
            pairs = [*zip(params, call.args, strict=False), *((word.arg or "", word.value) for word in call.keywords)]
            aliases |= {name: value.id for name, value in pairs if isinstance(value, ast.Name)}
    return aliases


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
