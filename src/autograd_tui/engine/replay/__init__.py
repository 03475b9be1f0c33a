"""Going back: checkpoints, replays of commands from them, and runs at full speed."""
