"""Plain values that need the standard library alone: commands, frames, histories, and what a session can be asked."""
