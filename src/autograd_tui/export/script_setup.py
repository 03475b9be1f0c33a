"""What stands in a script before its loop: the model, the data and the loss of a scenario."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from autograd_tui.engine.values.opening import Opening


@dataclass(frozen=True, slots=True)
class Setup:
    """Lines of a script; those of `predict` measure `loss` of the tensors `names`, of batch `i` where not `fixed`."""

    imports: tuple[str, ...]
    model: tuple[str, ...]
    data: tuple[str, ...]
    names: str
    predict: tuple[str, ...]
    fixed: bool
    foreign: bool = False  # whether its model may do anything, as one does that this package has not made
    loss: str = "loss.item()"

    @property
    def build(self) -> tuple[str, ...]:
        """Give what stands before the loop."""
        return (*self.model, *self.data)

    @property
    def forward(self) -> tuple[str, ...]:
        """Give what a forward is."""
        return self.predict if self.fixed or not self.names else (f"{self.names} = batch(i)", *self.predict)


SURROUNDINGS = "from autograd_tui.engine.training.surroundings import Surroundings"


def setup(opening: Opening) -> Setup:
    """Write what a scenario builds: in plain PyTorch where it is built in."""
    written = BUILT_IN.get(opening.scenario)
    if opening.own.get("weights", "random") != "random" or "image" in opening.own:
        written = None  # only the scenario knows how to come by these
    return _imported(opening) if written is None else written(opening)


MSE = ("", "", "def mse(prediction, target):", "    return ((target - prediction) ** 2).mean()")


def _line(opening: Opening) -> Setup:
    size, device, fixed = int(opening.own.get("batch_size", 3)), to_device(opening), _is_fixed(opening.own)
    model = (
        "",
        "",
        "class Line(nn.Module):",
        "    def __init__(self):",
        "        super().__init__()",
        "        self.w = nn.Parameter(torch.tensor([2.0]))",
        "        self.b = nn.Parameter(torch.tensor([6.0]))",
        "",
        "    def forward(self, x):",
        "        return self.w * x + self.b",
    )
    drawn = f"1 + 2 * torch.rand({size}, generator=generator)  # in [1, 3)"
    data = (
        (f"x = torch.arange(1.0, {size + 1})", "y = 4 * x + 1", *_moved("x, y", device))
        if fixed
        else _fresh(opening, f"x = {drawn}", "y = 4 * x + 1", f"return x{device}, y{device}")
    )
    return Setup(
        ("from torch import nn",),
        (*model, *MSE, *_seeded(opening), f"model = Line(){device}"),
        data,
        "x, y",
        ("Q = model(x)", "loss = mse(Q, y)"),
        fixed,
    )


def _resnet18(opening: Opening) -> Setup:
    # Where pretrained weights are to be had, `opening.own` says which: they belong behind weights=.
    own, device, fixed = opening.own, to_device(opening), _is_fixed(opening.own)
    size, pixels = int(own.get("batch_size", 1)), int(own.get("image_size", 64))
    draw = "data = torch.rand({}, 3, {}, {}{})", "labels = torch.rand({}, 1000{})"
    lines = (draw[0].format(size, pixels, pixels, "{}"), draw[1].format(size, "{}"))
    data = (
        (*(line.format("") for line in lines), *_moved("data, labels", device))
        if fixed
        else _fresh(
            opening,
            *(line.format(", generator=generator") for line in lines),
            f"return data{device}, labels{device}",
        )
    )
    return Setup(
        ("from torchvision.models import resnet18",),
        (*MSE, *_seeded(opening), f"model = resnet18(weights=None){device}"),
        data,
        "data, labels",
        ("prediction = model(data)", "loss = mse(prediction, labels)"),
        fixed,
    )


def _imported(opening: Opening) -> Setup:
    """Write how to build a scenario of somebody else's: its code stays where it is."""
    options = f"{_seed(opening)}, {dict(opening.own)!r}, device={opening.device!r}"
    model = (
        *_seeded(opening)[not to_device(opening) :],
        f"scenario = find({opening.scenario!r})",
        f"torch.manual_seed({_seed(opening)})  # once more: reading it may have drawn random numbers",
        f"parts = scenario.build(scenario.options({options}))",
        f"model = parts.model.to({opening.device!r})",
        "",
        "",
        "def forward(batch):",
        '    """Give the loss of a batch."""',
        *(f"    batch = moved(batch, {opening.device!r})",) * bool(to_device(opening)),
        "    loss, _, _ = predict(parts, model, parts.loss, batch)",
        "    return loss",
    )
    data = ("", "", "i = 0  # counts the batches")
    imports = (
        "from autograd_tui.engine.training.predict import predict",
        "from autograd_tui.scenarios.find import find",
    )
    shown = "loss.detach().squeeze().tolist()"  # also where it is not one number
    predict = ("loss = forward(parts.batch(i))",)
    return Setup(imports, (*_mover(opening), *model), data, "", predict, fixed=False, foreign=True, loss=shown)


def _mover(opening: Opening) -> tuple[str, ...]:
    if not to_device(opening):
        return ()
    return (
        "",
        "",
        "def moved(value, device):",
        '    """Bring a batch of any shape to the device."""',
        "    if isinstance(value, torch.Tensor):",
        "        return value.to(device)",
        "    if isinstance(value, dict):",
        "        return type(value)((key, moved(each, device)) for key, each in value.items())",
        '    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):',
        "        return type(value)(moved(each, device) for each in value)",
        "    return value",
    )


def _fresh(opening: Opening, *lines: str) -> tuple[str, ...]:
    """Write a function that draws another batch each time, from a generator of its own."""
    return (
        "",
        "",
        "def batch(i):",
        f"    generator = torch.Generator().manual_seed({_seed(opening)} * 1_000_003 + i)",
        *(f"    {line}" for line in lines),
        "",
        "",
        "i = 0  # counts the batches",
    )


def _seeded(opening: Opening) -> tuple[str, ...]:
    return "", "", f"torch.manual_seed({_seed(opening)})"


def _seed(opening: Opening) -> str:
    return repr(opening.arguments.get("seed", 0))


def _is_fixed(own: Mapping[str, Any]) -> bool:
    return bool(own.get("data", "fixed") == "fixed")


def to_device(opening: Opening) -> str:
    """Write what brings a tensor or model to the device of the run: "" on the CPU."""
    return "" if opening.device == "cpu" else f".to({opening.device!r})"


def _moved(names: str, device: str) -> tuple[str, ...]:
    moved = ", ".join(f"{name}{device}" for name in names.split(", "))
    return (f"{names} = {moved}",) if device else ()


# A scenario that comes with this package stands here once it can be written without it; all others are imported.
BUILT_IN: Mapping[str, Callable[[Opening], Setup]] = {"linear": _line, "resnet18": _resnet18}
