"""Help: the keys that matter, then all keys, made from the bindings, then all words of the prompt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen

from autograd_tui.text.prompt.word_table import COMMANDS, word_rows
from autograd_tui.tui.keys import LABELS, NOT_OF_SCRIPTS, SCRIPT_TOOLTIPS, unbound
from autograd_tui.tui.panels.footer import KeyTablePanel
from autograd_tui.tui.rendering import SizedScreen

SCROLLING = {  # keys, and by how many rows and pages they scroll
    "up": (-1, 0),
    "down": (1, 0),
    "pageup": (0, -1),
    "pagedown": (0, 1),
    "home": (0, -1000),
    "end": (0, 1000),
}
RULE = "Letters run, arrows look, capitals insist, : says it in words, escape leaves the innermost."
SCRIPT_RULE = "Letters run, arrows look, : says it in words, escape leaves the innermost."
SCRIPT_WORDS_RULE = "Typed after : while a script is held. :help and a word says its line."
WORDS_RULE = (
    "Typed after : and read by --do and session.run too, but for the last group, which is for the screen alone."
    " :help and a word says its line."
)


def key_rows(bindings: Iterable[BindingType]) -> list[tuple[str, str]]:
    """Return each binding's keys, as people write them, and what they do."""
    rows = []
    for binding in bindings:
        if not isinstance(binding, Binding):
            continue
        if binding.key.isdigit():
            if binding.key == "0":
                rows.append(("digits", "a count for the next key, as in 50n"))
            continue
        rows.append((", ".join(_names(binding)), binding.tooltip or binding.action))
    return rows


def script_bindings(bindings: Iterable[BindingType]) -> list[BindingType]:
    """Return the keys that a script has a use for, with what they do there."""
    return [
        replace(each, tooltip=SCRIPT_TOOLTIPS.get(each.id or "", each.tooltip))
        for each in bindings
        if isinstance(each, Binding) and each.id not in NOT_OF_SCRIPTS
    ]


def first_rows(bindings: Iterable[BindingType], first: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the keys that matter, the first of each binding: `first` says which stand together, and their words."""
    known = {binding.id: binding for binding in bindings if isinstance(binding, Binding)}
    rows = []
    for ids, words in first.items():
        together = [known[each] for each in ids.split()]
        rows.append((" ".join(_names(each)[0] for each in together), words or together[0].tooltip))
    return rows


def _names(binding: Binding) -> list[str]:
    return [
        "+".join(LABELS.get(part, part) for part in key.split("+"))
        for key in binding.key.split(",")
        if not re.fullmatch(r"shift\+.", key)
    ]


class HelpScreen(SizedScreen, ModalScreen[None]):
    """The keys that matter; `?` goes on to all keys, then to all words, and any other key that leaves closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "more", "all keys, all words", priority=True),
        Binding("escape,q,space,enter", "dismiss", "close", priority=True),
        Binding("ctrl+c", "interrupt", "close and stop", priority=True),
        *(Binding(key, f"scroll{by}", priority=True) for key, by in SCROLLING.items()),
    ]

    def __init__(
        self,
        first: Sequence[tuple[str, str]],
        all_keys: Sequence[tuple[str, str]],
        *,
        rule: str = RULE,
        script: bool = False,
    ) -> None:
        super().__init__()
        self._pages = [  # that follow: a title, what is on the lower edge, a sentence, the rows
            ("all keys", "? all words, ↑ ↓ scroll, escape closes", "", all_keys),
            (
                "all words",
                "↑ ↓ scroll, escape closes",
                SCRIPT_WORDS_RULE if script else WORDS_RULE,
                word_rows(*COMMANDS, "screen", script=script),
            ),
        ]
        self._table = KeyTablePanel(rule, first)
        self._box = VerticalScroll(self._table, id="help")  # made here: keys typed at once find it
        self._box.border_title, self._box.border_subtitle = "the keys that matter", "? all keys, escape closes"

    def compose(self) -> ComposeResult:
        yield self._box

    def on_click(self, event: events.Click) -> None:
        """Do what the words on the lower edge say; a click beside the box closes it."""
        box = self._box.region
        if not box.contains_point(event.screen_offset):
            self.dismiss()
        elif event.screen_y == box.bottom - 1:
            words = str(self._box.border_subtitle)
            column = event.screen_x - (box.right - 3 - len(words))  # a blank, the edge and its corner stand behind them
            before = words[: max(column, 0)]
            part = words.split(", ")[before.count(", ")] if 0 <= column < len(words) else ""
            if part.startswith("?"):
                self.action_more()
            elif part.startswith("escape"):
                self.dismiss()

    def on_key(self, event: events.Key) -> None:
        """Answer a key that nothing is bound to here."""
        if name := unbound(event):
            self._box.border_subtitle = f'"{name}" does nothing here, escape closes'

    async def action_interrupt(self) -> None:
        """Close, and stop what runs on the screen below, which says so."""
        self.dismiss()
        await self.app.screen.run_action("interrupt")

    def action_scroll(self, rows: int, pages: int) -> None:
        """Scroll by rows and pages, once the page is there: keys may come before it has been laid out."""
        self.call_after_refresh(self._scroll, rows, pages)

    def _scroll(self, rows: int, pages: int) -> None:
        by = rows + pages * self._box.scrollable_content_region.height
        self._box.scroll_relative(y=by, animate=False, immediate=True)

    def action_more(self) -> None:
        """Show the next page; behind the last one, close."""
        if not self._pages:
            self.dismiss()
            return
        self._box.border_title, self._box.border_subtitle, sentence, rows = self._pages.pop(0)
        self._table.show(sentence, rows)
        self.action_scroll(*SCROLLING["home"])  # behind what was typed for the page before
