"""Catches what PyTorch raises inside of each call that is followed, and prints it."""

import sys
import traceback

import torch
from bits import print_bits


class Refusing(torch.optim.SGD):
    def step(self, closure=None):
        raise RuntimeError("no step")

    def zero_grad(self, set_to_none=True):
        raise RuntimeError("nothing is cleared")


def fail(*_):
    raise RuntimeError("raised by a hook or a closure")


def hooked_backward():
    loss = model(torch.ones(3, 2)).sum()
    loss.register_hook(fail)
    loss.backward()


def second_backward():
    loss = model(torch.ones(3, 2)).pow(2).sum()
    loss.backward()
    torch.autograd.backward([loss])


def grad_of_another():
    torch.autograd.grad(model(torch.ones(1, 2)).sum(), [torch.ones(1, requires_grad=True)])


def clip():
    model.weight.grad.fill_(torch.nan)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)


def unscale_twice():
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(model(torch.ones(3, 2)).sum()).backward()
    scaler.unscale_(optimizer)
    scaler.unscale_(optimizer)


def step_without_scale():
    torch.amp.GradScaler("cpu").step(optimizer)


def schedule():
    torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer).step("much")


def ask():
    input("? ")


CALLS = {
    "hooked backward": hooked_backward,
    "second backward": second_backward,
    "grad": grad_of_another,
    "clip": clip,
    "unscale": unscale_twice,
    "scaler": step_without_scale,
    "scheduler": schedule,
    "optimizer": lambda: torch.optim.SGD([], 0.1),
    "closure": lambda: optimizer.step(fail),
    "own step": lambda: Refusing(model.parameters(), 0.1).step(),
    "own zero_grad": lambda: Refusing(model.parameters(), 0.1).zero_grad(),
    "zero_grad": lambda: model.zero_grad(True, True),
    "input": ask,
}
torch.manual_seed(0)
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for name, call in CALLS.items():
    print(name, file=sys.stderr)
    try:
        call()
    except Exception:
        traceback.print_exc()
print_bits(model)
