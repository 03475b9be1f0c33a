"""What a file's own loop does besides the four phases is named, each thing with its line."""

from __future__ import annotations

import textwrap

import pytest

from autograd_tui.scenarios.loop_check import Roles, find_unsupported

ROLES = Roles(
    "model",
    "optimizer",
    "criterion",
    {"scheduler": "scheduler", "ema": "model", "scaler": "scaler", "opt2": "optimizer"},
)
LOOP = """
for epoch in range(10):
    for x, y in loader:
        out = model(x)
        loss = criterion(out, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
"""  # each line has a number of its own, from 2 on


def found(loop: str) -> list[tuple[int, str]]:
    return find_unsupported(textwrap.dedent(loop), ROLES)


def changed(*changes: tuple[str, str]) -> str:
    loop = LOOP
    for old, new in changes:
        assert old in loop
        loop = loop.replace(old, new)
    return loop


def after(line: str, *more: str, indent: int = 8) -> str:
    """Put lines behind one of the loop."""
    return changed((line, "\n".join([line, *(" " * indent + each for each in more)])))


PLAIN = {
    "as it is": LOOP,
    "zero_grad last": LOOP.replace("        optimizer.zero_grad()\n", "") + "        optimizer.zero_grad()\n",
    "zero_grad first": changed(("out = model(x)", "optimizer.zero_grad(set_to_none=True)\n        out = model(x)")),
    "by the model": changed(("optimizer.zero_grad", "model.zero_grad")),
    "in one expression": changed(("out = model(x)\n", "pass\n"), ("criterion(out, y)", "criterion(model(x), y)")),
    "all in one": changed(
        ("out = model(x)\n", "pass\n"), ("loss = criterion(out, y)", "pass"), ("loss.b", "criterion(model(x), y).b")
    ),
    "moved": after("for x, y in loader:", "x, y = x.to(device, non_blocking=True), y.cuda()"),
    "taken apart": changed(("for x, y in", "for i, batch in")).replace(
        "out =", "x, y = [each.to(device) for each in batch]; out ="
    ),
    "enumerated": changed(("for x, y in loader", "for i, (x, y) in enumerate(tqdm(loader))")),
    "in a function": "def train():" + textwrap.indent(LOOP, "    ") + "\nif __name__ == '__main__':\n    train()\n",
    "in the main part": "if __name__ == '__main__':" + textwrap.indent(LOOP, "    "),
    "under other names": "def train(net, opt, loss_fn):"
    + textwrap.indent(LOOP.replace("model", "net").replace("optimizer", "opt").replace("criterion", "loss_fn"), "    ")
    + "\ntrain(model, opt=optimizer, loss_fn=criterion)\n",
    "a function of a step": """
        def step(x, y):
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss.item()

        def main():
            for epoch in range(3):
                model.train()
                for x, y in loader:
                    value = step(x, y)
                    print(epoch, value)
        """,
    "told": after(
        "optimizer.step()",
        "running += loss.item() * x.size(0)",
        "losses.append(loss.detach())",
        "if i % 100 == 0:",
        "    print(epoch, loss.item(), optimizer.param_groups[0]['lr'])",
        "    torch.save(model.state_dict(), 'model.pt')",
        "correct += (out.argmax(1) == y).sum().item()",
        "writer.add_scalar('loss', loss, i)",
        "loss = loss.item()",
    ),
    "norms that are kept": after(
        "loss.backward()", "for name, p in model.named_parameters():", "    norms[name] = p.grad.norm()"
    ),
    "a norm that is kept": after(
        "loss.backward()", "norm = sum(p.grad.norm() ** 2 for p in model.parameters()) ** 0.5"
    ),
    "told and kept under its name": after("optimizer.step()", "bar.update(1)", "loss, place = loss.item(), i * len(x)"),
    "in an object": "class Trainer:\n    def fit(self, data):"
    + textwrap.indent(LOOP.replace("model", "self.model").replace("optimizer", "self.optimizer"), "        ")
    + "\nTrainer().fit(loader)\n",
    "until": after("optimizer.step()", "if loss < 0.1:", "    break"),
    "no loop": "model.eval()\nscheduler.step()\n",
    "no Python": "for",
}


@pytest.mark.parametrize("kind", PLAIN)
def test_a_loop_of_four_phases_leaves_nothing_out(kind: str) -> None:
    assert found(PLAIN[kind]) == []


PLATEAU = "--decay plateau is the schedule that there is."
BEHIND = "loss.backward()"
MORE = {
    "clipped": (
        after(BEHIND, "nn.utils.clip_grad_norm_(model.parameters(), 1.0)"),
        [(8, "nn.utils.clip_grad_norm_(model.parameters(), 1.0) is left out.")],
    ),
    "clipped by hand": (
        after(BEHIND, "for p in model.parameters():", "    p.grad.clamp_(-1, 1)"),
        [(8, "for p in model.parameters() is left out.")],
    ),
    "clipped if asked for": (
        after(BEHIND, "if clip:", "    clip_grad_value_(model.parameters(), clip)"),
        [(9, "clip_grad_value_(model.parameters(), clip) is left out.")],
    ),
    "a norm that is kept": (
        after(BEHIND, "norm = clip_grad_norm_(model.parameters(), 1.0)"),
        [(8, "norm = clip_grad_norm_(model.parameters(), 1.0) is left out.")],
    ),
    "accumulated": (
        changed(("optimizer.step()", "if (i + 1) % 4 == 0:\n            optimizer.step()"), ("loss.b", "(loss / 4).b")),
        [
            (7, "(loss / 4).backward() is a backward of the loss itself here."),
            (8, "optimizer.step() runs only if (i + 1) % 4 == 0: here it runs in each iteration."),
        ],
    ),
    "accumulated in a loop": (
        changed(("        optimizer.zero_grad()\n", ""), ("        optimizer.step()", "    optimizer.step()"))
        + "    optimizer.zero_grad()\n",
        [(3, "for x, y in loader runs several backwards for a step: here it is one.")],
    ),
    "a context of its own": (
        changed(("out = model(x)", "with context:\n            out = model(x)")),
        [(4, "context is left out.")],
    ),
    "a share of the loss": (
        after("loss = criterion(out, y)", "loss = loss / 4"),
        [(6, "loss = loss / 4 is left out.")],
    ),
    "a larger loss": (
        after("loss = criterion(out, y)", "loss += 0.01 * penalty(model)"),
        [(6, "loss += 0.01 * penalty(model) is left out.")],
    ),
    "another loss": (
        changed(("criterion(out, y)", "F.cross_entropy(out, y)")),
        [(5, "loss = F.cross_entropy(out, y) is criterion(prediction, targets) here.")],
    ),
    "a part of the output": (
        changed(("criterion(out, y)", "criterion(out.squeeze(), y)")),
        [(5, "loss = criterion(out.squeeze(), y) is criterion(prediction, targets) here.")],
    ),
    "another input": (after("for x, y in loader:", "x = x.view(-1, 784)"), [(4, "x = x.view(-1, 784) is left out.")]),
    "another dtype": (
        after("for x, y in loader:", "y = y.to(torch.float32)"),
        [(4, "y = y.to(torch.float32) is left out.")],
    ),
    "several inputs": (changed(("model(x)", "model(x, h)")), [(4, "out = model(x, h) is model(inputs) here.")]),
    "no zero_grad": (
        changed(("        optimizer.zero_grad()\n", "")),
        [(2, "its loop has no zero_grad: there gradients add up, here each iteration clears them.")],
    ),
    "zero_grad between": (
        changed(
            ("        optimizer.zero_grad()\n", ""),
            ("loss.backward()\n", "loss.backward()\n        optimizer.zero_grad()\n"),
        ),
        [(7, "its zero_grad comes between backward and step: here it comes after step.")],
    ),
    "a graph that is kept": (
        changed(("loss.backward()", "loss.backward(retain_graph=True)")),
        [(7, "loss.backward(retain_graph=True) is a plain backward() here: retain_graph=True is left out.")],
    ),
    "a closure": (
        changed(("optimizer.step()", "optimizer.step(closure)")),
        [(8, "optimizer.step(closure) is a plain step() here: closure is left out.")],
    ),
    "a schedule": (
        after("optimizer.step()", "scheduler.step()", indent=4),
        [(9, f"scheduler.step() is left out: {PLATEAU}")],
    ),
    "a schedule made elsewhere": (
        after("optimizer.step()", "lr_sched.step()", "warmup.step()", "model_ema.update()"),
        [
            (9, f"lr_sched.step() is left out: {PLATEAU}"),
            (10, "warmup.step() is left out."),
            (11, "model_ema.update() is left out."),
        ],
    ),
    "a schedule by hand": (
        after("optimizer.step()", "for group in optimizer.param_groups:", "    group['lr'] *= 0.99"),
        [(9, "for group in optimizer.param_groups is left out.")],
    ),
    "a rate by a function": (
        after("optimizer.step()", "adjust_learning_rate(optimizer, epoch)", indent=4),
        [(9, "adjust_learning_rate(optimizer, epoch) is left out.")],
    ),
    "an average": (
        after("optimizer.step()", "ema.update_parameters(model)"),
        [(9, "ema.update_parameters(model) is left out.")],
    ),
    "an average by hand": (
        after(
            "optimizer.step()",
            "with torch.no_grad():",
            "    for a, p in zip(ema.parameters(), model.parameters()):",
            "        a.mul_(0.9).add_(p, alpha=0.1)",
        ),
        [(10, "for a, p in zip(ema.parameters(), model.parameters()) is left out.")],
    ),
    "a second optimizer": (after("optimizer.step()", "opt2.step()"), [(9, "opt2.step() is left out.")]),
    "a second backward": (
        after(BEHIND, "other.backward()"),
        [(8, "one backward is run in each iteration: this one is left out.")],
    ),
    "a scaler": (
        changed(
            ("loss.backward()", "scaler.scale(loss).backward()"),
            ("optimizer.step()", "scaler.step(optimizer)\n        scaler.update()"),
        ),
        [
            (7, "scaler.scale(loss).backward() is a plain backward here: a GradScaler is left out."),
            (8, "scaler.step(optimizer) is a plain step here: a GradScaler is left out."),
            (9, "scaler.update() is left out."),
        ],
    ),
    "autocast": (
        changed(("out = model(x)", "with torch.autocast('cuda'):\n            out = model(x)")),
        [(4, "torch.autocast('cuda') is left out.")],
    ),
    "iterations that are passed over": (
        after("loss = criterion(out, y)", "if not loss.isfinite():", "    continue"),
        [(6, "it leaves out iterations if not loss.isfinite(): here none is left out.")],
    ),
    "a test": (
        after("optimizer.step()", "evaluate(model, test_loader)", indent=4),
        [(9, "evaluate(model, test_loader) is left out.")],
    ),
    "a test by hand": (
        after(
            "optimizer.step()",
            "model.eval()",
            "for a, b in test_loader:",
            "    right += (model(a) == b).sum()",
            indent=4,
        ),
        [(9, "model.eval() is left out."), (10, "for a, b in test_loader is left out.")],
    ),
    "frozen for a while": (
        after("for x, y in loader:", "for p in model.parameters():", "    p.requires_grad = False"),
        [(4, "for p in model.parameters() is left out.")],
    ),
    "a seed": (
        after("for epoch in range(10):", "torch.manual_seed(epoch)", indent=4),
        [(3, "torch.manual_seed(epoch) is left out.")],
    ),
    "an order by the epoch": (
        after("for epoch in range(10):", "loader.sampler.set_epoch(epoch)", indent=4),
        [(3, "loader.sampler.set_epoch(epoch) is left out.")],
    ),
    "an input with a gradient": (
        after("for x, y in loader:", "x.requires_grad = True"),
        [(4, "x.requires_grad = True is left out.")],
    ),
    "weights that are held": (
        after("optimizer.step()", "model.weight.data.clamp_(-1, 1)"),
        [(9, "model.weight.data.clamp_(-1, 1) is left out.")],
    ),
    "weights that are set": (
        after("optimizer.step()", "model.bias.data = bias"),
        [(9, "model.bias.data = bias is left out.")],
    ),
}


@pytest.mark.parametrize("kind", MORE)
@pytest.mark.parametrize("place", ["{}", "def train():{}\ntrain()", "if __name__ == '__main__':{}"])
def test_what_else_a_loop_does_is_named_with_its_line(kind: str, place: str) -> None:
    loop, said = MORE[kind]
    if place != "{}":
        loop = place.format(textwrap.indent(loop, "    "))
    assert found(loop) == said


def test_a_step_in_a_function_and_the_loop_that_calls_it_are_both_read() -> None:
    loop = """
        def train_one(x, y):
            loss = criterion(model(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

        for x, y in loader:
            train_one(x, y)
            ema.update(model)
        """
    assert found(loop) == [
        (5, "nn.utils.clip_grad_norm_(model.parameters(), 1.0) is left out."),
        (11, "ema.update(model) is left out."),
    ]


def test_a_long_statement_is_cut() -> None:
    ((line, sentence),) = found(after(BEHIND, f"clip_(model, {'1 + ' * 40}1)"))
    assert line == 8
    assert sentence.endswith("… is left out.")
    assert len(sentence) < 90
