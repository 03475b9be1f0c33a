"""A short loop that opens the screen itself, in its second iteration and in its fourth."""

import sys

import torch

import autograd_tui

torch.manual_seed(0)
model = torch.nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for iteration in range(5):
    loss = (model(torch.ones(4, 1)) - 2).square().mean()
    if iteration == 1:
        breakpoint() if "breakpoint" in sys.argv else autograd_tui.step_into(loss)
    if iteration == 3 and "twice" in sys.argv:
        autograd_tui.step_into()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"iteration {iteration}: {loss.item():.4f}", flush=True)
if "asks" in sys.argv:
    print("hello", input("name? "))
print("stdin, stdout:", sys.stdin.isatty(), sys.stdout.isatty())
