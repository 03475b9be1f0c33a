"""The command `follow`."""

from __future__ import annotations

from autograd_tui.cli.arguments import add_display_arguments, chosen_journal_path, new_parser
from autograd_tui.cli.running import check_terminal
from autograd_tui.core.command import Commands


def follow(words: list[str]) -> int:
    """Show a run that another terminal leads."""
    from autograd_tui.journal.followed_session import FollowedSession

    parser = new_parser("follow", "Show a run that another terminal leads; this one disturbs nothing.")
    parser.add_argument("journal", nargs="?", help="the journal's file (default: the latest)")
    add_display_arguments(parser)
    options = parser.parse_args(words)
    following = FollowedSession(chosen_journal_path(options, "follow"))
    check_terminal()
    from autograd_tui.tui.app import run_on_screen

    looks = {"theme": options.theme, "ascii_only": options.ascii}
    return run_on_screen(lambda _: following, Commands(), title=following.about.title, can=following.can, **looks)
