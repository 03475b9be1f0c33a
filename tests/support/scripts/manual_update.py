"""No module, no optimizer: two tensors that are moved by hand, each in another way; one graph is used twice."""

import torch
from bits import print_bits

torch.manual_seed(4)
w = torch.randn(3, requires_grad=True)
b = torch.zeros((), requires_grad=True)
x = torch.randn(12, 3)
y = x @ torch.tensor([1.0, -2.0, 0.5]) + 3.0

for step in range(3):
    loss = (x @ w + b - y).square().mean()
    loss.backward(retain_graph=step == 1)
    if step == 1:
        loss.backward()
    w.data.add_(w.grad, alpha=-0.05)
    with torch.no_grad():
        b -= 0.05 * b.grad
    w.grad = None
    b.grad.zero_()
    print(step, f"{loss.item():.4f}")
print_bits(w, b)
