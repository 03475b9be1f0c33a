"""A tiny transformer that learns to write a short text, character by character."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from autograd_tui.core.errors import Refused
from autograd_tui.engine.training.scenario import Options, Parts, check_ranges, scenario

TEXT = """\
the ball lies high upon the hill, and does not know the way.
it asks the ground: which side is up? the slope is quick to say.
so down it goes, a little step, then asks the ground again,
and where the ground is nearly flat it hardly moves, and then
it rests, and cannot tell at all whether beyond the rise
a deeper valley may be found: it has a slope, no eyes.
"""
CHARACTERS = sorted(set(TEXT))
SHOWN = 120  # of the characters that it goes on from, those that the picture shows at most


class LanguageModel(nn.Module):
    """Return logits for the character after each one: (batch, context) to (batch, characters, context)."""

    def __init__(self, *, width: int, heads: int, layers: int, context: int) -> None:
        super().__init__()
        self.characters = nn.Embedding(len(CHARACTERS), width)
        self.positions = nn.Embedding(context, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True) for _ in range(layers)
        )
        self.head = nn.Linear(width, len(CHARACTERS))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.characters(x) + self.positions.weight
        future = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device)
        for layer in self.layers:
            hidden = layer(hidden, src_mask=future, is_causal=True)  # no character sees those behind it
        logits: Tensor = self.head(hidden)  # (batch, context, characters)
        return logits.transpose(1, 2)  # as cross_entropy takes them


def accuracy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the share of characters that the largest logit names."""
    return (logits.argmax(1) == y).float().mean()


@torch.no_grad()
def write(model: nn.Module, start: str, count: int) -> str:
    """Write on from a start of `context` characters, each time the most likely one."""
    device = next(model.parameters()).device
    written = [CHARACTERS.index(character) for character in start]
    for _ in range(count):
        logits = model(torch.tensor([written[-len(start) :]], device=device))  # (1, characters, context)
        written.append(int(logits[0, :, -1].argmax()))
    return "".join(CHARACTERS[index] for index in written[len(start) :])


@scenario("transformer", device="cpu", batch_size=16, data="fresh", width=32, heads=4, layers=1, context=32)
def transformer(options: Options) -> Parts:
    """Predict the next character of a text, from up to `context` characters before it."""
    _check(options)
    text = torch.tensor([CHARACTERS.index(character) for character in TEXT])
    model = LanguageModel(width=options.width, heads=options.heads, layers=options.layers, context=options.context)

    def draw(generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        starts = torch.randint(len(text) - options.context, (options.batch_size, 1), generator=generator)
        windows = text[starts + torch.arange(options.context + 1)]
        return windows[:, :-1], windows[:, 1:]

    fixed = draw() if options.data == "fixed" else None

    def text_that_it_writes(model: nn.Module) -> dict[str, str]:
        start, truth = TEXT[: options.context], TEXT[options.context :]
        texts = {"given": start[-SHOWN:], "truth": truth, "written": write(model, start, len(truth))}
        return {name: text.replace("\n", "/") for name, text in texts.items()}

    return Parts(
        model=model,
        batch=(lambda i: fixed) if fixed else lambda i: draw(options.generator(i)),
        loss=cross_entropy,
        metrics={"accuracy": accuracy},
        picture=text_that_it_writes,
        optimizer="adamw,lr=0.003",
        names=("x", "y", "logits"),
        listing={
            "setup": f'text = "{TEXT[:28]}..."\nx, y = windows({options.context})  # y: one character later',
            "forward": "logits = model(x)  # for each next character\nloss = cross_entropy(logits, y)",
        },
    )


def _check(options: Options) -> None:
    """Raise Refused for sizes that no transformer, or no machine, can have; without layers it still learns pairs."""
    check_ranges(options, width=(1, 2048), heads=(1, 2048), layers=(0, 64), context=(1, len(TEXT) - 1))
    if options.width % options.heads:
        shares = "each head takes an equal share of it"
        raise Refused(f"--option heads={options.heads} does not divide width={options.width}: {shares}.")
