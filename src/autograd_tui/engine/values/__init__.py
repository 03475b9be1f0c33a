"""Plain values: commands, frames and what else can be known without torch."""
