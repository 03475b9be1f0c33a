"""Words that other programs have: what does the same here."""

from __future__ import annotations

from itertools import pairwise

from autograd_tui.engine.values.command import PHASES, can_be_spelled
from autograd_tui.engine.values.optimizer_spec import parse_number
from autograd_tui.engine.values.scenario_names import BUILT_IN
from autograd_tui.text.optimizer_list import OPTIMIZERS
from autograd_tui.text.word_list import THEMES

EXAMPLE = "3"  # for the number that may stand behind a word: {0}
MOST_DIGITS = 15  # of a number that is said again
FRAME = "@{0} returns to frame {0}, as the key g does"
ANSWERS = {
    "goto go jump frame look seek rewind checkout g @": FRAME,
    "undo back prev previous u": "undo returns to the frame before, the keys {0}u go {0} back, and ← only looks",
    "redo": "@{0} returns to frame {0}, also forwards until another command has run",
    "reset restart begin": "@0 returns to the first frame",
    "next n": "the key space runs the next phase, and n the rest of the iteration",
    "start train fit continue cont resume play epoch epochs iterate iterations r": (
        "run goes on until the key space pauses it, and run {0} for so many iterations"
    ),
    "stop pause halt": "the key space pauses a run",
    "break breakpoint bp when": "watch loss>{0} pauses a run where that holds",
    "unwatch": "watch off pauses at no condition any more",
    "exit q q! wq x close leave bye": "quit leaves, as the key q does",
    "save write dump": "export run.py writes the run to a file, and export alone a picture",
    "screenshot picture e": "export writes a picture, and export run.py the run",
    "case": "export case.pt writes this iteration",
    "h ? man info keys": "help shows the keys",
    "load open scenario": "model spiral trains another, and so does model my_model.py",
    "v": "veil hides new numbers until the next space",
    "y": "log draws the loss on a log scale, linear on a plain one",
    "i": "inside walks the operations of the next phase",
    "find search print show p": "/ and a part of its name finds a parameter",
}
SETTINGS = {  # that lack what they set
    "lr l": "lr=0.1 sets the learning rate",
    "optimizer optim o": "optimizer=adam starts another optimizer",
    "seed": "seed=1 starts the random numbers anew",
    "branch branches": "branch=1 returns to what was rewound over",
}
_ANSWERS, _SETTINGS = (
    {word: said for words, said in each.items() for word in words.split()} for each in (ANSWERS, SETTINGS)
)


def answer(words: list[str]) -> str | None:
    """Say what does what was asked for in another program's words; None where that is not known."""
    first, second = (*words, "", "")[:2]
    if not second:
        return _alone(first)
    if first in ("freeze", "unfreeze") and can_be_spelled(second):
        return f"{second}.requires_grad={first == 'unfreeze'} does it"
    found = _ANSWERS.get(first.lower())
    if found and ("{0}" in found or parse_number(second) is None):
        return found.format(second if _is_count(second) else EXAMPLE)
    return _repeated(words)


def _alone(word: str) -> str | None:
    if _is_count(word):
        return FRAME.format(word)
    if word in BUILT_IN:
        return f"model {word} trains it"
    if word in OPTIMIZERS:
        return f"optimizer={word} starts it"
    if word in THEMES:
        return f"theme {word} takes these colours"
    found = _ANSWERS.get(word.lower()) or _SETTINGS.get(word.lower())
    return found.format(EXAMPLE) if found else None


def _repeated(words: list[str]) -> str | None:
    """Say how what stands before a number is done so often."""
    for word, times in pairwise(words):
        if _is_count(times) and times != "0" and (word in PHASES or set(word) <= set("fbszFBSZ")):
            return f"{word}*{times} does it so often"
    return None


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS
