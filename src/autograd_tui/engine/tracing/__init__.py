"""Tracing: the operations inside one phase, recorded while it runs."""
