"""The words that the prompt offers, each with a line of explanation."""

from __future__ import annotations

from dataclasses import dataclass

from autograd_tui.text.screen_word import COLUMNS


@dataclass(frozen=True, slots=True)
class Candidate:
    """A word to stand in the place of the one being typed; it goes on where it ends in "=" or a blank."""

    word: str
    line: str
    stem: int = 0  # how many of its characters need not be shown, since they stand in the prompt

    @property
    def label(self) -> str:
        """Give the part that is shown."""
        return self.word[self.stem :].strip()

    @property
    def goes_on(self) -> bool:
        """Whether more belongs behind it."""
        return self.word.endswith(("=", " "))


def listed(lines: dict[str, str], before: str = "") -> list[Candidate]:
    """Make candidates of words and their lines, behind what stands already."""
    return [Candidate(before + word, line, len(before)) for word, line in lines.items()]


PHASES = {
    "fbsz": "forward, backward, step, zero_grad",
    "fbsz*10": "ten iterations",
    "B": "backward, even where b is refused; so S",
}
SETTINGS = {
    "lr=": "the learning rate, as in lr=0.01",
    "optimizer=": "start another, as in optimizer=adam",
    "seed=": "other random numbers, as in seed=1",
}
MOVES = {
    "@0": "return to a frame, here the first",
    "undo": "return to the frame before",
}
BRANCHES = {"branch=": "return to what was rewound over"}  # offered where there is one
SCREEN = {
    "run ": "run, run 100 or run loss<0.01",
    "speed ": "of a run: speed 4 is 4 commands a second",
    "watch ": "pause runs, as in watch nonfinite",
    "model ": "train another, as in model resnet18",
    "sort ": "the table by layer, as in sort update",
    "theme ": "the colours, as in theme light",
    "plot ": "the loss, grad or a metric, as in plot grad",
    "log": "the loss on a log scale",
    "linear": "the loss on a plain scale",
    "ascii": "draw with ASCII characters alone",
    "unicode": "draw with all characters",
    "inside": "walk the operations of the next phase",
    "veil": "hide new numbers until the next space",
    "console": "what has been printed",
    "export ": "a picture, or as in export run.py",
    "help": "the keys that matter",
    "quit": "leave, and print the line that repeats this",
}
LETTERS = {  # offered only where one has begun to type them
    "i:f": "a phase recorded, to be walked; so i:b, i:s, i:z",
    "f": "forward",
    "b": "backward",
    "s": "step",
    "z": "zero_grad",
    "F": "forward, as f",
    "S": "step, even where s is refused",
    "Z": "zero_grad, as z",
    "forward": "prediction and loss",
    "backward": "the gradients, added to what is there",
    "step": "move the parameters by the gradients",
    "zero_grad": "clear the gradients",
}
RATES = {
    "1e-1": "the largest in common use",
    "1e-2": "a tenth, once the loss stalls",
    "1e-3": "the usual one to begin with",
    "1e-4": "smaller steps, late in training",
    "1e-5": "the smallest in common use",
}
COLUMN_LINES = (
    "how many tensors a layer has",
    "how many numbers are in them",
    "the norm of the parameters",
    "the norm of the gradients",
    "how far the last step moved, for its size",
    "by the alphabet",
    "in the model's own order",
)
SCREEN_VALUES = {  # by the word that they stand behind
    "run": {
        "10": "ten iterations",
        "100": "a hundred iterations",
        "1000": "a thousand iterations",
        "loss<0.01": "until the loss is below a number",
        "loss>10": "until the loss is above a number",
    },
    "speed": {
        "1": "one command a second",
        "4": "four commands a second: an iteration",
        "20": "twenty commands a second",
        "full": "as fast as it goes",
    },
    "watch": {
        "nonfinite": "anything is NaN or infinite",
        "grad_norm>10": "all gradients together are large",
        "loss>10": "the loss is large",
        "still": "a parameter stops changing, for 5 iterations",
        "off": "pause at no condition any more",
    },
    "export": {
        "run.py": "a plain PyTorch script of it",
        "run.html": "a page with all its screens",
        "run.csv": "all numbers in one long table",
        "run.jsonl": "a line of JSON for each frame",
        "run.svg": "this screen",
        "run.tb": "a folder for TensorBoard",
        "case.pt": "this iteration, and a script that repeats it",
    },
    "sort": dict(zip(COLUMNS, COLUMN_LINES, strict=True)),
}
PLOTS = {"loss": "the usual one", "grad": "the norm of all gradients after each backward"}
THEMES = {"light": "for a projector", "dark": "the usual one", "ansi": "the terminal's own colours"}
