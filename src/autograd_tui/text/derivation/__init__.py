"""Derivations: the arithmetic of one operation, with the numbers of the run."""
