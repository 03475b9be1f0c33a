from __future__ import annotations

from collections.abc import Iterator

from autograd_tui.core.trace import LazySequence


def test_things_are_made_once_and_not_before_they_are_looked_at() -> None:
    made = []

    def make() -> Iterator[str]:
        made.append("now")
        yield from "abc"

    later = LazySequence(3, make)
    assert (len(later), bool(later), made) == (3, True, [])
    assert ("".join(later), later[-1], later[1:]) == ("abc", "c", ("b", "c"))
    assert made == ["now"]
