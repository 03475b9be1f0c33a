"""What may be asked of a session: apart from it, since a screen knows that before there is one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What may be asked of a session; a screen offers nothing else, and the session refuses the rest."""

    advance: bool = False  # run what comes next, an iteration, or until a goal
    run: bool = False  # any command that the user chooses: a phase, a setting, words
    rewind: bool = False  # move training to an earlier frame, or to a branch
    trace: bool = False  # run the next phase recorded; earlier ones are traced wherever they can be recomputed
    check_gradients: bool = False
    export: bool = False
    recompute: bool = False  # frames that are stored no longer
    replays: bool = False  # it runs what a journal says, and nothing else
    script: bool = False  # a script of the user's own runs: it is let go on, and not told what to do
    ended: bool = False  # that script runs no more, though it may be taken back
    refusal: str = "this terminal follows: training goes on in the one that leads; arrows look here, escape returns."


LIVE = Capabilities(advance=True, run=True, rewind=True, trace=True, check_gradients=True, export=True, recompute=True)
# Of a replay: it runs the commands of a journal, and no others.
REPLAYED = Capabilities(advance=True, check_gradients=True, export=True, recompute=True, replays=True)
# Of a script: what it cannot do is refused with the reason when it is asked for.
SCRIPTED = Capabilities(
    advance=True,
    run=True,
    rewind=True,
    trace=True,
    check_gradients=True,
    export=True,
    script=True,
    refusal="this cannot be had of a script: only its own code can run its forward again.",
)
READ_ONLY = Capabilities()
FOLLOWED_SCRIPT = Capabilities(script=True)
