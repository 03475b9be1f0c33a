"""Three processes follow a run; one is killed, one is stopped for a while."""

from __future__ import annotations

from followers import lead


def test_followers_agree_with_the_leader_who_does_not_notice_them() -> None:
    outcome = lead("linear", bouts=5, iterations=2, stopped=0.0)
    assert outcome.wrong == []
    assert all(outcome.followed)
