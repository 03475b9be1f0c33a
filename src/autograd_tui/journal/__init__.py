"""Runs on disk: written as they happen, read back, resumed, verified, followed."""
