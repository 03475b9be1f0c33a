"""The keys, made from the bindings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

NAMES = {
    "colon": ":",
    "comma": ",",
    "full_stop": ".",
    "greater_than_sign": ">",
    "less_than_sign": "<",
    "plus": "+",
    "question_mark": "?",
    "equals_sign": "=",
    "left": "←",
    "minus": "-",
    "right": "→",
    "pagedown": "page down",
    "pageup": "page up",
}


def key_rows(bindings: Iterable[BindingType]) -> list[tuple[str, str]]:
    """Give each binding's keys, as people write them, and what they do."""
    rows = []
    for binding in bindings:
        if not isinstance(binding, Binding):
            continue
        if binding.key.isdigit():
            if binding.key == "0":
                rows.append(("digits", "a count for the next key, as in 50n"))
            continue
        keys = [NAMES.get(key, key) for key in binding.key.split(",") if not key.startswith("shift+")]
        rows.append((", ".join(keys), binding.tooltip or binding.action))
    return rows


class HelpScreen(ModalScreen[None]):
    """A list of all keys; any of them closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,space", "dismiss", "close", show=False),
    ]

    def __init__(self, bindings: Iterable[BindingType]) -> None:
        super().__init__()
        self._rows = key_rows(bindings)

    def compose(self) -> ComposeResult:
        """Yield the list."""
        rows = "\n".join(f"{keys:<18} {does}" for keys, does in self._rows)
        title = "letters run · arrows look · capitals insist · : says it in words · escape leaves"
        with VerticalScroll(id="help") as box:
            box.border_title = "keys"
            box.border_subtitle = "escape closes"
            yield Static(f"{title}\n\n{rows}", markup=False)
