"""Files of weights and states as no script saves them: cut, altered, of other models, or made to run something."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from safetensors.torch import save
from torch import nn, optim

State = dict[Any, Any]
OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "sgd": lambda params: optim.SGD(params, lr=0.1),
    "sgd,momentum=0.9": lambda params: optim.SGD(params, lr=0.1, momentum=0.9),
    "adam": lambda params: optim.Adam(params, lr=0.1),
    "adafactor": lambda params: optim.Adafactor(params, lr=0.1),
}
DTYPES = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64]
NAMES = ["w", "b", "w.b", "model", "optimizer", "state", "param_groups", "params", "lr", "", "a b"]
KEYS = [*NAMES, 0, -1, None, (1,)]
NUMBERS = [True, 0, -1, 3, 10**30, 0.5, float("nan"), float("inf"), 1j]
PLAIN = [*NUMBERS, None, "text", "", [], {}, (), [[]], {1: 2}]  # type: ignore[var-annotated]

KIND = r"(sparse|quantized|complex|without values|a value of type \w+)"
FORMS = [
    r"is cut short, damaged, or not what torch\.save or safetensors writes",
    r"holds \S+, which is neither a tensor nor a plain value: nothing in it was run",
    r"holds a value of type \w+( as \w+)?, and no state dict",
    r"holds no state dict, neither bare nor as one of [\w, ]+",
    r"holds no state dict of an optimizer: that has state and param_groups",
    r"does not fit the model:(;? \d+ (missing|unexpected|no tensors|of another (shape|kind)) \([^;()].*?\))+",
    r"is from another optimizer than \w+: it has no [\w, ]+",
    r"does not fit the optimizer: its groups hold (no|[\d, ]+) parameters in place of \d+",
    rf"does not fit \w+: ([\w ]+ is {KIND}|\w+ of \w+ has shape \(.*\)|it lacks '\w+')",
]
REFUSALS = rf'^autograd-tui: "[^"]*spoiled\.\w+" ({"|".join(FORMS)})\.$'  # in no other words is a file refused


class Call:
    """Calls a function when it is unpickled by whoever runs what is in a file."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def small_resnet18(weights: object = None) -> nn.Module:
    """Stand in for resnet18: a few kilobytes, and as many classes."""
    return nn.Sequential(nn.Conv2d(3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 1000))


def line() -> State:
    return {"w": torch.tensor([5.0]), "b": torch.tensor([7.0])}


def stepped(optimizer: str) -> State:
    """Give the state dict of an optimizer that has trained the line."""
    params = [nn.Parameter(each) for each in line().values()]
    made = OPTIMIZERS[optimizer](params)
    (params[0] + params[1]).backward()
    made.step()
    return made.state_dict()


def dangerous(rng: random.Random, ran: Path) -> Call:
    """Give what would make the folder `ran`."""
    code = f"__import__('os').mkdir({str(ran)!r})"
    calls = [Call(os.mkdir, str(ran)), Call(os.system, f"mkdir {ran}"), Call(eval, code), Call(exec, code)]
    return rng.choice(calls)


def odd_tensor(rng: random.Random) -> torch.Tensor:
    shape = rng.choice([(), (0,), (1,), (1,), (1,), (2,), (1, 1), (1000, 1)])
    full = torch.full(shape, rng.choice([0.0, 1.0, float("nan"), 1e30]))
    kind = rng.randrange(7)
    if kind == 0:
        return full.to_sparse() if full.dim() else full
    if kind == 1:
        return torch.quantize_per_tensor(torch.zeros(shape), 0.1, 0, torch.qint8)
    if kind == 2:
        return full.to("meta")
    if kind == 3:
        return torch.zeros(1).expand(10**12)  # four bytes in the file
    return nn.Parameter(full) if kind == 4 else full.nan_to_num(posinf=1.0).clamp(max=9).to(rng.choice(DTYPES))


def odd(rng: random.Random, ran: Path) -> object:
    """Give what has no business in a state dict."""
    kind = rng.random()
    if kind < 0.5:
        return odd_tensor(rng)
    if kind < 0.6:
        return dangerous(rng, ran)
    return nn.Linear(1, 1) if kind < 0.65 else rng.choice(PLAIN)


def spoiled(value: Any, rng: random.Random, ran: Path) -> Any:
    """Change one place, deep in it or not."""
    if isinstance(value, (list, tuple)) and value and rng.random() < 0.85:
        place = rng.randrange(len(value))
        inside = [] if rng.random() < 0.1 else [spoiled(value[place], rng, ran)]
        return type(value)([*value[:place], *inside, *value[place + 1 :]])
    if not isinstance(value, dict) or not value or rng.random() < 0.1:
        return odd(rng, ran)
    key, way = rng.choice(list(value)), rng.random()
    if way < 0.15:
        return {each: inside for each, inside in value.items() if each != key}
    if way < 0.3:
        return {rng.choice(KEYS) if each == key else each: inside for each, inside in value.items()}
    if way < 0.4:
        return {**value, rng.choice(KEYS): odd(rng, ran)}
    return {**value, key: spoiled(value[key], rng, ran)}


def flipped(content: bytes, rng: random.Random) -> bytes:
    """Change, take out or put in a few bytes, or cut the end off."""
    if rng.random() < 0.2:
        return content[: rng.randrange(len(content) + 1)]
    for _ in range(rng.choice([1, 1, 2, 5, 50])):
        place = rng.randrange(len(content) + 1)
        content = content[:place] + rng.randbytes(rng.randrange(3)) + content[place + rng.randrange(3) :]
    return content


def rezipped(content: bytes, rng: random.Random) -> bytes:
    """Leave out, rename, swap and damage entries of a zip, whose checksums are right all the same."""
    file = io.BytesIO()
    with ZipFile(io.BytesIO(content)) as old, ZipFile(file, "w") as new:
        for name in old.namelist():
            way, data = rng.randrange(20), old.read(name)
            if way == 0:
                continue
            name = f"{name}{rng.choice('x/.')}" if way == 1 else name
            data = old.read(rng.choice(old.namelist())) if way == 2 else data
            new.writestr(name, flipped(data, rng) if way in (3, 4, 5) else data)
    return file.getvalue()


def beheaded(content: bytes, rng: random.Random) -> bytes:
    """Damage the header of safetensors, whose length is mostly right all the same."""
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size]
    if rng.random() < 0.5:
        header = flipped(header, rng)
    else:
        wrong = {"dtype": ["F64", "BOOL", "X", 3], "shape": [[2], [-1], [], "1", [1 << 62, 4]]}
        wrong["data_offsets"] = [[0, 1 << 62], [4, 0], [0, 0], [-4, 4], [], "04", [0, 8]]
        read = json.loads(header)
        part = rng.choice(list(wrong))
        read[rng.choice(list(read))][part] = rng.choice(wrong[part])  # type: ignore[arg-type]
        header = json.dumps(read).encode()
    size = len(header) if rng.random() < 0.8 else rng.choice([0, 1, size, 1 << 40, (1 << 64) - 1])
    return size.to_bytes(8, "little") + header + content[8 + size :]


def written(value: Any, way: str, rng: random.Random) -> bytes:
    """Save it one way, and sometimes damage what is saved."""
    file = io.BytesIO()
    if way == "safetensors":
        try:
            content = save(value)
        except Exception:  # safetensors holds tensors under names, and nothing else
            content = save(line())
        return rng.choice([beheaded, beheaded, flipped])(content, rng)
    if way == "pickle":
        pickle.dump(value, file, protocol=rng.randrange(6))
    else:
        torch.save(value, file, _use_new_zipfile_serialization=way == "zip")
    damages = [lambda content, _: content] * 4 + [flipped, *[rezipped] * (way == "zip")]
    return rng.choice(damages)(file.getvalue(), rng)


def some_file(rng: random.Random, folder: Path) -> list[str]:
    """Write a file in the folder, and give the command line that opens it; folder / "ran" is what may not appear."""
    optimizer, of_weights = rng.choice(list(OPTIMIZERS)), rng.random() < 0.3
    model = small_resnet18().state_dict() if of_weights else line()
    value = rng.choice([dict(model), {"model": dict(model), "optimizer": stepped(optimizer), "epoch": 3}])
    path = folder / f"spoiled{rng.choice(['.pth', '.pt'])}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
            value = spoiled(value, rng, folder / "ran")
        way = rng.choice(["zip", "zip", "zip", "legacy", "pickle", "safetensors"])
        if way == "safetensors" or rng.random() < 0.03:
            path = path.with_suffix(".safetensors")
        try:
            path.write_bytes(written(value, way, rng))
        except Exception:  # what cannot be saved is in no file
            path.write_bytes(rng.randbytes(rng.randrange(100)))
    if of_weights:
        return ["resnet18", "--image-size", "8", "--weights", str(path), "--headless", "--do", "fbsz"]
    return ["linear", "--optimizer", optimizer, "--state", str(path), "--headless", "--do", "fbsz*2"]
