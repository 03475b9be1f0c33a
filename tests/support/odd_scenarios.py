"""Scenarios that nobody would write: odd values at every place where a run takes one."""

from __future__ import annotations

import random
from collections import OrderedDict, deque, namedtuple
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.data import DataLoader, TensorDataset

from autograd_tui.engine.training.data_loader import from_loader
from autograd_tui.engine.training.scenario import Options, Parts, Scenario
from autograd_tui.scenarios.script_scenario import script_scenario

CODE = "import os\nos.mkdir('ran')  # "
TEXTS = [
    *("", " ", "text", "a b", "a.b", "lr", "loss", "0", "-1", "class", "é∞\U0001f600", "x" * 10_000, "\udcff", "\0"),
    *("\x1b[2J\x1b]0;owned\x07", "one\ntwo", "'''", '"""', "\\", "\\'", "#", "{x}", "{0}", "%s", "@@", "</script>"),
    *("=1+1", "+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", "'\n" + CODE, '"\n' + CODE, "\n" + CODE, "[red]x[/red]", "[/]"),
]
NUMBERS = [True, 0, 1, -1, 3, 10**30, -(10**400), 0.5, -0.5, 1e308, float("nan"), float("inf"), -float("inf"), 1j]
WORDS = ["__repr__", "__str__", "__eq__", "__len__", "__bool__", "__hash__", "__iter__", "__getitem__", "__float__"]
WORDS += ["__getattr__", "__call__", "__int__", "__index__", "__format__", "__contains__", "__deepcopy__", "__array__"]
WORDS += ["__torch_function__", "__fspath__", "__lt__", "__add__", "__radd__", "keys", "items", "__next__"]


def raising(*args: object, **kwargs: object) -> Any:
    """Raise, as every one of an object's methods may."""
    raise some_error(random.Random(len(args)))


def huge(*args: object, **kwargs: object) -> Any:
    """Give a text of a million characters, as a __repr__ may."""
    return "x\n" * 500_000


def some_error(rng: random.Random) -> BaseException:
    """Make an error, of a class with an odd name or message."""
    kinds: list[Callable[[], BaseException]] = [
        lambda: ValueError(rng.choice(TEXTS)),
        lambda: type(rng.choice(TEXTS).replace("\0", "").replace("\udcff", "") or "Bad", (Exception,), {})("mine"),
        lambda: type("Mute", (Exception,), {"__str__": raising})(),
        lambda: type("Nameless", (Exception,), {"__str__": lambda self: None})(),
        lambda: type("Huge", (Exception,), {"__str__": huge})(),
        lambda: type("Hashless", (Exception,), {"__eq__": raising, "__hash__": None})(),
        lambda: KeyError(object_with(rng)),
        lambda: SyntaxError(rng.choice(TEXTS), ("file.py", rng.choice([None, 0, -1, 10**9]), 0, "text")),
        lambda: SyntaxError(),
        lambda: ExceptionGroup("several", [ValueError("x")]),
        lambda: StopIteration(3),
        lambda: GeneratorExit(),
        lambda: SystemExit(rng.choice([0, None, "text"])),
        lambda: MemoryError(),
        lambda: KeyboardInterrupt(),
        lambda: OSError(28, "full", rng.choice(TEXTS)),
        lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    ]
    return rng.choice(kinds[:-3] if rng.random() < 0.97 else kinds[:14] + kinds[15:])()


def object_with(rng: random.Random) -> Any:
    """Make an object whose methods raise, or say too much."""
    names = rng.sample(WORDS, rng.randrange(1, 6))
    methods = {
        name: rng.choice([raising, raising, huge, lambda *_, **__: None, lambda *_, **__: 10**12]) for name in names
    }
    base = rng.choice([object, object, object, str, dict, list, tuple, int, float])
    try:
        return type(rng.choice(["Odd", "Odd", "Odd\nName", "x" * 3000]), (base,), methods)()
    except BaseException:
        return object()


class Subclass(Tensor):
    """A tensor that is none of torch's own."""


class Jealous(Tensor):
    """A tensor subclass in whose presence every function raises."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise TypeError("mine alone")


def some_tensor(rng: random.Random) -> Tensor:
    """Make a tensor of any kind."""
    shape = rng.choice(
        [(), (0,), (1,), (2,), (4,), (4, 1), (4, 2), (2, 4), (1,) * 10, (0, 3), (3, 40), (2000,), (1, 1, 3)]
    )
    full = torch.full(shape, rng.choice([0.0, 1.0, -2.5, 1e30, 1e-30, float("nan"), float("inf")]))
    kinds: list[Callable[[], Tensor]] = [
        *[lambda: full] * 3,
        lambda: full.requires_grad_(),
        lambda: full.requires_grad_() * 2,
        lambda: nn.Parameter(full),
        lambda: full.nan_to_num(posinf=1.0).clamp(-9, 9).to(rng.choice([torch.float64, torch.float16, torch.bfloat16])),
        lambda: (
            full.nan_to_num(posinf=1.0).clamp(0, 9).to(rng.choice([torch.int64, torch.uint8, torch.bool, torch.int8]))
        ),
        lambda: full.nan_to_num(posinf=1.0).clamp(0, 9).to(torch.float8_e4m3fn),
        lambda: full.to(rng.choice([torch.complex64, torch.complex128])),
        lambda: full.to(torch.complex64).requires_grad_(),
        lambda: full.to_sparse() if full.dim() else full,
        lambda: full.to_sparse_csr() if full.dim() == 2 and full.numel() else full,
        lambda: torch.quantize_per_tensor(torch.zeros(shape), 0.1, 0, torch.qint8),
        lambda: full.to("meta"),
        lambda: torch.zeros(1).expand(10**12),
        lambda: torch.nested.nested_tensor(
            [torch.ones(2), torch.ones(3)], layout=rng.choice([torch.strided, torch.jagged])
        ),
        lambda: full.as_subclass(Subclass),
        lambda: full.as_subclass(Jealous),
        lambda: full.clone().as_strided((2, 2), (0, 0)) if full.numel() else full,
        lambda: torch.empty(shape, dtype=torch.bits8),
        lambda: inference(shape),
        lambda: full.conj(),
        lambda: nn.parameter.UninitializedParameter(),
    ]
    return rng.choice(kinds)()


def inference(shape: tuple[int, ...]) -> Tensor:
    with torch.inference_mode():
        return torch.ones(shape)


Pair = namedtuple("Pair", "a b")


def some_value(rng: random.Random, depth: int = 0) -> Any:
    """Give what has no business where it is given."""
    kind = rng.random()
    if kind < 0.3:
        return some_tensor(rng)
    if kind < 0.4:
        return rng.choice(TEXTS)
    if kind < 0.5:
        return rng.choice(NUMBERS)
    if kind < 0.6:
        return object_with(rng)
    if kind < 0.8 and depth < 3:
        inside = [some_value(rng, depth + 1) for _ in range(rng.choice([0, 1, 2, 2, 3]))]
        keys = [rng.choice(["loss", "total_loss", "logits", "x", 0, None, (1,), *TEXTS]) for _ in inside]
        by_key = dict(zip(keys, inside, strict=True))
        containers: list[Callable[[], Any]] = [
            *[lambda: inside, lambda: tuple(inside)] * 2,
            lambda: by_key,
            lambda: OrderedDict(by_key),
            lambda: MappingProxyType(by_key),
            lambda: deque(inside),
            lambda: Pair(*[*inside, None, None][:2]),
            lambda: SimpleNamespace(loss=inside[0] if inside else None, logits=1),
            lambda: (each for each in inside),
            lambda: iter(inside),
            lambda: endless(),
            lambda: map(str, [1]),
        ]
        return rng.choice(containers)()
    others: list[Any] = [None, None, b"bytes", object(), object, nn.Linear, nn.Linear(2, 1), print, raising, some_value]
    others += [lambda *_: None, np.ones(3), np.float64(1.5), np.array("x"), torch.float32, torch.Size([2]), random, ...]
    others += [
        NotImplemented,
        range(3),
        {1, 2},
        SimpleNamespace(),
        torch.device("cpu"),
        holds_itself(),
        nn.ModuleList(),
    ]
    return rng.choice(others)


def endless() -> Iterator[Tensor]:
    while True:
        yield torch.ones(2)


def holds_itself() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


class Model(nn.Module):
    """Predicts, after whatever odd thing has been asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)
        self.does: list[Callable[[Model], None]] = []
        self.calls = 0

    def forward(self, x: Any) -> Any:
        self.calls += 1
        for each in self.does:
            each(self)
        return self.last(torch.relu(self.norm(self.first(x))))


@dataclass
class Made:
    """What a scenario is made of, before anything is odd about it."""

    model: Any = field(default_factory=Model)
    title: Any = "odd"
    defaults: dict[str, Any] = field(default_factory=dict)
    x: Any = field(default_factory=lambda: torch.rand(4, 2))
    y: Any = field(default_factory=lambda: torch.rand(4, 1))
    parts: dict[str, Any] = field(default_factory=dict)
    gives: Any = None  # what build gives, if not Parts

    def __post_init__(self) -> None:
        x, y = self.x, self.y
        self.parts = {"batch": lambda i: (x, y), "loss": nn.functional.mse_loss} | self.parts


HOOKS: list[Any] = []  # handles of hooks on all optimizers, to be removed after a case


def later(value: Callable[[], Any], rng: random.Random) -> Callable[..., Any]:
    """Make a function that gives something right a few times, or never, before it is odd."""
    calls, first = [0], rng.choice([0, 0, 0, 1, 2])

    def odd(usual: Callable[[], Any]) -> Any:
        calls[0] += 1
        return value() if calls[0] > first else usual()

    return odd


def raise_or_give(rng: random.Random) -> Callable[[], Any]:
    seed = rng.random()

    def give() -> Any:
        own = random.Random(seed)
        if own.random() < 0.25:
            raise some_error(own)
        return some_value(own)

    return give


# Each makes one thing odd.


def odd_part(made: Made, rng: random.Random) -> None:
    names = ["model", "batch", "loss", "forward", "optimizer", "groups", "listing", "names", "metrics", "class_names"]
    made.parts[rng.choice([*names, "settled", *TEXTS[:3], "made_up"])] = some_value(rng)


def odd_batch(made: Made, rng: random.Random) -> None:
    odd, x, y = later(raise_or_give(rng), rng), made.x, made.y
    made.parts["batch"] = lambda i: odd(lambda: (x, y))


def odd_pair(made: Made, rng: random.Random) -> None:
    x, y = rng.choice([(some_value(rng), made.y), (made.x, some_value(rng)), (some_tensor(rng), some_tensor(rng))])
    made.parts["batch"] = lambda i: (x, y)


def odd_loss(made: Made, rng: random.Random) -> None:
    odd = later(raise_or_give(rng), rng)
    made.parts["loss"] = lambda prediction, target: odd(lambda: nn.functional.mse_loss(prediction, target))


def wide_loss(made: Made, rng: random.Random) -> None:
    """Give a loss that has a graph, and is yet no plain number."""
    kinds: list[Callable[[Tensor], Any]] = [
        lambda p: p,
        lambda p: p.to(torch.complex64).sum(),
        lambda p: p.sum().to(torch.float16),
        lambda p: p.sum().reshape((1,) * 9),
        lambda p: p[:0].sum(),
        lambda p: p[:0],
        lambda p: p.sum().to("meta"),
        lambda p: p.sum() * float("nan"),
        lambda p: p.detach().sum(),
        lambda p: p.sum().long(),
        lambda p: (p.sum(), p),
        lambda p: {"loss": p.sum(), rng.choice(TEXTS): p.mean(), 1: 2},
        lambda p: {rng.choice(TEXTS): p.sum(), None: p.mean()},
        lambda p: p.sum().as_subclass(Subclass),
        lambda p: p.sum().as_subclass(Jealous),
        lambda p: p.sum().item(),
        lambda p: p.to_sparse().sum(),
        lambda p: p.to_sparse(),
        lambda p: torch.utils.checkpoint.checkpoint(torch.sum, p, use_reentrant=False),
        lambda p: p.sum().requires_grad_().retain_grad() or p.sum(),  # type: ignore[func-returns-value]
        lambda p: (p * 1e38 * 1e38).sum(),
        lambda p: nn.Parameter(torch.ones(())),
    ]
    kind = rng.choice(kinds)
    if rng.random() < 0.5:
        made.parts["loss"] = lambda prediction, target: kind(prediction)
    else:
        made.parts.pop("loss", None)
        made.parts["forward"] = lambda model, batch: kind(model(batch[0]))


def odd_forward(made: Made, rng: random.Random) -> None:
    odd = later(raise_or_give(rng), rng)
    made.parts.pop("loss", None)
    made.parts["forward"] = lambda model, batch: odd(lambda: nn.functional.mse_loss(model(batch[0]), batch[1]))


def odd_output(made: Made, rng: random.Random) -> None:
    """Give a loss that is right, with an output that is not."""
    value = some_value(rng)
    made.parts.pop("loss", None)
    made.parts["forward"] = lambda model, batch: (nn.functional.mse_loss(model(batch[0]), batch[1]), value)


def odd_prediction(made: Made, rng: random.Random) -> None:
    odd = later(raise_or_give(rng), rng)
    model = made.model
    if isinstance(model, Model):
        usual = model.forward
        model.forward = lambda x: odd(lambda: usual(x))  # type: ignore[method-assign]
        if rng.random() < 0.5:
            made.parts["loss"] = lambda prediction, target: sum(each.sum() for each in model.parameters())


def odd_metrics(made: Made, rng: random.Random) -> None:
    give = raise_or_give(rng)
    keys = [rng.choice([*TEXTS, 3, None, ("a",), "loss"]) for _ in range(rng.choice([1, 1, 2, 30]))]
    made.parts["metrics"] = {key: rng.choice([lambda p, t: give(), some_value(rng)]) for key in keys}


def odd_listing(made: Made, rng: random.Random) -> None:
    keys = ["setup", "forward", "backward", "step", "zero_grad", "other", 3, None, *TEXTS]
    values = [*TEXTS, "", *[some_value(rng) for _ in range(8)], "\n" * 3000, "x = 1\n\n\ty"]
    made.parts["listing"] = {rng.choice(keys): rng.choice(values) for _ in range(rng.choice([1, 2, 5]))}


def odd_names(made: Made, rng: random.Random) -> None:
    some = [*TEXTS, some_value(rng), some_value(rng), None, 3]
    given = [rng.choice(some) for _ in range(rng.choice([0, 1, 2, 3, 3, 3, 3, 4]))]
    made.parts["names"] = rng.choice([tuple(given), tuple(given), given, "xyz", set(map(str, range(3)))])


def odd_classes(made: Made, rng: random.Random) -> None:
    some = [*TEXTS, some_value(rng), None, 3]
    given = [rng.choice(some) for _ in range(rng.choice([0, 1, 20, 40]))]
    made.parts["class_names"] = rng.choice([tuple(given), given, "names", dict(enumerate(map(str, range(40))))])
    if rng.random() < 0.7:
        made.model.last = nn.Linear(3, 40)
        x, y = made.x, torch.rand(4, 40)
        made.parts["batch"] = lambda i: (x, y)


def odd_optimizer(made: Made, rng: random.Random) -> None:
    words = ["adam", "sgd,lr=0.1,momentum=0.9", "lbfgs", "sparseadam", "muon", "adafactor", "asgd", "rprop", "radam"]
    words += [
        "sgd,lr=nan",
        "sgd,lr=inf",
        "sgd,lr=-1",
        "sgd,lr=1e999",
        "adam,betas=(0.9,0.99)",
        "adam,betas=3",
        "optimizer",
    ]
    words += [
        "adam,fused=true",
        "adam,capturable=true",
        "adam,foreach=true",
        "sgd,momentum=text",
        "sgd,lr",
        ",",
        "sgd,=1",
    ]
    words += [
        "adam,amsgrad=true",
        "sgd,differentiable=true",
        "adam,differentiable=true",
        "sgd,maximize=true",
        "adamw,eps=0",
    ]
    model = made.model
    others = [torch.optim.SGD, object_with(rng), *TEXTS]
    if isinstance(model, nn.Module):
        others.append(torch.optim.SGD(model.parameters(), lr=0.1))
    made.parts["optimizer"] = rng.choice([*words * 2, *others])


def odd_groups(made: Made, rng: random.Random) -> None:
    model = made.model
    if not isinstance(model, nn.Module):
        return
    params = list(model.parameters())
    named = [name for name, _ in model.named_parameters()]
    members = [
        params,
        params[:1],
        named,
        named[:1],
        [named[0], params[0]],
        model.parameters(),
        list(model.named_parameters()),
    ]
    members += [some_value(rng), params * 2, [], [torch.ones(1)], [nn.Parameter(torch.ones(1))], params[0], "nobody"]
    keys = ["lr", "momentum", "betas", "weight_decay", "name", "params ", *TEXTS]
    values = [*NUMBERS, *TEXTS, torch.tensor(0.1), (0.9, 0.99), some_value(rng), np.float64(0.1)]
    groups = [
        {"params": each} | {rng.choice(keys): rng.choice(values) for _ in range(rng.choice([0, 1, 1, 2]))}
        for each in (rng.choice([params[:2], params[2:], *members]) for _ in range(rng.choice([1, 2, 2, 3])))
    ]
    if rng.random() < 0.4:
        groups = [{"params": params[:2], rng.choice(keys): rng.choice(values)}, {"params": params[2:]}]
    made.parts["groups"] = rng.choice([groups, groups, groups, tuple(groups), iter(groups), groups[0], {1: 2}])


def odd_defaults(made: Made, rng: random.Random) -> None:
    names = ["width", "batch_size", "image_size", "data", "weights", "device", "values", "seed", "generator", "flag"]
    made.defaults[rng.choice([*names, *TEXTS])] = some_value(rng)
    if rng.random() < 0.3:
        made.defaults["device"] = rng.choice(
            ["cpu", "meta", "cuda", "cpu:1", "", 3, None, torch.device("cpu"), object_with(rng)]
        )


def odd_title(made: Made, rng: random.Random) -> None:
    made.title = rng.choice([*TEXTS, some_value(rng)])


def odd_build(made: Made, rng: random.Random) -> None:
    made.gives = raise_or_give(rng)


def odd_parameter_names(made: Made, rng: random.Random) -> None:
    model = made.model
    name = rng.choice(
        [*TEXTS, "w.b", "w", "b", "weight", "requires_grad", "lr", "data", "_parameters", "forward", "first"]
    )
    with_it: list[Callable[[], Any]] = [
        lambda: model._parameters.__setitem__(name, nn.Parameter(torch.ones(rng.choice([(), (1,), (2, 2), (0,)])))),
        lambda: model._buffers.__setitem__(name, some_tensor(rng)),
        lambda: model._modules.__setitem__(name, nn.Linear(2, 1)),
        lambda: model._parameters.__setitem__(rng.choice([3, None, ("a",)]), nn.Parameter(torch.ones(1))),
        lambda: setattr(model.first, "weight", model.first.weight),
        lambda: model._modules.__setitem__(name, model.first),
        lambda: model._buffers.__setitem__(name, None),
    ]
    rng.choice(with_it)()
    if rng.random() < 0.5 and isinstance(model._parameters.get(name), nn.Parameter):
        odd = model._parameters[name]
        made.parts["loss"] = lambda p, t: nn.functional.mse_loss(p, t) + odd.sum()


def odd_parameters(made: Made, rng: random.Random) -> None:
    """Give the model parameters that are no plain ones, or none."""
    model = made.model

    def param(tensor: Tensor) -> nn.Parameter:
        try:
            return nn.Parameter(tensor.detach(), requires_grad=rng.random() < 0.8 and tensor.is_floating_point())
        except Exception:
            return nn.Parameter(torch.ones(1))

    kinds: list[Callable[[], Any]] = [
        lambda: model.requires_grad_(False),
        lambda: setattr(made, "model", nn.Identity()),
        lambda: setattr(made, "model", nn.LazyLinear(1)),
        lambda: setattr(made, "model", nn.Sequential()),
        lambda: setattr(made, "model", nn.utils.parametrizations.weight_norm(nn.Linear(2, 1))),
        lambda: setattr(made, "model", torch.jit.trace(nn.Linear(2, 1), made.x)),
        lambda: setattr(made, "model", nn.Linear(2, 1).double()),
        lambda: setattr(made, "model", nn.Linear(2, 1, device="meta")),
        lambda: setattr(made, "model", nn.utils.spectral_norm(nn.Linear(2, 1))),
        lambda: setattr(made, "model", nn.Bilinear(2, 2, 1)),
        lambda: setattr(made, "model", nn.Embedding(3, 2, sparse=True)),
        *[lambda: model.register_parameter("own", param(some_tensor(rng)))] * 6,
        lambda: setattr(model.first, "weight", param(some_tensor(rng))),
        lambda: setattr(model.norm, "running_mean", some_tensor(rng)),
        lambda: model._parameters.__setitem__("own", some_value(rng)),
        lambda: model._buffers.__setitem__("own", some_value(rng)),
        lambda: model._modules.__setitem__("own", some_value(rng)),
    ]
    rng.choice(kinds)()
    own = getattr(made.model, "own", None)
    if isinstance(own, nn.Parameter) and own.requires_grad and rng.random() < 0.7:
        usual = made.parts["loss"]
        made.parts["loss"] = lambda p, t: usual(p, t) + own.abs().sum()


CHANGES: list[Callable[[Model, random.Random], Any]] = [
    lambda model, rng: setattr(model.first.weight, "data", torch.ones(rng.choice([(5, 2), (3, 3), (0,), ()]))),
    lambda model, rng: setattr(model.last.bias, "data", torch.ones(2)),
    lambda model, rng: setattr(model.last.bias, "data", some_tensor(rng)),
    lambda model, rng: setattr(model.last, "bias", nn.Parameter(torch.ones(rng.choice([1, 2])))),
    lambda model, rng: setattr(model, "last", nn.Linear(3, 1)),
    lambda model, rng: setattr(model, "last", nn.Linear(3, 2)),
    lambda model, rng: delattr(model.last, "bias"),
    lambda model, rng: setattr(model.last, "bias", None),
    lambda model, rng: model.register_parameter(f"new_{model.calls}", nn.Parameter(torch.ones(1))),
    lambda model, rng: model.register_buffer(f"new_{model.calls}", some_tensor(rng)),
    lambda model, rng: model.register_buffer("new", some_tensor(rng)),
    lambda model, rng: setattr(model, "odd", some_value(rng)),
    lambda model, rng: setattr(model, "held", [object_with(rng), some_value(rng)]),
    lambda model, rng: model.double(),
    lambda model, rng: model.half(),
    lambda model, rng: model.to("meta"),
    lambda model, rng: model.requires_grad_(rng.random() < 0.5),
    lambda model, rng: model.eval(),
    lambda model, rng: model._parameters.clear(),
    lambda model, rng: model._modules.pop("norm", None),
    lambda model, rng: model.last.bias.data.resize_(rng.choice([0, 2, 5])),
    lambda model, rng: model.last.bias.set_(torch.ones(rng.choice([1, 2]))),  # type: ignore[call-overload]
    lambda model, rng: setattr(model.last.bias, "grad", torch.ones(1)),
    lambda model, rng: setattr(model.last.bias, "grad", torch.ones(1).to_sparse()),
    lambda model, rng: model.last.bias.register_hook(lambda grad: rng.choice([None, grad * 2, torch.ones(1)])),
    lambda model, rng: model.last.bias.register_hook(lambda grad: some_value(rng)),
    lambda model, rng: setattr(model.norm, "running_mean", some_tensor(rng)),
    lambda model, rng: setattr(model.norm, "num_batches_tracked", None),
    lambda model, rng: model.norm._buffers.__setitem__("running_var", some_value(rng)),
    lambda model, rng: vars(model).pop("calls"),
    lambda model, rng: vars(model).__setitem__(3, "x"),  # type: ignore[index]
    lambda model, rng: torch.set_grad_enabled(False),
    lambda model, rng: torch.set_default_dtype(torch.float64),
    lambda model, rng: torch.manual_seed(3),
    lambda model, rng: model.last.bias.data.fill_(float("nan")),
]


def changed_during(made: Made, rng: random.Random) -> None:
    """Change the model while it runs: in its forward, in hooks of its backward, in hooks of the optimizer."""
    model, change, seed, first = made.model, rng.choice(CHANGES), rng.random(), rng.choice([0, 1, 2])
    if not isinstance(model, Model):
        return
    calls = [0]

    def does(*_: Any) -> None:
        calls[0] += 1
        if calls[0] > first:
            change(model, random.Random(seed))

    where = rng.randrange(6)
    if where < 3:
        model.does.append(does)
    elif where == 3:
        model.first.weight.register_hook(does)
    elif where == 4:
        model.last.weight.register_post_accumulate_grad_hook(does)
    else:
        HOOKS.append(rng.choice([register_optimizer_step_pre_hook, register_optimizer_step_post_hook])(does))


def hooks_that_raise(made: Made, rng: random.Random) -> None:
    model, give = made.model, raise_or_give(rng)
    if not isinstance(model, Model):
        return
    kinds: list[Callable[[], Any]] = [
        lambda: model.last.bias.register_hook(lambda grad: give()),
        lambda: model.last.bias.register_post_accumulate_grad_hook(lambda param: give()),
        lambda: model.register_forward_hook(lambda *_: give()),
        lambda: model.first.register_forward_pre_hook(lambda *_: give()),
        lambda: model.first.register_full_backward_hook(lambda *_: give()),
        lambda: HOOKS.append(register_optimizer_step_post_hook(lambda *_: give())),
        lambda: HOOKS.append(register_optimizer_step_pre_hook(lambda *_: give())),
        lambda: model.register_state_dict_post_hook(lambda *_: give()),
        lambda: setattr(model, "named_parameters", lambda *_, **__: give()),
        lambda: setattr(model, "parameters", lambda *_, **__: give()),
        lambda: setattr(model, "named_modules", lambda *_, **__: give()),
        lambda: setattr(model, "modules", lambda *_, **__: give()),
        lambda: setattr(model, "to", lambda *_, **__: give()),
        lambda: setattr(model, "train", lambda *_, **__: give()),
    ]
    rng.choice(kinds)()


def odd_optimizer_state(made: Made, rng: random.Random) -> None:
    """Change the optimizer's state and groups from a hook, as a custom one does in its step."""
    seed, first, calls = rng.random(), rng.choice([0, 1]), [0]

    def change(optimizer: Any, *_: Any) -> None:
        calls[0] += 1
        if calls[0] <= first:
            return
        own = random.Random(seed)
        params = optimizer.param_groups[0]["params"]
        kinds: list[Callable[[], Any]] = [
            *[lambda: optimizer.state[params[0]].__setitem__(own.choice(["own", *TEXTS, 3]), some_value(own))] * 6,
            lambda: optimizer.state.__setitem__(params[0], some_value(own)),
            lambda: optimizer.state.__setitem__(
                own.choice([params[0], "text", 3]), own.choice([None, "text", {}, {1: 2}])
            ),
            lambda: optimizer.param_groups[0].__setitem__("lr", some_value(own)),
            lambda: optimizer.param_groups[0].__setitem__("lr", torch.tensor(0.1)),
            lambda: optimizer.param_groups[0].__setitem__(own.choice(["own", *TEXTS]), some_value(own)),
            lambda: optimizer.param_groups[0].__setitem__("params", params[:1]),
            lambda: optimizer.param_groups[0].__setitem__("params", []),
            lambda: optimizer.param_groups[0].pop("lr"),
            lambda: optimizer.param_groups.clear(),
            lambda: optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": 3}),
            lambda: setattr(optimizer, "state", some_value(own)),
            lambda: setattr(optimizer, "param_groups", some_value(own)),
            lambda: optimizer.state.clear(),
        ]
        own.choice(kinds)()

    HOOKS.append(rng.choice([register_optimizer_step_pre_hook, register_optimizer_step_post_hook])(change))


def odd_loader(made: Made, rng: random.Random) -> None:
    """Take batches from a loader that lies, raises, or holds odd things."""

    class Lying(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return length()

        def __getitem__(self, place: int) -> Any:
            return item(place)

    give = raise_or_give(rng)
    length = rng.choice([lambda: 0, lambda: -1, lambda: 2, lambda: 10**6, lambda: 8, raising, give])
    item = rng.choice(
        [lambda i: (torch.rand(2), torch.rand(1)), lambda i: give(), lambda i: (torch.ones(2), torch.ones(1))]
    )
    if rng.random() < 0.3:
        made.parts["batch"] = from_loader(some_value(rng))
        return
    options: dict[str, Any] = rng.choice(
        [{}, {"batch_size": 2}, {"batch_size": None}, {"shuffle": True, "batch_size": 2}]
    )
    if rng.random() < 0.3:
        options |= {"collate_fn": lambda each: give()}
    data = rng.choice([Lying(), Lying(), TensorDataset(torch.rand(4, 2), torch.rand(4, 1))])
    made.parts["batch"] = from_loader(DataLoader(data, **options))


ODDITIES = [
    *(odd_part, odd_batch, odd_batch, odd_pair, odd_loss, odd_loss, wide_loss, wide_loss, odd_forward, odd_output),
    *(odd_prediction, odd_prediction, odd_metrics, odd_listing, odd_names, odd_classes, odd_optimizer, odd_groups),
    *(odd_groups, odd_build, odd_parameter_names, odd_parameter_names, odd_parameters),
    *(odd_parameters, changed_during, changed_during, changed_during, hooks_that_raise, odd_optimizer_state),
    *(odd_optimizer_state, odd_loader),
]


def oddities(rng: random.Random) -> list[Callable[[Made, random.Random], None]]:
    """Choose what is odd."""
    return [rng.choice(ODDITIES) for _ in range(rng.choice([1, 1, 1, 2, 3]))]


def parts_of(number: int) -> Any:
    """Build the parts of case `number`, the same each time."""
    rng = random.Random(number)
    made = Made()
    for make in oddities(rng):
        make(made, rng)
    if callable(made.gives):
        return made.gives()
    return Parts(**{"model": made.model} | made.parts)


def odd_scenario(number: int, module: str) -> Scenario:
    """Make the scenario of case `number`, as if it stood in a module."""
    rng, made = random.Random(f"outside {number}"), Made()
    for make in (odd_title, odd_defaults):
        if rng.random() < 0.07:
            make(made, rng)
    if rng.random() < 0.1:
        return script_scenario(made.title, odd_script(rng), lambda: odd_script(rng))

    def build(options: Options) -> Any:
        return parts_of(number)

    build.__module__ = module
    return Scenario(made.title, build, made.defaults)


def odd_script(rng: random.Random) -> Mapping[str, Any]:
    """Give what a script leaves under plain names, with a few odd values."""
    model = Model()
    names: dict[str, Any] = {"model": model, "x": torch.rand(4, 2), "y": torch.rand(4, 1), "loss": nn.MSELoss()}
    names["optim"] = rng.choice(
        [
            lambda: torch.optim.SGD(model.parameters(), lr=0.1),
            lambda: torch.optim.Adam(model.parameters(), lr=torch.tensor(0.1)),
            lambda: torch.optim.AdamW(
                [{"params": model.first.parameters()}, {"params": model.last.parameters(), "lr": 1.0}]  # type: ignore[arg-type]
            ),
            lambda: torch.optim.SGD(
                [{"params": [each], rng.choice(TEXTS) or "a": 1} for each in model.parameters()], lr=0.1
            ),
            lambda: type("Own", (torch.optim.SGD,), {})(model.parameters(), lr=0.1),
            lambda: "sgd",
        ]
    )()
    odd: list[Callable[[], Any]] = [
        lambda: names.__setitem__(
            rng.choice([*names, "net", "data", "labels", "loader", "scheduler"]), some_value(rng)
        ),
        lambda: names["optim"].state[next(model.parameters())].__setitem__("own", some_value(rng)),
        lambda: names["optim"].param_groups[0].__setitem__(rng.choice(["lr", "momentum", "own"]), some_value(rng)),
        lambda: names.__setitem__("__file__", some_value(rng)),
        lambda: setattr(names["optim"], "param_groups", some_value(rng)),
    ]
    for _ in range(rng.choice([0, 1, 1, 2])):
        try:
            rng.choice(odd)()
        except Exception:
            continue
    return names
