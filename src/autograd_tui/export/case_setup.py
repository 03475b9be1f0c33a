"""What stands in a case's script for its model: a case brings parameters and batches, so no data are drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from autograd_tui.engine.values.opening import Opening
from autograd_tui.export.script_setup import BUILT_IN, Setup, setup, to_device

CLASS = ("", "", "class Model(nn.Module):", "    def __init__(self):", "        super().__init__()")


def case_setup(opening: Opening) -> Setup:
    """Write how the model is made, in plain PyTorch where it comes with this package, and how its loss is measured."""
    written = {**BUILT_IN, **SMALL}.get(opening.scenario)
    return setup(opening) if written is None else written(opening)


def _small(opening: Opening, model: tuple[str, ...], loss: str, prediction: str, made: str = "Model()") -> Setup:
    imports = ("from torch import nn", f"from torch.nn.functional import {loss}")
    lines = (*model, "", *[""] * bool(model), f"model = {made}{to_device(opening)}")
    predict = (f"{prediction} = model(x)", f"loss = {loss}({prediction}, y)")
    return Setup(imports, lines, (), "x, y", predict, fixed=True)


def _spiral(opening: Opening) -> Setup:
    width = _whole(opening.own, "width", 32)
    made = f"nn.Sequential(nn.Linear(2, {width}), nn.Tanh(), nn.Linear({width}, 1))"
    return _small(opening, (), "binary_cross_entropy_with_logits", "logits", made)


def _lstm(opening: Opening) -> Setup:
    width = _whole(opening.own, "width", 16)
    model = (
        *CLASS,
        f"        self.lstm = nn.LSTM(1, {width}, batch_first=True)",
        f"        self.head = nn.Linear({width}, 1)",
        "",
        "    def forward(self, x):",
        "        hidden, _ = self.lstm(x)",
        "        return self.head(hidden)",
    )
    return _small(opening, model, "mse_loss", "prediction")


def _transformer(opening: Opening) -> Setup:
    width, heads = _whole(opening.own, "width", 32), _whole(opening.own, "heads", 4)
    layers, context = _whole(opening.own, "layers", 1), _whole(opening.own, "context", 32)
    model = (
        *CLASS,
        f"        self.characters = nn.Embedding(CHARACTERS, {width})",
        f"        self.positions = nn.Embedding({context}, {width})",
        "        self.layers = nn.ModuleList(",
        f"            nn.TransformerEncoderLayer({width}, {heads}, {4 * width}, dropout=0.0, batch_first=True)",
        f"            for _ in range({layers})",
        "        )",
        f"        self.head = nn.Linear({width}, CHARACTERS)",
        "",
        "    def forward(self, x):",
        "        hidden = self.characters(x) + self.positions.weight",
        "        future = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device)",
        "        for layer in self.layers:",
        "            hidden = layer(hidden, src_mask=future, is_causal=True)",
        "        return self.head(hidden).transpose(1, 2)",
    )
    characters = ("", 'CHARACTERS = len(case["params"]["head.bias"])')
    return _small(opening, (*characters, *model), "cross_entropy", "logits")


def _whole(own: Mapping[str, Any], name: str, usual: int) -> int:
    return int(float(own.get(name, usual)))


SMALL: Mapping[str, Callable[[Opening], Setup]] = {"spiral": _spiral, "lstm": _lstm, "transformer": _transformer}
