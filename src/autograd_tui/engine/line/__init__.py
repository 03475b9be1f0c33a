"""The line of frames: going on, going back, and looking at what was."""
