"""Frames of scripts, made by hand: loops of each shape, and a session that goes through them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from autograd_tui.core.capabilities import SCRIPTED, Capabilities
from autograd_tui.core.command import Command
from autograd_tui.core.command_log import CommandLog
from autograd_tui.core.frame import Frame, ParamGroups, TorchError
from autograd_tui.core.history import History
from autograd_tui.core.run_config import RunConfig
from autograd_tui.core.script_stop import ScriptStop
from autograd_tui.core.session_protocol import SessionInfo
from autograd_tui.core.tensor_stats import Grads, StatsTable
from handmade_session import MadeSession
from picture_frames import described, no_grads, table

FOLDER = "/home/ada/project/"

SIMPLE = """\
def train(model, loader, optimizer, scheduler):
    model.train()
    for epoch in range(2):
        for data, target in loader:
            optimizer.zero_grad()
            output = model(data)
            loss = F.nll_loss(output, target)  # of a batch of 64
            loss.backward()
            optimizer.step()
            if batch % 10 == 0:
                print(f"loss {loss.item():.4f}")
        scheduler.step()


train(model, loader, optimizer, scheduler)
"""
GAN = """\
for epoch in range(opt.niter):
    for i, data in enumerate(dataloader, 0):
        netD.zero_grad()
        output = netD(real)
        errD_real = criterion(output, label)
        errD_real.backward()
        fake = netG(noise)
        output = netD(fake.detach())
        errD_fake = criterion(output, label)
        errD_fake.backward()
        optimizerD.step()
        netG.zero_grad()
        output = netD(fake)
        errG = criterion(output, label)
        errG.backward()
        optimizerG.step()
"""
ACCUMULATED = """\
def main():
    for step in range(steps):
        for micro in range(4):
            with torch.autocast("cpu", torch.float16):
                loss = model(x) / 4
            scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
"""
CLOSURE = """\
def closure():
    optimizer.zero_grad()
    loss = criterion(seq(input), target)
    loss.backward()
    return loss


for i in range(15):
    optimizer.step(closure)
"""
BY_HAND = """\
for batch, i in enumerate(range(0, len(data), bptt)):
    model.zero_grad()
    output, hidden = model(x, hidden)
    loss = criterion(output, targets)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), args.clip)
    for p in model.parameters():
        p.data.add_(p.grad, alpha=-lr)
"""
LIBRARY = """\
class Lit(L.LightningModule):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.mse_loss(self.model(x), y)


trainer.fit(lit, loader)
"""
PENALTY = """\
for real in loader:
    optimizer.zero_grad()
    mixed = mix(real, fake)
    grads, = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
    loss = critic(fake).mean() - critic(real).mean() + 10 * ((grads.norm(2, 1) - 1) ** 2).mean()
    loss.backward()
    optimizer.step()
"""


class Script:
    """Makes the frames of one script, in order: each call changes what it would change."""

    def __init__(self, source: str, *models: str, optimizers: Sequence[str] = ("optimizer",), lr: float = 0.01) -> None:
        self.source = tuple(source.splitlines())
        self.models, self.optimizers = models, optimizers
        prefixes = [f"{model}." for model in models] if len(models) > 1 else [""]
        self.names = [
            f"{prefix}{layer}.{kind}" for prefix in prefixes for layer in ("0", "2") for kind in ("weight", "bias")
        ]
        self.params = self._rows(1.0)
        self.backwards, self.used = [0] * len(self.names), [False] * len(self.names)
        self.steps = dict.fromkeys(optimizers, 0)
        of = tuple(min(place // 4, len(optimizers) - 1) for place in range(len(self.names)))
        groups = None
        if len(optimizers) > 1:
            groups = ParamGroups(of, (lr,) * len(optimizers), ("adam",) * len(optimizers))
        self.frame = Frame(
            0,
            self.params,
            no_grads(len(self.names)),
            table(),
            table(),
            "adam" if optimizers else "sgd",
            learning_rate=lr,
            groups=groups,
            script=self.at(self.source[0].split("(")[0].strip(), line=1, call=""),
        )
        self.frames = [self.frame]

    def _rows(self, scale: float, names: Sequence[str] | None = None) -> StatsTable:
        shapes = {"0.weight": (64, 32), "0.bias": (64,), "2.weight": (32, 64), "2.bias": (32,)}
        rows = []
        for place, name in enumerate(self.names if names is None else names):
            shape = shapes[".".join(name.split(".")[-2:])]
            norm = scale * (1 + 0.25 * place)
            rows.append(described(name, shape, norm=norm))
        return table(*rows)

    def at(self, code: str, *, line: int | None = None, call: str, **known: Any) -> ScriptStop:
        """Give the stop at the first line that holds `code`."""
        place = next((at for at, each in enumerate(self.source, start=1) if code in each), 1) if line is None else line
        functions = [each.split("(")[0].split()[-1] for each in self.source[:place] if each.lstrip().startswith("def ")]
        indented = self.source[place - 1].startswith(" ") and bool(functions)
        return ScriptStop(
            call,
            f"{FOLDER}train.py",
            place,
            function=functions[-1] if indented else "<module>",
            source=self.source,
            steps=tuple(self.steps.items()),
            **known,
        )

    def stop(self, kind: str, code: str, call: str, changes: dict[str, Any] | None = None, **known: Any) -> Frame:
        """Make the next frame."""
        command = Command(kind)
        self.frame = replace(
            self.frame,
            index=self.frame.index + 1,
            command=command,
            script=self.at(code, call=call, **known),
            seconds=0.0031,
            **(changes or {}),
        )
        self.frames.append(self.frame)
        return self.frame

    def forward(self, code: str, call: str, loss: float, *, begins: bool = True, **known: Any) -> Frame:
        changes = {
            "iteration": self.frame.iteration + begins,
            "loss": loss,
            "loss_params": self.params,
            "loss_steps": self.frame.steps,
            "moved": False,
            "graph": "alive",
        }
        return self.stop("forward", code, call, changes, **known)

    def backward(self, code: str, call: str, *, of: str = "", **known: Any) -> Frame:
        before = self.frame.grads
        reached = [place for place, name in enumerate(self.names) if name.startswith(of)]
        for place in reached:
            self.backwards[place], self.used[place] = self.backwards[place] + 1, False
        changes = {
            "grads": self._grads(),
            "graph": "freed",
            "added_to": before if any(before.backwards) else None,
            "grads_params": self.params,
        }
        return self.stop("backward", code, call, changes, backwards=max(self.backwards), **known)

    def _grads(self) -> Grads:
        held = [name for name, backwards in zip(self.names, self.backwards, strict=True) if backwards]
        return Grads(self._rows(0.1, held), tuple(self.backwards), tuple(self.used))

    def step(self, code: str, call: str, optimizer: str, *, of: str = "", **known: Any) -> Frame:
        self.steps[optimizer] += 1
        self.used = [used or name.startswith(of) for name, used in zip(self.names, self.used, strict=True)]
        moves = array("d", (0.02 if name.startswith(of) else 0.0 for name in self.names))
        before, self.params = self.params, self._rows(1.0 - 0.002 * sum(self.steps.values()))
        changes = {
            "params": self.params,
            "before": before,
            "mover": Command("step"),
            "moved": True,
            "moves": moves,
            "steps": sum(self.steps.values()),
            "step_rate": self.frame.learning_rate,
            "step_rates": self.frame.groups.learning_rates if self.frame.groups else (),
            "grads": self._grads(),
        }
        return self.stop("step", code, call, changes, optimizer=optimizer, **known)

    def zero_grad(self, code: str, call: str, *, of: str = "", **known: Any) -> Frame:
        before = self.frame.grads
        self.backwards = [
            0 if name.startswith(of) else backwards for name, backwards in zip(self.names, self.backwards, strict=True)
        ]
        self.used = [used and backwards > 0 for used, backwards in zip(self.used, self.backwards, strict=True)]
        changes = {"last_grads": before, "grads": self._grads(), "graph": self.frame.graph}
        return self.stop("zero_grad", code, call, changes, **known)


def simple() -> list[Frame]:
    """Give the loop of a classifier with a scheduler, over its first iterations."""
    script = Script(SIMPLE, "model")
    for loss in (2.3026, 2.1984):
        script.zero_grad("zero_grad", "optimizer.zero_grad", optimizer="optimizer")
        script.forward("loss.backward", "loss.backward", loss, models=("model",))
        script.backward("loss.backward", "loss.backward", models=("model",))
        script.step("optimizer.step", "optimizer.step", "optimizer")
    changed = {"learning_rate": 0.007}
    known: dict[str, Any] = {"optimizer": "optimizer", "rates_before": (0.01,)}
    script.stop("scheduler", "scheduler.step", "scheduler.step", changed, **known)
    return script.frames


def gan() -> list[Frame]:
    """Give one iteration of two models with an optimizer each, up to the step of the second."""
    script = Script(GAN, "netD", "netG", optimizers=("optimizerD", "optimizerG"))
    script.zero_grad("netD.zero_grad", "netD.zero_grad", of="netD")
    script.forward("errD_real.backward", "errD_real.backward", 0.7121, models=("netD",))
    script.backward("errD_real.backward", "errD_real.backward", of="netD", models=("netD",))
    script.forward("errD_fake.backward", "errD_fake.backward", 0.6544, begins=False, models=("netD",))
    script.backward("errD_fake.backward", "errD_fake.backward", of="netD", models=("netD",))
    script.step("optimizerD.step", "optimizerD.step", "optimizerD", of="netD")
    script.zero_grad("netG.zero_grad", "netG.zero_grad", of="netG")
    script.forward("errG.backward", "errG.backward", 0.8312, begins=False, models=("netG", "netD"))
    script.backward("errG.backward", "errG.backward", models=("netG", "netD"))
    script.step("optimizerG.step", "optimizerG.step", "optimizerG", of="netG")
    return script.frames


def accumulated(*, skipped: bool = False) -> list[Frame]:
    """Give four backwards with GradScaler, unscale, clip and a step, which it may leave out."""
    script = Script(ACCUMULATED, "model")
    for micro, loss in enumerate((0.61, 0.58, 0.63, 0.57)):
        known: dict[str, Any] = {"models": ("model",), "scaled_loss": loss * 65536}
        script.forward("scaler.scale", "scaler.scale(loss).backward", loss, begins=not micro, **known)
        script.backward("scaler.scale", "scaler.scale(loss).backward", **known)
    script.stop("unscale", "unscale_", "scaler.unscale_", optimizer="optimizer")
    script.stop("clip", "clip_grad", "clip_grad_norm_", norm=3.2173, max_norm=1.0)
    if skipped:
        script.stop("step", "scaler.step", "optimizer.step", optimizer="optimizer", skipped=True)
    else:
        script.step("scaler.step", "optimizer.step", "optimizer")
    script.zero_grad("zero_grad", "optimizer.zero_grad", optimizer="optimizer")
    return script.frames


def closure() -> list[Frame]:
    """Give the first calls that LBFGS makes inside its step, and its end."""
    script = Script(CLOSURE, "seq")
    inside = ("optimizer.step",)
    for loss in (0.5023, 0.3121):
        script.zero_grad("zero_grad", "optimizer.zero_grad", inside=inside)
        script.forward("loss.backward", "loss.backward", loss, begins=loss > 0.5, models=("seq",), inside=inside)
        script.backward("loss.backward", "loss.backward", models=("seq",), inside=inside)
    script.step("optimizer.step(closure)", "optimizer.step", "optimizer")
    return script.frames


def by_hand() -> list[Frame]:
    """Give a loop without an optimizer, up to the stop that shows that the parameters have moved."""
    script = Script(BY_HAND, "model", optimizers=())
    script.zero_grad("zero_grad", "model.zero_grad")
    script.forward("loss.backward", "loss.backward", 6.2381, models=("model",))
    script.backward("loss.backward", "loss.backward", models=("model",))
    script.stop("clip", "clip_grad", "clip_grad_norm_", norm=0.2, max_norm=0.25)
    script.params = script._rows(0.98)
    script.frame = replace(script.frame, params=script.params, moved=True)
    script.zero_grad("zero_grad", "model.zero_grad", moved_by_hand=tuple(script.names))
    return script.frames


def library() -> list[Frame]:
    """Give a loop that a library runs inside its step, with one line of the user's on the stack."""
    script = Script(LIBRARY, "lit", optimizers=("adamw",))
    known: dict[str, Any] = {"library": ("/usr/lib/lightning/fabric/strategy.py", 198), "models": ("lit",)}
    script.zero_grad("mse_loss", "optimizer.zero_grad", inside=("adamw.step",), **known)
    script.forward("mse_loss", "tensor.backward", 0.4021, inside=("adamw.step",), **known)
    script.backward("mse_loss", "tensor.backward", inside=("adamw.step",), **known)
    script.step("trainer.fit", "adamw.step", "adamw", **known)
    return script.frames


def penalty() -> list[Frame]:
    """Give a loop that asks for gradients itself."""
    script = Script(PENALTY, "critic")
    script.zero_grad("zero_grad", "optimizer.zero_grad")
    script.stop("grad", "autograd.grad", "torch.autograd.grad", models=("critic",))
    return script.frames


def raised() -> list[Frame]:
    """Give a script that has raised before its backward."""
    frames = simple()[:5]
    script = Script(SIMPLE, "model")
    stop = script.at("output = model", call="")
    message = "mat1 and mat2 shapes cannot be multiplied (64x9 and 8x16)"
    error = TorchError("RuntimeError", message, file=f"{FOLDER}train.py", line=stop.line, code="output = model(data)")
    return [*frames, replace(frames[-1], index=frames[-1].index + 1, command=None, script=stop, error=error)]


SCENES = {
    "simple": simple,
    "gan": gan,
    "accumulated": accumulated,
    "skipped": lambda: accumulated(skipped=True),
    "closure": closure,
    "by_hand": by_hand,
    "library": library,
    "penalty": penalty,
    "raised": raised,
}
ABOUT = SessionInfo("train.py", "cpu", seed=0, config=RunConfig("train.py"))


class HeldScript(MadeSession):
    """Goes through frames of a script: whatever is asked to run leads to the next of them."""

    can = SCRIPTED
    ended: str | None = None

    def __init__(self, frames: Sequence[Frame], at: int = 0) -> None:
        super().__init__(ABOUT, frames[: at + 1])
        self.frames = list(frames)

    def end(self, sentence: str) -> None:
        """Let the script have ended."""
        self.ended, self.can = sentence, Capabilities(export=True, script=True, ended=True, refusal=sentence)

    @property
    def notice(self) -> str | None:
        return self.ended

    def next_command(self) -> Command:
        after = self.frames[min(self.frame.index + 1, len(self.frames) - 1)].command
        return after if after is not None else Command("forward")

    def repeats(self, command: Command) -> bool:
        return False

    def run(self, command: Command) -> Frame:
        self._frame = self.frames[min(self.frame.index + 1, len(self.frames) - 1)]
        self.newest = self._frame.index
        self.history.append(self._frame)
        return self._frame

    def stored(self, index: int) -> Frame | None:
        return self.frames[index] if index <= self.newest else None

    def nearest(self, index: int, by: int) -> int:
        return index

    def look(self, index: int) -> Frame:
        return self.frames[index]

    def log(self) -> CommandLog:
        return CommandLog()


def history_of(frames: Sequence[Frame]) -> History:
    """Give the history of some frames."""
    history = History()
    for frame in frames:
        history.append(frame)
    return history
