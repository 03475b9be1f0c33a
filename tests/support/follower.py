"""A follower without a screen: `python tests/support/follower.py JOURNAL` prints each frame that it would show."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import monotonic, sleep

from autograd_tui.journal.entry import frame_digest
from autograd_tui.journal.followed_session import FollowedSession

POLL = 0.05  # seconds, as the app's thread does


def follow(journal: Path) -> None:
    """Follow until the leader leaves: a line of frame, digest and time for each frame that is shown."""
    following, shown = FollowedSession(journal), -1
    while True:
        if following.frame.index != shown:
            shown = following.frame.index
            print(json.dumps([shown, frame_digest(following.frame), monotonic()]), flush=True)
        if following.left:
            return
        while not following.refresh():
            sleep(POLL)


if __name__ == "__main__":
    follow(Path(sys.argv[1]))
