"""The chain rule of convolutions, of any number of dimensions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autograd_tui.text.inside.backward.part import Part, Rule, size, whole
from autograd_tui.text.inside.backward.scene import Scene, parsed_whole
from autograd_tui.text.inside.expression import differential, short_name
from autograd_tui.text.inside.small import Shape, Small, collected, places


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where the window of a convolution lies; one number a dimension."""

    stride: Shape
    padding: Shape
    dilation: Shape
    groups: int

    @classmethod
    def of(cls, scene: Scene, dims: int) -> Geometry | None:
        """Read it from the operation's settings; None where they are written in another way."""
        read = {word: cls._read(scene, word, dims) for word in ("stride", "padding", "dilation", "groups")}
        if not all(read.values()):
            return None
        return cls(read["stride"], read["padding"], read["dilation"], read["groups"][0])

    @staticmethod
    def _read(scene: Scene, word: str, dims: int) -> Shape:
        written = scene.words(word)
        numbers = ((0,) if word == "padding" else (1,)) if written is None else parsed_whole(written)
        return numbers * dims if numbers and len(numbers) == 1 else numbers or ()

    def meetings(self, output: Shape, weight: Shape, inputs: Shape) -> Iterator[tuple[Shape, Shape, Shape]]:
        """Give every (output, weight, input) place whose numbers meet in a product."""
        channels, each = weight[1], weight[0] // self.groups
        for at in places(output):
            for tap in places(weight[1:]):
                spot = tuple(
                    o * stride - padding + k * dilation
                    for o, k, stride, padding, dilation in zip(
                        at[2:], tap[1:], self.stride, self.padding, self.dilation, strict=True
                    )
                )
                if all(0 <= here < size for here, size in zip(spot, inputs[2:], strict=True)):
                    yield at, (at[1], *tap), (at[0], at[1] // each * channels + tap[0], *spot)


def convolution(scene: Scene) -> list[Part]:
    """Derive by input, weight and bias."""
    inputs, weight, up = (*map(scene.small, map(scene.saved, ("input", "weight"))), scene.upstream)
    given = scene.op.inputs if scene.alone else ()
    names = [short_name(scene.trace, value) for value in given] + ["input", "weight", "bias"][len(given) :]
    known = inputs and weight and up and not scene.first and len(weight.shape) == len(up.shape) == len(inputs.shape)
    plain = scene.call is not None and scene.call.name in ("conv1d", "conv2d", "conv3d")
    parts: list[Small | None] = [None, None, None]
    if known and plain and inputs and weight and up:
        parts = _worked(scene, up, weight, inputs)
    said = [
        f"from every output that it fed, upstream × {names[1]} between them, added up",
        f"for each of its values, upstream × {names[0]} where they met, added up",
        f"d(output)/{differential(names[2])} = 1: upstream added up over images and places",
    ]
    scale = size(up, Small((), (max(inputs.largest, weight.largest),))) if up and inputs and weight else 0.0
    return [whole(scene, place, said[place], parts[place], largest=scale) for place in range(3)]


def _worked(scene: Scene, up: Small, weight: Small, inputs: Small) -> list[Small | None]:
    channels = collected((up.shape[1],), (((at[1],), up.at(at)) for at in places(up.shape)))
    geometry = Geometry.of(scene, len(up.shape) - 2)
    if geometry is None:
        return [None, None, channels]
    met = list(geometry.meetings(up.shape, weight.shape, inputs.shape))
    by_input = collected(inputs.shape, ((spot, up.at(at) * weight.at(tap)) for at, tap, spot in met))
    by_weight = collected(weight.shape, ((tap, up.at(at) * inputs.at(spot)) for at, tap, spot in met))
    return [by_input, by_weight, channels]


BACKWARD: dict[str, Rule] = {"ConvolutionBackward0": convolution}
